"""Results of M slices as the arguments of N slices: who needs which rows from whom."""

# A part is what one receiver needs from one source, so there is at most one part, and one object to
# send, per pair that shares a row: no plan has fewer. Where both sides keep the original order,
# a part is a span of the source and the parts in their order are the receiver's slice. Where a side
# is permuted, a part names the places in the source, and the receiver puts its rows in order.

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.findings import Findings
from planner.indices import Indices
from planner.slicing import SlicePlan, restore_order

__all__ = [
    "Part",
    "Receiver",
    "ReshardPlan",
    "RowPick",
    "RowSpan",
    "parts_sent",
    "plan_resharding",
]


@frozen(kw_only=True)
class RowSpan:
    """Neighbouring rows of one source's results: places ``start`` to ``stop``, without ``stop``."""

    source: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@frozen(kw_only=True)
class RowPick:
    """Single rows of one source's results, by their places, ascending."""

    source: int
    places: Indices

    def __len__(self) -> int:
        return len(self.places)


Part = RowSpan | RowPick
"""The rows that one receiver needs from one source."""


@frozen(kw_only=True)
class Receiver:
    """What one receiver gets, and how it makes its slice of that.

    Attributes:
        parts: One part for each source that has rows for it, sources ascending.
        order: The place in the parts, put one after the other, of each row of the slice; padding
            repeats a place. None when the parts are the slice as they are.
    """

    parts: tuple[Part, ...]
    order: Indices | None = None

    @property
    def rows(self) -> int:
        """How many rows are sent to it."""
        return sum(len(part) for part in self.parts)


@frozen(kw_only=True)
class ReshardPlan:
    """Which rows of M sources each of N receivers needs; no row is sent twice to one receiver.

    Attributes:
        source_sizes: How many rows each source holds, padding taken off.
        target_sizes: How many rows each receiver's slice has, padding included.
        receivers: One per target slice.
    """

    source_sizes: tuple[int, ...]
    target_sizes: tuple[int, ...]
    receivers: tuple[Receiver, ...]

    @property
    def objects(self) -> int:
        """How many parts there are in all: each is one object to send."""
        return sum(len(receiver.parts) for receiver in self.receivers)


def parts_sent(receiver: Receiver) -> tuple[Part, ...]:
    """The parts that go to a receiver; for an empty slice one that only has the right type."""
    return receiver.parts or (RowSpan(source=0, start=0, stop=0),)


def plan_resharding(
    source: SlicePlan | Sequence[int], target: SlicePlan | Sequence[int]
) -> ReshardPlan:
    """The parts that turn results of one slicing into the slices of another.

    Following the plan is the same as putting the source results together in the original order,
    without padding, and slicing that by the target.

    Args:
        source: How the results are spread: their SlicePlan, or the sizes of slices that are in
            the original order.
        target: How they are wanted, in the same two forms; its rows are the rows of the whole
            result.

    Raises:
        PlanError: A size is negative, there is no source or no target, or the two differ in the
            number of rows.
    """
    findings = Findings("resharding")
    source_sizes = source.real_sizes if isinstance(source, SlicePlan) else tuple(source)
    target_sizes = target.sizes if isinstance(target, SlicePlan) else tuple(target)
    for path, sizes in (("source", source_sizes), ("target", target_sizes)):
        _check_sizes(path, sizes, findings)
    held = sum(source_sizes)
    wanted = target.rows if isinstance(target, SlicePlan) else sum(target_sizes)
    if held != wanted:
        findings.add(
            "target",
            f"it slices {wanted} rows, and the sources hold {held}",
            f"plan the target for {held} rows",
        )
    findings.check()
    place_of = restore_order(source).array if isinstance(source, SlicePlan) else np.arange(held)
    row_at = target.order.array if isinstance(target, SlicePlan) else np.arange(held)
    starts = np.cumsum(source_sizes, dtype=np.int64) - np.asarray(source_sizes, dtype=np.int64)
    wanted_places = np.split(place_of[row_at], np.cumsum(target_sizes)[:-1])
    receivers = tuple(_receiver(places, starts) for places in wanted_places)
    return ReshardPlan(source_sizes=source_sizes, target_sizes=target_sizes, receivers=receivers)


def _check_sizes(path: str, sizes: tuple[int, ...], findings: Findings) -> None:
    if not sizes:
        findings.add(path, "there is no slice", "give at least one slice, an empty one if need be")
    for index, size in enumerate(sizes):
        if size < 0:
            findings.add(f"{path}[{index}]", f"{size} is negative", "give a size of 0 or more")


def _receiver(places: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> Receiver:
    """The parts that hold some places of all sources' results, and the order to put them in."""
    needed, order = np.unique(places, return_inverse=True)
    sources = np.searchsorted(starts, needed, side="right") - 1
    firsts = np.flatnonzero(np.diff(sources, prepend=-1))
    parts = tuple(
        _part(int(sources[first]), chunk - starts[sources[first]])
        for first, chunk in zip(firsts.tolist(), np.split(needed, firsts[1:]), strict=False)
    )
    in_order = order.size == needed.size and bool(np.all(order == np.arange(order.size)))
    return Receiver(parts=parts, order=None if in_order else Indices.of(order.reshape(-1)))


def _part(source: int, places: npt.NDArray[np.int64]) -> Part:
    start, stop = int(places[0]), int(places[-1]) + 1
    if stop - start == places.size:
        return RowSpan(source=source, start=start, stop=stop)
    return RowPick(source=source, places=Indices.of(places))
