"""Weights dealt to slices so that the heaviest slice is as light as can be found, quickly."""

# Three steps, the last only where those before have not reached a proven lower bound:
#
# 1. Longest first: each weight, heaviest first, goes to the lightest slice (Graham 1969; at most
#    4/3 - 1/(3 slices) of the best). With equal counts, a round of one weight per slice at a time.
# 2. Settling (planner/settling.py): exact exchanges between heavy and light slices.
# 3. Differencing (planner/differencing.py), settled too, as a second candidate for the hard cases
#    with few weights per slice. So the result is never worse than differencing alone.
#
# All ties are broken by position: the same input gives the same slices everywhere.

from heapq import heappop, heapreplace

import numpy as np
import numpy.typing as npt

from planner.differencing import differenced
from planner.settling import loads_of, settled

__all__ = ["balanced", "lower_bound"]

_DIFFERENCING_LIMIT = 1 << 20
"""Largest product of weights and slices for which differencing is worth its time."""


def balanced(
    weights: npt.NDArray[np.int64], slices: int, *, equal_counts: bool = False, enough: int = 0
) -> npt.NDArray[np.int64]:
    """The slice of every weight, the heaviest slice as light as can be found.

    Never heavier than by longest first, nor than by differencing where the product of weights and
    slices is at most a million.

    Args:
        weights: Whole numbers of 0 or more.
        slices: How many slices, 1 or more.
        equal_counts: Whether the numbers of weights per slice differ by at most one.
        enough: Stop as soon as no slice is heavier than this.

    Returns:
        One slice index per weight.
    """
    if slices == 1 or not weights.size:
        return np.zeros(weights.size, dtype=np.int64)
    order = np.argsort(-weights, kind="stable")
    heavy = weights[order]
    first = _equal_first(heavy, slices) if equal_counts else _longest_first(heavy, slices)
    best = settled(heavy, first, slices, equal_counts=equal_counts, enough=enough)
    bound = max(enough, lower_bound(heavy, slices))
    hard = int(loads_of(heavy, best, slices).max()) > bound
    if hard and heavy.size * slices <= _DIFFERENCING_LIMIT:
        other = differenced(heavy, slices, equal_counts=equal_counts)
        other = settled(heavy, other, slices, equal_counts=equal_counts, enough=enough)
        best = min(best, other, key=lambda slice_of: _quality(heavy, slice_of, slices))
    result = np.empty_like(order)
    result[order] = best
    return result


def lower_bound(heavy: npt.NDArray[np.int64], slices: int) -> int:
    """A load that the heaviest slice has at least; weights from the heaviest down.

    It is the mean, rounded up to what sums of these weights can make; the heaviest weight; and,
    since two of the ``slices + 1`` heaviest share a slice, the lightest two of those.
    """
    unit = max(1, int(np.gcd.reduce(heavy)))
    mean = -(-int(heavy.sum()) // (slices * unit)) * unit
    shared = int(heavy[slices - 1] + heavy[slices]) if heavy.size > slices else 0
    return max(mean, int(heavy[0]), shared)


def _quality(
    heavy: npt.NDArray[np.int64], slice_of: npt.NDArray[np.int64], slices: int
) -> tuple[int, int]:
    loads = loads_of(heavy, slice_of, slices)
    return int(loads.max()), -int(loads.min())


def _equal_first(heavy: npt.NDArray[np.int64], slices: int) -> npt.NDArray[np.int64]:
    """The better of two: rounds do well with like weights, filling with very unlike ones."""
    deals = (_rounds(heavy, slices), _filled(heavy, slices))
    return min(deals, key=lambda slice_of: _quality(heavy, slice_of, slices))


def _longest_first(heavy: npt.NDArray[np.int64], slices: int) -> npt.NDArray[np.int64]:
    # A slice is one number, load x slices + index: the heap then compares plain ints.
    heap = list(range(slices))
    taken: list[int] = []
    for step in (heavy * slices).tolist():
        lightest = heap[0]
        taken.append(lightest)
        heapreplace(heap, lightest + step)
    return np.array(taken, dtype=np.int64) % slices


def _rounds(heavy: npt.NDArray[np.int64], slices: int) -> npt.NDArray[np.int64]:
    """One weight for every slice in each round, the heaviest to the lightest slice."""
    loads = list(range(slices))
    steps = (heavy * slices).tolist()
    taken: list[int] = []
    for start in range(0, len(steps), slices):
        loads.sort()
        taken.extend(loads[: len(steps) - start])
        for place, step in enumerate(steps[start : start + slices]):
            loads[place] += step
    return np.array(taken, dtype=np.int64) % slices


def _filled(heavy: npt.NDArray[np.int64], slices: int) -> npt.NDArray[np.int64]:
    """Longest first, where a slice that is full gets no more; what is over goes to the lightest."""
    each, over = divmod(heavy.size, slices)
    steps = (heavy * slices).tolist()
    heap, counts, taken, full = list(range(slices)), [0] * slices, [], []
    for step in steps[: heavy.size - over]:
        lightest = heap[0]
        index = lightest % slices
        taken.append(index)
        counts[index] += 1
        if counts[index] < each:
            heapreplace(heap, lightest + step)
        else:
            full.append(heappop(heap) + step)
    taken += [load % slices for load in sorted(full or heap)[:over]]
    return np.array(taken, dtype=np.int64)
