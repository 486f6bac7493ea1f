"""Who is called with which slice, and who returns: one kind of call as a plan.

A call is one of four kinds. All four give the same type of plan, so that sending, collecting
and showing know only one.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.findings import Findings
from planner.mesh import NamedSharding, unknown_axis
from planner.whole_numbers import whole_number

__all__ = [
    "DUMMY",
    "CallKind",
    "DispatchPlan",
    "Transport",
    "choose_transport",
    "plan_one",
    "plan_per_worker",
    "plan_same",
    "plan_sharded",
    "slice_path",
    "slices_of",
]

DUMMY = -1
"""The slice of a dummy call: the rank takes part with None for every sharded argument."""


class CallKind(Enum):
    """Which arguments the called ranks get."""

    ONE = "one worker"
    SAME = "the same data"
    PER_WORKER = "data per worker"
    SHARDED = "sharded data"


@frozen(kw_only=True)
class DispatchPlan:
    """Who is called with which slice, and whose results come back in which order.

    Attributes:
        kind: What the called ranks get.
        ranks: Who is called, in rank order.
        slices: For each called rank, the number of its slice, or ``DUMMY``. Slices are numbered
            row-major over ``shape``.
        returns: Whose results come back, in the order in which they come back.
        axes: The sharded axes, outermost first: one level of nested lists each.
        shape: The size of each level.
    """

    kind: CallKind
    ranks: tuple[int, ...]
    slices: tuple[int, ...]
    returns: tuple[int, ...]
    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def slice_count(self) -> int:
        """How many distinct slices there are."""
        return int(np.prod(self.shape, dtype=np.int64))

    @cached_property
    def receivers(self) -> tuple[tuple[int, ...], ...]:
        """For each slice, the ranks that receive it."""
        held: list[list[int]] = [[] for _ in range(self.slice_count)]
        for rank, number in zip(self.ranks, self.slices, strict=True):
            if number != DUMMY:
                held[number].append(rank)
        return tuple(tuple(ranks) for ranks in held)

    @cached_property
    def quiet(self) -> frozenset[int]:
        """The ranks that are called but whose results do not come back."""
        return frozenset(self.ranks) - frozenset(self.returns)


def plan_one(rank: object, world_size: int, findings: Findings) -> DispatchPlan:
    """Call one worker."""
    number = whole_number(rank)
    if number is None or not 0 <= number < world_size:
        findings.fail("worker_idx", f"{rank!r} is not a rank", f"give 0 to {world_size - 1}")
    ranks = (number,)
    return DispatchPlan(kind=CallKind.ONE, ranks=ranks, slices=(0,), returns=ranks)


def plan_same(
    mesh: NamedSharding | None,
    world_size: int,
    first_only: Sequence[str] | None,
    findings: Findings,
    absent: frozenset[int] = frozenset(),
) -> DispatchPlan:
    """Call every worker with the same arguments, or only those at coordinate 0 of some axes.

    Args:
        mesh: The axes of the group; needed only when an axis is named.
        world_size: How many workers there are.
        first_only: ``run_rank_0_only_axes``: axes of which only coordinate 0 is called.
        findings: Where problems are recorded; they are raised before this returns.
        absent: Ranks that the group has given up; they are left out.
    """
    ranks = _selected(mesh, world_size, first_only, findings, absent)
    return DispatchPlan(kind=CallKind.SAME, ranks=ranks, slices=(0,) * len(ranks), returns=ranks)


def plan_per_worker(
    mesh: NamedSharding | None,
    world_size: int,
    first_only: Sequence[str] | None,
    findings: Findings,
    absent: frozenset[int] = frozenset(),
) -> DispatchPlan:
    """Call workers as ``plan_same`` does, each with its own value of every argument."""
    ranks = _selected(mesh, world_size, first_only, findings, absent)
    return DispatchPlan(
        kind=CallKind.PER_WORKER,
        ranks=ranks,
        slices=tuple(range(len(ranks))),
        returns=ranks,
        axes=("worker",),
        shape=(len(ranks),),
    )


def plan_sharded(
    mesh: NamedSharding | None,
    sharded: Sequence[str] | None,
    replicated: Sequence[str] | None,
    output_replicated: Sequence[str] | None,
    findings: Findings,
    *,
    dummy_calls: bool = False,
) -> DispatchPlan:
    """Cut the arguments over some axes.

    Args:
        mesh: The axes of the group.
        sharded: Along these each coordinate gets its own slice; outermost level first.
        replicated: Along these all coordinates get the same slice. On all others (the free
            axes) only coordinate 0 is called.
        output_replicated: Only coordinate 0 of these axes, and of the free ones, returns.
        findings: Where problems are recorded; they are raised before this returns.
        dummy_calls: The rest of the free axes is called too, with ``DUMMY`` slices.

    Returns:
        The plan; results are ordered by the coordinates of the sharded axes, then by layout.
    """
    if mesh is None:
        findings.fail(
            "sharding_annotations",
            "the group has none, so there are no axes to shard over",
            "give RayWorkerGroup sharding_annotations=NamedSharding(layout, names)",
        )
    names = mesh.names
    cut = _axes("in_sharded_axes", sharded, names, findings)
    same = _axes("replicate_on_axes", replicated, names, findings)
    once = _axes("output_is_replicated", output_replicated, names, findings)
    for name in cut:
        if name in same:
            findings.add(
                "replicate_on_axes",
                f"axis {name!r} is in in_sharded_axes too",
                "an axis is either sharded or replicated: name it in one of the two",
            )
    findings.check()
    free = [name for name in names if name not in cut and name not in same]
    coords = dict(zip(names, np.unravel_index(np.arange(mesh.size), mesh.sizes), strict=True))
    shape = tuple(mesh.get_axis_size(name) for name in cut)
    slices = _flat_index([coords[name] for name in cut], shape, mesh.size)
    leads = _all_zero([coords[name] for name in free], mesh.size)
    layout = np.array(mesh.ranks, dtype=np.int64)
    by_rank = np.argsort(layout, kind="stable")
    called = by_rank if dummy_calls else by_rank[leads[by_rank]]
    returning = np.flatnonzero(leads & _all_zero([coords[name] for name in once], mesh.size))
    returning = returning[np.argsort(slices[returning], kind="stable")]
    return DispatchPlan(
        kind=CallKind.SHARDED,
        ranks=tuple(layout[called].tolist()),
        slices=tuple(np.where(leads, slices, DUMMY)[called].tolist()),
        returns=tuple(layout[returning].tolist()),
        axes=cut,
        shape=shape,
    )


def _flat_index(
    coords: Sequence[npt.NDArray[np.int64]], shape: tuple[int, ...], count: int
) -> npt.NDArray[np.int64]:
    flat = np.zeros(count, dtype=np.int64)
    for each, size in zip(coords, shape, strict=True):
        flat = flat * size + each
    return flat


def _all_zero(coords: Sequence[npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.bool_]:
    mask = np.ones(count, dtype=np.bool_)
    for each in coords:
        mask &= each == 0
    return mask


def _selected(
    mesh: NamedSharding | None,
    world_size: int,
    first_only: object,
    findings: Findings,
    absent: frozenset[int],
) -> tuple[int, ...]:
    ranks = _at_first(mesh, world_size, first_only, findings)
    left = tuple(rank for rank in ranks if rank not in absent) if absent else ranks
    if not left:
        findings.fail(
            "run_rank_0_only_axes",
            f"all {len(ranks)} ranks that it chooses were given up",
            "choose others, or resize the group",
        )
    return left


def _at_first(
    mesh: NamedSharding | None, world_size: int, first_only: object, findings: Findings
) -> tuple[int, ...]:
    if first_only is None or (isinstance(first_only, Sequence) and not first_only):
        findings.check()
        return tuple(range(world_size))
    if mesh is None:
        findings.fail(
            "run_rank_0_only_axes",
            "the group has no sharding_annotations, so it has no axes",
            "leave it out, or give the group its NamedSharding",
        )
    axes = _axes("run_rank_0_only_axes", first_only, mesh.names, findings)
    findings.check()
    return tuple(mesh.get_ranks_by_coord(**dict.fromkeys(axes, 0)))


def _axes(path: str, given: object, names: Sequence[str], findings: Findings) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        findings.add(path, f"{given!r} is one string", f"give a list of axes, such as [{given!r}]")
        return ()
    if not isinstance(given, Sequence):
        findings.add(
            path, f"{given!r} is not a list of axes", f"the axes are {', '.join(names) or 'none'}"
        )
        return ()
    chosen: list[str] = []
    for index, name in enumerate(given):
        if name not in names:
            unknown = unknown_axis(f"{path}[{index}]", name, names)
            findings.add(unknown.path, unknown.problem, unknown.remedy)
        elif name in chosen:
            findings.add(f"{path}[{index}]", f"axis {name!r} occurs twice", "name it once")
        else:
            chosen.append(name)
    return tuple(chosen)


def slices_of(plan: DispatchPlan, argument: str, value: object, findings: Findings) -> list[object]:
    """An argument's slices in the order of the plan's slice numbers.

    Args:
        plan: The plan; its ``shape`` says how the value must be nested.
        argument: The argument's name, for messages.
        value: Nested sequences, one level per sharded axis.
        findings: Where a level of the wrong kind or length is recorded.

    Returns:
        One value per slice; fewer when something is wrong.
    """
    level: list[tuple[str, object]] = [(argument, value)]
    for axis, size in zip(plan.axes, plan.shape, strict=True):
        below: list[tuple[str, object]] = []
        for path, nested in level:
            entries = _entries(path, nested, axis, size, findings)
            below.extend((f"{path}[{index}]", entry) for index, entry in enumerate(entries))
        level = below
    return [leaf for _, leaf in level]


def slice_path(plan: DispatchPlan, argument: str, number: int | None) -> str:
    """Where a slice stands in the caller's value, such as ``data[1][0]``."""
    coords = np.unravel_index(number, plan.shape) if plan.shape and number is not None else ()
    return argument + "".join(f"[{coord}]" for coord in coords)


