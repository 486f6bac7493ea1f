"""Ranks that start again: with what, where, and what is checked before they become workers."""

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve

from planner.findings import PlanError
from planner.group import GroupSpec, plan_hosts
from planner.host_facts import HostFacts
from planner.inventory import BundleFacts
from planner.launch import LaunchPlan, plan_launch, slot_order
from planner.mesh import NamedSharding
from planner.prediction import port_ranges
from planner.recovery import (
    Domain,
    FailurePolicy,
    RecoveryFacts,
    RestartedRank,
    plan_recovery,
)
from planner.restart import (
    bundles_on,
    in_rank_order,
    moved_bundles,
    plan_restart,
    restart_hosts,
    restarted_spec,
    with_first_names,
)
from runtime import DifferenceError, RayWorkerBuilder, RayWorkerGroup
from runtime.in_process_backend import World
from runtime.recovering import start_again
from runtime.testing import Fault, FaultKind, InProcessCluster
from tests.strategies import host_facts, spec_of

SPEC = spec_of([2, 2], bundle_indices_list=[(0, [0]), (0, [1]), (1, [0]), (1, [1])])
FACTS = host_facts([2, 2])
PLAN = plan_launch(SPEC, FACTS, meeting_address="192.168.0.1")


def struck(*ranks: int, free: tuple[tuple[int, int, str], ...] = ()) -> tuple[RestartedRank, ...]:
    """Who starts again after these ranks have failed; a bundle in ``free`` loses their nodes."""
    lost = tuple(dict.fromkeys(PLAN.workers[rank].node_id for rank in ranks)) if free else ()
    facts = RecoveryFacts(failed=ranks, lost_nodes=lost, free_slots=free)
    return plan_recovery(PLAN, facts, FailurePolicy(domain=Domain.RANK), 1).start


def restarted(
    start: tuple[RestartedRank, ...], landed: dict[int, HostFacts], spec: GroupSpec = SPEC
) -> LaunchPlan:
    """The plan once these ranks have landed."""
    facts = [landed.get(rank, fact) for rank, fact in enumerate(FACTS)]
    return plan_restart(PLAN, restarted_spec(spec, start), facts, start)


def refused(start: tuple[RestartedRank, ...], landed: dict[int, HostFacts]) -> list[str]:
    """The findings about ranks that have landed."""
    with pytest.raises(PlanError) as caught:
        restarted(start, landed)
    assert caught.value.subject == "worker group 'g', restart"
    return [str(each) for each in caught.value.findings]


def test_a_rank_that_comes_back_to_its_place() -> None:
    """It has a new name; the others keep everything, and the group meets where it met."""
    made = restarted(struck(2), {2: evolve(FACTS[2], pid=9, port=1234)})
    old = PLAN.workers
    assert made.workers == (*old[:2], evolve(old[2], name="g-1-0.g1"), old[3])
    assert made.rendezvous == PLAN.rendezvous
    assert with_first_names(made) == PLAN


def test_rank_zero_is_met_at_the_address_that_was_reached() -> None:
    """With the new host's port; on another node, at that node's address."""
    made = restarted(struck(0), {0: evolve(FACTS[0], port=1234)})
    assert (made.rendezvous.address, made.rendezvous.port) == ("192.168.0.1", 1234)
    start = struck(0, 1, free=((0, 0, "n9"), (0, 1, "n9")))
    away = [evolve(FACTS[rank], node_id="n9", address="10.0.0.9") for rank in (0, 1)]
    made = restarted(start, dict(enumerate(away)))
    assert made.rendezvous.address == "10.0.0.9"


def test_a_rank_on_the_wrong_node() -> None:
    """Named with its bundle, the node it was for and the node that it is on."""
    elsewhere = evolve(FACTS[2], node_id="n9", address="10.0.0.9")
    assert refused(struck(2), {2: elsewhere}) == [
        (
            "rank 2: it was to start again in bundle 0 of placement group 1 on node node1, and it "
            "is on node 10.0.0.9 (n9); look at the node and its bundles, then call recover() "
            "again, or end the group"
        )
    ]


