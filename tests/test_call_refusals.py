"""Calls that are refused before anything is sent, each with what is wrong and what would work."""

from typing import Any

import numpy as np
import pytest
import torch

from planner.binding import check_roles_named, check_row_facts
from planner.call_requests import traffic
from planner.findings import Findings, PlanError
from planner.mesh import NamedSharding
from planner.roles import Common, Reduce, Role, Shard
from planner.signatures import Method, Parameter, ParameterKind
from planner.slice_policies import Balanced, Even, Packed, Padded, RowCounts, Uneven
from tests.call_cases import Reference, planned, received

MESH = NamedSharding([0, 1], ["data_parallel"])


def told_of(values: dict[str, Any], policy: Any, weights: Any = None, **role: Any) -> str:
    """What is said of a batch that can't be cut so."""
    roles = {"b": Shard("data_parallel", policy, **role)}
    with pytest.raises(PlanError) as raised:
        received(planned(MESH, values, roles, weights=weights), values)
    return str(raised.value)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("even", "b.policy: 'even' is not a policy; give Even()"),
        (Even, "is not a policy; give Even()"),
        (Packed, "is not a policy; give Packed(budget=...)"),
        (3, "3 is not a policy; give one of Even, Uneven, Padded"),
        (Padded(1.5), "b.policy.multiple: 1.5 is not a size"),  # type: ignore[arg-type]
        (Padded(True), "b.policy.multiple: True is not a size"),
        (Packed(budget="9"), "b.policy.budget: '9' holds no row"),  # type: ignore[arg-type]
        (Packed(budget=9.5), "b.policy.budget: 9.5 holds no row"),  # type: ignore[arg-type]
        (Balanced("equal"), "'equal' is not one of RowCounts"),  # type: ignore[arg-type]
        (Balanced(RowCounts.EQUAL), "3 rows do not divide"),
    ],
)
def test_what_is_no_policy_is_refused(policy: Any, told: str) -> None:
    """A name, a class in place of a value, and numbers that are no sizes."""
    weighted = isinstance(policy, Balanced | Packed)
    assert told in told_of({"b": [1, 2, 3]}, policy, [1, 1, 1] if weighted else None)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([[1], [1, 2]], "weights: list of unlike entries"),
        ([float("inf"), 1.0], "weights: row 0 (inf) is not finite"),
        (torch.tensor([1.0, float("nan")]), "weights: row 1 (nan) is not finite"),
        ([1e30, 1.0], "weights: a number is beyond 2 ** 63"),
        (["a", "b"], "weights: an array of <U1"),
        (torch.eye(2).to_sparse(), "weights: Tensor of unlike entries"),
        ([1], "1 entries for 2 rows"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(weights: Any, told: str) -> None:
    """In words, and not by what numpy raises."""
    assert told in told_of({"b": [1, 2]}, Balanced(), weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.uint8])
def test_weights_may_be_of_any_type_of_number(dtype: torch.dtype) -> None:
    """Whole ones, whatever holds them."""
    batch = {"n": torch.tensor([5, 3, 2]).to(dtype), "x": [1, 2, 3]}
    role = Shard("data_parallel", Balanced(), weights="n")

    plan = planned(MESH, {"b": batch}, {"b": role})

    assert plan.slices is not None
    assert plan.slices.loads == (5, 5)


def test_labels_are_any_names() -> None:
    """Tuples too; what can't be compared is refused."""
    batch: dict[str, Any] = {"n": [1, 1, 1, 1], "g": [(0, 1), (0, 2), (0, 1), (0, 2)]}
    role = Shard("data_parallel", Balanced(), weights="n", groups="g")

    plan = planned(MESH, {"b": batch}, {"b": role})

    assert plan.slices is not None
    assert sorted(received(plan, {"b": batch})[0]["b"]["g"]) in ([(0, 1)] * 2, [(0, 2)] * 2)
    batch["g"] = [[0], [1], [0], [1]]
    told = told_of({"b": batch}, Balanced(), weights="n", groups="g")
    assert "b.g: list has no label for each row" in told


