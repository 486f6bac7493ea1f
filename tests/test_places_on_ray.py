"""Where ranks land on a real Ray cluster of several nodes, and what stops a launch."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from attrs import evolve
from ray._private.node import Node
from ray.cluster_utils import Cluster

from planner.findings import PlanError, ResourceInsufficientError
from planner.group import GroupArguments
from planner.inventory import Inventory
from planner.prediction import predict_launch
from planner.shapes import h100_nodes
from runtime import (
    DifferenceError,
    NodeLostError,
    PreflightError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    observe_hardware,
    observe_inventory,
)
from tests.conftest import ROOT
from tests.places_cases import axes

SEATED = "tests.place_workers.Seated"


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't fit is not looked at again."""
    monkeypatch.setenv("NRL_VIRTUAL_CLUSTER_MAX_RETRIES", "1")


@contextmanager
def _another_node(cluster: Cluster, **options: Any) -> Iterator[Node]:
    node = cluster.add_node(include_dashboard=False, num_cpus=4, **options)
    cluster.wait_for_nodes()
    try:
        yield node
    finally:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


def _node_ids(**labels: str) -> list[str]:
    return [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and all(node["Labels"].get(k) == v for k, v in labels.items())
    ]


def _rack(number: int) -> str:
    [node_id] = _node_ids(rack=f"rack{number}")
    return node_id


def _group(cluster: RayVirtualCluster, prefix: str, **options: Any) -> RayWorkerGroup:
    kwargs = options.pop("kwargs", {})
    return RayWorkerGroup(
        cluster, RayWorkerBuilder(SEATED, **kwargs), name_prefix=prefix, **options
    )


def test_ranks_follow_a_topology_given_by_hand(cluster_of_nodes: Cluster) -> None:
    """Ranks follow domain and topology rank, only the named nodes are used, the rest is left."""
    topology = {_rack(2): ("a", 0), _rack(0): ("a", 3)}
    with RayVirtualCluster([1, 1], topology=topology) as cluster:
        with _group(cluster, "seated") as group:
            places = [(worker.node_id, worker.domain) for worker in group.plan.workers]
            observed = ray.get([w.variable.remote("NODE_RANK") for w in group.workers])
        assert places == [(_rack(2), "a"), (_rack(0), "a")]
        assert observed == ["0", "1"]
        assert cluster.remaining_topology == {}


def test_segments_leave_whole_nodes_to_the_next(cluster_of_nodes: Cluster) -> None:
    """A segment of two nodes of one domain; what is left is the topology of the next."""
    topology = {_rack(1): ("b", 0), _rack(0): ("a", 1), _rack(2): ("a", 2)}
    with RayVirtualCluster([8, 8], segment_size=2, topology=topology) as first:
        first.get_placement_groups()
        left = first.remaining_topology
        with RayVirtualCluster([4], topology=left) as second:
            second.get_placement_groups()
            assert {each.node_id for each in first.bundle_facts} == {_rack(0), _rack(2)}
            assert left == {_rack(1): ("b", 0)}
            assert {each.node_id for each in second.bundle_facts} == {_rack(1)}


def test_one_segment_by_rays_own_labels(cluster_of_nodes: Cluster) -> None:
    """A unified reservation of one segment is kept in a domain by Ray itself."""
    labels = {"ray.io/gpu-domain": "d9", "rankplan/topology-rank": "1", "only": "these"}
    with (
        _another_node(cluster_of_nodes, num_gpus=2, labels=labels) as one,
        _another_node(cluster_of_nodes, num_gpus=2, labels=labels) as other,
        RayVirtualCluster(
            [2, 2],
            segment_size=2,
            node_selector={"only": "these"},
            placement_group_strategy="PACK",
        ) as cluster,
    ):
        cluster._init_placement_groups(use_unified_pg=True)
        landed = {each.node_id for each in cluster.bundle_facts}
        assert landed == {one.node_id, other.node_id}
        assert {place[1:] for place in cluster.places} == {("d9", 1)}


def test_nodes_of_unequal_size(cluster_of_nodes: Cluster) -> None:
    """A small node gets the small entry; one more GPU than it has is impossible."""
    with (
        _another_node(cluster_of_nodes, num_gpus=3, labels={"size": "small"}) as small,
        RayVirtualCluster([8, 3], exclude_nodes=[_rack(0), _rack(1)]) as cluster,
    ):
        cluster.get_placement_groups()
        sizes = Counter(each.node_id for each in cluster.bundle_facts)
        assert sizes == {_rack(2): 8, small.node_id: 3}


