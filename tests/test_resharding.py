"""Tests of planner/resharding.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.indices import Indices
from planner.resharding import Receiver, ReshardPlan, RowPick, RowSpan, plan_resharding
from planner.slice_policies import Balanced, Interleaved, Padded, Policy, Uneven
from planner.slicing import SlicePlan, plan_slices, restore_order, slice_rows

SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def received(plan: ReshardPlan, held: list[list[int]]) -> list[list[int]]:
    """What the receivers have after following the plan; ``held`` are the sources' results."""
    slices: list[list[int]] = []
    for receiver in plan.receivers:
        got: list[int] = []
        for part in receiver.parts:
            match part:
                case RowSpan(source=source, start=start, stop=stop):
                    got += held[source][start:stop]
                case RowPick(source=source, places=places):
                    got += [held[source][place] for place in places]
        order = receiver.order
        slices.append(got if order is None else [got[place] for place in order])
    return slices


def cut(numbers: list[int], sizes: tuple[int, ...] | list[int]) -> list[list[int]]:
    """Consecutive slices of these sizes."""
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [numbers[end - size : end] for end, size in zip(ends, sizes, strict=True)]


@st.composite
def slicings(draw: st.DrawFn, rows: int) -> SlicePlan:
    """Slices of that many rows, in order, permuted or padded."""
    policies: list[Policy] = [Uneven(), Padded(), Padded(3), Interleaved(), Balanced()]
    policy = draw(st.sampled_from(policies))
    entries = st.lists(st.integers(0, 9), min_size=rows, max_size=rows)
    weights = draw(entries) if isinstance(policy, Balanced) else None
    slices = draw(st.integers(1, 6))
    return plan_slices(policy, rows=rows, slices=slices, weights=weights)


@given(SIZES, st.data())
def test_in_order_it_is_concatenating_and_cutting_again(
    sizes: list[int], data: st.DataObject
) -> None:
    """Spans of neighbouring rows, in order, give each receiver its slice."""
    total = sum(sizes)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=5)))
    target = [stop - start for start, stop in zip([0, *cuts], [*cuts, total], strict=True)]
    plan = plan_resharding(sizes, target)
    rows = list(range(total))
    assert received(plan, cut(rows, sizes)) == cut(rows, target)
    assert all(receiver.order is None for receiver in plan.receivers)
    assert all(isinstance(part, RowSpan) for each in plan.receivers for part in each.parts)


@given(st.integers(0, 20).flatmap(lambda rows: st.tuples(slicings(rows), slicings(rows))))
def test_permuted_it_is_gathering_and_slicing_again(pair: tuple[SlicePlan, SlicePlan]) -> None:
    """Following the plan is gathering the source's results and slicing them by the target."""
    source, target = pair
    results = [place * 10 for place in range(source.rows)]
    held = cut(results, source.real_sizes)
    whole = [results[place] for place in restore_order(source)]
    wanted = [
        [whole[row] for row in (*each.rows, *each.repeats)]
        for each in (slice_rows(target, index) for index in range(target.slices))
    ]
    assert received(plan_resharding(source, target), held) == wanted


@given(st.integers(0, 20).flatmap(lambda rows: st.tuples(slicings(rows), slicings(rows))))
def test_each_gets_only_what_it_needs_in_the_fewest_parts(
    pair: tuple[SlicePlan, SlicePlan],
) -> None:
    """A receiver gets each row that it needs once, with one part per source that has some."""
    source, target = pair
    plan = plan_resharding(source, target)
    for index, receiver in enumerate(plan.receivers):
        each = slice_rows(target, index)
        assert receiver.rows == len({*each.rows, *each.repeats})
        sources = [part.source for part in receiver.parts]
        assert sources == sorted(set(sources))
        assert all(len(part) for part in receiver.parts)


def test_four_to_two_as_seen() -> None:
    """Each receiver gets two whole sources."""
    plan = plan_resharding([2, 2, 2, 2], [4, 4])
    spans = [RowSpan(source=source, start=0, stop=2) for source in range(4)]
    assert plan.receivers == (Receiver(parts=tuple(spans[:2])), Receiver(parts=tuple(spans[2:])))
    assert plan.objects == 4


def test_interleaved_to_in_order_as_seen() -> None:
    """The parts come by source, and the order puts them together."""
    source = plan_slices(Interleaved(), rows=4, slices=2)
    plan = plan_resharding(source, [3, 1])
    first = (RowSpan(source=0, start=0, stop=2), RowSpan(source=1, start=0, stop=1))
    assert plan.receivers[0] == Receiver(parts=first, order=Indices.of([0, 2, 1]))
    assert plan.receivers[1] == Receiver(parts=(RowSpan(source=1, start=1, stop=2),))


def test_scattered_rows_are_picked() -> None:
    """Places that are not neighbours are named one by one."""
    target = plan_slices(Interleaved(), rows=4, slices=2)
    plan = plan_resharding([4], target)
    pick = RowPick(source=0, places=Indices.of([1, 3]))
    assert plan.receivers[1] == Receiver(parts=(pick,))


def test_padding_is_not_sent_twice() -> None:
    """A slice of padding only gets the row that it repeats, once."""
    plan = plan_resharding([1, 2], plan_slices(Padded(multiple=3), rows=3, slices=2))
    span = RowSpan(source=1, start=1, stop=2)
    assert plan.receivers[1] == Receiver(parts=(span,), order=Indices.of([0, 0, 0]))


def test_what_does_not_fit_is_said_at_once() -> None:
    """Negative sizes, no slices and another number of rows are all reported."""
    with pytest.raises(PlanError) as caught:
        plan_resharding([2, -1], [])
    assert [str(finding) for finding in caught.value.findings] == [
        "source[1]: -1 is negative; give a size of 0 or more",
        "target: there is no slice; give at least one slice, an empty one if need be",
        "target: it slices 0 rows, and the sources hold 1; plan the target for 1 rows",
    ]
