"""Sizes of micro-batches as an argument that the plan fills."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import MicroBatches, Role, Shard
from planner.slice_policies import Packed, Uneven
from tests.call_cases import AXES, Reference, planned, received

PACKED: Mapping[str, Role] = {
    "batch": Shard("data_parallel", Packed(budget=10), weights="lengths"),
    "sizes": MicroBatches("batch"),
}
BATCH = {"batch": {"lengths": [5, 5, 5, 5, 5], "rows": list("abcde")}}


def given(plan: Any, values: Mapping[str, Any]) -> dict[int, Any]:
    """What each rank gets as sizes."""
    got = received(plan, {**values, "sizes": None})
    return {rank: each["sizes"] for rank, each in got.items()}


def test_each_rank_gets_the_sizes_of_its_own_slice() -> None:
    """A list of numbers, the same for all replicas; they divide the slice."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)

    plan = planned(mesh, BATCH, PACKED)
    sizes = given(plan, BATCH)

    assert plan.slices is not None
    assert [each.name for each in plan.arguments] == ["batch", "sizes"]
    assert [sizes[rank] for rank in (0, 2)] == [list(each) for each in plan.slices.micro_batches]
    assert [sum(sizes[rank]) for rank in (0, 2)] == list(plan.slices.sizes)
    assert (sizes[1], sizes[3]) == (sizes[0], sizes[2])
    assert {type(size) for each in sizes.values() for size in each} == {int}


def test_without_packing_there_are_none() -> None:
    """Nor where the caller has cut the slices."""
    mesh = NamedSharding(range(2), ["data_parallel"])
    roles: dict[str, Role] = {**PACKED, "batch": Shard("data_parallel", Uneven())}
    cut = {"batch": [Reference(), Reference()]}

    assert given(planned(mesh, {"batch": [1, 2]}, roles), {"batch": [1, 2]}) == {0: [], 1: []}
    assert given(planned(mesh, cut, roles), cut) == {0: [], 1: []}


def test_dummy_calls_get_none_and_leaders_of_shared_slices_are_not_alone() -> None:
    """The sizes go to all who take part, though the slice is handed on inside the group."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)
    shared = {
        **PACKED,
        "batch": Shard("data_parallel", Packed(budget=10), weights="lengths", share="hand_on"),
    }

    dummies = planned(mesh, BATCH, PACKED, free=("tensor_parallel",), dummy_calls=True)
    handed = planned(mesh, BATCH, shared)

    assert [given(dummies, BATCH)[rank] for rank in (1, 3)] == [None, None]
    assert all(given(handed, BATCH).values())


@pytest.mark.parametrize(
    ("values", "roles", "told"),
    [
        (BATCH, {**PACKED, "sizes": MicroBatches("bach")}, r"roles\['sizes'\].of: 'bach' is not"),
        ({**BATCH, "sizes": [1]}, PACKED, "sizes: it is filled from the slices of 'batch'; leave"),
    ],
)
def test_what_cannot_be_filled_is_refused(
    values: dict[str, Any], roles: Mapping[str, Role], told: str
) -> None:
    """An argument without slices, and a value for what is filled."""
    with pytest.raises(PlanError, match=told):
        planned(NamedSharding(range(2), ["data_parallel"]), values, roles)


def test_a_call_without_the_batch_leaves_the_method_its_default() -> None:
    """There is nothing to fill it from."""
    plan = planned(NamedSharding(range(2), ["data_parallel"]), {"lr": 1.0}, PACKED)

    assert [each.name for each in plan.arguments] == ["lr"]
