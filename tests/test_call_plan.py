"""Calls planned and carried out without a cluster: who gets which rows, and the way back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from planner.binding import bind
from planner.call import plan_call
from planner.call_requests import ArgumentFacts, CallPlan, CallRequest, Given, Route, traffic
from planner.findings import Findings, PlanError
from planner.indices import Indices
from planner.mesh import NamedSharding
from planner.resharding import parts_sent
from planner.roles import (
    AllByRank,
    Concatenate,
    Declaration,
    First,
    PerRank,
    PerShard,
    Reduce,
    Replicate,
    Result,
    Role,
    Shard,
)
from planner.signatures import Method, Parameter, ParameterKind
from planner.slice_policies import (
    Balanced,
    Constant,
    DropRemainder,
    Interleaved,
    Padded,
    Policy,
    Uneven,
)
from runtime.batches import assemble, row_count, take
from runtime.call_arguments import numbers_of_pads, payload_values
from runtime.call_results import combine
from runtime.remote_batches import joined_in_order, places_of, rows_in
from tests.call_cases import AXES, Reference, facts, planned, received


@pytest.mark.parametrize(
    ("policy", "sizes", "padding"),
    [
        (Uneven(), [3, 2, 2], []),
        (Interleaved(), [3, 2, 2], []),
        (Padded(), [3, 3, 3], [5, 6]),
        (DropRemainder(), [2, 2, 2], []),
        (Balanced(), [1, 3, 3], []),
    ],
    ids=repr,
)
def test_ranks_get_the_rows_that_the_policy_says(
    policy: Policy, sizes: list[int], padding: list[int]
) -> None:
    """Rows as ranks see them, padding with its own number."""
    mesh = NamedSharding([0, 1, 2], ["data_parallel"])
    batch = {"ids": np.arange(7)}
    weights = [9, 3, 3, 3, 3, 3, 3] if isinstance(policy, Balanced) else None
    role = Shard("data_parallel", policy, pads={"ids": Constant(-1)})

    plan = planned(mesh, {"batch": batch}, {"batch": role}, weights=weights)
    got = [received(plan, {"batch": batch})[rank]["batch"]["ids"] for rank in range(3)]

    assert [len(ids) for ids in got] == sizes
    assert got[-1].tolist().count(-1) == len(padding)


def test_a_permuted_layout_keeps_the_order_of_slices() -> None:
    """Slices follow coordinates, not ranks, and so do the results."""
    mesh = NamedSharding([[2, 3], [0, 1]], AXES)
    values = {"batch": list("abcd")}

    plan = planned(mesh, values, {"batch": Shard("data_parallel")}, Concatenate())
    got = received(plan, values)

    assert plan.ranks == (0, 1, 2, 3)
    assert [got[rank]["batch"] for rank in range(4)] == [["c", "d"]] * 2 + [["a", "b"]] * 2
    assert plan.returns == (2, 0)
    assert combine(plan, [got[rank]["batch"] for rank in plan.returns]) == list("abcd")


def test_two_axes_cut_row_major() -> None:
    """The first axis named varies slowest, whatever the mesh's own order."""
    mesh = NamedSharding(np.arange(8).reshape(2, 2, 2), ["pipeline", "data", "context"])
    values = {"batch": list(range(4))}

    plan = planned(mesh, values, {"batch": Shard(("context", "data"))}, Concatenate())
    got = received(plan, values)

    assert [got[rank]["batch"] for rank in range(4)] == [[0], [2], [1], [3]]
    assert plan.returns == (0, 2, 1, 3)
    assert combine(plan, [got[rank]["batch"] for rank in plan.returns]) == [0, 1, 2, 3]


@pytest.mark.parametrize("dummy_calls", [False, True])
def test_along_free_axes_only_the_first_takes_part(dummy_calls: bool) -> None:
    """The others are left out, or called with None for all but what is common."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)
    values = {"batch": [1, 2], "state": {"w": 1}, "step": 7}
    roles: dict[str, Role] = {"batch": Shard("data_parallel"), "state": Replicate()}

    plan = planned(
        mesh, values, roles, AllByRank(), free=("tensor_parallel",), dummy_calls=dummy_calls
    )
    got = received(plan, values)

    assert plan.returns == (0, 2)
    assert got[2] == {"batch": [2], "state": {"w": 1}, "step": 7}
    if dummy_calls:
        assert got[3] == {"batch": None, "state": None, "step": 7}
    else:
        assert plan.ranks == (0, 2)


def test_each_rank_gets_its_own_value() -> None:
    """One value per called rank, in rank order."""
    mesh = NamedSharding([[1], [0]], AXES)
    values = {"port": [5000, 5001]}

    plan = planned(mesh, values, {"port": PerRank()})

    assert received(plan, values) == {0: {"port": 5000}, 1: {"port": 5001}}
    assert plan.result == AllByRank()


@pytest.mark.parametrize(
    ("result", "returns"),
    [
        (Concatenate(), (0, 2)),
        (PerShard(), (0, 2)),
        (Reduce("sum"), (0, 2)),
        (First(), (0,)),
        (AllByRank(), (0, 1, 2, 3)),
        (None, (0, 2)),
    ],
)
def test_only_ranks_whose_results_count_return(result: Result, returns: tuple[int, ...]) -> None:
    """What nobody reads is not sent."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)

    plan = planned(mesh, {"batch": [1, 2]}, {"batch": Shard("data_parallel")}, result)

    assert plan.returns == returns


