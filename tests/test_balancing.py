"""Tests of planner/balancing.py, planner/settling.py and planner/differencing.py."""

from heapq import heapify, heappop, heappush, heapreplace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.balancing import balanced, lower_bound
from planner.differencing import differenced
from planner.settling import loads_of, settled

SKEWED = st.one_of(
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=40),
    st.lists(st.floats(0, 11).map(lambda power: int(2.7**power)), min_size=1, max_size=40),
)
SLICES = st.integers(1, 9)


def longest_first(weights: list[int], slices: int) -> int:
    """The largest slice when each weight, heaviest first, goes to the lightest slice."""
    heap = [0] * slices
    for weight in sorted(weights, reverse=True):
        heapreplace(heap, heap[0] + weight)
    return max(heap)


def differencing(weights: list[int], slices: int, *, equal_counts: bool) -> int:
    """The largest slice by Karmarkar-Karp differencing, with a full load per slice and state."""
    heavy = sorted(weights, reverse=True)
    together = slices if equal_counts else 1
    states = [heavy[at : at + together] for at in range(0, len(heavy), together)]
    full = [state + [0] * (slices - len(state)) for state in states]
    heap = [(state[-1] - state[0], arrival, state) for arrival, state in enumerate(full)]
    heapify(heap)
    for arrival in range(len(heap), 2 * len(heap) - 1):
        first, second = heappop(heap)[2], heappop(heap)[2]
        sums = [one + other for one, other in zip(first, reversed(second), strict=True)]
        sums.sort(reverse=True)
        heappush(heap, (sums[-1] - sums[0], arrival, sums))
    return max(heap[0][2])


def largest(weights: list[int], slice_of: npt.NDArray[np.int64], slices: int) -> int:
    """The weight of the heaviest slice."""
    return int(loads_of(np.array(weights), slice_of, slices).max())


@given(SKEWED, SLICES)
def test_no_worse_than_longest_first_and_differencing(weights: list[int], slices: int) -> None:
    """The largest slice is at most that of both heuristics, and at least the lower bound."""
    found = largest(weights, balanced(np.array(weights), slices), slices)
    assert found <= longest_first(weights, slices)
    assert found <= differencing(weights, slices, equal_counts=False)
    assert found >= lower_bound(np.array(sorted(weights, reverse=True)), slices)


@given(SKEWED, SLICES)
def test_equal_counts_differ_by_at_most_one(weights: list[int], slices: int) -> None:
    """With equal counts, no slice has two weights more than another, at no loss to differencing."""
    slice_of = balanced(np.array(weights), slices, equal_counts=True)
    counts = np.bincount(slice_of, minlength=slices)
    assert counts.max() - counts.min() <= 1
    found = largest(weights, slice_of, slices)
    assert found <= differencing(weights, slices, equal_counts=True)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=7), st.integers(2, 3))
def test_near_the_best_of_all_deals(weights: list[int], slices: int) -> None:
    """The largest slice is within 2/9 of the best that exists, as is proven for three slices."""
    deals = product(range(slices), repeat=len(weights))
    best = min(largest(weights, np.array(deal), slices) for deal in deals)
    found = largest(weights, balanced(np.array(weights), slices), slices)
    assert 9 * found <= 11 * best


@pytest.mark.parametrize("equal_counts", [False, True])
@pytest.mark.parametrize("slices", [2, 8, 64])
def test_skewed_lengths_are_levelled_to_one_unit(slices: int, equal_counts: bool) -> None:
    """With 64 lognormal lengths per slice, loads differ by at most one token."""
    drawn = np.random.default_rng(slices).lognormal(6.0, 0.8, 64 * slices)
    weights = drawn.astype(np.int64)
    loads = loads_of(weights, balanced(weights, slices, equal_counts=equal_counts), slices)
    assert loads.max() - loads.min() <= 1
    assert loads.max() == -(-weights.sum() // slices)


def test_one_giant_takes_a_slice_of_its_own() -> None:
    """A weight over the mean stands alone, and the rest is levelled among the other slices."""
    slice_of = balanced(np.array([5, 1000, 4, 3, 3, 4, 5]), 3)
    assert sorted(loads_of(np.array([5, 1000, 4, 3, 3, 4, 5]), slice_of, 3)) == [12, 12, 1000]


def test_a_giant_gets_the_lightest_company_where_counts_are_equal() -> None:
    """With equal counts, the lightest weights go with the heaviest one."""
    weights = [100, 1, 1, 10, 10, 10]
    slice_of = balanced(np.array(weights), 2, equal_counts=True)
    assert loads_of(np.array(weights), slice_of, 2).tolist() == [102, 30]


def test_enough_stops_early() -> None:
    """No exchange is made once no slice is heavier than what is enough."""
    weights = np.array([8, 7, 6, 5, 4])
    longest = np.array([0, 1, 1, 0, 1])
    assert settled(weights, longest, 2, equal_counts=False, enough=17) is longest
    level = settled(weights, longest, 2, equal_counts=False, enough=0)
    assert loads_of(weights, level, 2).tolist() == [15, 15]


@given(SKEWED, st.integers(2, 9), st.booleans())
def test_differencing_gives_the_loads_of_the_textbook(
    weights: list[int], slices: int, equal_counts: bool
) -> None:
    """Short states give the same largest slice as a full load per slice and state."""
    heavy = sorted(weights, reverse=True)
    slice_of = differenced(np.array(heavy), slices, equal_counts=equal_counts)
    expected = differencing(weights, slices, equal_counts=equal_counts)
    assert largest(heavy, slice_of, slices) == expected


@given(SKEWED, SLICES, st.booleans())
def test_the_same_weights_give_the_same_slices(
    weights: list[int], slices: int, equal_counts: bool
) -> None:
    """Nothing but the arguments decides."""
    first = balanced(np.array(weights), slices, equal_counts=equal_counts)
    second = balanced(np.array(weights), slices, equal_counts=equal_counts)
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize(
    ("heavy", "slices", "expected"),
    [([5, 4], 3, 5), ([4, 4, 4], 2, 8), ([6, 6, 6, 2], 4, 6), ([3, 3, 2, 2, 2], 2, 6)],
)
def test_lower_bound(heavy: list[int], slices: int, expected: int) -> None:
    """The heaviest weight, two that must share, or the mean: whichever is largest."""
    assert lower_bound(np.array(heavy), slices) == expected
