"""Giving tied groups up and taking them back: as a plan, and for calls on those that serve."""

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.failure_policy import Domain, FailurePolicy
from planner.findings import PlanError
from planner.inventory import BundleFacts
from planner.launch import LaunchPlan, plan_launch
from planner.mesh import NamedSharding
from planner.recovery import RecoveryPlan
from planner.resizing import (
    ResizeFacts,
    absent_after,
    plan_resize,
    serving_groups,
    serving_mesh,
)
from runtime import InconsistentGroupError, RayWorkerBuilder, RayWorkerGroup, RecoveryError
from runtime.testing import InProcessCluster
from tests.strategies import host_facts, spec_of

PLAN = plan_launch(
    spec_of(
        [4, 4],
        bundle_indices_list=[(node, [first, first + 1]) for node in (0, 1) for first in (0, 2)],
    ),
    host_facts([4, 4]),
)
"""Four engines of two ranks each, on two nodes."""


def landed(plan: LaunchPlan = PLAN, **moved: str) -> ResizeFacts:
    """Every bundle where it was, but for those of some nodes; those are not there any more."""
    return ResizeFacts(
        live={moved.get(each.node_id, each.node_id) for each in plan.workers},
        landed=tuple(
            BundleFacts(
                placement_group=each.placement_group,
                bundle=each.bundle,
                node_id=moved.get(each.node_id, each.node_id),
                address="",
            )
            for each in plan.workers
        ),
    )


def resized(
    now: set[int], then: object, generation: int = 1, facts: ResizeFacts | None = None
) -> RecoveryPlan:
    """The plan to get from some tied groups to others."""
    serving = {group: group in now for group in range(4)}
    return plan_resize(PLAN, then, generation, serving, facts or landed())


groups = st.sets(st.integers(0, 3), min_size=1)


@given(now=groups, then=groups, generation=st.integers(1, 5))
def test_laws_of_resizing(now: set[int], then: set[int], generation: int) -> None:
    """What is there and wanted is kept; the rest is ended or started; nothing else.

    The group gets a generation only where something starts, and the new names are of that one.
    """
    made = resized(now, then, generation)
    group_of = [worker.tied_group for worker in PLAN.workers]
    assert {group_of[rank] for rank in made.keep} == now & then
    assert {group_of[rank] for rank in made.end} == now - then
    assert {group_of[each.rank] for each in made.start} == then - now
    assert made.generation == generation - (then <= now)
    assert all(each.name.endswith(f".g{made.generation}") for each in made.start)
    assert made.is_possible


def test_ranks_come_back_where_their_bundles_are() -> None:
    """The cluster may have moved them meanwhile."""
    start = resized({0}, {0, 2}, facts=landed(node1="n9")).start
    assert [(each.placement_group, each.bundle, each.node_id) for each in start] == [
        (1, 0, "n9"),
        (1, 1, "n9"),
    ]
    assert [each.moved_from for each in start] == ["node1", "node1"]
    assert [each.moved_from for each in resized({0}, {2}).start] == [None, None]


def test_growing_onto_a_lost_node_says_what_is_missing() -> None:
    """Also where a bundle has landed nowhere yet; the ranks of other nodes have their places."""
    there = landed()
    lost = evolve(there, live={"node0"})
    nowhere = evolve(there, landed=there.landed[:5])
    made = resized({0}, {0, 1, 2, 3}, facts=lost)
    assert made.missing == (
        (
            "4 bundles for ranks 4-7: node 10.0.0.2 is lost, and the cluster has not given them "
            "to another yet: add a node, or leave out tied groups 2, 3"
        ),
    )
    assert [each.rank for each in made.start] == [2, 3]
    assert resized({0}, {0, 1, 2, 3}, facts=nowhere).missing[0].startswith("3 bundles for ranks 5-")
    # What only goes on, or goes, needs no place.
    assert resized({0, 2}, {0, 2}, facts=lost).is_possible
    assert resized({0, 2}, {0}, facts=lost).is_possible


def test_growing_into_a_placement_group_that_was_removed() -> None:
    """No node can help."""
    there = landed()
    removed = evolve(there, landed=[each for each in there.landed if not each.placement_group])
    made = resized({0}, {0, 1, 2}, facts=removed)
    assert made.missing == (
        (
            "2 bundles for ranks 4-5: placement group 1 was removed from the cluster: end the "
            "group, and start one on a cluster that is reserved again"
        ),
    )
    assert resized({0}, {0, 1}, facts=removed).is_possible


def test_who_has_left_and_come_back() -> None:
    """Step by step, as a group keeps count."""
    gone = resized({0, 1, 2, 3}, {0, 1})
    absent = absent_after(frozenset(), gone)
    assert absent == {4, 5, 6, 7}
    assert serving_groups(PLAN, absent) == {0: True, 1: True, 2: False, 3: False}
    back = plan_resize(PLAN, [0, 3], 1, serving_groups(PLAN, absent), landed())
    assert absent_after(absent, back) == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ([], "tied_groups: none would be left; keep one, or end the group"),
        ([0, 4, -1], "tied_groups[1]: there is no tied group 4; use 0 to 3"),
        ([0, "1"], "tied_groups[1]: there is no tied group '1'; use 0 to 3"),
        (2, "tied_groups: 2 is no list of tied groups; give a list"),
        ("01", "tied_groups: '01' is no list of tied groups; give a list"),
    ],
)
def test_tied_groups_that_cannot_be(wanted: object, told: str) -> None:
    """Each is named."""
    with pytest.raises(PlanError) as raised:
        resized({0}, wanted)
    assert str(raised.value.findings[0]) == told