@pytest.mark.parametrize(
    ("result", "values", "combined"),
    [
        (Reduce("sum"), [{"loss": 1.0, "n": 2}, {"loss": 2.0, "n": 3}], {"loss": 3.0, "n": 5}),
        (Reduce("mean"), [1.0, 2.0], 1.5),
        (Reduce("max"), [1.0, 2.0], 2.0),
        (Reduce("all"), [True, False], False),
        (First(), ["only"], "only"),
        (Concatenate(), [None, None], None),
    ],
)
def test_results_combine(result: Result, values: list[Any], combined: Any) -> None:
    """Numbers fold, mappings fold field by field, and no result at all is no error."""
    mesh = NamedSharding([0, 1], ["data_parallel"])
    plan = planned(mesh, {"batch": [1, 2]}, {"batch": Shard("data_parallel")}, result)

    assert combine(plan, values) == combined


def test_payloads_are_distinct_slices_each_sent_once() -> None:
    """Large ones are one object for all who receive it; small ones go inside the calls."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)
    values = {"batch": np.zeros((4, 4096)), "lr": 0.1}
    roles = {"batch": Shard("data_parallel")}

    plan = planned(mesh, values, roles)
    batch, lr = plan.arguments

    assert [(each.ranks, each.route, each.size) for each in batch.payloads] == [
        ((0, 1), Route.OBJECT, 65536),
        ((2, 3), Route.OBJECT, 65536),
    ]
    assert [(each.ranks, each.route, each.size) for each in lr.payloads] == [
        ((0, 1, 2, 3), Route.INLINE, 16)
    ]
    assert (plan.calls, plan.objects) == (4, 2)


def test_the_plan_says_what_goes_to_which_node() -> None:
    """An object counts once for a node, an inline value once for each call."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)
    values = {"batch": np.zeros((4, 4096)), "lr": 0.1}
    plan = planned(mesh, values, {"batch": Shard("data_parallel")})

    told = traffic(plan, {0: "a", 1: "a", 2: "a", 3: "b"})

    assert [(each.node, each.calls, each.objects, each.size) for each in told] == [
        ("a", 3, 2, 2 * 65536 + 3 * 16),
        ("b", 1, 1, 65536 + 16),
    ]


