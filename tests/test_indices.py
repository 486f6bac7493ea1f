"""Tests of planner/indices.py."""

import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.indices import Indices


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_holds_what_it_was_given(numbers: list[int]) -> None:
    """A list comes back as it was, by every way of reading it."""
    indices = Indices.of(numbers)
    assert indices.tolist() == numbers
    assert list(indices) == numbers
    assert [indices[place] for place in range(len(indices))] == numbers


@given(st.lists(st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=3))
def test_is_equal_by_value(one: list[int], other: list[int]) -> None:
    """Two are equal, with equal hashes, exactly when their numbers are."""
    assert (Indices.of(one) == Indices.of(other)) == (one == other)
    assert (hash(Indices.of(one)) == hash(Indices.of(other))) == (one == other)


def test_survives_pickling_and_cannot_be_written_to() -> None:
    """A copy by pickle is equal, and the array refuses a write."""
    indices = Indices.of([3, 1, 2])
    assert pickle.loads(pickle.dumps(indices)) == indices  # noqa: S301
    with pytest.raises(ValueError, match="read-only"):
        indices.array[0] = 5


@given(st.lists(st.integers(0, 9), max_size=5, unique=True))
def test_as_slice_selects_the_same_or_is_none(numbers: list[int]) -> None:
    """A slice stands exactly for evenly spaced, ascending indices."""
    found = Indices.of(numbers).as_slice()
    steps = {second - first for first, second in pairwise(numbers)}
    if len(steps) > 1 or any(step < 1 for step in steps):
        assert found is None
    else:
        assert found is not None
        assert list(range(10))[found] == numbers


def test_long_ones_are_shown_short() -> None:
    """The text names the first eight and the length."""
    assert repr(Indices.of([2, 1])) == "Indices([2, 1])"
    assert repr(Indices.of(range(9))) == "Indices([0, 1, 2, 3, 4, 5, 6, 7, ... 9 in all])"
