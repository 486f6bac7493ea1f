"""Which rows of a batch form each slice, and how the results go back to the original order."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.findings import CoordinateError, Finding
from planner.indices import Indices
from planner.slice_layouts import Layout, layout_of
from planner.slice_policies import Pad, Policy, RepeatLastRow
from planner.slice_requests import Labels, Numbers, checked_request

__all__ = ["SlicePlan", "SliceRows", "plan_slices", "restore_order", "slice_rows"]


@frozen(kw_only=True)
class SlicePlan:
    """Which rows of a batch form each slice, which of them are padding, and the way back.

    Padding always stands at the end of a slice: the first ``real_sizes[i]`` results of slice i
    belong to rows, the others are thrown away.

    Attributes:
        policy: How the batch was cut.
        rows: How many rows the batch has.
        order: The row at each place of all slices, one slice after the other; a padding place
            has the row that it repeats.
        sizes: How many places each slice has, padding included; 0 for an empty slice.
        padding: How many places at the end of each slice are padding.
        dropped: The rows that are in no slice.
        micro_batches: The sizes of the micro-batches of each slice, in order, 0 for an empty one;
            without entries unless the policy packs.
        loads: The weight of each slice, without padding; None when no weights were given.
        slice_bytes: The expected bytes of each slice, padding included; None when not known.
        pads: What padding holds, by field name, sorted.
    """

    policy: Policy
    rows: int
    order: Indices
    sizes: tuple[int, ...]
    padding: tuple[int, ...]
    dropped: tuple[int, ...] = ()
    micro_batches: tuple[tuple[int, ...], ...] = ()
    loads: tuple[int, ...] | None = None
    slice_bytes: tuple[int, ...] | None = None
    pads: tuple[tuple[str, Pad], ...] = ()

    @property
    def slices(self) -> int:
        """How many slices there are, empty ones included."""
        return len(self.sizes)

    @property
    def real_sizes(self) -> tuple[int, ...]:
        """How many rows each slice has, without padding."""
        return tuple(size - padding for size, padding in zip(self.sizes, self.padding, strict=True))

    def pad(self, name: str) -> Pad:
        """What padding holds in one field: its rule, or ``RepeatLastRow`` without one."""
        return dict(self.pads).get(name, RepeatLastRow())

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The place in ``order`` at which each slice begins."""
        ends = np.cumsum(self.sizes, dtype=np.int64)
        return tuple((ends - self.sizes).tolist())

    @cached_property
    def inverse(self) -> Indices:
        """See ``restore_order``."""
        order = self.order.array
        if any(self.padding):
            real = np.stack([self.real_sizes, self.padding], axis=1).ravel()
            order = order[np.repeat(np.tile([True, False], self.slices), real)]
        return Indices.of(np.argsort(order, kind="stable"))


@frozen(kw_only=True)
class SliceRows:
    """What one slice holds: its rows, then its padding.

    Attributes:
        rows: The rows of the batch, in the order in which the slice has them.
        repeats: The row that each padding place after them repeats.
    """

    rows: Indices
    repeats: Indices


def plan_slices(
    policy: Policy,
    *,
    rows: int,
    slices: int,
    weights: Numbers | None = None,
    groups: Labels | None = None,
    row_bytes: int | Numbers | None = None,
    pads: Mapping[str, Pad] | None = None,
) -> SlicePlan:
    """The slices of a batch under a policy.

    Args:
        policy: How to cut.
        rows: How many rows the batch has; 0 gives empty slices.
        slices: How many slices, 1 or more.
        weights: A whole number of 0 or more for each row, such as its tokens; ``Balanced`` and
            ``Packed`` go by it, the others have no use for it.
        groups: A label for each row; rows with equal labels stay in one slice (``Balanced`` and
            ``Packed`` only; the micro-batches of a slice may part them).
        row_bytes: The bytes of a row: one number for all, or one for each.
        pads: What padding holds, by field name.

    Raises:
        PlanError: Something in the request cannot be planned; all of it is said.
    """
    request = checked_request(policy, rows, slices, weights, groups, row_bytes, pads)
    layout = layout_of(request)
    return SlicePlan(
        policy=policy,
        rows=rows,
        order=Indices.of(layout.order),
        sizes=layout.sizes,
        padding=layout.padding or (0,) * slices,
        dropped=layout.dropped,
        micro_batches=layout.micro_batches,
        loads=None if weights is None else _sums(request.weights, layout),
        slice_bytes=None if request.row_bytes is None else _sums(request.row_bytes, layout),
        pads=request.pads,
    )


def slice_rows(plan: SlicePlan, index: int) -> SliceRows:
    """The rows of one slice, and the rows that its padding repeats.

    Raises:
        CoordinateError: (an ``IndexError``) There is no slice of that index.
    """
    if not 0 <= index < plan.slices:
        finding = Finding(
            "index", f"there is no slice {index}", f"the plan has 0 to {plan.slices - 1}"
        )
        raise CoordinateError("slices", [finding])
    start = plan.starts[index]
    end = start + plan.sizes[index]
    real = end - plan.padding[index]
    order = plan.order.array
    return SliceRows(rows=Indices.of(order[start:real]), repeats=Indices.of(order[real:end]))


def restore_order(plan: SlicePlan) -> Indices:
    """Where each kept row is among the slices' results, in the original order of the rows.

    With the results of all slices, padding taken off, put one after the other, entry k is the
    place of the k-th row that was not dropped: ``results[restore_order(plan)]`` is the batch.
    """
    return plan.inverse


def _sums(numbers: npt.NDArray[np.int64], layout: Layout) -> tuple[int, ...]:
    """The sum of one number per row over each slice, padding counted as the row it repeats."""
    running = np.concatenate([[0], np.cumsum(numbers[layout.order])])
    ends = np.cumsum(layout.sizes)
    return tuple((running[ends] - running[ends - layout.sizes]).tolist())
