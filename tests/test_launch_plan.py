"""Where every rank is and what it is told, from where the hosts landed."""

from collections import Counter
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.configured import plan_overrides
from planner.environment import EnvironmentSources, Origin
from planner.findings import PlanError
from planner.launch import (
    HostFacts,
    LaunchPlan,
    environment_of,
    identity_of,
    plan_launch,
    slot_order,
)
from planner.mesh import NamedSharding
from tests.strategies import host_facts, launched, spec_of

AXES = ["data_parallel", "tensor_parallel"]


def told(plan: LaunchPlan, rank: int) -> dict[str, str | None]:
    """A rank's environment."""
    return {each.name: each.value for each in environment_of(plan, rank)}


def column(plan: LaunchPlan, name: str) -> list[str | None]:
    """One variable of every rank."""
    return [told(plan, rank).get(name) for rank in range(plan.world_size)]


def test_ranks_follow_the_placement_groups_of_the_nodes() -> None:
    """The rank contract of two nodes, two and one."""
    plan = launched([2, 1])
    assert column(plan, "RANK") == ["0", "1", "2"]
    assert column(plan, "WORLD_SIZE") == ["3"] * 3
    assert column(plan, "LOCAL_RANK") == ["0", "0", "0"]
    assert column(plan, "RANKPLAN_NODE_LOCAL_RANK") == ["0", "1", "0"]
    assert column(plan, "LOCAL_WORLD_SIZE") == ["2", "2", "1"]
    assert column(plan, "NODE_RANK") == column(plan, "GROUP_RANK") == ["0", "0", "1"]
    assert column(plan, "GROUP_WORLD_SIZE") == ["2"] * 3
    assert column(plan, "ROLE_NAME") == ["g"] * 3
    assert column(plan, "MASTER_ADDR") == ["10.0.0.1"] * 3
    assert column(plan, "MASTER_PORT") == ["29500"] * 3
    assert column(plan, "OMP_NUM_THREADS") == ["1", "1", None]


def test_gpu_visibility_decides_local_rank() -> None:
    """Isolated: device 0 of one. Shared: one of the group's. Unmasked: the node's index."""
    facts = [evolve(each, gpus=(str(5 - i),)) for i, each in enumerate(host_facts([2]))]
    spec = spec_of([2])
    isolated = plan_launch(spec, facts)
    assert [w.gpus for w in isolated.workers] == [("4",), ("5",)]
    assert column(isolated, "CUDA_VISIBLE_DEVICES") == ["4", "5"]
    shared = plan_launch(spec_of([2], gpu_visibility="shared"), facts)
    assert column(shared, "CUDA_VISIBLE_DEVICES") == ["4,5", "4,5"]
    assert column(shared, "LOCAL_RANK") == ["0", "1"]
    unmasked = plan_launch(spec_of([2], gpu_visibility="unmasked"), facts)
    assert column(unmasked, "CUDA_VISIBLE_DEVICES") == [None, None]
    assert column(unmasked, "LOCAL_RANK") == ["4", "5"]


@pytest.mark.parametrize(
    ("value", "expected"), [("1", ["0", "1"]), ("0", ["0", "0"]), ("", ["0", "0"])]
)
def test_ray_told_to_leave_devices_alone_means_unmasked(value: str, expected: list[str]) -> None:
    """The reference's programs ask in this way."""
    sources = EnvironmentSources(group={"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": value})
    assert column(launched([2], sources=sources), "LOCAL_RANK") == expected


def test_another_vendors_variable_is_used_where_its_gpus_are() -> None:
    """As Ray set it on the node."""
    (fact,) = host_facts([1])
    amd = evolve(fact, visible_variables=("HIP_VISIBLE_DEVICES",))
    assert column(plan_launch(spec_of([1]), [amd]), "HIP_VISIBLE_DEVICES") == ["0"]


def scattered(homes: list[int]) -> list[HostFacts]:
    """One unified placement group whose bundles landed on these nodes, in this order."""
    seen: Counter[int] = Counter()
    facts = []
    for home in homes:
        facts.append(
            HostFacts(node_id=f"n{home}", address=f"10.0.0.{home}", gpus=(str(seen[home]),))
        )
        seen[home] += 1
    return facts