def test_impossible_is_told_at_once(cluster_of_nodes: Cluster, one_try: None) -> None:
    """What can never fit raises without a wait, and says what is missing on which node."""
    begun = time.monotonic()
    with pytest.raises(ResourceInsufficientError, match="1 GPU missing on the closest node"):
        RayVirtualCluster([9]).get_placement_groups()
    with pytest.raises(ResourceInsufficientError, match="rack=rack9"):
        RayVirtualCluster([1], node_selector={"rack": "rack9"}).get_placement_groups()
    assert time.monotonic() - begun < 5


def test_busy_waits_and_then_says_for_what(cluster_of_nodes: Cluster) -> None:
    """What others hold is waited for up to the deadline; the error has the verdict."""
    with RayVirtualCluster([8, 8, 8], name="holder") as holder:
        holder.get_placement_groups()
        late = RayVirtualCluster([2], name="late", ready_timeout=0.3)
        with pytest.raises(TimeoutError, match=r"once 1 GPU more is free there.*ready_timeout"):
            late.get_placement_groups()


def test_a_wait_says_what_it_waits_for_once_and_then_seldom(
    cluster_of_nodes: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """At its beginning, and not again before the error of a short one."""
    with RayVirtualCluster([8, 8, 8], name="holder") as holder:
        holder.get_placement_groups()
        late = RayVirtualCluster([2], name="late", ready_timeout=1.5)
        with caplog.at_level("INFO", "rankplan"), pytest.raises(TimeoutError):
            late.get_placement_groups()
    told = [each.getMessage() for each in caplog.records if "'late'" in each.getMessage()]
    assert [each.split(": ")[1] for each in told] == [
        "1 of 1 placement groups are not ready after 0 of 1.5 s"
    ]
    assert "once 1 GPU more is free there" in told[0]


def test_an_impossible_reservation_keeps_to_its_deadline(
    cluster_of_nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not looked at again when that would be after ``ready_timeout``."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    rules: dict[str, Any] = {"node_selector": {"rack": "rack9"}, "ready_timeout": 3}
    with pytest.raises(ResourceInsufficientError, match=r"rack=rack9: it is rack0, rack1, rack2"):
        RayVirtualCluster([1], **rules).get_placement_groups()
    # Nobody slept, so time stood still, and every pause of up to 3 seconds was one that fits.
    assert pauses == [1.0, 2.0]


def test_busy_is_served_when_it_becomes_free(cluster_of_nodes: Cluster) -> None:
    """A wait that is right ends as soon as the holder lets go."""
    holder = RayVirtualCluster([8, 8, 8], name="holder")
    holder.get_placement_groups()
    timer = threading.Timer(0.5, holder.shutdown)
    timer.start()
    with RayVirtualCluster([2], name="late", ready_timeout=60) as late:
        assert len(late.get_placement_groups()) == 1
    timer.join()


def test_node_that_is_added_late(cluster_of_nodes: Cluster) -> None:
    """A cluster that is still growing is looked at again until the node is there."""
    found: list[object] = []
    cluster = RayVirtualCluster([1], node_selector={"arrives": "late"})
    reserving = threading.Thread(target=lambda: found.extend(cluster.get_placement_groups()))
    reserving.start()
    with _another_node(cluster_of_nodes, num_gpus=1, labels={"arrives": "late"}):
        reserving.join(timeout=60)
        assert len(found) == 1
        cluster.shutdown()


def test_node_that_leaves_after_the_reservation(cluster_of_nodes: Cluster) -> None:
    """A launch on a node that has gone says so at once and starts nothing."""
    labels = {"leaves": "soon"}
    with (
        _another_node(cluster_of_nodes, num_gpus=2, labels=labels) as node,
        RayVirtualCluster([2], node_selector=labels) as cluster,
    ):
        cluster.get_placement_groups()
        cluster_of_nodes.remove_node(node)
        ends = time.monotonic() + 30
        while _node_ids(**labels) and time.monotonic() < ends:
            time.sleep(0.05)
        with pytest.raises(NodeLostError, match=r"2 of its 2 bundles.*shutdown"):
            _group(cluster, "seated")


def test_shares_are_those_that_configure_worker_asked_for(cluster_of_nodes: Cluster) -> None:
    """Of two groups on one GPU the first takes it whole: the second is told who has it."""
    greedy = RayWorkerBuilder("tests.place_workers.TakesWholeGpu")
    with (
        RayVirtualCluster([1, 1], max_colocated_worker_groups=2, name="shared") as cluster,
        RayWorkerGroup(cluster, greedy, [1, 0], "greedy"),
    ):
        with pytest.raises(PlanError) as caught:
            _group(cluster, "seated")
        [finding] = caught.value.findings
        assert "'greedy' holds 1 of the GPU of bundle 0 of placement gr" in finding.problem
        assert "configure_worker of 'greedy' ask for num_gpus=0.5" in finding.remedy
        with _group(cluster, "beside", workers_per_node=[0, 1]) as beside:
            assert beside.world_size == 1


def test_a_gpu_is_not_asked_of_bundles_without_one(cluster_of_nodes: Cluster) -> None:
    """It would never come: the host would wait until the deadline."""
    greedy = RayWorkerBuilder("tests.place_workers.TakesWholeGpu")
    with (
        RayVirtualCluster([1], use_gpus=False) as cluster,
        pytest.raises(PlanError, match="wants 1 of a GPU, and the cluster's bundles hold none"),
    ):
        RayWorkerGroup(cluster, greedy)


def test_broken_locality_stops_before_constructors(
    cluster_of_nodes: Cluster, tmp_path: Path
) -> None:
    """An axis that must stay on a node and is cut: no constructor has run."""
    with RayVirtualCluster([1, 1]) as cluster, pytest.raises(PlanError, match="must share a node"):
        _group(
            cluster,
            "seated",
            sharding_annotations=axes(tensor_parallel=2),
            localities={"tensor_parallel": "same_node"},
            kwargs={"marks": str(tmp_path)},
        )
    assert list(tmp_path.iterdir()) == []


def test_prediction_from_the_live_cluster_holds(cluster_of_nodes: Cluster) -> None:
    """Predicted from what is there: no rank, node, GPU or axis differs from what happens."""
    mesh = axes(data_parallel=2, tensor_parallel=2)
    with RayVirtualCluster([2, 2]) as cluster:
        predicted = predict_launch(
            cluster.spec,
            GroupArguments(worker_class=SEATED, name_prefix="seated", mesh=mesh),
            observe_inventory(),
        )
        with _group(cluster, "seated", sharding_annotations=mesh, expected_plan=predicted) as group:
            found = group.difference
            assert found is not None
            assert (found.nodes, found.ranks, found.broken) == ((), (), ())
            assert [w.node_id for w in group.plan.workers] == [w.node_id for w in predicted.workers]


def test_broken_promise_stops_before_constructors(
    cluster_of_nodes: Cluster, tmp_path: Path
) -> None:
    """A tensor-parallel group predicted on one node and found on two starts nothing."""
    mesh = axes(tensor_parallel=2)
    whole = RayVirtualCluster([2])
    group = GroupArguments(worker_class=SEATED, name_prefix="seated", mesh=mesh)
    predicted = predict_launch(whole.spec, group, h100_nodes(1))
    with RayVirtualCluster([1, 1]) as cluster, pytest.raises(DifferenceError) as caught:
        _group(
            cluster,
            "seated",
            sharding_annotations=mesh,
            expected_plan=predicted,
            kwargs={"marks": str(tmp_path)},
        )
    names = [each.name for each in caught.value.difference.broken]
    assert names == ["tensor_parallel stays in a node"]
    assert list(tmp_path.iterdir()) == []


def test_preflight_names_the_node_and_a_plan_without_it_works(
    cluster_of_nodes: Cluster, tmp_path: Path
) -> None:
    """The class is missing on one of two nodes: a table, no constructor; then without the node."""
    module = tmp_path / "only_there.py"
    module.write_text((ROOT / "tests" / "place_workers.py").read_text(encoding="utf-8"))
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    pair = {"pair": "yes"}
    marks = tmp_path / "marks"
    marks.mkdir()
    builder = RayWorkerBuilder("only_there.Seated", marks=str(marks))
    with (
        _another_node(cluster_of_nodes, num_gpus=1, labels=pair, env_vars=paths) as good,
        _another_node(cluster_of_nodes, num_gpus=1, labels=pair) as bad,
    ):
        topology = {good.node_id: ("d", 0), bad.node_id: ("d", 1)}
        with (
            RayVirtualCluster([1, 1], topology=topology) as cluster,
            pytest.raises(PreflightError) as caught,
        ):
            RayWorkerGroup(cluster, builder, name_prefix="picky")
        report = caught.value.report
        assert [(row.ranks, row.check) for row in report.failed] == [((1,), "class")]
        assert report.nodes_to_exclude == (bad.node_id,)
        assert "other nodes have" in str(caught.value)
        assert list(marks.iterdir()) == []
        with (
            RayVirtualCluster(
                [1], node_selector=pair, exclude_nodes=report.nodes_to_exclude
            ) as cluster,
            RayWorkerGroup(cluster, builder, name_prefix="picky") as group,
        ):
            assert group.plan.workers[0].node_id == good.node_id


def test_preflight_checks_that_nodes_reach_rank_0(cluster_of_nodes: Cluster) -> None:
    """The port that rank 0 holds answers the other nodes, and is still held afterwards."""
    with RayVirtualCluster([1, 1]) as cluster, _group(cluster, "seated", preflight=True) as group:
        reach = [row for row in group.preflight.rows if row.check == "rank 0"]
        port = group.plan.rendezvous.port
        assert [(row.ranks, row.state.value) for row in reach] == [((0,), "good"), ((1,), "good")]
        assert all(row.found.endswith(f"port {port}") for row in reach)
        told = ray.get([worker.variable.remote("MASTER_PORT") for worker in group.workers])
        assert told == [str(port)] * 2


def test_preflight_can_be_turned_off(cluster_of_nodes: Cluster) -> None:
    """Nothing is looked at when nobody wants it."""
    with RayVirtualCluster([1]) as cluster, _group(cluster, "seated", preflight=False) as group:
        assert group.preflight.rows == ()


def test_groups_have_ports_of_their_own(cluster_of_nodes: Cluster) -> None:
    """Live groups of a driver share no port; those of one that ended are free again."""
    with RayVirtualCluster([2], max_colocated_worker_groups=2) as cluster:
        first = _group(cluster, "first", ports_per_worker=3)
        with _group(cluster, "second", ports_per_engine=2) as second:
            held = ray.get([w.ports.remote() for w in (*first.workers, *second.workers)])
            planned = [w.ports for w in (*first.plan.workers, *second.plan.workers)]
            assert held == planned
            used = [port for low, high in held for port in range(low, high + 1)]
            assert len(used) == len(set(used)) == 10
            first.shutdown()
            with _group(cluster, "third", ports_per_worker=3) as third:
                assert [w.ports for w in third.plan.workers] == planned[:2]


def test_cores_are_bound_before_the_class_is_imported(
    cluster_of_nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every thread of a worker is on the planned cores; the driver's switch turns it off."""
    with RayVirtualCluster([2], max_colocated_worker_groups=2) as cluster:
        with _group(cluster, "bound", numa_binding=True) as group:
            planned = [list(w.affinity.cores) for w in group.plan.workers if w.affinity]
            for cores, (at_start, threads) in zip(
                planned, ray.get([w.cores.remote() for w in group.workers]), strict=True
            ):
                assert at_start == cores
                assert all(each == cores for each in threads)
            assert any("NUMA binding" in note for note in group.plan.notes) or len(planned) == 2
        monkeypatch.setenv("RANKPLAN_NUMA", "0")
        with _group(cluster, "free", numa_binding=True) as group:
            assert [worker.affinity for worker in group.plan.workers] == [None, None]


def test_profiler_reaches_the_workers_that_are_named(
    cluster_of_nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the worker whose name matches has the profiler's runtime environment."""
    monkeypatch.setenv("RANKPLAN_PROFILE", '{"seated-0-1": {"env_vars": {"PROFILED": "yes"}}}')
    with RayVirtualCluster([2]) as cluster, _group(cluster, "seated") as group:
        seen = ray.get([worker.variable.remote("PROFILED") for worker in group.workers])
        assert seen == [None, "yes"]
        assert any("1 of 2 workers are profiled" in note for note in group.plan.notes)


def test_observed_inventory_is_what_files_hold(cluster_of_nodes: Cluster) -> None:
    """What is observed has nodes, labels and free resources, and plans like a file."""
    seen = observe_inventory()
    assert isinstance(seen, Inventory)
    assert seen.gpu_count == 24
    assert {dict(node.labels)["rack"] for node in seen.nodes} == {"rack0", "rack1", "rack2"}
    free = Inventory(evolve(node, free=None) for node in seen.nodes)
    assert free == seen.all_free()


def test_machines_are_looked_at(cluster_of_nodes: Cluster) -> None:
    """One task on each node tells its NUMA layout; GPUs that exist by name only stay."""
    seen = observe_inventory()
    looked = observe_hardware(seen)
    cores = [core for numa in looked.nodes[0].numa for core in numa.cores]
    assert set(cores) <= os.sched_getaffinity(0)
    assert [node.gpus for node in looked.nodes] == [node.gpus for node in seen.nodes]
    assert all(node.numa for node in looked.nodes)
