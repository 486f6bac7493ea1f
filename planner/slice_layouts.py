"""The order of a batch's rows, slice after slice, that each slicing policy asks for."""

from typing import assert_never

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.balancing import balanced
from planner.packing import Packing, packing
from planner.settling import loads_of
from planner.slice_policies import (
    Balanced,
    DropRemainder,
    Even,
    Interleaved,
    Packed,
    Padded,
    RowCounts,
    Uneven,
)
from planner.slice_requests import SliceRequest

__all__ = ["Layout", "layout_of"]


@frozen(kw_only=True)
class Layout:
    """What a policy decides; the attributes are those of ``SlicePlan``, no padding is ``()``."""

    order: npt.NDArray[np.int64]
    sizes: tuple[int, ...]
    padding: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    micro_batches: tuple[tuple[int, ...], ...] = ()


def layout_of(request: SliceRequest) -> Layout:
    """The layout for a request that was found possible."""
    rows, slices = request.rows, request.slices
    match request.policy:
        case Even() | Uneven():
            size, larger = divmod(rows, slices)
            sizes = (size + 1,) * larger + (size,) * (slices - larger)
            return Layout(order=np.arange(rows), sizes=sizes)
        case Padded(multiple=multiple):
            return _padded(rows, slices, multiple)
        case DropRemainder(multiple=multiple):
            size = rows // (slices * multiple) * multiple
            kept = size * slices
            dropped = tuple(range(kept, rows))
            return Layout(order=np.arange(kept), sizes=(size,) * slices, dropped=dropped)
        case Interleaved():
            return _by_slice(np.arange(rows) % slices, slices)
        case Balanced(row_counts=row_counts):
            equal_counts = row_counts is not RowCounts.FREE
            return _by_slice(_balanced(request, equal_counts=equal_counts), slices)
        case Packed(budget=budget, equal_counts=equal_counts):
            packed = _packed if request.groups is None else _packed_by_slice
            return packed(request, budget, equal_counts=equal_counts)
        case _:
            assert_never(request.policy)


def _padded(rows: int, slices: int, multiple: int) -> Layout:
    size = -(-rows // (slices * multiple)) * multiple
    padding = tuple(min(max((index + 1) * size - rows, 0), size) for index in range(slices))
    order = np.minimum(np.arange(size * slices), rows - 1)
    return Layout(order=order, sizes=(size,) * slices, padding=padding)


def _balanced(request: SliceRequest, *, equal_counts: bool) -> npt.NDArray[np.int64]:
    """The slice of every row; rows of one group are dealt as one weight."""
    if request.groups is None:
        return balanced(request.weights, request.slices, equal_counts=equal_counts)
    totals = loads_of(request.weights, request.groups, int(request.groups.max(initial=-1)) + 1)
    return balanced(totals, request.slices, equal_counts=equal_counts)[request.groups]


def _by_slice(slice_of: npt.NDArray[np.int64], slices: int) -> Layout:
    sizes = np.bincount(slice_of, minlength=slices)
    return Layout(order=np.argsort(slice_of, kind="stable"), sizes=tuple(sizes.tolist()))


def _packed(request: SliceRequest, budget: int, *, equal_counts: bool) -> Layout:
    """The whole batch is packed, and the micro-batches are dealt to the slices."""
    multiple = request.slices if equal_counts else 1
    found = packing(request.weights, budget, multiple=multiple)
    loads = loads_of(request.weights, found.batch_of, found.batches)
    return _by_micro_batch(request, found, balanced(loads, request.slices, equal_counts=True))


def _packed_by_slice(request: SliceRequest, budget: int, *, equal_counts: bool) -> Layout:
    """Whole groups are dealt to the slices, and each slice is packed on its own."""
    slice_of = _balanced(request, equal_counts=False)
    members = [np.flatnonzero(slice_of == index) for index in range(request.slices)]
    found = [packing(request.weights[rows], budget) for rows in members]
    most = max(each.batches for each in found)
    if equal_counts:
        found = [
            each
            if each.batches == most
            else packing(request.weights[rows], budget, at_least=most, multiple=most)
            for rows, each in zip(members, found, strict=True)
        ]
    batch_of = np.empty(request.rows, dtype=np.int64)
    counts = [each.batches for each in found]
    for rows, each, end in zip(members, found, np.cumsum(counts).tolist(), strict=True):
        batch_of[rows] = each.batch_of + end - each.batches
    slice_of_batch = np.repeat(np.arange(request.slices), counts)
    return _by_micro_batch(request, Packing(batch_of, sum(counts)), slice_of_batch)


def _by_micro_batch(
    request: SliceRequest, found: Packing, slice_of_batch: npt.NDArray[np.int64]
) -> Layout:
    """Rows slice by slice, in each slice the heaviest micro-batch first."""
    loads = loads_of(request.weights, found.batch_of, found.batches)
    places = np.empty(found.batches, dtype=np.int64)
    places[np.lexsort((-loads, slice_of_batch))] = np.arange(found.batches)
    place_of = places[found.batch_of]
    batch_sizes = np.bincount(place_of, minlength=found.batches)
    ends = np.cumsum(np.bincount(slice_of_batch, minlength=request.slices))
    split = np.split(batch_sizes, ends[:-1])
    return Layout(
        order=np.argsort(place_of, kind="stable"),
        sizes=tuple(int(each.sum()) for each in split),
        micro_batches=tuple(tuple(each.tolist()) for each in split),
    )