def test_scattered_bundles_still_give_contiguous_nodes() -> None:
    """Addresses are compared as numbers: 10.0.0.9 comes before 10.0.0.10."""
    plan = plan_launch(spec_of([6]), scattered([10, 9, 9, 10, 9, 10]))
    assert [worker.address for worker in plan.workers] == ["10.0.0.9"] * 3 + ["10.0.0.10"] * 3
    assert [worker.bundle for worker in plan.workers] == [1, 2, 4, 0, 3, 5]
    assert column(plan, "RANKPLAN_NODE_LOCAL_RANK") == ["0", "1", "2"] * 2
    assert column(plan, "NODE_RANK") == ["0"] * 3 + ["1"] * 3


def test_a_chosen_order_is_kept_and_the_variables_are_still_right() -> None:
    """Tied groups over scattered bundles: local ranks count per node, whatever the bundle."""
    spec = spec_of([4], bundle_indices_list=[(0, [3, 0]), (1, [2, 1])])
    facts = scattered([1, 2, 1, 2])
    plan = plan_launch(spec, [facts[slot.bundle] for slot in spec.slots])
    assert [worker.bundle for worker in plan.workers] == [3, 0, 2, 1]
    assert [worker.name for worker in plan.workers] == [
        *("g-grp0-0", "g-grp0-1", "g-grp1-0", "g-grp1-1")
    ]
    assert [worker.node_rank for worker in plan.workers] == [0, 1, 1, 0]
    assert column(plan, "RANKPLAN_NODE_LOCAL_RANK") == ["0", "0", "1", "1"]
    assert [worker.tied_bundles for worker in plan.workers] == [(3, 0), None, (2, 1), None]
    assert plan.leaders == (0, 2)
    assert plan.rendezvous.address == "10.0.0.2"


def test_leaders_come_from_the_axis_where_there_is_one() -> None:
    """One source of truth; tied groups that disagree are refused."""
    mesh = NamedSharding([[2, 3], [0, 1]], AXES)
    assert launched([4], mesh=mesh).leaders == (2, 0)
    assert [w.data_parallel_shard for w in launched([4], mesh=mesh).workers] == [1, 1, 0, 0]
    assert launched([4]).leaders == (0, 1, 2, 3)
    tied = [(0, [0, 1]), (0, [2, 3])]
    assert launched([4], bundle_indices_list=tied).leaders == (0, 2)
    agree = NamedSharding([[0, 1], [2, 3]], AXES)
    assert launched([4], bundle_indices_list=tied, mesh=agree).leaders == (0, 2)
    with pytest.raises(PlanError) as caught:
        launched([4], bundle_indices_list=tied, mesh=NamedSharding([[0], [1], [2], [3]], AXES))
    assert str(caught.value) == (
        "worker group 'g': sharding_annotations: its axis 'data_parallel' has 4 shards led by "
        "ranks 0, 1, 2, 3, but bundle_indices_list has 2 tied groups led by 0, 2; make each tied "
        "group one data-parallel shard, leader at coordinate 0"
    )


def test_what_landed_wrongly_stops_the_launch() -> None:
    """A GPU used twice in the group, a missing one, a missing report."""
    spec = spec_of([3])
    facts = [evolve(each, gpus=("0",)) for each in host_facts([2])]
    with pytest.raises(PlanError) as caught:
        plan_launch(spec, [*facts, evolve(facts[0], gpus=())])
    assert [finding.path for finding in caught.value.findings] == [
        "rank 0",
        "GPU 0 of node 10.0.0.1",
    ]
    assert "ranks 1, 2 of one group hold it" in str(caught.value)
    assert "was promised 1 of a GPU and sees none" in str(caught.value)
    with pytest.raises(PlanError, match="facts: 2 hosts reported for 3 slots"):
        plan_launch(spec, facts)


def test_no_gpu_is_expected_where_none_was_asked_for() -> None:
    """CPU only: LOCAL_RANK is the place on the node."""
    plan = launched([2, 1], gpu_share=0)
    assert column(plan, "LOCAL_RANK") == ["0", "1", "0"]
    assert column(plan, "CUDA_VISIBLE_DEVICES") == [None] * 3
    assert {worker.visible for worker in plan.workers} == {None}