def test_with_a_share_method_only_leaders_are_sent_the_slice() -> None:
    """The others get it inside the group."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)
    role = Shard("data_parallel", share="broadcast")

    plan = planned(mesh, {"batch": [1, 2]}, {"batch": role})

    assert [payload.ranks for payload in plan.arguments[0].payloads] == [(0,), (2,)]
    assert plan.arguments[0].share == "broadcast"


def test_references_pass_through() -> None:
    """One for all, or one for each slice; nobody looks into them."""
    mesh = NamedSharding([0, 1], ["data_parallel"])
    values = {"batch": [Reference(), Reference()], "state": Reference()}

    plan = planned(mesh, values, {"batch": Shard("data_parallel")})

    assert {payload.route for each in plan.arguments for payload in each.payloads} == {
        Route.REFERENCE
    }
    assert plan.objects == 0


@pytest.mark.parametrize("source", range(1, 6))
@pytest.mark.parametrize("target", range(1, 6))
@pytest.mark.parametrize("policy", [Uneven(), Padded(), Interleaved(), DropRemainder()], ids=repr)
def test_results_that_stay_are_resharded(source: int, target: int, policy: Policy) -> None:
    """Cut where they are and joined where they are needed, they are the slices of the whole."""
    pads = {"": Constant(-1)}
    for rows in range(3 * source + 2):
        batch = np.arange(rows) + 100
        first = planned(
            NamedSharding(range(source), ["data_parallel"]),
            {"batch": batch},
            {"batch": Shard("data_parallel", policy, pads=pads)},
            Concatenate(),
        )
        got = received(first, {"batch": batch})
        held = [got[rank]["batch"] for rank in first.returns]
        role = Shard("data_parallel", policy, pads=pads)
        second = plan_call(
            CallRequest(
                group="policy",
                method="train",
                mesh=NamedSharding(range(target), ["data_parallel"]),
                roles=Declaration(arguments=(("batch", role),)),
                arguments=(ArgumentFacts(name="batch", given=Given.HELD, held=first.slices),),
            )
        )

        assert first.slices is not None
        wanted = payload_values(second.arguments[0], joined_in_order(first.slices, held))
        assert [each.tolist() for each in resharded(second, held)] == [
            each.tolist() for each in wanted
        ]


def resharded(plan: CallPlan, held: Sequence[Any]) -> list[Any]:
    """What ``send_parts`` has the workers do, done here."""
    argument = plan.arguments[0]
    assert argument.resharding is not None
    assert argument.slices is not None
    made = []
    for index, receiver in enumerate(argument.resharding.receivers):
        if argument.payloads[index].route is Route.REFERENCE:
            made.append(held[receiver.parts[0].source])
            continue
        parts = [take(held[p.source], rows_in(p)) for p in parts_sent(receiver)]
        order = places_of(receiver, argument.slices, index)
        pads = numbers_of_pads(argument.slices)
        made.append(assemble(order, argument.slices.real_sizes[index], pads, *parts))
    return made


def test_equal_slicings_need_no_cut() -> None:
    """The references themselves go on."""
    mesh = NamedSharding([0, 1], ["data_parallel"])
    role = Shard("data_parallel", Uneven())
    first = planned(mesh, {"batch": [1, 2, 3]}, {"batch": role})
    held = ArgumentFacts(name="batch", given=Given.HELD, held=first.slices)
    declared = Declaration(arguments=(("batch", role),))

    second = plan_call(
        CallRequest(group="g", method="m", mesh=mesh, roles=declared, arguments=(held,))
    )

    assert [each.route for each in second.arguments[0].payloads] == [Route.REFERENCE] * 2


def test_rows_that_go_with_another_argument_are_cut_like_it() -> None:
    """A second batch is cut in the order that the first one's weights ask for."""
    mesh = NamedSharding([0, 1], ["data_parallel"])
    values = {"names": list("abcd"), "batch": {"lengths": [9, 1, 1, 7], "x": [0, 1, 2, 3]}}
    roles: dict[str, Role] = {
        "batch": Shard("data_parallel", Balanced(), weights="lengths"),
        "names": Shard("data_parallel", like="batch"),
    }

    plan = planned(mesh, values, roles, Concatenate())
    got = received(plan, values)

    assert [got[rank]["batch"]["x"] for rank in (0, 1)] == [[0], [1, 2, 3]]
    assert [got[rank]["names"] for rank in (0, 1)] == [["a"], ["b", "c", "d"]]
    assert plan.result_of == "batch"


