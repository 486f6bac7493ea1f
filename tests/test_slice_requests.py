"""Tests of planner/slice_requests.py: what is wrong with a request, all of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.slice_policies import (
    Balanced,
    Constant,
    DropRemainder,
    Even,
    Packed,
    Padded,
    Policy,
    RowCounts,
    Uneven,
)
from planner.slice_requests import Labels, Numbers
from planner.slicing import plan_slices


def findings(
    policy: Policy,
    rows: int,
    slices: int,
    *,
    weights: Numbers | None = None,
    groups: Labels | None = None,
    row_bytes: int | Numbers | None = None,
) -> list[str]:
    """The findings of a request that cannot be planned, as texts."""
    with pytest.raises(PlanError) as caught:
        plan_slices(
            policy, rows=rows, slices=slices, weights=weights, groups=groups, row_bytes=row_bytes
        )
    return [str(finding) for finding in caught.value.findings]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (10, "10 rows do not divide into 4 slices, 2 left over; give 8 or 12 rows"),
        (3, "3 rows do not divide into 4 slices, 3 left over; give 4 rows"),
    ],
)
def test_even_names_the_nearest_numbers(rows: int, expected: str) -> None:
    """What would work is in the message."""
    instead = ", or use Uneven(), Padded() or DropRemainder()"
    assert findings(Even(), rows, 4) == [f"rows: {expected}{instead}"]


def test_all_findings_at_once() -> None:
    """Counts, policy, lengths and signs are all reported together."""
    assert findings(
        Packed(budget=0), -1, 0, weights=[3, -1], groups=[True], row_bytes=[1, 2, 3, 2**60]
    ) == [
        "rows: -1 is negative; give the number of rows, 0 or more",
        "slices: 0 slices hold nothing; ask for at least one slice",
        "policy.budget: 0 holds no row; give a whole number, 1 or more",
        "weights: row 1 (-1) is negative; give 0 or more for each row",
        "groups: labels of type bool are no names; give whole numbers or texts",
        "row_bytes: their sum is beyond 2 ** 52; give them in a larger unit",
    ]


def test_rows_over_the_budget_are_named() -> None:
    """The first of them with their weights, and the budget that would do."""
    weights = [9, 11, 12, 3, 14, 15, 16]
    assert findings(Packed(budget=10), 7, 2, weights=weights) == [
        (
            "weights: row 1 (11), row 2 (12), row 4 (14), row 5 (15) and 1 more are over the "
            "budget of 10; raise the budget to 16, or shorten or drop these rows"
        )
    ]


def test_wrong_lengths() -> None:
    """One entry per row, for whatever is given per row."""
    assert findings(Balanced(), 3, 2, weights=[1, 2], groups=[0], row_bytes=[1]) == [
        "weights: 2 entries for 3 rows; give one per row",
        "groups: 1 entries for 3 rows; give one per row",
        "row_bytes: 1 entries for 3 rows; give one per row",
    ]


def test_weights_and_groups_belong_to_policies_that_go_by_them() -> None:
    """Missing weights, and weights and groups without a use, are errors."""
    assert findings(Balanced(), 2, 2) == [
        "weights: Balanced goes by a weight per row, and none are given; give weights"
    ]
    assert findings(Uneven(), 2, 2, weights=[1, 2], groups=[1, 1]) == [
        "weights: Uneven has no use for weights; leave them out, or use Balanced",
        "groups: Uneven has no use for groups; leave them out, or use Balanced",
    ]


@pytest.mark.parametrize("policy", [Padded(0), DropRemainder(-2)])
def test_multiples_are_one_or_more(policy: Padded | DropRemainder) -> None:
    """A multiple below one is no size."""
    assert findings(policy, 4, 2) == [
        f"policy.multiple: {policy.multiple} is not a size; give a whole number, 1 or more"
    ]


def test_weights_are_whole_and_not_too_large() -> None:
    """Fractions and sums beyond 2 ** 52 are refused; whole floats are taken."""
    assert findings(Balanced(), 2, 2, weights=[0.5, 1]) == [  # type: ignore[list-item]
        (
            "weights: numbers of type float64 are not all whole; give whole numbers; scale and "
            "round a cost that is not whole"
        )
    ]
    assert findings(Balanced(), 2, 2, weights=[2**52, 1]) == [
        "weights: their sum is beyond 2 ** 52; give them in a larger unit"
    ]
    ragged = [[1], [2, 3]]
    assert findings(Balanced(), 2, 2, weights=ragged) == [  # type: ignore[arg-type]
        "weights: shape () for 2 rows; give one per row"
    ]
    plan = plan_slices(Balanced(), rows=2, slices=2, weights=np.array([3, 4], dtype=np.int32))
    assert plan.loads is not None
    assert sorted(plan.loads) == [3, 4]


def test_equal_row_counts_need_equal_groups() -> None:
    """Groups of several sizes, or too many of them, cannot give equal row counts."""
    policy = Balanced(RowCounts.EQUAL)
    assert findings(policy, 4, 2, weights=[1] * 4, groups=[0, 0, 0, 1]) == [
        (
            "groups: groups of 1 to 3 rows cannot give equal row counts; make all groups equally "
            "large, or use RowCounts.FREE"
        )
    ]
    assert findings(policy, 6, 2, weights=[1] * 6, groups=[0, 0, 1, 1, 2, 2]) == [
        (
            "groups: 3 groups do not divide into 2 slices, 1 left over; give 2 or 4 groups, or use "
            "RowCounts.FREE"
        )
    ]


def test_nan_cannot_pad() -> None:
    """A plan with NaN would not equal itself."""
    with pytest.raises(PlanError, match="NaN is not equal to itself"):
        plan_slices(Padded(), rows=1, slices=2, pads={"x": Constant(float("nan"))})


@given(
    st.sampled_from([Even(), Padded(0), Balanced(), Balanced(RowCounts.EQUAL), Packed(budget=3)]),
    st.integers(-2, 5),
    st.integers(-1, 3),
    st.none() | st.lists(st.integers(-1, 5), max_size=5),
    st.none() | st.lists(st.integers(-1, 2), max_size=5),
)
def test_bad_input_raises_plan_error_and_nothing_else(
    policy: Policy,
    rows: int,
    slices: int,
    weights: list[int] | None,
    groups: list[int] | None,
) -> None:
    """Whatever is asked, there is a plan for all rows or a PlanError."""
    try:
        plan = plan_slices(policy, rows=rows, slices=slices, weights=weights, groups=groups)
    except PlanError:
        return
    assert sum(plan.real_sizes) == rows
