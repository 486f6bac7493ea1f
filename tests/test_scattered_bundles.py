"""PACK scatters 17 bundles and more over the nodes: ranks are right all the same."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import ray

from planner.mesh import NamedSharding
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

BUNDLES = 18


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Eighteen one-GPU bundles in one placement group over three nodes of eight GPUs."""
    with RayVirtualCluster(
        [6, 6, 6], placement_group_strategy="PACK", name="scattered", max_colocated_worker_groups=2
    ) as cluster:
        cluster._init_placement_groups(use_unified_pg=True)
        yield cluster


def test_ray_scatters_the_bundles(places: RayVirtualCluster) -> None:
    """The premise: in bundle order, nodes come more than once."""
    nodes = [each.node_id for each in places.bundle_facts]
    assert len(nodes) == BUNDLES
    changes = sum(1 for one, two in pairwise(nodes) if one != two)
    assert changes > len(set(nodes)) - 1


def test_sorted_bundles_are_contiguous_by_node(places: RayVirtualCluster) -> None:
    """Every bundle once; each node's together."""
    order = places._sorted_bundle_indices or []
    assert sorted(order) == list(range(BUNDLES))
    home = {each.bundle: each.node_id for each in places.bundle_facts}
    nodes = [home[bundle] for bundle in order]
    assert sum(1 for one, two in pairwise(nodes) if one != two) == len(set(nodes)) - 1


def test_ranks_follow_the_nodes(places: RayVirtualCluster) -> None:
    """Seen from inside: nodes contiguous, local ranks from 0, GPUs in order."""
    mesh = NamedSharding(
        [[2 * pair, 2 * pair + 1] for pair in range(BUNDLES // 2)],
        ["data_parallel", "tensor_parallel"],
    )
    builder = RayWorkerBuilder("tests.workers.Recorder")
    with RayWorkerGroup(
        places, builder, sharding_annotations=mesh, gpu_visibility="shared"
    ) as group:
        found = ray.get(group.run_all_workers_single_data("place"))
        environments = ray.get(group.run_all_workers_single_data("environment_at_import"))
    nodes = [node for node, _ in found]
    on_node: dict[str, int] = {}
    for rank, (node, gpus) in enumerate(found):
        environment = environments[rank]
        local = on_node.get(node, 0)
        on_node[node] = local + 1
        assert environment["RANK"] == str(rank)
        assert environment["NODE_RANK"] == str(len(on_node) - 1)
        assert environment["RANKPLAN_NODE_LOCAL_RANK"] == environment["LOCAL_RANK"] == str(local)
        assert environment["LOCAL_WORLD_SIZE"] == str(nodes.count(node))
        assert environment["GROUP_WORLD_SIZE"] == str(len(set(nodes)))
        visible = environment["CUDA_VISIBLE_DEVICES"].split(",")
        assert visible[local] == gpus[0]
        assert visible == sorted(visible, key=int)
    # Whole pairs, but for the one at the end of a node with an odd number of ranks.
    split = sum(1 for i in range(0, BUNDLES, 2) if nodes[i] != nodes[i + 1])
    assert split <= len(set(nodes)) - 1
    assert sum(1 for one, two in pairwise(nodes) if one != two) == len(set(nodes)) - 1
