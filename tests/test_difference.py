"""What differs between a prediction and what landed, and what of it stops a launch."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.difference import PlanDifference, difference
from planner.environment import EnvironmentSources
from planner.findings import PlanError
from planner.group import GroupArguments
from planner.inventory import Inventory
from planner.launch import LaunchPlan, Rendezvous
from planner.nodes import Gpu
from planner.prediction import predict_launch
from planner.show import difference_table
from planner.virtual_cluster import plan_cluster
from tests.places_cases import GOLDEN, GROUP, axes, small_nodes

TENSOR = evolve(GROUP, mesh=axes(data_parallel=2, tensor_parallel=2))


def _plan(*gpus: int, group: GroupArguments = TENSOR, unified: bool = False) -> LaunchPlan:
    counts = [4] if unified else [2, 2]
    spec = plan_cluster(bundle_ct_per_node_list=counts, strategy="PACK")
    return predict_launch(spec, group, small_nodes(*gpus), unified=unified)


def test_equal_plans_do_not_differ() -> None:
    """A plan is as predicted when it is the prediction."""
    found = difference(_plan(2, 2), _plan(2, 2))
    assert not found
    assert found == PlanDifference(group="policy")
    assert found.text() == "worker group 'policy' is as predicted"


def test_port_is_no_difference() -> None:
    """A prediction can't know the rendezvous port, so any port is as predicted."""
    plan = _plan(2, 2)
    up = evolve(plan, rendezvous=Rendezvous(address=plan.rendezvous.address, port=12_345))
    assert not difference(plan, up)


def test_other_node_names_are_told_once_for_each_node() -> None:
    """Nodes are compared by their place: their names differ, their ranks do not."""
    plan = _plan(2, 2)
    renamed = evolve(
        plan,
        workers=tuple(
            evolve(each, node_id=f"real-{each.node_id}", address=f"192.0.2.{each.node_rank}")
            for each in plan.workers
        ),
    )
    found = difference(plan, renamed)
    assert [str(each) for each in found.nodes] == [
        "node 0: predicted n0 (10.0.0.1), found real-n0 (192.0.2.0)",
        "node 1: predicted n1 (10.0.0.2), found real-n1 (192.0.2.1)",
    ]
    assert (found.ranks, found.broken) == ((), ())


def test_cut_axis_is_broken() -> None:
    """A tensor-parallel group on one node in the prediction and on two in reality stops it."""
    found = difference(_plan(4, unified=True), _plan(3, 1, unified=True))
    names = [each.name for each in found.broken]
    assert "tensor_parallel stays in a node" in names
    [cut] = [each for each in found.broken if each.name.startswith("tensor")]
    assert cut.ranks == (2, 3)


def test_axis_that_was_cut_already_is_not_broken() -> None:
    """What did not hold in the prediction can't break."""
    group = evolve(GROUP, mesh=axes(tensor_parallel=4))
    found = difference(_plan(2, 2, group=group), _plan(1, 2, 1, group=group, unified=True))
    assert found
    assert not found.broken


def _with_uuids(plan: LaunchPlan, *uuids: str) -> LaunchPlan:
    workers = zip(plan.workers, uuids, strict=True)
    return evolve(
        plan,
        workers=tuple(evolve(each, uuids=(uuid,) if uuid else ()) for each, uuid in workers),
    )


def test_another_gpu_under_the_same_number_is_told() -> None:
    """Where both sides know the UUID: a GPU was exchanged, or the node is another."""
    plan = _plan(2, 2)
    told = _with_uuids(plan, "GPU-a", "GPU-b", "GPU-c", "")
    found = difference(told, _with_uuids(plan, "GPU-a", "GPU-x", "", "GPU-d"))
    assert [str(each) for each in found.ranks] == ["rank 1: GPU UUID: predicted GPU-b, found GPU-x"]
    assert not found.broken


def test_a_prediction_takes_uuids_from_the_inventory() -> None:
    """Of the GPUs that each worker gets; where there are none, none are predicted."""
    gpus = (Gpu(kind="H100", index=0, uuid="GPU-a"), Gpu(kind="H100", index=1, uuid="GPU-b"))
    nodes = Inventory(evolve(node, gpus=gpus) for node in small_nodes(2).nodes)
    spec = plan_cluster(bundle_ct_per_node_list=[2])
    plan = predict_launch(spec, GROUP, nodes)
    assert [worker.uuids for worker in plan.workers] == [("GPU-a",), ("GPU-b",)]
    bare = predict_launch(spec, GROUP, small_nodes(2))
    assert [worker.uuids for worker in bare.workers] == [(), ()]


