"""Tests of planner/packing.py."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from planner.packing import Packing, first_fit_decreasing, packing
from planner.settling import loads_of

WEIGHTS = st.lists(st.integers(0, 30), max_size=40)
BUDGETS = st.integers(30, 70)


def textbook(weights: list[int], budget: int) -> list[int]:
    """The loads by first-fit decreasing, trying each micro-batch in turn."""
    loads: list[int] = []
    for weight in sorted(weights, reverse=True):
        fits = [index for index, load in enumerate(loads) if load + weight <= budget]
        if fits:
            loads[fits[0]] += weight
        else:
            loads.append(weight)
    return loads


def loads(weights: list[int], found: Packing) -> list[int]:
    """The weight of each micro-batch."""
    array = np.array(weights, dtype=np.int64)
    listed: list[int] = loads_of(array, found.batch_of, found.batches).tolist()
    return listed


@given(WEIGHTS, BUDGETS)
def test_first_fit_decreasing_is_that_of_the_textbook(weights: list[int], budget: int) -> None:
    """The tree finds the same micro-batches as trying each in turn."""
    found = first_fit_decreasing(np.array(weights, dtype=np.int64), budget)
    assert loads(weights, found) == textbook(weights, budget)


@given(WEIGHTS, BUDGETS, st.integers(1, 5), st.integers(0, 12))
def test_packing_obeys_what_is_asked(
    weights: list[int], budget: int, multiple: int, at_least: int
) -> None:
    """The budget, the multiple and the least number hold, with no more than first-fit needs."""
    found = packing(np.array(weights, dtype=np.int64), budget, multiple=multiple, at_least=at_least)
    assert max(loads(weights, found), default=0) <= budget
    assert found.batches % multiple == 0
    assert found.batches >= at_least
    needed = max(len(textbook(weights, budget)), at_least)
    assert found.batches <= -(-needed // multiple) * multiple


@example(weights=[0, 0], budget=30, multiple=2)
@example(weights=[9, 6, 5, 5, 5, 5, 5], budget=30, multiple=4)
@given(WEIGHTS, BUDGETS, st.integers(1, 5))
def test_none_is_empty_while_there_are_rows(weights: list[int], budget: int, multiple: int) -> None:
    """A micro-batch is empty only where there are more of them than rows."""
    found = packing(np.array(weights, dtype=np.int64), budget, multiple=multiple)
    filled = np.unique(found.batch_of).size
    assert filled == min(len(weights), found.batches)


def test_better_than_first_fit_decreasing() -> None:
    """Balancing finds three full micro-batches where first-fit decreasing opens a fourth."""
    weights = np.array([9, 6, 4, 4, 3, 3, 2, 2])
    assert first_fit_decreasing(weights, 11).batches == 4
    assert loads(weights.tolist(), packing(weights, 11)) == [11, 11, 11]


def test_micro_batches_are_filled_evenly() -> None:
    """Two micro-batches of ten rows share them, where first-fit would fill one first."""
    found = packing(np.full(10, 10), 60)
    assert loads([10] * 10, found) == [50, 50]
