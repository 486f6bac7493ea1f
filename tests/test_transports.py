"""Direct transports as plans: who can be linked, what stays with its maker, which parts go how."""

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from planner.call import plan_call
from planner.call_requests import ArgumentFacts, CallPlan, CallRequest, Cut, Given, Route, traffic
from planner.findings import Findings, PlanError
from planner.group import GroupArguments, plan_group, plan_hosts
from planner.mesh import NamedSharding
from planner.options import JsonObject
from planner.roles import Concatenate, Declaration, Shard
from planner.slice_policies import Even, Interleaved, Padded, Policy, Uneven
from planner.slicing import SlicePlan, plan_slices
from planner.transports import (
    GroupAbility,
    LinkFacts,
    WorkerAbility,
    check_transport,
    plan_link,
    started_for,
    why_not_direct,
)

AXES = ["data_parallel", "tensor_parallel"]
UNEVEN = Uneven()
LINKED = LinkFacts(started_for="gloo", link="pair-1")


def _group(name: str = "generator", size: int = 2, **more: Any) -> GroupAbility:
    given: dict[str, Any] = {"started_for": "gloo", **more}
    return GroupAbility(group=name, address=f"10.0.0.{size}", ranks=tuple(range(size)), **given)


def _held(sources: int, rows: int = 8, policy: Policy = UNEVEN) -> SlicePlan:
    return plan_slices(policy, rows=rows, slices=sources)


def _taken(
    layout: Any,
    held: SlicePlan,
    link: LinkFacts = LINKED,
    held_for: str = "gloo",
    policy: Policy = UNEVEN,
    lost: tuple[int, ...] = (),
    **more: Any,
) -> CallPlan:
    """The plan of a call that gets results which were held."""
    given = ArgumentFacts(
        name="batch",
        given=Given.HELD,
        held=held,
        held_for=held_for,
        held_link="pair-1",
        lost=lost,
    )
    roles = Declaration(
        arguments=(("batch", Shard("data_parallel", policy)),), returns=Concatenate()
    )
    return plan_call(
        CallRequest(
            group="trainer",
            method="step",
            mesh=NamedSharding(layout, AXES[: np.ndim(layout)]),
            roles=roles,
            arguments=(given,),
            link=link,
            **more,
        )
    )


def test_a_link_numbers_all_workers() -> None:
    """Group after group, in the order of their ranks; they meet where the first one is."""
    plan = plan_link("pair-1", [_group(size=2), _group("trainer", 1)])

    assert plan.members == (("generator", 0), ("generator", 1), ("trainer", 0))
    assert (plan.name, plan.transport, plan.address) == ("pair-1", "gloo", "10.0.0.2")


def test_everything_that_hinders_a_link_is_said_at_once() -> None:
    """Each with the group and what would help."""
    broken = (
        WorkerAbility(rank=0, problem="ImportError: no torch", has_gloo=False),
        WorkerAbility(rank=1, has_gloo=False),
    )
    groups = [
        _group("plain", started_for=""),
        _group("taken", link="pair-7"),
        _group("old", workers=broken),
        _group("far", cluster=1),
        _group("far", cluster=1),
    ]

    with pytest.raises(PlanError) as raised:
        plan_link("pair-1", groups, "can't import torch")

    found = [(each.path, each.problem) for each in raised.value.findings]
    assert found == [
        ("driver", "it can't import torch"),
        ("far", "it is given twice"),
        ("plain", "it was not started for a direct transport"),
        ("taken", "it is in the link 'pair-7' already"),
        ("old", "rank 0 can't import torch (ImportError: no torch)"),
        ("old", "rank 1 has a torch without gloo"),
        ("groups", "they are on different clusters"),
    ]


def test_no_group_is_no_link() -> None:
    """A link of nobody would do nothing."""
    with pytest.raises(PlanError, match="there is none; give the groups that hand results on"):
        plan_link("pair-1", [])