def _entries(
    path: str, nested: object, axis: str, size: int, findings: Findings
) -> Sequence[object]:
    what = "worker called" if axis == "worker" else f"coordinate of axis {axis!r}"
    wanted = f"give a list of {size}, one per {what}"
    if isinstance(nested, Mapping):
        findings.add(
            path, f"a mapping of type {type(nested).__name__}: its keys are not slices", wanted
        )
        return []
    if isinstance(nested, str | bytes) or not (
        hasattr(nested, "__len__") and hasattr(nested, "__getitem__")
    ):
        findings.add(path, f"a value of type {type(nested).__name__}, not a list", wanted)
        return []
    # An array without dimensions has a length in name only.
    found = len(nested) if getattr(nested, "shape", (1,)) else 0
    if found != size:
        findings.add(path, f"{found} slices for {size}", wanted)
        return []
    return [nested[index] for index in range(size)]


class Transport(Enum):
    """How a payload travels."""

    INLINE = "inline"
    OBJECT = "object"


_INLINE_LIMIT = 16 * 1024
_RAY_INLINE_LIMIT = 100 * 1024


def choose_transport(size: int | None, receivers: int, calls: int) -> Transport:
    """Whether a payload travels inside each call, or once as an object that each call names.

    A reference costs each call about as much as some tens of kilobytes do, so small payloads go
    inline. A payload of unknown size becomes an object, unless there is one call only: it is then
    serialised once whatever its size, and before anything is sent, so that one that can't be
    serialised leaves no call half-sent. For the same reason whatever Ray would put into its store
    on the way (more than 100 KiB) is put there first: the store may be full.

    Args:
        size: Its bytes, or None when that is not known without serialising it.
        receivers: How many calls carry it.
        calls: How many calls there are in all.
    """
    if calls <= 1:
        return Transport.INLINE
    if size is None:
        return Transport.OBJECT
    limit = _INLINE_LIMIT if receivers > 1 else _RAY_INLINE_LIMIT
    return Transport.OBJECT if size > limit else Transport.INLINE
