"""A dry run: complete launch plans from an inventory, without Ray."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.codec import plan_from_json, plan_to_json
from planner.environment import EnvironmentSources
from planner.findings import PlanError, ResourceInsufficientError
from planner.group import GroupArguments
from planner.group_places import PlaceArguments
from planner.inventory import Inventory
from planner.launch import environment_of
from planner.node_choice import remaining_nodes
from planner.nodes import Node
from planner.prediction import ClusterIntent, Prediction, predict_launch, predict_launches
from planner.shapes import gb200_racks, h100_nodes
from planner.virtual_cluster import plan_cluster
from tests.conftest import Golden
from tests.places_cases import GOLDEN, GROUP, axes, mixed_nodes, small_nodes


@pytest.mark.parametrize("name", GOLDEN)
def test_places_are_the_kept_ones(name: str, golden: Golden) -> None:
    """Where each program's ranks go is, to the byte, what was read and found right."""
    made = GOLDEN[name]()
    if not isinstance(made, Prediction):
        golden(f"places/{name}", plan_to_json(made))
        assert plan_from_json(plan_to_json(made)) == made
        return
    golden(f"places/{name}/reservation", plan_to_json(made.reservation))
    for launch in made.launches:
        golden(f"places/{name}/{launch.group}", plan_to_json(launch))
        assert plan_from_json(plan_to_json(launch)) == launch


def test_prediction_is_complete_but_for_the_port() -> None:
    """Every rank has its node, GPU and environment; only the rendezvous port is open."""
    spec = plan_cluster(bundle_ct_per_node_list=[2, 2])
    plan = predict_launch(spec, GROUP, small_nodes(2, 2))
    assert [(w.node_id, w.gpus) for w in plan.workers] == [
        ("n0", ("0",)),
        ("n0", ("1",)),
        ("n1", ("0",)),
        ("n1", ("1",)),
    ]
    assert (plan.rendezvous.address, plan.rendezvous.port) == ("10.0.0.1", None)
    told = {each.name: each.value for each in environment_of(plan, 3)}
    assert (told["NODE_RANK"], told["CUDA_VISIBLE_DEVICES"]) == ("1", "1")
    assert "MASTER_PORT" not in told


def test_entries_of_a_cluster_are_nodes_of_their_own() -> None:
    """``[2, 2]`` are two nodes as long as there are two, though one could hold both."""
    spec = plan_cluster(bundle_ct_per_node_list=[2, 2])
    apart = predict_launch(spec, GROUP, small_nodes(4, 4))
    together = predict_launch(spec, GROUP, small_nodes(4))
    assert [worker.node_id for worker in apart.workers] == ["n0", "n0", "n1", "n1"]
    assert [worker.node_id for worker in together.workers] == ["n0"] * 4


def test_a_node_that_exactly_fits_is_kept_for_the_large_entry() -> None:
    """Entries of different sizes find nodes of their own, whatever their order."""
    spec = plan_cluster(bundle_ct_per_node_list=[1, 4])
    plan = predict_launch(spec, GROUP, small_nodes(4, 1))
    assert [worker.node_id for worker in plan.workers] == ["n1", "n0", "n0", "n0", "n0"]


def test_a_small_entry_leaves_large_nodes_alone() -> None:
    """Of entries of different sizes each takes the node that it fills most."""
    spec = plan_cluster(bundle_ct_per_node_list=[4, 1])
    plan = predict_launch(spec, GROUP, small_nodes(4, 4, 1))
    assert [worker.node_id for worker in plan.workers] == ["n0"] * 4 + ["n2"]


def test_ranks_of_a_unified_group_follow_the_topology() -> None:
    """One placement group over two nodes: the node with the smaller topology rank comes first."""
    spec = plan_cluster(bundle_ct_per_node_list=[2, 2], topology={"n0": ("d", 5), "n1": ("d", 2)})
    plan = predict_launch(spec, GROUP, small_nodes(2, 2), unified=True)
    assert [worker.node_id for worker in plan.workers] == ["n1", "n1", "n0", "n0"]


def test_ranks_follow_domain_then_topology_rank() -> None:
    """The NVLink domain with the smallest rank comes first, whatever the addresses say."""
    nodes = [
        evolve(node, nvlink_domain=domain, topology_rank=rank)
        for node, (domain, rank) in zip(
            small_nodes(1, 1, 1).nodes, [("b", 7), ("a", 9), ("b", 3)], strict=True
        )
    ]
    plan = predict_launch(plan_cluster(bundle_ct_per_node_list=[1] * 3), GROUP, Inventory(nodes))
    assert [(w.node_id, w.domain) for w in plan.workers] == [("n2", "b"), ("n0", "b"), ("n1", "a")]


