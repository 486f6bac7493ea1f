"""The same arrangement of ranks in the words of other systems, both ways.

Ours is row-major with the last axis fastest over an explicit array of ranks. torch's DeviceMesh
is the same. Megatron writes its order with the fastest first and carves expert parallelism (ep)
out of data parallelism (its ``RankGenerator``). torchtitan counts rank 0, 1, 2 ... over ``pp,
dp_replicate, dp_shard, cp, tp``, outermost first, leaves out sizes of 1 and infers one size
given as -1 (its ``ParallelDims``).
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import prod

import numpy as np
from attrs import asdict, field, frozen

from planner.amounts import amount_pairs
from planner.findings import Findings
from planner.mesh import NamedSharding

__all__ = [
    "MEGATRON_AXES",
    "TORCHTITAN_AXES",
    "DeviceMeshArguments",
    "MegatronOrder",
    "NestedRanks",
    "TorchtitanDimensions",
    "from_device_mesh",
    "from_megatron",
    "from_torchtitan",
    "to_device_mesh",
    "to_megatron",
    "to_torchtitan",
]

NestedRanks = int | tuple["NestedRanks", ...]

MEGATRON_AXES: tuple[tuple[str, str], ...] = (
    ("tp", "tensor_parallel"),
    ("cp", "context_parallel"),
    ("ep", "expert_parallel"),
    ("dp", "data_parallel"),
    ("pp", "pipeline_parallel"),
)
"""Megatron's names and ours."""

TORCHTITAN_AXES: tuple[tuple[str, str], ...] = (
    ("pp", "pipeline_parallel"),
    ("dp_replicate", "data_parallel_replicate"),
    ("dp_shard", "data_parallel"),
    ("cp", "context_parallel"),
    ("tp", "tensor_parallel"),
)
"""torchtitan's names, outermost first, and ours."""


@frozen(kw_only=True)
class DeviceMeshArguments:
    """What ``torch.distributed.device_mesh.DeviceMesh`` is made from.

    Attributes:
        mesh: The ranks as nested tuples. The explicit ranks matter: ``init_device_mesh`` from a
            shape alone would undo a permuted layout.
        mesh_dim_names: One name per dimension, outermost first.
    """

    mesh: NestedRanks
    mesh_dim_names: tuple[str, ...]


@frozen(kw_only=True)
class MegatronOrder:
    """How Megatron counts ranks.

    Attributes:
        order: Such as ``tp-cp-ep-dp-pp``, the fastest first.
        sizes: The size of each, as pairs sorted by name; a mapping is accepted. ``dp`` is the
            whole data-parallel size, which ``ep`` divides.
    """

    order: str
    sizes: tuple[tuple[str, int], ...] = field(converter=amount_pairs)


@frozen(kw_only=True)
class TorchtitanDimensions:
    """The sizes of torchtitan's dimensions; one of them may be -1, to be inferred."""

    pp: int = 1
    dp_replicate: int = 1
    dp_shard: int = -1
    cp: int = 1
    tp: int = 1


def to_device_mesh(sharding: NamedSharding) -> DeviceMeshArguments:
    """The arguments of a DeviceMesh with the same axes over the same ranks."""
    return DeviceMeshArguments(
        mesh=_nested(sharding.sizes, sharding.ranks), mesh_dim_names=tuple(sharding.names)
    )


def _nested(sizes: tuple[int, ...], ranks: tuple[int, ...]) -> NestedRanks:
    if len(sizes) == 1:
        return ranks
    step = len(ranks) // sizes[0]
    parts = range(0, len(ranks), step)
    return tuple(_nested(sizes[1:], ranks[start : start + step]) for start in parts)


def from_device_mesh(mesh: object, mesh_dim_names: Sequence[str] | None = None) -> NamedSharding:
    """The axes of a DeviceMesh.

    Args:
        mesh: ``DeviceMeshArguments``, or the ranks: nested sequences, or ``mesh.mesh.tolist()``.
        mesh_dim_names: One name per dimension, unless ``mesh`` has them.

    Raises:
        PlanError: The names are missing, or the ranks are not an arrangement.
    """
    names: Sequence[str] | None = mesh_dim_names
    if isinstance(mesh, DeviceMeshArguments):
        names = mesh.mesh_dim_names if names is None else names
        mesh = mesh.mesh
    if names is None:
        problem = "a DeviceMesh without names has no axes"
        Findings("device mesh").fail("mesh_dim_names", problem, "give one name per dimension")
    return NamedSharding(mesh, names)


