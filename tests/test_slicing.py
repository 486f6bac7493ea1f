"""Tests of planner/slicing.py, planner/slice_layouts.py and planner/slice_policies.py."""

import pickle

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import CoordinateError
from planner.indices import Indices
from planner.slice_policies import (
    Balanced,
    Constant,
    DropRemainder,
    Even,
    Interleaved,
    Packed,
    Padded,
    Policy,
    RepeatLastRow,
    RowCounts,
    Uneven,
)
from planner.slicing import SlicePlan, plan_slices, restore_order, slice_rows

COUNTS = st.sampled_from(RowCounts)
MULTIPLES = st.integers(1, 3)
POLICIES: st.SearchStrategy[Policy] = st.one_of(
    st.sampled_from([Even(), Uneven(), Interleaved()]),
    MULTIPLES.map(Padded),
    MULTIPLES.map(DropRemainder),
    COUNTS.map(Balanced),
    st.builds(
        lambda budget, equal: Packed(budget=budget, equal_counts=equal),
        st.integers(20, 60),
        st.booleans(),
    ),
)


@frozen
class Case:
    """A policy with a batch that it can slice; weights only where it goes by them."""

    policy: Policy
    rows: int
    slices: int
    weights: list[int] | None
    groups: list[int] | None

    @property
    def plan(self) -> SlicePlan:
        """The plan."""
        return plan_slices(
            self.policy,
            rows=self.rows,
            slices=self.slices,
            weights=self.weights,
            groups=self.groups,
        )


@st.composite
def cases(draw: st.DrawFn, policies: st.SearchStrategy[Policy] = POLICIES) -> Case:
    """1 to 8 slices of 0 to 3 x slices + 1 rows, under any policy."""
    policy = draw(policies)
    slices = draw(st.integers(1, 8))
    rows = draw(st.integers(0, 3 * slices + 1))
    if isinstance(policy, Even) or policy == Balanced(RowCounts.EQUAL):
        rows -= rows % slices
    weighted = isinstance(policy, Balanced | Packed)
    entries = st.lists(st.integers(0, 20), min_size=rows, max_size=rows)
    weights = draw(entries) if weighted else None
    grouped = isinstance(policy, Packed) or policy == Balanced()
    groups = draw(st.none() | entries) if grouped else None
    return Case(policy, rows, slices, weights, groups)


def results(plan: SlicePlan, batch: list[str]) -> list[str]:
    """What the slices give back, padding taken off, one slice after the other."""
    gathered: list[str] = []
    for index in range(plan.slices):
        held = slice_rows(plan, index)
        returned = [batch[row] for row in (*held.rows, *held.repeats)]
        gathered += returned[: plan.real_sizes[index]]
    return gathered


@given(cases())
def test_scatter_then_gather_is_the_identity(case: Case) -> None:
    """Every policy gives the batch back, or what it kept of it."""
    plan = case.plan
    batch = [f"row {row}" for row in range(case.rows)]
    gathered = results(plan, batch)
    restored = [gathered[place] for place in restore_order(plan)]
    assert restored == [value for row, value in enumerate(batch) if row not in plan.dropped]


@given(cases())
def test_every_row_is_in_exactly_one_slice(case: Case) -> None:
    """Rows are held once or dropped; only DropRemainder drops, only Padded pads."""
    plan = case.plan
    held = [row for index in range(plan.slices) for row in slice_rows(plan, index).rows]
    assert sorted((*held, *plan.dropped)) == list(range(case.rows))
    assert not plan.dropped or isinstance(case.policy, DropRemainder)
    assert not any(plan.padding) or isinstance(case.policy, Padded)
    assert len(plan.sizes) == case.slices
    assert sum(plan.sizes) == len(plan.order)