def test_a_rank_on_another_gpu_of_its_node() -> None:
    """Even when nobody else has that one."""
    assert refused(struck(2), {2: evolve(FACTS[2], gpus=("5",))}) == [
        (
            "rank 2: it was to start again with GPU 0 of node 10.0.0.2, and it has GPU 5; look at "
            "the node and its bundles, then call recover() again, or end the group"
        )
    ]


def test_everything_about_a_restart_is_found_at_once() -> None:
    """What the launch checks too: a GPU that is missing, and one that two ranks hold."""
    landed = {0: evolve(FACTS[0], gpus=()), 2: evolve(FACTS[2], gpus=("1",))}
    found = refused(struck(0, 2), landed)
    assert [each.partition(":")[0] for each in found] == [
        "rank 0",
        "rank 2",
        "rank 0",
        "GPU 1 of node 10.0.0.2",
    ]


def test_a_lost_node_is_left_for_the_planned_one() -> None:
    """On any other the rank is in the wrong place."""
    start = struck(3, 2, free=((1, 0, "n9"), (1, 1, "n9")))
    away = {rank: evolve(FACTS[rank], node_id="n9", address="10.0.0.9") for rank in (2, 3)}
    made = restarted(start, away)
    assert [each.node_id for each in made.workers] == ["node0", "node0", "n9", "n9"]
    assert len(refused(start, {**away, 3: evolve(away[3], node_id="n8")})) == 1


def test_a_rank_may_come_back_anywhere() -> None:
    """Where no node is named."""
    (back,) = struck(3)
    anywhere = (evolve(back, node_id=None),)
    made = restarted(anywhere, {3: evolve(FACTS[3], node_id="n9", address="10.0.0.9")})
    assert made.workers[3].node_id == "n9"


def test_ports_are_kept_on_the_old_machine_only() -> None:
    """There they are free again."""
    spec = evolve(SPEC, places=evolve(SPEC.places, ports_per_worker=4))
    old = plan_launch(spec, FACTS)
    start = struck(2)
    taken = evolve(spec, places=evolve(spec.places, ports_taken=port_ranges(old)))
    assert plan_launch(taken, FACTS).workers[2].ports != old.workers[2].ports
    back = plan_restart(old, restarted_spec(taken, start), FACTS, start)
    assert back.workers[2].ports == old.workers[2].ports is not None
    away = [*FACTS[:2], evolve(FACTS[2], node_id="n9", address="10.0.0.9"), FACTS[3]]
    anywhere = tuple(evolve(each, node_id=None) for each in start)
    moved = plan_restart(old, restarted_spec(taken, anywhere), away, anywhere)
    assert moved.workers[2].ports == plan_launch(taken, away).workers[2].ports


def test_hosts_of_a_restart_are_those_of_the_launch() -> None:
    """But for their names and bundles."""
    start = (RestartedRank(rank=3, name="g-1-1.g1", placement_group=5, bundle=7),)
    ((rank, request),) = restart_hosts(SPEC, start)
    assert rank == 3
    assert request == evolve(plan_hosts(SPEC)[3], name="g-1-1.g1", placement_group=5, bundle=7)
    assert restarted_spec(SPEC, start).slots[3].bundle == 7
    assert restarted_spec(SPEC, start).slots[:3] == SPEC.slots[:3]


def test_slots_in_the_order_of_ranks() -> None:
    """The same hosts give every rank what it had, whatever order the hardware made."""
    spec = spec_of([3])
    facts = [evolve(each, gpus=(str(2 - at),)) for at, each in enumerate(host_facts([3]))]
    order = slot_order(spec, facts)
    assert order == (2, 1, 0)
    ordered = in_rank_order(spec, order)
    again = plan_launch(ordered, [facts[index] for index in order])
    first = plan_launch(spec, facts)
    assert [each.bundle for each in again.workers] == [2, 1, 0]
    assert [each.gpus for each in again.workers] == [each.gpus for each in first.workers]
    assert [each.tied_group for each in again.workers] == [0, 1, 2]