def from_megatron(
    order: str,
    sizes: Mapping[str, int],
    world_size: int | None = None,
    axes: Sequence[tuple[str, str]] = MEGATRON_AXES,
) -> NamedSharding:
    """The axes of Megatron's rank order, outermost first; ``ep`` becomes an axis beside ``dp``.

    Args:
        order: Such as ``tp-cp-ep-dp-pp``, the fastest first.
        sizes: The size of each name; 1 when left out. ``dp`` counts all data-parallel ranks, so
            that its axis has ``dp / ep`` of them.
        world_size: Checked against the product; infers ``dp`` when that is left out.
        axes: Megatron's names and ours.

    Raises:
        PlanError: A name is unknown, twice or missing, a size is below 1, ``ep`` is not next to
            ``dp`` or does not divide it, or the product is not the world size.
    """
    findings = Findings("Megatron order")
    names = _order_names(order, findings)
    known = _megatron_sizes(names, sizes, findings)
    findings.check()
    whole = prod(size for name, size in known.items() if name not in {"ep", "dp"})
    if world_size is not None and "dp" in names and "dp" not in sizes:
        known["dp"] = _inferred("dp", world_size, whole, findings)
    if world_size is not None:
        _check_product(known | {"ep": 1}, world_size, findings)
    _check_experts(names, known, findings)
    findings.check()
    known["dp"] //= known["ep"]
    outer_first = tuple(reversed(names))
    shape = [known[name] for name in outer_first]
    ours = dict(axes)
    return NamedSharding(
        np.arange(prod(shape)).reshape(shape), [ours.get(name, name) for name in outer_first]
    )


def _order_names(order: str, findings: Findings) -> list[str]:
    known = [name for name, _ in MEGATRON_AXES]
    names = order.split("-")
    for index, name in enumerate(names):
        if name not in known:
            remedy = f"write it of {', '.join(known)}, such as tp-cp-ep-dp-pp"
            findings.add("order", f"{name!r} in {order!r} is no name of Megatron's", remedy)
        elif name in names[:index]:
            findings.add("order", f"{name!r} occurs twice in {order!r}", "name each once")
    return names


def _megatron_sizes(
    names: Sequence[str], sizes: Mapping[str, int], findings: Findings
) -> dict[str, int]:
    known = {name: 1 for name, _ in MEGATRON_AXES}
    for name, size in sizes.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"write {near[0]!r}" if near else f"the names are {', '.join(known)}"
            findings.add(f"sizes.{name}", "Megatron has no such name", remedy)
        elif size < 1:
            findings.add(f"sizes.{name}", f"{size} is no size", "give 1 or more")
        else:
            known[name] = size
            if size > 1 and name not in names:
                problem = f"{name} has size {size}, but the order leaves it out"
                findings.add("order", problem, f"put {name!r} into the order")
    return known


def _check_experts(names: Sequence[str], known: Mapping[str, int], findings: Findings) -> None:
    experts, data = known["ep"], known["dp"]
    if "ep" not in names or "dp" not in names:
        if experts > 1:
            findings.add("order", "ep is carved out of dp, which is not there", "add both")
        return
    if abs(names.index("ep") - names.index("dp")) != 1:
        findings.add("order", "ep and dp are not next to each other", "write ep-dp or dp-ep")
    if data % experts:
        remedy = f"ep may be {', '.join(map(str, _divisors(data)))}"
        findings.add("sizes.ep", f"ep {experts} does not divide dp {data}", remedy)


def to_megatron(
    sharding: NamedSharding, axes: Sequence[tuple[str, str]] = MEGATRON_AXES
) -> MegatronOrder:
    """Megatron's order and sizes for axes over ranks 0, 1, 2 ...

    Args:
        sharding: The axes; the layout must count the ranks in order.
        axes: Megatron's names and ours.

    Raises:
        PlanError: An axis has no name in Megatron, the ranks are permuted, or the expert axis
            is not next to the data axis.
    """
    findings = Findings("Megatron order")
    theirs = _renamed(sharding, axes, "Megatron", findings)
    names = list(reversed(theirs))
    known = dict.fromkeys((name for name, _ in MEGATRON_AXES), 1)
    known.update(theirs)
    known["dp"] *= known["ep"]
    _check_experts(names, known, findings)
    findings.check()
    shown = [name for name in known if name in names or (name == "dp" and known["dp"] > 1)]
    return MegatronOrder(order="-".join(names), sizes={name: known[name] for name in shown})