def test_remaining_nodes_are_the_next_topology() -> None:
    """What one reservation in segments leaves is handed to the next."""
    racks = gb200_racks(1)
    first = plan_cluster(bundle_ct_per_node_list=[4] * 4, segment_size=4)
    used = {worker.node_id for worker in predict_launch(first, GROUP, racks).workers}
    left = remaining_nodes(racks, used)
    second = plan_cluster(bundle_ct_per_node_list=[4] * 8, segment_size=2, topology=left)
    plan = predict_launch(second, GROUP, racks)
    assert len(left) == 14
    assert [w.node_id for w in plan.workers[::4]] == [f"rack-0-node-{i}" for i in range(4, 12)]


def test_excluded_nodes_are_left_out_by_id_or_address() -> None:
    """A node that is named is not used; one that is not there does not matter."""
    spec = plan_cluster(
        bundle_ct_per_node_list=[2], exclude_nodes=["n0", "10.0.0.2", "gone"], name="x"
    )
    assert {w.node_id for w in predict_launch(spec, GROUP, small_nodes(2, 2, 2)).workers} == {"n2"}
    with pytest.raises(ResourceInsufficientError):
        predict_launch(spec, GROUP, small_nodes(2, 2))


def test_node_selector_chooses_by_label() -> None:
    """Only nodes with the label are used."""
    spec = plan_cluster(bundle_ct_per_node_list=[2], node_selector={"ray.io/node-group": "!spot"})
    assert predict_launch(spec, GROUP, mixed_nodes()).workers[0].node_id == "large"


def test_groups_of_a_cluster_share_gpus_and_no_ports() -> None:
    """Colocated groups have the same GPUs, other names, and ports of their own."""
    spec = plan_cluster(bundle_ct_per_node_list=[2], max_colocated_worker_groups=2)
    asks = evolve(GROUP, name_prefix="", places=PlaceArguments(ports_per_worker=3))
    intent = ClusterIntent(spec=spec, groups=[asks, asks])
    first, second = predict_launches([intent], small_nodes(2)).launches
    assert [w.gpus for w in first.workers] == [w.gpus for w in second.workers]
    assert (first.group, second.group) == ("Worker", "Worker-2")
    assert [w.ports for w in (*first.workers, *second.workers)] == [
        (20_000, 20_002),
        (20_003, 20_005),
        (20_006, 20_008),
        (20_009, 20_011),
    ]


def test_too_many_groups_for_a_cluster() -> None:
    """A third group on bundles made for two is refused."""
    spec = plan_cluster(bundle_ct_per_node_list=[1], max_colocated_worker_groups=2)
    groups = [evolve(GROUP, name_prefix=name) for name in "abc"]
    with pytest.raises(PlanError, match="at most 2 groups"):
        predict_launches([ClusterIntent(spec=spec, groups=groups)], small_nodes(1))


def test_a_share_that_configure_worker_asks_for_counts() -> None:
    """Two groups on a GPU that the first takes whole are refused, as on the real cluster."""
    spec = plan_cluster(bundle_ct_per_node_list=[2], max_colocated_worker_groups=2)
    groups = [evolve(GROUP, name_prefix=name) for name in ("greedy", "second")]
    whole: list[object] = [({"num_gpus": 1.0}, {}, {})] * 2
    with pytest.raises(PlanError) as caught:
        predict_launches(
            [ClusterIntent(spec=spec, groups=groups, answers={0: whole})], h100_nodes(1)
        )
    assert caught.value.findings[0].problem == (
        "its bundles are shared by at most 2 groups, and 'greedy' holds 1 of the GPU of bundle 0 "
        "of placement group 0 already, of which it wants 0.5 (and so in 1 more bundles)"
    )
    part: list[object] = [({"num_gpus": 0.5}, {}, {})] * 2
    intent = ClusterIntent(spec=spec, groups=groups, answers={0: part})
    shares = [
        w.gpu_share
        for each in predict_launches([intent], h100_nodes(1)).launches
        for w in each.workers
    ]
    assert shares == [5_000] * 4


def test_a_rule_that_leaves_no_node_is_named() -> None:
    """With the cluster whose it is, when there are several."""
    spec = plan_cluster(bundle_ct_per_node_list=[1], name="x", exclude_nodes=["n0"])
    with pytest.raises(ResourceInsufficientError) as caught:
        predict_launch(spec, GROUP, small_nodes(1))
    assert str(caught.value) == (
        "reservation: exclude_nodes: it leaves out the only node: n0; name fewer of them, or add "
        "nodes"
    )
    others = [ClusterIntent(spec=evolve(spec, name=name), groups=[GROUP]) for name in "ab"]
    with pytest.raises(ResourceInsufficientError) as several:
        predict_launches(others, small_nodes(1))
    assert [finding.path for finding in several.value.findings] == [
        *("cluster 'a'.exclude_nodes", "cluster 'b'.exclude_nodes"),
    ]


