"""Programs whose places are planned in golden files: clusters, groups, inventories."""

from collections.abc import Callable

import numpy as np
from attrs import evolve

from planner.difference import PlanDifference, difference
from planner.group import GroupArguments
from planner.group_places import PlaceArguments
from planner.inventory import Gpu, Inventory, Node, inventory_from_data
from planner.launch import LaunchPlan
from planner.mesh import NamedSharding
from planner.nodes import NumaNode
from planner.prediction import (
    ClusterIntent,
    Prediction,
    predict_bundle_order,
    predict_launch,
    predict_launches,
)
from planner.shapes import gb200_racks, h100_nodes
from planner.virtual_cluster import plan_cluster

__all__ = ["GOLDEN", "GROUP", "axes", "mixed_nodes", "small_nodes"]

GROUP = GroupArguments(worker_class="my_project.workers.Worker", name_prefix="policy")


def axes(**sizes: int) -> NamedSharding:
    """Ranks 0, 1, 2 ... over axes of these sizes, outermost first."""
    shape = tuple(sizes.values())
    return NamedSharding(np.arange(np.prod(shape)).reshape(shape), list(sizes))


def small_nodes(*gpus: int) -> Inventory:
    """Nodes with so many GPUs each, four cores and one NUMA node."""
    return Inventory(
        Node(
            node_id=f"n{index}",
            address=f"10.0.0.{index + 1}",
            milli_cpus=64_000,
            gpus=tuple(Gpu(kind="GPU", index=gpu) for gpu in range(count)),
            numa=(NumaNode(index=0, cores=(0, 1, 2, 3)),),
        )
        for index, count in enumerate(gpus)
    )


def mixed_nodes() -> Inventory:
    """Nodes of different sizes and kinds, as a file would describe them."""
    return inventory_from_data(
        {
            "nodes": [
                {
                    "node_id": "small",
                    "address": "10.0.0.9",
                    "cpus": 16,
                    "gpus": {"kind": "A100", "count": 2, "memory": "40GiB"},
                    "class": "spot",
                },
                {
                    "node_id": "large",
                    "address": "10.0.0.10",
                    "cpus": 64,
                    "gpus": {"kind": "H100", "count": 4, "memory": "80GiB"},
                    "class": "reserved",
                },
                {"node_id": "store", "address": "10.0.0.11", "cpus": 8, "class": "reserved"},
            ]
        }
    )


def _heterogeneous() -> Prediction:
    """Policy on the node with four GPUs, rollout on the small one, loaders on CPUs."""
    policy = evolve(GROUP, mesh=axes(data_parallel=2, tensor_parallel=2))
    spot = plan_cluster(
        bundle_ct_per_node_list=[2], name="rollout", node_selector={"ray.io/node-group": "spot"}
    )
    return predict_launches(
        [
            ClusterIntent(
                spec=plan_cluster(bundle_ct_per_node_list=[4], name="train"), groups=[policy]
            ),
            ClusterIntent(spec=spot, groups=[evolve(GROUP, name_prefix="rollout")]),
            ClusterIntent(
                spec=plan_cluster(bundle_ct_per_node_list=[3], use_gpus=False, name="loaders"),
                groups=[evolve(GROUP, name_prefix="loader")],
            ),
        ],
        mixed_nodes(),
    )


def _segments() -> Prediction:
    """Two reservations in whole segments: the second gets what the first leaves."""
    racks = gb200_racks(2)
    kept = [node for node in racks.nodes if (node.topology_rank or 0) % 18 < 5]
    first = plan_cluster(
        bundle_ct_per_node_list=[4] * 4, name="train", segment_size=4, strategy="PACK"
    )
    group = evolve(GROUP, mesh=axes(data_parallel=2, tensor_parallel=8))
    other = plan_cluster(bundle_ct_per_node_list=[4] * 4, name="rollout", segment_size=2)
    return predict_launches(
        [
            ClusterIntent(spec=first, groups=[group], unified=True),
            ClusterIntent(spec=other, groups=[evolve(GROUP, name_prefix="rollout")]),
        ],
        Inventory(kept),
    )


def _three_colocated() -> Prediction:
    """Policy, reference and rollout on the same eight GPUs, a third of each GPU for each."""
    spec = plan_cluster(bundle_ct_per_node_list=[8], max_colocated_worker_groups=3)
    layout = axes(data_parallel=2, tensor_parallel=4)
    ports = PlaceArguments(ports_per_worker=4)
    return predict_launches(
        [
            ClusterIntent(
                spec=spec,
                groups=[
                    evolve(GROUP, mesh=layout, places=ports),
                    evolve(GROUP, name_prefix="reference", mesh=layout),
                    evolve(GROUP, name_prefix="rollout", places=ports),
                ],
            )
        ],
        h100_nodes(1),
    )


def _engine_over_two_nodes() -> LaunchPlan:
    """One engine of 16 ranks over two nodes, its bundles in the order of the hardware."""
    spec = plan_cluster(bundle_ct_per_node_list=[8, 8], strategy="PACK")
    order = predict_bundle_order(spec, h100_nodes(2))
    engine = evolve(
        GROUP,
        name_prefix="engine",
        bundle_indices_list=[(0, list(order))],
        mesh=axes(data_parallel=1, pipeline_parallel=2, tensor_parallel=8),
        places=PlaceArguments(
            localities={"tensor_parallel": "same_node"}, ports_per_engine=16, numa_binding=True
        ),
    )
    return predict_launch(spec, engine, h100_nodes(2), unified=True)


def _missing_gpu() -> PlanDifference:
    """Two nodes of four were predicted; one came with three, so a third had to help."""
    spec = plan_cluster(bundle_ct_per_node_list=[4, 4], strategy="PACK")
    group = evolve(GROUP, mesh=axes(data_parallel=2, tensor_parallel=4))
    predicted = predict_launch(spec, group, small_nodes(4, 4), unified=True)
    return difference(predicted, predict_launch(spec, group, small_nodes(4, 3, 1), unified=True))


GOLDEN: dict[str, Callable[[], Prediction | LaunchPlan | PlanDifference]] = {
    "heterogeneous_nodes": _heterogeneous,
    "gb200_segments": _segments,
    "three_colocated": _three_colocated,
    "engine_over_two_nodes": _engine_over_two_nodes,
    "missing_gpu": _missing_gpu,
}