@pytest.mark.parametrize(
    ("values", "roles", "paths"),
    [
        ({"batch": [1, 2, 3]}, {"batch": Shard("data_parallel")}, ["batch.rows"]),
        ({"batch": [1]}, {"batch": Shard("data")}, ["roles['batch'].axes"]),
        ({"batch": [1]}, {"batch": Shard("tensor_parallel")}, ["roles['batch'].axes"]),
        ({"batch": 3}, {"batch": Shard("data_parallel")}, ["batch"]),
        ({"port": [1]}, {"port": PerRank()}, ["port"]),
        ({"port": 1}, {"port": PerRank()}, ["port"]),
        ({"batch": Reference()}, {"batch": Shard("data_parallel")}, ["batch"]),
        ({"batch": [Reference()]}, {"batch": Shard("data_parallel")}, ["batch"]),
        ({"a": [1]}, {"a": Shard("data_parallel", like="b")}, ["roles['a'].like"]),
        (
            {"a": [1, 2, 3], "b": [1, 2, 3, 4, 5]},
            {"a": Shard("data_parallel"), "b": Shard("data_parallel")},
            ["a.rows", "b.rows"],
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(
    values: dict[str, Any], roles: dict[str, Role], paths: list[str]
) -> None:
    """All of it at once, each with its path; nothing was sent."""
    mesh = NamedSharding(np.arange(4).reshape(2, 2), AXES)

    with pytest.raises(PlanError) as raised:
        planned(mesh, values, roles, free=("tensor_parallel",))

    assert [finding.path for finding in raised.value.findings] == paths


def test_differently_cut_arguments_need_to_be_told_apart() -> None:
    """Whose rows the results are is not guessed."""
    mesh = NamedSharding([0, 1], ["data_parallel"])
    values = {"a": [1, 2], "b": [1, 2, 3, 4]}
    roles: dict[str, Role] = {
        "a": Shard("data_parallel"),
        "b": Shard("data_parallel", Interleaved()),
    }

    with pytest.raises(PlanError, match=r"say so: Concatenate\(like='a'\)"):
        planned(mesh, values, roles, Concatenate())

    assert planned(mesh, values, roles, Concatenate(like="b")).result_of == "b"


@pytest.mark.parametrize("result", [Concatenate(), Reduce("sum")])
def test_streams_are_not_combined(result: Result) -> None:
    """A stream has no one result."""
    mesh = NamedSharding([0, 1], ["data_parallel"])

    with pytest.raises(PlanError, match="and the method streams"):
        planned(mesh, {"batch": [1, 2]}, {"batch": Shard("data_parallel")}, result, streams=True)


def test_equal_requests_give_equal_plans_that_hash() -> None:
    """A repeated call finds its plan by the request."""
    mesh = NamedSharding([0, 1], ["data_parallel"])
    plans = [
        planned(mesh, {"batch": np.zeros(4)}, {"batch": Shard("data_parallel")}) for _ in range(2)
    ]

    assert plans[0] == plans[1]
    assert hash(plans[0]) == hash(plans[1])


def test_weights_that_are_not_whole_numbers_are_refused() -> None:
    """They are not rounded without a word."""
    role = Shard("data_parallel", Balanced(), weights="cost")

    with pytest.raises(PlanError, match=r"batch\.cost: an array of float64"):
        facts("batch", {"cost": [0.5, 1.5]}, role)
    with pytest.raises(PlanError, match=r"batch\.cost: the batch has no such field"):
        facts("batch", {"x": [1]}, role)


def test_labels_become_numbers() -> None:
    """Groups may be named by text."""
    role = Shard("data_parallel", Balanced(), weights="n", groups="prompt")

    found = facts("batch", {"n": [1, 2, 3], "prompt": ["b", "a", "b"]}, role)

    assert found.groups == Indices.of([0, 1, 0])
    assert found.rows == 3


def method(*parameters: tuple[str, ParameterKind]) -> dict[str, Method]:
    """A class with one method."""
    takes = tuple(Parameter(name=name, kind=kind, required=False) for name, kind in parameters)
    return {"step": Method(name="step", parameters=takes)}


@pytest.mark.parametrize(
    ("parameters", "positional", "keywords", "names", "by_position"),
    [
        (("batch", "lr"), 1, ("lr",), ("batch", "lr"), 0),
        (("batch", "lr"), 2, (), ("batch", "lr"), 0),
        (("batch", "*rest"), 1, (), ("batch",), 0),
        (("batch", "*rest"), 3, (), ("batch", "*1", "*2"), 3),
        (("/batch", "lr"), 2, (), ("batch", "lr"), 2),
    ],
)
def test_arguments_are_bound_to_parameters(
    parameters: tuple[str, ...],
    positional: int,
    keywords: tuple[str, ...],
    names: tuple[str, ...],
    by_position: int,
) -> None:
    """Those given by position get their names; only where need be do they stay positional."""
    kinds = {"*": ParameterKind.VAR_POSITIONAL, "/": ParameterKind.POSITIONAL_ONLY}
    methods = method(
        *((n.strip("*/"), kinds.get(n[0], ParameterKind.POSITIONAL_OR_KEYWORD)) for n in parameters)
    )

    bound = bind(methods, "Worker", "step", positional, keywords, Findings("test"))

    assert (bound.names, bound.by_position) == (names, by_position)


def test_arguments_that_fit_no_parameter_are_refused() -> None:
    """Too many, and one that nobody knows."""
    methods = method(("batch", ParameterKind.POSITIONAL_OR_KEYWORD))

    with pytest.raises(PlanError) as raised:
        bind(methods, "Worker", "step", 2, ("lr",), Findings("test"))

    assert len(raised.value.findings) == 2


def test_an_empty_batch_reaches_every_rank_in_its_own_type() -> None:
    """Ranks with nothing to do still enter their collectives."""
    mesh = NamedSharding([0, 1, 2], ["data_parallel"])
    values = {"batch": {"ids": torch.zeros(1, 4, dtype=torch.int32)}}
    plan = planned(mesh, values, {"batch": Shard("data_parallel", Uneven())}, Concatenate())

    got = received(plan, values)

    assert [row_count(got[rank]["batch"]) for rank in range(3)] == [1, 0, 0]
    assert got[2]["batch"]["ids"].shape == (0, 4)
    back = combine(plan, [got[rank]["batch"] for rank in plan.returns])
    assert back["ids"].dtype is torch.int32