@pytest.mark.parametrize(
    "batch", [torch.eye(4).to_sparse(), {"x": torch.eye(4).to_sparse()}], ids=["bare", "field"]
)
def test_a_sparse_tensor_is_refused(batch: Any) -> None:
    """Torch takes no rows out of one."""
    assert "give a dense tensor" in told_of({"b": batch}, Uneven())


@pytest.mark.parametrize(("function", "nearest"), [("maen", "'mean'"), ("average", "use one of")])
def test_a_function_that_nobody_gives_is_refused(function: str, nearest: str) -> None:
    """Before the ranks have run, and not when their results are there."""
    with pytest.raises(PlanError, match=f"no function '{function}' to reduce with; .*{nearest}"):
        planned(MESH, {"b": [1, 2]}, {"b": Shard("data_parallel")}, Reduce(function))


def test_weights_of_slices_that_the_caller_has_cut_are_refused() -> None:
    """They would have no effect."""
    values = {"b": [Reference(), Reference()]}
    assert "b.weights: its slices are cut already" in told_of(values, Balanced(), [1, 1])


def a_method(*parameters: str) -> Method:
    """A method with such parameters."""
    kinds = {"**": ParameterKind.VAR_KEYWORD, "*": ParameterKind.VAR_POSITIONAL}
    return Method(
        name="step",
        parameters=tuple(
            Parameter(
                name=each.strip("*"),
                kind=kinds.get(each[: each.count("*")], ParameterKind.POSITIONAL_OR_KEYWORD),
                required=False,
            )
            for each in parameters
        ),
    )


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (a_method("batch", "lr"), ["@dispatch(bacth=...)", "did you mean 'batch'?"]),
        (a_method(), ["@dispatch(bacth=...)", "it takes no arguments"]),
        (a_method("batch", "*bacth"), ["@dispatch(bacth=...)", "did you mean 'batch'?"]),
        (a_method("batch", "**more"), []),
        (Method(name="step"), []),
    ],
)
def test_a_role_for_no_parameter_is_refused(method: Method, told: list[str]) -> None:
    """A batch whose role is misspelt would go whole to every rank."""
    findings = Findings("test")

    check_roles_named(method, ["bacth"], ["batch"], "@dispatch({}=...)", findings)

    assert [part for each in findings.found for part in (each.path, each.remedy)] == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("batch", []),
        ("bacth", ["weights['bacth']: the call has no such argument; did you mean 'batch'?"]),
        ("lr", ["weights['lr']: 'lr' is not cut; give it the role Shard, or leave them out"]),
        ("more", ["weights['more']: its rows go with 'batch'; give weights for 'batch'"]),
    ],
)
def test_weights_for_what_is_not_cut_are_refused(name: str, told: list[str]) -> None:
    """They would have no effect."""
    findings = Findings("test")
    roles: dict[str, Role] = {
        "batch": Shard("data_parallel", Balanced()),
        "more": Shard("data_parallel", like="batch"),
        "lr": Common(),
    }

    check_row_facts("weights", [name], roles, ["batch", "more", "lr"], findings)

    assert [str(each) for each in findings.found] == told


def test_traffic_needs_a_node_for_every_rank() -> None:
    """And says for which there is none, and where to find them."""
    plan = planned(MESH, {"b": [1, 2]}, {"b": Shard("data_parallel")})

    with pytest.raises(PlanError, match=r"node_of: no node for rank 1; .*group\.plan\.workers"):
        traffic(plan, {0: "a"})


def test_the_plan_tells_how_its_payloads_go() -> None:
    """And the results."""
    values = {"b": np.zeros((4, 4096)), "lr": 0.1, "state": Reference()}

    plan = planned(MESH, values, {"b": Shard("data_parallel")})

    assert plan.transport == "object store"
    assert plan.reason == (
        "3 inside the calls, small or for one call alone, 1 there already; "
        "results through the store: no direct transport was asked for"
    )
