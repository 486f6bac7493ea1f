"""Results that shall become one batch: only rows that belong to rows do."""

from typing import Any

import numpy as np
import pytest

from planner.call_requests import CallPlan
from planner.mesh import NamedSharding
from planner.roles import Concatenate, Shard
from planner.slice_policies import Balanced, Interleaved, Padded, Policy, Uneven
from runtime.batches import BatchError, assemble
from runtime.call_results import ResultError, combine
from runtime.remote_batches import joined_in_order
from tests.call_cases import Reference, planned


def cut(policy: Policy, rows: int, weights: Any = None) -> CallPlan:
    """A call on a batch cut for ranks 1 and 0, whose results are put together."""
    mesh = NamedSharding([1, 0], ["data_parallel"])
    role = Shard("data_parallel", policy)
    return planned(
        mesh, {"batch": list(range(rows))}, {"batch": role}, Concatenate(), weights=weights
    )


@pytest.mark.parametrize(
    ("plan", "results", "told"),
    [
        (
            cut(Interleaved(), 4),
            [["a"] * 4, ["b"] * 4],
            "4 rows came for the 2 of the slice; slice 1",
        ),
        (cut(Interleaved(), 4), [["a"], ["b"]], "1 row came for the 2 of the slice"),
        (cut(Balanced(), 4, [9, 1, 1, 7]), [["a"] * 4, ["b"] * 4], "4 rows came for the 1"),
        (cut(Padded(), 3), [["a"] * 4, ["b"] * 4], "4 rows came for the 2 of the slice; slice 1"),
        (
            cut(Padded(), 3),
            [["a"] * 2, []],
            "0 rows came for the 2 of the slice, 1 of them padding",
        ),
        (cut(Uneven(), 2), [["a", "b"], ["c"]], "2 rows came for the 1 of the slice"),
        (cut(Uneven(), 2), [3, 3], "a value of type int has no rows"),
        (cut(Uneven(), 2), [np.float64(1), np.float64(1)], "a value of type float64 has no rows"),
        (cut(Uneven(), 2), ["ab", "ab"], "a value of type str has no rows"),
        (cut(Uneven(), 2), [{"loss": 0.5}, {"loss": 0.5}], "a value of type dict has no rows"),
        (cut(Uneven(), 2), [[1], None], "a value of type NoneType has no rows"),
    ],
)
def test_results_of_another_size_are_refused(plan: CallPlan, results: list[Any], told: str) -> None:
    """Nothing is lost, put in a wrong order or kept as padding without a word."""
    with pytest.raises(ResultError, match=told) as raised:
        combine(plan, results)

    assert r"worker group 'policy', step(): its results: slice" in str(raised.value)
    assert "PerShard() or AllByRank()" in str(raised.value)


def test_the_rank_is_named() -> None:
    """Slice 1 is that of rank 0 here."""
    with pytest.raises(ResultError, match=r"slice 1 \(rank 0\): 3 rows came for the 2"):
        combine(cut(Uneven(), 4), [["a", "b"], ["c", "d", "e"]])


def test_many_results_that_do_not_fit_are_counted() -> None:
    """The first of them are told, and how many more there are."""
    mesh = NamedSharding(range(7), ["data_parallel"])
    plan = planned(mesh, {"b": [0] * 7}, {"b": Shard("data_parallel")}, Concatenate())

    with pytest.raises(ResultError, match=r"slice 3 \(rank 3\).*; and 3 slices more;"):
        combine(plan, [[1, 2]] * 7)


def test_padding_may_be_left_out_of_a_result() -> None:
    """A worker may give nothing for padding, and None for an empty slice."""
    assert combine(cut(Padded(), 3), [["a", "b"], ["c"]]) == ["a", "b", "c"]
    assert combine(cut(Padded(), 3), [["a", "b"], ["c", "padding"]]) == ["a", "b", "c"]
    assert combine(cut(Uneven(), 1), [["a"], None]) == ["a"]


def test_slices_that_the_caller_has_cut_are_joined_as_they_come() -> None:
    """Nobody knows their sizes; what has no rows is refused there too."""
    mesh = NamedSharding(range(2), ["data_parallel"])
    values = {"batch": [Reference(), Reference()]}
    plan = planned(mesh, values, {"batch": Shard("data_parallel")}, Concatenate())

    assert combine(plan, [["a", "b"], ["c"]]) == ["a", "b", "c"]
    with pytest.raises(ResultError, match="a value of type float has no rows"):
        combine(plan, [0.5, 0.5])


def test_held_results_are_checked_too() -> None:
    """When they are fetched, and when they are joined into another slice."""
    with pytest.raises(BatchError, match="slice 0: 4 rows came for the 2"):
        joined_in_order(cut(Interleaved(), 4).slices, [["a"] * 4, ["b"] * 4])
    with pytest.raises(BatchError, match="the parts have 8 rows, not 4"):
        assemble([0, 2, 1, 3], 4, {}, ["a"] * 4, ["b"] * 4)