@given(cases())
def test_sizes_obey_the_policy(case: Case) -> None:
    """Equal, within one, or a multiple: as the policy says."""
    sizes = case.plan.sizes
    match case.policy:
        case Even() | Balanced(row_counts=RowCounts.EQUAL):
            assert set(sizes) == {case.rows // case.slices}
        case Padded(multiple=multiple):
            assert len(set(sizes)) == 1
            assert sizes[0] % multiple == 0
            assert 0 <= sum(sizes) - case.rows < case.slices * multiple
        case DropRemainder(multiple=multiple):
            assert len(set(sizes)) == 1
            assert sizes[0] % multiple == 0
            assert 0 <= case.rows - sum(sizes) < case.slices * multiple
        case Uneven() | Interleaved() | Balanced(row_counts=RowCounts.WITHIN_ONE):
            assert max(sizes) - min(sizes) <= 1
        case Balanced() | Packed():
            assert sum(sizes) == case.rows


@given(cases())
def test_plans_are_values(case: Case) -> None:
    """The same request gives an equal plan, with an equal hash, also by pickle."""
    plan = case.plan
    assert plan == case.plan
    assert hash(plan) == hash(case.plan)
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301


@given(cases())
def test_loads_are_the_sums_of_the_weights(case: Case) -> None:
    """The load of a slice is the weight of its rows; without weights there is none."""
    plan = case.plan
    if case.weights is None:
        assert plan.loads is None
    else:
        held = [slice_rows(plan, index).rows for index in range(plan.slices)]
        assert plan.loads == tuple(sum(case.weights[row] for row in rows) for rows in held)


@given(cases(st.sampled_from([Balanced(), Packed(budget=30)])))
def test_groups_stay_together(case: Case) -> None:
    """No group is in two slices."""
    plan, groups = case.plan, case.groups or []
    found = [
        {groups[row] for row in slice_rows(plan, at).rows if groups} for at in range(plan.slices)
    ]
    assert sum(len(labels) for labels in found) == len(set(groups))


@given(cases(st.builds(lambda equal: Packed(budget=25, equal_counts=equal), st.booleans())))
def test_micro_batches_obey_the_budget(case: Case) -> None:
    """They tile their slice, stay within the budget, and stand heaviest first."""
    plan = case.plan
    for index, sizes in enumerate(plan.micro_batches):
        rows = slice_rows(plan, index).rows.tolist()
        ends = np.cumsum(sizes).tolist()
        weights = [case.weights[row] for row in rows] if case.weights else []
        sums = [sum(weights[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
        assert sum(sizes) == len(rows)
        assert max(sums, default=0) <= 25
        assert sums == sorted(sums, reverse=True)
    assert len(plan.micro_batches) == case.slices
    if case.policy == Packed(budget=25):
        assert len({len(sizes) for sizes in plan.micro_batches}) == 1


def test_even_uneven_interleaved_as_seen() -> None:
    """The order of the rows, slice after slice."""
    assert plan_slices(Even(), rows=6, slices=3).sizes == (2, 2, 2)
    uneven = plan_slices(Uneven(), rows=5, slices=3)
    assert (uneven.order.tolist(), uneven.sizes) == ([0, 1, 2, 3, 4], (2, 2, 1))
    dealt = plan_slices(Interleaved(), rows=5, slices=2)
    assert (dealt.order.tolist(), dealt.sizes) == ([0, 2, 4, 1, 3], (3, 2))
    assert restore_order(dealt) == Indices.of([0, 3, 1, 4, 2])


def test_padding_repeats_the_last_row_also_in_slices_of_nothing_else() -> None:
    """Padding fills up the last slices, and each place says which row it repeats."""
    plan = plan_slices(Padded(multiple=2), rows=3, slices=3)
    assert plan.sizes == (2, 2, 2)
    assert plan.padding == (0, 1, 2)
    assert plan.real_sizes == (2, 1, 0)
    assert [slice_rows(plan, index).repeats.tolist() for index in range(3)] == [[], [2], [2, 2]]
    assert plan_slices(Padded(), rows=0, slices=2).sizes == (0, 0)


def test_dropped_rows_are_named() -> None:
    """The rows left over are those at the end."""
    plan = plan_slices(DropRemainder(multiple=2), rows=7, slices=2)
    assert (plan.sizes, plan.dropped) == ((2, 2), (4, 5, 6))


def test_fewer_rows_than_slices_leave_slices_empty() -> None:
    """Empty slices are in the plan, with no rows."""
    plan = plan_slices(Uneven(), rows=1, slices=3)
    assert plan.sizes == (1, 0, 0)
    assert slice_rows(plan, 2).rows == Indices()
    packed = plan_slices(Packed(budget=9), rows=1, slices=2, weights=[4])
    assert packed.micro_batches == ((1,), (0,))


def test_bytes_per_slice_count_padding() -> None:
    """One size for all rows, or one for each; padding weighs what the row it repeats weighs."""
    plan = plan_slices(Padded(), rows=3, slices=2, row_bytes=10)
    assert plan.slice_bytes == (20, 20)
    ragged = plan_slices(Padded(), rows=3, slices=2, row_bytes=[1, 2, 4])
    assert ragged.slice_bytes == (3, 8)
    assert plan_slices(Even(), rows=2, slices=2).slice_bytes is None


def test_pads_are_kept_by_field() -> None:
    """Rules are sorted by field; a field without one repeats the last row."""
    pads = {"mask": Constant(False), "ids": Constant(-1)}
    plan = plan_slices(Padded(), rows=1, slices=2, pads=pads)
    assert plan.pads == (("ids", Constant(-1)), ("mask", Constant(0)))
    assert type(Constant(False).value) is int
    assert plan.pad("mask") == Constant(0)
    assert plan.pad("text") == RepeatLastRow()


def test_balanced_levels_the_weights() -> None:
    """Long rows are spread, and rows ascend within a slice."""
    plan = plan_slices(Balanced(), rows=6, slices=2, weights=[9, 8, 1, 1, 1, 2])
    assert plan.loads == (11, 11)
    assert all(
        list(rows) == sorted(rows) for rows in (slice_rows(plan, index).rows for index in range(2))
    )


def test_groups_may_be_named_by_text() -> None:
    """Labels are whole numbers or texts."""
    plan = plan_slices(
        Balanced(RowCounts.EQUAL),
        rows=4,
        slices=2,
        weights=[1, 5, 5, 1],
        groups=["b", "a", "b", "a"],
    )
    assert sorted(slice_rows(plan, 0).rows) in ([0, 2], [1, 3])


def test_a_slice_that_does_not_exist() -> None:
    """The error names the slices there are."""
    plan = plan_slices(Even(), rows=2, slices=2)
    with pytest.raises(CoordinateError) as caught:
        slice_rows(plan, 2)
    assert str(caught.value) == "slices: index: there is no slice 2; the plan has 0 to 1"