def test_every_group_that_is_wrong_is_named() -> None:
    """All problems of all clusters are in one error."""
    bad = [
        evolve(GROUP, name_prefix=name, mesh=axes(data_parallel=3)) for name in ("first", "second")
    ]
    intents = [
        ClusterIntent(
            spec=plan_cluster(bundle_ct_per_node_list=[1], name=g.name_prefix), groups=[g]
        )
        for g in bad
        if isinstance(g.name_prefix, str)
    ]
    with pytest.raises(PlanError) as caught:
        predict_launches(intents, small_nodes(2))
    paths = [finding.path for finding in caught.value.findings]
    assert paths == [
        "cluster 'first'.sharding_annotations",
        "cluster 'second'.sharding_annotations",
    ]


def test_locality_is_checked_before_anything_starts() -> None:
    """An axis that must stay on a node and does not is an error with a layout that works."""
    spec = plan_cluster(bundle_ct_per_node_list=[2, 2])
    group = evolve(
        GROUP,
        mesh=axes(tensor_parallel=2, data_parallel=2),
        places=PlaceArguments(localities={"tensor_parallel": "same_node"}),
    )
    with pytest.raises(PlanError) as caught:
        predict_launch(spec, group, small_nodes(2, 2))
    [finding] = caught.value.findings
    assert finding.path == "localities.tensor_parallel"
    assert "cut between rank 0 (n0) and rank 2 (n1)" in finding.problem
    assert "[[0, 2], [1, 3]]" in finding.remedy


def test_cut_tensor_parallel_axis_is_told() -> None:
    """Without a stated locality a cut tensor-parallel axis is a note, not an error."""
    spec = plan_cluster(bundle_ct_per_node_list=[2, 2])
    cut = predict_launch(spec, evolve(GROUP, mesh=axes(tensor_parallel=4)), small_nodes(2, 2))
    whole = evolve(GROUP, mesh=axes(data_parallel=2, tensor_parallel=2))
    assert "go over the network" in cut.notes[-1]
    assert not any(
        "go over the network" in note
        for note in predict_launch(spec, whole, small_nodes(2, 2)).notes
    )


@pytest.mark.parametrize(
    ("places", "path"),
    [
        (PlaceArguments(localities={"tensor_parallel": "near"}), "localities['tensor_parallel']"),
        (PlaceArguments(localities={"pipeline": "same_node"}), "localities"),
        (PlaceArguments(localities=["tensor_parallel"]), "localities"),
        (PlaceArguments(ports_per_worker=-1), "ports_per_worker"),
        (PlaceArguments(ports_per_worker=1, ports_per_engine=True), "ports_per_engine"),
        (PlaceArguments(ports_per_worker=1, ports_per_engine=1), "ports_per_engine"),
        (PlaceArguments(numa_binding="yes"), "numa_binding"),
        (PlaceArguments(profile={"x": {}}), "profile['x']"),
        (PlaceArguments(ports_per_worker=50_000), "ports_per_worker"),
    ],
)
def test_wrong_wishes_are_findings(places: PlaceArguments, path: str) -> None:
    """Whatever is wrong about places is found with its path."""
    group = evolve(GROUP, mesh=axes(tensor_parallel=1), places=places)
    with pytest.raises(PlanError) as caught:
        predict_launch(plan_cluster(bundle_ct_per_node_list=[1]), group, small_nodes(1))
    assert [finding.path for finding in caught.value.findings] == [path]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"segment_size": 0}, "segment_size"),
        ({"segment_size": True}, "segment_size"),
        ({"topology": [1]}, "topology"),
        ({"topology": {"n": ("d", "1")}}, "topology['n']"),
        ({"node_selector": "rack=1"}, "node_selector"),
        ({"node_selector": {"rack": "in()"}}, "node_selector['rack']"),
        ({"exclude_nodes": "n0"}, "exclude_nodes"),
        ({"exclude_nodes": [""]}, "exclude_nodes"),
        ({"ready_timeout": 0}, "ready_timeout"),
        ({"ready_timeout": float("nan")}, "ready_timeout"),
    ],
)
def test_wrong_choice_of_nodes_is_a_finding(arguments: dict[str, object], path: str) -> None:
    """Each argument of a cluster about its nodes is checked."""
    with pytest.raises(PlanError) as caught:
        plan_cluster(bundle_ct_per_node_list=[1], **arguments)
    assert [finding.path for finding in caught.value.findings] == [path]