@pytest.mark.parametrize(
    ("given", "expected", "told"),
    [
        ("gloo", "gloo", ""),
        (None, "", ""),
        ("object store", "", ""),
        ("nccl", "", "'nccl' is not offered: it moves tensors between GPUs"),
        ("glooo", "", "'glooo' is not a direct transport; use 'gloo'"),
        (3, "", "3 is not a direct transport"),
    ],
)
def test_one_transport_is_offered(given: object, expected: str, told: str) -> None:
    """What Ray has beside it is refused with the reason."""
    findings = Findings("call")

    assert check_transport("transport", given, findings) == expected

    assert [told in str(each) for each in findings.found] == ([True] if told else [])


def test_a_group_is_started_for_a_transport() -> None:
    """It is in the plan, with what it costs; without it the plan is as ever."""
    asked = GroupArguments(worker_class="my.Worker", bundle_counts=(2,))
    plain = plan_group(asked)
    spec = plan_group(evolve(asked, tensor_transport="gloo"))

    assert (started_for(plain.options), started_for(spec.options)) == ("", "gloo")
    assert plain.options == JsonObject()
    assert {each.options for each in plan_hosts(spec)} == {spec.options}
    assert [note for note in spec.notes if "beside the main thread" in note]
    with pytest.raises(PlanError, match="tensor_transport: 'nccl' is not offered"):
        plan_group(evolve(asked, tensor_transport="nccl"))


@pytest.mark.parametrize(
    ("link", "told"),
    [
        (LINKED, ""),
        (LinkFacts(), "the group was not started for gloo"),
        (LinkFacts(started_for="gloo"), "the group is in no link"),
        (LinkFacts(started_for="gloo", link="pair-2"), "not in one link with it"),
        (LinkFacts(started_for="gloo", link="pair-1", is_broken=True), "a transfer has failed"),
        (LinkFacts(started_for="gloo", link="pair-1", missing=(1,)), "rank 1 started after"),
    ],
)
def test_held_results_go_directly_where_they_can(link: LinkFacts, told: str) -> None:
    """Else through the store; the plan has the reason."""
    plan = _taken([0, 1], _held(4), link)
    routes = {each.route for each in plan.arguments[0].payloads}

    assert why_not_direct("gloo", "pair-1", link) in plan.reason
    assert routes == ({Route.PARTS} if told else {Route.DIRECT})
    assert plan.arguments[0].transport == ("" if told else "gloo")
    assert told in plan.reason


def test_what_does_not_go_directly_waits_for_its_makers() -> None:
    """They may have other calls to run first, and the reason says so."""
    assert (
        "'batch' was held for gloo, and the group is in no link: its makers cut it, each after the "
        "calls that it was sent before"
    ) in _taken([0, 1], _held(4), LinkFacts(started_for="gloo")).reason


def test_results_that_are_gone_with_their_makers_are_refused() -> None:
    """All or nothing; a slice without rows is missed by nobody."""
    held = _held(3, rows=2)

    with pytest.raises(PlanError) as raised:
        _taken([0, 1], held, lost=(0, 2))

    assert [(each.path, each.problem) for each in raised.value.findings] == [
        ("batch", "those who hold it were ended; its results are lost (slice 0 of 3)")
    ]
    assert _taken([0, 1], held, lost=(2,)).transport == "object store"


def test_results_in_the_store_go_as_ever() -> None:
    """Between linked groups too: nobody asked for anything else."""
    plan = _taken([0, 1], _held(4), held_for="")

    assert {each.route for each in plan.arguments[0].payloads} == {Route.PARTS}
    assert plan.arguments[0].cuts == ()
    assert plan.reason == (
        "2 in parts from worker to worker, through the store; "
        "results through the store: no direct transport was asked for"
    )


def test_a_call_asks_for_its_results_to_stay() -> None:
    """The plan says so."""
    plan = _taken([0, 1], _held(2), transport="gloo")

    assert plan.transport == "gloo"
    assert plan.reason.endswith("results stay with their makers for gloo, as the call asks")