def test_bundles_that_have_moved() -> None:
    """From a lost node to a living one; the others are waited for."""
    wanted = bundles_on(PLAN, {"node1"})
    assert wanted == ((1, 0), (1, 1))

    def found(*nodes: str) -> tuple[tuple[int, int, str], ...]:
        landed = [
            BundleFacts(placement_group=1, bundle=bundle, node_id=node, address="")
            for bundle, node in enumerate(nodes)
        ]
        return moved_bundles(wanted, ["node1"], landed, {"node0", "n9", "node1"})

    assert found("n9", "n9") == ((1, 0, "n9"), (1, 1, "n9"))
    assert found("n9", "node1") == ((1, 0, "n9"),)
    assert found("n9", "n8") == ((1, 0, "n9"),)
    assert found("n9") == ((1, 0, "n9"),)
    # A rank that was given up keeps its bundle for its return.
    assert bundles_on(PLAN, {"node1"}, absent={2}) == ((1, 1),)


# The same, carried out.

MESH = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])
WATCHED = Fault(kind=FaultKind.SLOW, method="__init__", call=0)


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each; nothing may be alive at the end of a test."""
    with InProcessCluster([2, 2], faults=[WATCHED]) as made:
        made.backend.nodes.add("node-2")
        yield made
        assert made.live == []


def group_on(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    """A group whose ranks fail one by one."""
    return RayWorkerGroup(
        cluster,
        RayWorkerBuilder("tests.fault_workers.Worker"),
        name_prefix="g",
        sharding_annotations=MESH,
        failure_policy=FailurePolicy(domain=Domain.RANK),
        **more,
    )


def made_on(cluster: InProcessCluster) -> list[int]:
    """The ranks whose constructors have been called."""
    return sorted(rank for rank, method, _ in cluster.struck if method == "__init__")


def test_no_worker_is_made_in_the_wrong_place(cluster: InProcessCluster) -> None:
    """The host is ended before its constructor runs; later the recovery works."""
    with group_on(cluster) as group:
        cluster.kill_worker(group, 3)
        cluster.backend.moved[1] = 2
        with pytest.raises(PlanError, match=r"rank 3: it was to start again .* on node node-1"):
            group.recover()
        assert made_on(cluster) == [0, 1, 2, 3]
        assert "g-1-1.g1" not in cluster.live
        assert group.broken == (3,)
        del cluster.backend.moved[1]
        group.recover()
        assert group.plan.workers[3].node_id == "node-1"
        assert made_on(cluster) == [0, 1, 2, 3, 3]


def test_what_was_promised_must_hold_after_a_restart(cluster: InProcessCluster) -> None:
    """A rank whose bundle has moved would cut an axis that was promised to stay on a node."""
    with group_on(cluster) as first:
        meeting = evolve(first.plan.rendezvous, port=None)
        promised = evolve(first.plan, rendezvous=meeting)
    with group_on(cluster, expected_plan=promised) as group:
        assert not group.difference
        cluster.kill_worker(group, 3)
        group.recover()
        assert not group.difference
        group.resize([0, 1, 2])
        cluster.backend.moved[1] = 2
        before = made_on(cluster)
        with pytest.raises(DifferenceError, match="tensor_parallel stays in a node"):
            group.resize([0, 1, 2, 3])
        assert made_on(cluster) == before
        del cluster.backend.moved[1]
        group.resize([0, 1, 2, 3])
        assert group.difference is not None
        assert not group.difference.broken


def test_an_error_of_the_ending_does_not_hide_that_of_the_restart(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the launch."""

    def refuse(*_: object) -> None:
        raise ConnectionError("nobody answers")

    with group_on(cluster) as group:
        cluster.kill_worker(group, 3)
        cluster.backend.moved[1] = 2
        plan = group.plan_recovery()
        with monkeypatch.context() as patch:
            patch.setattr(World, "kill", refuse)
            with pytest.raises(PlanError) as caught:
                start_again(cluster.backend, group._launched, plan.start, 10.0)
        assert any("g-1-1.g1: ConnectionError" in each for each in caught.value.__notes__)
    cluster.shutdown()