MESH = NamedSharding([[0, 1], [2, 3], [4, 5], [6, 7]], ["data_parallel", "tensor_parallel"])


def test_the_axes_of_those_that_serve() -> None:
    """Coordinates at which nobody serves are left out; the order stays."""
    assert serving_mesh(MESH, ()) is MESH
    assert serving_mesh(MESH, {2, 3, 6, 7}) == NamedSharding([[0, 1], [4, 5]], MESH.names)
    assert serving_mesh(MESH, {1, 3, 5, 7}) == NamedSharding([[0], [2], [4], [6]], MESH.names)
    permuted = NamedSharding([[[3, 1], [2, 0]]], ["a", "b", "c"])
    assert serving_mesh(permuted, {0, 1}) == NamedSharding([[[3], [2]]], ["a", "b", "c"])


@given(absent=st.sets(st.integers(0, 7)))
def test_laws_of_the_axes_of_those_that_serve(absent: set[int]) -> None:
    """All that serve and nobody else, each at the place it had; or the axes as they were."""
    found = serving_mesh(MESH, absent)
    if found != MESH:
        assert set(found.ranks) == set(MESH.ranks) - absent
        for rank in found.ranks:
            column = found.get_ranks_by_coord(
                tensor_parallel=found.get_worker_coords(rank)["tensor_parallel"]
            )
            places = {MESH.get_worker_coords(each)["tensor_parallel"] for each in column}
            assert len(places) == 1


# The same, carried out.


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with four bundles each; nothing may be alive at the end of a test."""
    with InProcessCluster([4, 4]) as made:
        yield made
        assert made.live == []


def group_on(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    """Four engines of two ranks."""
    return RayWorkerGroup(
        cluster,
        RayWorkerBuilder("tests.agreeing_workers.Agreeing"),
        name_prefix="g",
        sharding_annotations=MESH,
        bundle_indices_list=[(node, [first, first + 1]) for node in (0, 1) for first in (0, 2)],
        failure_policy=FailurePolicy(domain=Domain.TIED_GROUP),
        **more,
    )


def test_calls_of_a_smaller_group_are_cut_over_those_that_serve(cluster: InProcessCluster) -> None:
    """Batches, lists of slices, and calls of all; single ranks keep their coordinates."""
    rows = list(range(6))
    with group_on(cluster) as group:
        group.resize([0, 2])
        assert group.call("seen", rows).per_shard() == [(0, [0, 1, 2]), (4, [3, 4, 5])]
        future = group.run_all_workers_sharded_data(
            "seen",
            in_sharded_axes=["data_parallel"],
            replicate_on_axes=["tensor_parallel"],
            output_is_replicated=["tensor_parallel"],
            batch=[[7], [8]],
        )
        assert future.get_results(group) == [(0, [7]), (4, [8])]
        assert group.at(data_parallel=2).call("highest").result() == 5
        group.resize([0, 1, 2, 3])
        assert [len(part) for _, part in group.call("seen", rows).per_shard()] == [2, 2, 1, 1]


def test_a_call_of_a_given_up_rank_is_told_what_works(cluster: InProcessCluster) -> None:
    """Through the group and through the rank's handle, before anything is sent."""
    with group_on(cluster) as group:
        handle = group.workers[7]
        group.resize([0, 2])
        told = r"rank 7: they were given up by resize\(\); .* group.resize\(\[0, 2, 3\]\)"
        with pytest.raises(InconsistentGroupError, match=told):
            group.run_single_worker_single_data("highest", 7)
        with pytest.raises(InconsistentGroupError, match=told):
            handle.highest.remote()


def test_a_change_of_size_that_cannot_be_changes_nothing(cluster: InProcessCluster) -> None:
    """What is missing is said before anything is ended; a smaller change goes well."""
    with group_on(cluster) as group:
        group.resize([0, 1])
        cluster.kill_node(1)
        before = cluster.live
        with pytest.raises(RecoveryError, match=r"2 bundles for ranks 4-5: node 10\.0\.0\.1"):
            group.resize([1, 2])
        assert cluster.live == before
        assert group.resize([1]).end == (0, 1)


def test_plan_and_group_agree_on_the_generation(cluster: InProcessCluster) -> None:
    """Only what starts something makes one."""
    with group_on(cluster) as group:
        assert group.resize([0, 1, 2]).generation == 0
        assert group.recover().generation == 0
        assert group.resize([0, 1, 2, 3]).generation == 1
        assert group.resize([0, 1, 2]).generation == 1
        assert [worker.name for worker in group.plan.workers[6:]] == ["g-grp3-0.g1", "g-grp3-1.g1"]
        assert group.resize([0, 1, 2, 3]).generation == 2


def test_a_change_of_size_beside_a_call_leaves_the_axes_of_others_alone(
    cluster: InProcessCluster,
) -> None:
    """What is kept for those that serve is theirs, whoever else served by the time it was made."""
    with group_on(cluster) as group:

        class Kept(dict[tuple[str, frozenset[int]], NamedSharding]):
            def __contains__(self, key: object) -> bool:
                if not self:
                    group.resize([0, 1])
                return super().__contains__(key)

        group.resize([0, 1, 2])
        group._serving = Kept()
        with pytest.raises(InconsistentGroupError, match="ranks 4-5: they were given up"):
            group.call("highest")
        group.resize([0, 1, 2])
        assert sorted(group.call("highest").by_rank()) == [0, 1, 2, 3, 4, 5]