def test_precedence_inside_a_ranks_environment() -> None:
    """configure_worker over the group, force over the rank, the rank over everything else."""
    sources = EnvironmentSources(
        driver={"A": "driver", "OMP_NUM_THREADS": "8"},
        group={"A": "group", "B": "group"},
        forced={"LOCAL_RANK": "7", "B": "forced"},
    )
    spec = spec_of([2], sources=sources)
    answers: list[object] = [({}, {"A": "worker", "B": "worker"}, {}), ({}, {}, {})]
    spec = evolve(spec, overrides=plan_overrides(spec, answers))
    plan = plan_launch(spec, host_facts([2]))
    assert column(plan, "A") == ["worker", "group"]
    assert column(plan, "B") == ["forced", "forced"]
    assert column(plan, "LOCAL_RANK") == ["7", "7"]
    assert column(plan, "OMP_NUM_THREADS") == ["8", "8"]
    origins = {each.name: each.origin for each in environment_of(plan, 0)}
    assert (origins["A"], origins["B"]) == (Origin.CONFIGURE_WORKER, Origin.FORCED)
    assert (origins["LOCAL_RANK"], origins["RANK"]) == (Origin.FORCED, Origin.RANK)


def test_paths_of_configure_worker_merge_with_the_groups() -> None:
    """Its entries first; force replaces, and other variables are not merged."""
    sources = EnvironmentSources(
        driver={"PATH": "/bin", "LIST": "a"},
        group={"PYTHONPATH": "/group", "CPATH": "/group"},
        forced={"CPATH": "/forced"},
    )
    spec = spec_of([1], sources=sources)
    answer = {"PATH": "/cfg", "PYTHONPATH": "/cfg:/group", "CPATH": "/cfg", "LIST": "b"}
    spec = evolve(spec, overrides=plan_overrides(spec, [({}, answer, {})]))
    found = {each.name: each for each in environment_of(plan_launch(spec, host_facts([1])), 0)}
    assert found["PATH"].value == "/cfg:/bin"
    assert (found["PATH"].origin, found["PATH"].merged) == (
        Origin.CONFIGURE_WORKER,
        (Origin.DRIVER,),
    )
    assert found["PYTHONPATH"].value == "/cfg:/group"
    assert (found["CPATH"].value, found["LIST"].value) == ("/forced", "b")


@pytest.mark.parametrize("rank", [-1, 2, 99, True, "0", None])
def test_a_rank_that_is_not_there(rank: Any) -> None:
    """No rank is counted from the end."""
    for look in (environment_of, identity_of):
        with pytest.raises(IndexError) as caught:
            look(launched([2]), rank)
        assert str(caught.value) == (
            f"worker group 'g': rank: {rank!r} is not one of its ranks; give 0 to 1"
        )


def test_identities_name_place_and_process() -> None:
    """For messages."""
    plan = launched([2], mesh=NamedSharding([[0, 1]], AXES))
    assert str(identity_of(plan, 1, 42)) == (
        "rank 1 (data_parallel=0, tensor_parallel=1) on node 10.0.0.1, GPU 1, pid 42"
    )


@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_landing_gives_a_right_contract(homes: list[int], chance: Any) -> None:
    """Ranks once each, nodes contiguous, local ranks from 0, GPUs in order."""
    spec, facts = spec_of([len(homes)]), scattered(homes)
    plan = plan_launch(spec, facts)
    assert sorted(slot_order(spec, facts)) == list(range(len(homes)))
    nodes = [worker.node_rank for worker in plan.workers]
    assert nodes == sorted(nodes)
    sizes = Counter(worker.node_id for worker in plan.workers)
    for worker in plan.workers:
        assert worker.local_world_size == sizes[worker.node_id]
        assert worker.gpus == (str(worker.node_local_rank),)
    again = list(zip(spec.slots, facts, strict=True))
    chance.shuffle(again)
    turned = plan_launch(
        evolve(spec, slots=tuple(slot for slot, _ in again)), [f for _, f in again]
    )
    assert [worker.bundle for worker in turned.workers] == [w.bundle for w in plan.workers]
    assert turned == plan
    assert hash(turned) == hash(plan)
