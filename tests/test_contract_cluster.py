"""Reservations: what a virtual cluster holds, where, and how it gives it back."""

import gc
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.util import placement_group_table

from planner.findings import PlanError, ResourceInsufficientError
from runtime import ExecutionError, RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import PlacementGroup


def bundles_of(group: "PlacementGroup") -> list[dict[str, float]]:
    """The resources of a placement group's bundles."""
    return [{k: v for k, v in bundle.items() if v} for bundle in group.bundle_specs]


def table(group: "PlacementGroup") -> Any:
    """What Ray knows of a placement group."""
    return placement_group_table(group)


def test_nothing_is_reserved_before_it_is_used(cluster_of_nodes: "Cluster") -> None:
    """The arguments are known at once; the bundles come with the first use."""
    before = len(placement_group_table())
    with RayVirtualCluster([2, 0, 1], name="lazy") as cluster:
        assert (cluster.world_size(), cluster.node_count()) == (3, 2)
        assert len(placement_group_table()) == before
        groups = cluster.get_placement_groups()
        assert len(placement_group_table()) == before + 2
        assert [group.bundle_count for group in groups] == [2, 1]
        assert [each.id for each in cluster.get_placement_groups()] == [each.id for each in groups]


def test_a_bundle_holds_one_gpu_and_a_cpu_per_group(cluster_of_nodes: "Cluster") -> None:
    """Each node's bundles are together on one node, under a name that says whose they are."""
    with RayVirtualCluster([2, 2], max_colocated_worker_groups=3, name="train") as cluster:
        groups = cluster.get_placement_groups()
        assert [bundles_of(group) for group in groups] == [[{"CPU": 3.0, "GPU": 1.0}] * 2] * 2
        homes = [set(table(group)["bundles_to_node_id"].values()) for group in groups]
        assert [len(nodes) for nodes in homes] == [1, 1]
        assert homes[0] != homes[1]
        names = [table(group)["name"] for group in groups]
        assert [name.startswith("train-") for name in names] == [True, True]


def test_without_gpus_a_bundle_holds_cpus_only(cluster_of_nodes: "Cluster") -> None:
    """And its workers get none."""
    with RayVirtualCluster([2], use_gpus=False, max_colocated_worker_groups=2) as cluster:
        (group,) = cluster.get_placement_groups()
        assert bundles_of(group) == [{"CPU": 2.0}] * 2


def test_a_bundle_holds_what_was_asked_for(cluster_of_nodes: "Cluster") -> None:
    """Memory and other CPUs on Ray; more than any node has is told with what is missing."""
    size = 64 * 1024**2
    with RayVirtualCluster([2], bundle_resources={"CPU": 1.5, "memory": "64MiB"}) as cluster:
        (group,) = cluster.get_placement_groups()
        assert bundles_of(group) == [{"CPU": 1.5, "GPU": 1.0, "memory": float(size)}] * 2
    hungry = RayVirtualCluster([2], bundle_resources={"licence": 1}, ready_timeout=0.5)
    with pytest.raises(ResourceInsufficientError, match="1 licence missing on the closest node"):
        hungry.get_placement_groups()


def test_a_unified_placement_group_spans_nodes(cluster_of_nodes: "Cluster") -> None:
    """Its rank order follows the hardware; the strategy may be given at the call."""
    with RayVirtualCluster([2, 2], name="wide") as cluster:
        (group,) = cluster._init_placement_groups(strategy="STRICT_PACK", use_unified_pg=True)
        assert group.bundle_count == 4
        assert cluster.is_unified
        assert table(group)["strategy"] == "STRICT_PACK"
        assert [each.id for each in cluster.get_placement_groups()] == [group.id]
    with RayVirtualCluster([2, 1], name="spread") as spread:
        (group,) = spread._init_placement_groups(use_unified_pg=True)
        assert table(group)["strategy"] == "SPREAD"
        order = spread._sorted_bundle_indices or []
        assert sorted(order) == [0, 1, 2]
        homes = [table(group)["bundles_to_node_id"][bundle] for bundle in order]
        assert len(set(homes)) == 3