def from_torchtitan(
    dimensions: TorchtitanDimensions,
    world_size: int,
    axes: Sequence[tuple[str, str]] = TORCHTITAN_AXES,
) -> NamedSharding:
    """The axes of torchtitan's dimensions; those of size 1 are left out, as torchtitan does.

    Args:
        dimensions: The sizes; one may be -1.
        world_size: What the sizes must multiply to.
        axes: torchtitan's names and ours.

    Raises:
        PlanError: A size is no size, more than one is -1, or the product is not the world size.
    """
    findings = Findings("torchtitan dimensions")
    if world_size < 1:
        findings.add("world_size", f"{world_size} ranks", "give 1 or more")
    sizes: dict[str, int] = asdict(dimensions)
    open_names = [name for name, size in sizes.items() if size == -1]
    for name in open_names[1:]:
        problem = f"{open_names[0]} and {name} are both -1"
        findings.add(name, problem, "leave only one size to be inferred")
    for name, size in sizes.items():
        if size < 1 and size != -1:
            findings.add(name, f"{size} is no size", "give 1 or more, or -1 to infer it")
    findings.check()
    if open_names:
        others = prod(size for size in sizes.values() if size != -1)
        sizes[open_names[0]] = _inferred(open_names[0], world_size, others, findings)
    _check_product(sizes, world_size, findings)
    findings.check()
    # One axis must stay even when there is only one rank: torchtitan then keeps dp_shard.
    kept = {name: size for name, size in sizes.items() if size > 1} or {"dp_shard": 1}
    ours = dict(axes)
    layout = np.arange(world_size).reshape(list(kept.values()))
    return NamedSharding(layout, [ours.get(name, name) for name in kept])


def to_torchtitan(
    sharding: NamedSharding, axes: Sequence[tuple[str, str]] = TORCHTITAN_AXES
) -> TorchtitanDimensions:
    """The sizes in torchtitan for axes over ranks 0, 1, 2 ...; what is not there is 1.

    Args:
        sharding: The axes, in torchtitan's order; the layout must count the ranks in order.
        axes: torchtitan's names and ours.

    Raises:
        PlanError: An axis has no name in torchtitan, the ranks are permuted, or the axes come in
            another order.
    """
    findings = Findings("torchtitan dimensions")
    sizes = _renamed(sharding, axes, "torchtitan", findings)
    order = [name for name, _ in TORCHTITAN_AXES]
    # An axis of size 1 is left out there, so its place does not matter.
    given = [name for name, size in sizes.items() if name in order and size > 1]
    expected = sorted(given, key=order.index)
    if given != expected:
        problem = f"the axes come as {', '.join(given)}"
        findings.add("names", problem, f"arrange them as {', '.join(expected)}")
    findings.check()
    return TorchtitanDimensions(**{name: sizes.get(name, 1) for name in order})


def _renamed(
    sharding: NamedSharding, axes: Sequence[tuple[str, str]], system: str, findings: Findings
) -> dict[str, int]:
    """The sizes by the other system's names, outermost first."""
    theirs = {ours: name for name, ours in axes} | {name: name for name, _ in axes}
    sizes: dict[str, int] = {}
    for name, size in sharding.shape.items():
        if name not in theirs or theirs[name] in sizes:
            problem = f"axis {name!r} has no name of its own in {system}"
            known = ", ".join(ours for _, ours in axes)
            findings.add("names", problem, f"rename it to one of {known}, or give 'axes'")
        else:
            sizes[theirs[name]] = size
    if sharding.ranks != tuple(range(sharding.size)):
        index = next(i for i, rank in enumerate(sharding.ranks) if rank != i)
        problem = f"position {index} holds rank {sharding.ranks[index]}"
        remedy = f"{system} counts ranks in order: use the device mesh for a permuted layout"
        findings.add("layout", problem, remedy)
    return sizes


def _inferred(name: str, world_size: int, others: int, findings: Findings) -> int:
    if world_size < others or world_size % others:
        below = world_size // others * others
        nearest = " or ".join(str(size) for size in (below, below + others) if size > 0)
        problem = f"{world_size} ranks are not divisible by the other sizes, {others}"
        findings.fail(name, problem, f"change them, or use {nearest} ranks")
    return world_size // others


def _check_product(sizes: Mapping[str, int], world_size: int, findings: Findings) -> None:
    product = prod(sizes.values())
    if product == world_size:
        return
    shown = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "1"
    works: list[str] = []
    for name, size in sizes.items():
        others = product // size
        if world_size % others == 0:
            works.append(f"{name}={world_size // others}")
    remedy = f"use {product} ranks" + (f", or {' or '.join(works)}" if works else "")
    findings.add("world_size", f"{shown} is {product}, not {world_size}", remedy)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