def _nodes(counts: list[int], order: list[int]) -> Inventory:
    nodes: tuple[Node, ...] = small_nodes(*counts).nodes
    return Inventory(nodes[index] for index in order)


@st.composite
def _programs(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], bool]:
    counts = draw(st.lists(st.integers(0, 8), min_size=1, max_size=6))
    order = draw(st.permutations(range(len(counts))))
    wanted = draw(st.lists(st.integers(0, 8), min_size=1, max_size=5))
    return counts, list(order), wanted, draw(st.booleans())


@given(_programs())
def test_prediction_is_lawful(program: tuple[list[int], list[int], list[int], bool]) -> None:
    """A prediction uses no GPU twice and none that is not there, or it is a ``PlanError``."""
    counts, order, wanted, unified = program
    try:
        spec = plan_cluster(bundle_ct_per_node_list=wanted, strategy="PACK")
        plan = predict_launch(spec, GROUP, _nodes(counts, order), unified=unified)
    except PlanError:
        return
    held = Counter((worker.node_id, gpu) for worker in plan.workers for gpu in worker.gpus)
    assert set(held.values()) == {1}
    assert len(held) == sum(wanted)
    assert all(int(gpu) < counts[int(node[1:])] for node, gpu in held)
    local = Counter((worker.node_rank, worker.node_local_rank) for worker in plan.workers)
    assert set(local.values()) == {1}
    same = predict_launch(spec, GROUP, _nodes(counts, sorted(order)), unified=unified)
    assert same == plan


def test_a_thousand_nodes_are_planned_at_once() -> None:
    """A plan for 1,000 nodes is one line, and whole."""
    plan = predict_launch(plan_cluster(bundle_ct_per_node_list=[8] * 300), GROUP, h100_nodes(300))
    assert (plan.world_size, plan.node_count) == (2_400, 300)


def test_arguments_are_those_of_the_real_group() -> None:
    """The prediction takes the very type that a real start fills in."""
    assert isinstance(GROUP, GroupArguments)
    assert GROUP.bundle_counts == ()


SPEC = plan_cluster(bundle_ct_per_node_list=[2])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: predict_launch(None, GROUP, small_nodes(2)), ["spec"]),  # type: ignore[arg-type]
        (lambda: predict_launch(SPEC, None, small_nodes(2)), ["group"]),  # type: ignore[arg-type]
        (lambda: predict_launch(None, None, None), ["spec", "group", "inventory"]),  # type: ignore[arg-type]
        (lambda: predict_launches(5, small_nodes(2)), ["clusters"]),  # type: ignore[arg-type]
        (
            lambda: predict_launches([SPEC, ClusterIntent(spec=SPEC, groups=[5])], None),  # type: ignore[list-item,arg-type]
            ["clusters[0]", "clusters[1].groups[0]", "inventory"],
        ),
        (lambda: predict_launch(SPEC, GROUP, small_nodes(2), answers=[({}, {}, {})]), ["answers"]),
        (lambda: predict_launch(SPEC, GROUP, small_nodes(2), answers="xy"), ["answers"]),
    ],
)
def test_wrong_types_are_findings(call: Callable[[], object], told: list[str]) -> None:
    """Of the arguments themselves, all at once, with what would work."""
    with pytest.raises(PlanError) as caught:
        call()
    assert [finding.path for finding in caught.value.findings] == told
    assert all(finding.remedy for finding in caught.value.findings)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"worker_class": "nodots"}, ["worker_class"]),
        ({"worker_class": 5}, ["worker_class"]),
        ({"worker_class": "__main__.Worker"}, ["worker_class"]),
        ({"options": 5}, ["options"]),
        ({"policy": "all"}, ["policy"]),
        ({"sources": {"A": "1"}}, ["sources"]),
        ({"sources": EnvironmentSources(group=5)}, ["sources.group"]),  # type: ignore[arg-type]
        ({"places": None}, ["group.places"]),
        (
            {"worker_class": "a b.C", "options": [], "gpu_visibility": "mine"},
            ["worker_class", "options", "gpu_visibility"],
        ),
    ],
)
def test_wrong_arguments_of_a_group_are_findings(wrong: dict[str, Any], told: list[str]) -> None:
    """Wherever it is planned from."""
    with pytest.raises(PlanError) as caught:
        predict_launch(SPEC, evolve(GROUP, **wrong), small_nodes(2))
    assert [finding.path for finding in caught.value.findings] == told