def test_one_placement_group_or_several_is_yes_or_no(cluster_of_nodes: "Cluster") -> None:
    """Anything else is refused, before and after the reservation."""
    with RayVirtualCluster([1], use_gpus=False, name="one") as cluster:
        for _ in range(2):
            with pytest.raises(PlanError) as caught:
                cluster._init_placement_groups("LOOSE", use_unified_pg="yes")  # type: ignore[arg-type]
            assert [finding.path for finding in caught.value.findings] == [
                *("strategy", "use_unified_pg"),
            ]
            cluster.get_placement_groups()


def test_per_node_clusters_have_no_sorted_bundles(cluster_of_nodes: "Cluster") -> None:
    """There the order is the placement groups'."""
    with RayVirtualCluster([1, 1], use_gpus=False) as cluster:
        assert cluster._sorted_bundle_indices is None
        assert not cluster.is_unified


def test_addresses_and_free_ports(cluster_of_nodes: "Cluster") -> None:
    """Of a bundle's node; each port can be bound, and places that do not exist are named."""
    with RayVirtualCluster([1, 2], use_gpus=False, name="ports") as cluster:
        address, port = cluster.get_available_address_and_port(1, 1)
        assert address == cluster.bundle_facts[2].address
        with socket.socket() as free:
            free.bind(("", port))
        master, _ = cluster.get_master_address_and_port()
        assert master == cluster.bundle_facts[0].address
        with pytest.raises(PlanError) as caught:
            cluster.get_available_address_and_port(2, 0)
        assert str(caught.value) == (
            "virtual cluster 'ports': pg_idx: 2 of 2 placement groups; give 0 to 1"
        )
        with pytest.raises(PlanError, match="bundle_idx: 1 of 1 bundles; give 0 to 0"):
            cluster.get_available_address_and_port(0, 1)
        for wrong in (-1, "0", None):
            with pytest.raises(PlanError, match="pg_idx: "):
                cluster.get_available_address_and_port(wrong, 0)  # type: ignore[arg-type]


def test_shutdown_gives_everything_back_once(cluster_of_nodes: "Cluster") -> None:
    """A second call does nothing; a cluster that is used again reserves again."""
    cluster = RayVirtualCluster([1], use_gpus=False, name="back")
    (first,) = cluster.get_placement_groups()
    assert cluster.shutdown() is True
    assert table(first)["state"] == "REMOVED"
    assert cluster.shutdown() is True
    (second,) = cluster.get_placement_groups()
    assert second.id != first.id
    cluster.shutdown()


def test_a_forgotten_cluster_gives_its_bundles_back(cluster_of_nodes: "Cluster") -> None:
    """When the object is collected."""
    cluster = RayVirtualCluster([1], use_gpus=False, name="forgotten")
    (group,) = cluster.get_placement_groups()
    del cluster
    gc.collect()
    assert table(group)["state"] == "REMOVED"


def test_a_forgotten_group_ends_its_workers(cluster_of_nodes: "Cluster") -> None:
    """When the object is collected; the cluster's share is free again."""
    with RayVirtualCluster([1], name="forgotten") as cluster:
        builder = RayWorkerBuilder("tests.workers.Recorder")
        group = RayWorkerGroup(cluster, builder, name_prefix="again")
        first = ray.get(group.workers[0].pid.remote())
        del group
        gc.collect()
        with RayWorkerGroup(cluster, builder, name_prefix="again") as second:
            assert ray.get(second.workers[0].pid.remote()) != first