def test_missing_gpu_is_broken() -> None:
    """A rank that was promised a GPU and has none is named, with its node."""
    plan = _plan(2, 2)
    lost = evolve(plan, workers=(*plan.workers[:3], evolve(plan.workers[3], gpus=())))
    [broken] = difference(plan, lost).broken
    assert (broken.name, broken.ranks) == ("every rank has its GPU", (3,))
    assert "10.0.0.2" in str(broken.finding())


def test_gpu_used_twice_is_broken() -> None:
    """Two ranks on one GPU of one node are named."""
    plan = _plan(2, 2)
    twice = evolve(
        plan, workers=(plan.workers[0], evolve(plan.workers[1], gpus=("0",)), *plan.workers[2:])
    )
    broken = {each.name: each.ranks for each in difference(plan, twice).broken}
    assert broken == {"no GPU is used twice": (0, 1)}


def test_other_world_size_is_broken() -> None:
    """A rank that is not there is found before anything else is compared."""
    [broken] = difference(_plan(2, 2, group=GROUP), _plan(2, 2, group=GROUP)).broken or [None]
    assert broken is None
    fewer = evolve(_plan(2, 2), workers=_plan(2, 2).workers[:3])
    assert [each.name for each in difference(_plan(2, 2), fewer).broken] == ["every rank is there"]


def test_engine_that_leaves_its_node_is_broken() -> None:
    """A tied group on one node must not come back on two."""
    group = evolve(GROUP, bundle_indices_list=[(0, [0, 1]), (0, [2, 3])])
    found = difference(_plan(4, group=group, unified=True), _plan(3, 1, group=group, unified=True))
    assert [each.name for each in found.broken] == ["a tied group stays on its node"]


def test_ranks_that_differ_alike_are_told_together() -> None:
    """One line for all ranks with the same difference."""
    plan = _plan(2, 2)
    other = evolve(plan, workers=tuple(evolve(each, ports=(9, 9)) for each in plan.workers))
    [together] = difference(plan, other).ranks
    assert str(together) == "ranks 0-3: ports: predicted none, found 9,9"


def test_environment_is_compared_by_name_and_secrets_stay_hidden() -> None:
    """A changed variable is named with both origins; a credential's value is not."""
    before = evolve(GROUP, sources=EnvironmentSources(group={"MODE": "a", "API_KEY": "one"}))
    after = evolve(GROUP, sources=EnvironmentSources(group={"MODE": "b", "API_KEY": "two"}))
    found = difference(_plan(2, 2, group=before), _plan(2, 2, group=after))
    assert [str(each) for each in found.fields] == [
        "environment.MODE: predicted a from env_vars, found b from env_vars"
    ]


def test_driver_environment_that_was_not_predicted_is_one_line() -> None:
    """A prediction without the driver's environment does not list it."""
    after = evolve(GROUP, sources=EnvironmentSources(driver={"A": "1", "B": "2"}))
    found = difference(_plan(2, 2, group=GROUP), _plan(2, 2, group=after))
    assert [str(each) for each in found.fields] == [
        "environment from driver: predicted not known, found 2 variables"
    ]


@pytest.mark.parametrize("width", [60, 120])
def test_report_names_what_is_broken_first(width: int) -> None:
    """The table is for people: what is broken stands above the rest."""
    missing = GOLDEN["missing_gpu"]()
    assert isinstance(missing, PlanDifference)
    shown = difference_table(missing, width)
    assert shown.index("tensor_parallel stays") < shown.index("LOCAL_WORLD_SIZE")
    assert max(map(len, shown.splitlines())) <= width


@given(st.permutations(range(4)))
def test_any_change_of_gpus_is_found(order: list[int]) -> None:
    """Ranks that change their GPUs are found unless nothing changed."""
    plan = _plan(4, unified=True)
    moved = evolve(
        plan,
        workers=tuple(
            evolve(each, gpus=plan.workers[at].gpus)
            for each, at in zip(plan.workers, order, strict=True)
        ),
    )
    found = difference(plan, moved)
    changed = tuple(rank for rank in range(4) if order[rank] != rank)
    assert tuple(sorted(rank for each in found.ranks for rank in each.ranks)) == changed


def test_only_launch_plans_are_compared() -> None:
    """Both arguments are checked at once."""
    with pytest.raises(PlanError) as caught:
        difference(None, "plan.json")  # type: ignore[arg-type]
    assert [str(finding) for finding in caught.value.findings] == [
        "predicted: a value of type NoneType; give a LaunchPlan",
        "observed: a value of type str; give a LaunchPlan",
    ]