def test_a_call_that_can_not_leave_its_results_is_refused() -> None:
    """With all reasons."""
    with pytest.raises(PlanError) as raised:
        _taken([0], _held(2), LinkFacts(), transport="gloo", streams=True, timed=True)

    assert [each.problem for each in raised.value.findings if each.path == "transport"] == [
        "the method streams, and gloo takes calls with one result",
        "gloo takes calls with one result, and times are a second one",
        "the group was not started for gloo",
    ]


def test_each_part_that_goes_directly_is_cut_by_a_call_of_its_own() -> None:
    """Ray lets such a call have one result; through the store one call cuts all of a source."""
    direct = _taken([0, 1, 2], _held(2))
    stored = _taken([0, 1, 2], _held(2), held_for="")

    assert direct.arguments[0].cuts == (
        Cut(source=0, receivers=(0,)),
        Cut(source=0, receivers=(1,)),
        Cut(source=1, receivers=(1,)),
        Cut(source=1, receivers=(2,)),
    )
    assert stored.arguments[0].cuts == (
        Cut(source=0, receivers=(0, 1)),
        Cut(source=1, receivers=(1, 2)),
    )
    assert (direct.cuts, stored.cuts) == (4, 2)


def test_what_was_held_for_a_transport_comes_out_by_cuts_alone() -> None:
    """Its maker alone can read it: a slice that is all of one source is cut too."""
    plan = _taken([0, 1], _held(2), LinkFacts())

    assert {each.route for each in plan.arguments[0].payloads} == {Route.PARTS}
    assert plan.arguments[0].cuts == (Cut(source=0, receivers=(0,)), Cut(source=1, receivers=(1,)))


def test_joins_for_several_receivers_are_calls_too() -> None:
    """Through the store the first receiver joins for all; directly each joins for itself."""
    layout = [[0, 1], [2, 3]]

    stored = _taken(layout, _held(4), held_for="")
    direct = _taken(layout, _held(4))

    assert (stored.arguments[0].joins, stored.cuts) == ((0, 2), 2)
    assert (direct.arguments[0].joins, direct.cuts) == ((), 0)


def test_padding_is_joined_for_several_receivers() -> None:
    """A slice of one part too, where rows are added to it."""
    held = _held(3, rows=5, policy=Interleaved())

    plan = _taken([[0, 1], [2, 3]], held, held_for="", policy=Padded())

    assert plan.arguments[0].joins == (0, 2)


@pytest.mark.parametrize(
    ("held_for", "layout", "sources", "expected"),
    [
        ("", [0, 1], 2, [(2, 2), (0, 0)]),
        ("", [[0, 1], [2, 3]], 4, [(4, 4), (2, 0)]),
        ("gloo", [0, 1], 2, [(2, 2), (0, 0)]),
        ("gloo", [[0, 1], [2, 3]], 4, [(4, 4), (4, 4)]),
    ],
)
def test_traffic_counts_whole_results_and_every_direct_receiver(
    held_for: str, layout: Any, sources: int, expected: list[tuple[int, int]]
) -> None:
    """Objects and parts for two nodes: the leaders of slices on one, all others on the other."""
    plan = _taken(layout, _held(sources), held_for=held_for)
    node_of = dict(enumerate("aaaa" if np.ndim(layout) == 1 else "abab"))
    told = {each.node: (each.objects, each.parts) for each in traffic(plan, node_of)}

    assert [told.get(node, (0, 0)) for node in "ab"] == expected


def test_axes_that_are_none_are_refused() -> None:
    """By the role itself, with what would work."""
    with pytest.raises(PlanError, match="axes: 3 is not the name of an axis"):
        Shard(3)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="axes: None is not the name of an axis"):
        Shard(("data_parallel", None), Even())  # type: ignore[arg-type]