def test_bundles_that_others_hold_are_waited_for_with_a_deadline(
    cluster_of_nodes: "Cluster",
) -> None:
    """They fit the cluster, so it is a TimeoutError; what was half reserved is removed."""
    before = {k for k, each in placement_group_table().items() if each["state"] != "REMOVED"}
    with (
        RayVirtualCluster([8, 8, 8], name="holder") as holder,
        RayVirtualCluster([1], name="late", ready_timeout=0.5) as late,
    ):
        holder.get_placement_groups()
        with pytest.raises(TimeoutError, match="late"):
            late.get_placement_groups()
        states = {each["name"]: each["state"] for each in placement_group_table().values()}
        assert {s for name, s in states.items() if name.startswith("late-")} <= {"REMOVED"}
    left = {k for k, each in placement_group_table().items() if each["state"] != "REMOVED"}
    assert left == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"bundle_ct_per_node_list": []},
            (
                "bundle_ct_per_node_list: [] is not a list of counts; "
                "give one count per node, as [8, 8]"
            ),
        ),
        (
            {"bundle_ct_per_node_list": 8},
            (
                "bundle_ct_per_node_list: 8 is not a list of counts; "
                "give one count per node, as [8, 8]"
            ),
        ),
        (
            {"bundle_ct_per_node_list": [2, -1]},
            "bundle_ct_per_node_list[1]: -1 is not a number of bundles; give 0 or more",
        ),
        (
            {"bundle_ct_per_node_list": [0, 0]},
            "bundle_ct_per_node_list: no node gives a bundle; give at least one bundle",
        ),
        ({"use_gpus": 1}, "use_gpus: 1 is not a truth value; give True or False"),
        (
            {"max_colocated_worker_groups": 0},
            "max_colocated_worker_groups: 0 is not a number of 1 or more; give 1 or more",
        ),
        (
            {"num_gpus_per_node": True},
            "num_gpus_per_node: True is not a number of 1 or more; give 1 or more",
        ),
        (
            {"placement_group_strategy": "TIGHT"},
            (
                "placement_group_strategy: 'TIGHT' is not a strategy; use one of PACK, SPREAD, "
                "STRICT_PACK, STRICT_SPREAD"
            ),
        ),
    ],
)
def test_arguments_that_reserve_nothing(arguments: dict[str, Any], expected: str) -> None:
    """Found when the object is made, without Ray."""
    with pytest.raises(PlanError) as caught:
        RayVirtualCluster(**{"bundle_ct_per_node_list": [1], "name": "wrong", **arguments})
    assert str(caught.value) == f"virtual cluster 'wrong': {expected}"


def test_all_wrong_arguments_are_told_at_once() -> None:
    """Not one per attempt."""
    with pytest.raises(PlanError) as caught:
        RayVirtualCluster(
            ["2"],  # type: ignore[list-item]
            use_gpus="yes",  # type: ignore[arg-type]
            name=3,  # type: ignore[arg-type]
        )
    assert [finding.path for finding in caught.value.findings] == [
        "bundle_ct_per_node_list[0]",
        "use_gpus",
        "name",
    ]


def test_a_strategy_that_ray_does_not_know_reserves_nothing(cluster_of_nodes: "Cluster") -> None:
    """Also when it is given late."""
    before = len(placement_group_table())
    with (
        RayVirtualCluster([1], name="late") as cluster,
        pytest.raises(PlanError, match="strategy: 'TIGHT' is not a strategy"),
    ):
        cluster._init_placement_groups(strategy="TIGHT")
    assert len(placement_group_table()) == before
    assert os.environ.get("RANK") is None


def test_a_process_without_ray_is_told_how_to_connect(cluster_of_nodes: "Cluster") -> None:
    """A reservation, and a group's, need a cluster; arguments are checked without one."""
    ray.shutdown()
    cluster = RayVirtualCluster([1], name="early")
    builder = RayWorkerBuilder("tests.workers.Recorder")
    for use in (cluster.get_placement_groups, lambda: RayWorkerGroup(cluster, builder)):
        with pytest.raises(ExecutionError) as caught:
            use()
        assert str(caught.value) == (
            "virtual cluster 'early': this process is not connected to Ray; call ray.init() or "
            "init_ray() first"
        )
    with pytest.raises(PlanError, match="workers_per_node: 2 workers for 1 bundle of"):
        RayWorkerGroup(cluster, builder, workers_per_node=2)
