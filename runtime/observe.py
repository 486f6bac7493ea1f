"""Facts about a live Ray cluster, in the planner's own types."""

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import decode_source
from pathlib import Path

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group_table

from planner.amounts import CPU_UNIT, GPU_UNIT, Amounts
from planner.inventory import BundleFacts, Gpu, Inventory, Node
from runtime.ray_session import check_up

__all__ = ["observe_bundles", "observe_held", "observe_inventory", "source_of"]

TOPOLOGY_RANK_LABEL = "rankplan/topology-rank"
"""The node label that holds a node's place in the network's order."""

_BUNDLE_TOTAL = 1000
"""What a bundle has of its own resource."""

_TOTALS = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


def observe_inventory() -> Inventory:
    """The live nodes of the cluster, with what each has and what is free on it now.

    Raises:
        ExecutionError: This process is not connected to Ray.
    """
    check_up("inventory")
    free = available_resources_per_node()
    return Inventory(
        _node(
            each["NodeID"],
            each["NodeManagerAddress"],
            each["Resources"],
            free.get(each["NodeID"], {}),
            each["Labels"],
        )
        for each in ray.nodes()
        if each["Alive"]
    )


def _node(
    node_id: str,
    address: str,
    resources: Mapping[str, float],
    free: Mapping[str, float],
    labels: Mapping[str, str],
) -> Node:
    kind = labels.get("ray.io/accelerator-type") or _accelerator_type(resources) or "GPU"
    rank = labels.get(TOPOLOGY_RANK_LABEL, "")
    memory = int(resources.get("memory", 0))
    return Node(
        node_id=node_id,
        address=address,
        milli_cpus=round(resources.get("CPU", 0) * CPU_UNIT),
        memory=memory,
        gpus=tuple(Gpu(kind=kind, index=index) for index in range(int(resources.get("GPU", 0)))),
        custom=_custom(resources),
        labels=labels,
        nvlink_domain=labels.get("ray.io/gpu-domain") or None,
        topology_rank=int(rank) if rank.isdigit() else None,
        free=Amounts(
            milli_cpus=round(free.get("CPU", 0) * CPU_UNIT),
            memory=min(int(free.get("memory", 0)), memory),
            gpu_share=round(free.get("GPU", 0) * GPU_UNIT),
            custom={name: round(free.get(name, 0) * CPU_UNIT) for name in _custom(resources)},
        ),
        is_head="node:__internal_head__" in resources,
    )


def _custom(resources: Mapping[str, float]) -> dict[str, int]:
    return {
        name: round(amount * CPU_UNIT)
        for name, amount in resources.items()
        if name not in _TOTALS
        and not name.startswith(("node:", "accelerator_type:", "bundle_group_"))
        and "_group_" not in name
    }


def _accelerator_type(resources: Mapping[str, float]) -> str:
    marks = [name for name in resources if name.startswith("accelerator_type:")]
    return marks[0].partition(":")[2] if marks else ""


def observe_bundles(groups: Sequence[PlacementGroup]) -> tuple[BundleFacts, ...]:
    """On which node each bundle landed, by placement group and bundle; GPU ids are not known.

    Bundles of a placement group that was removed are left out: Ray's table keeps them.
    """
    addresses = {str(each["NodeID"]): str(each["NodeManagerAddress"]) for each in ray.nodes()}
    tables = [placement_group_table(group) for group in groups]
    return tuple(
        BundleFacts(
            placement_group=index,
            bundle=bundle,
            node_id=node_id,
            address=addresses.get(node_id, ""),
            resources=tuple(sorted(table["bundles"].get(bundle, {}).items())),
        )
        for index, table in enumerate(tables)
        if table.get("state") != "REMOVED"
        for bundle, node_id in sorted(table.get("bundles_to_node_id", {}).items())
    )


def observe_held(groups: Sequence[PlacementGroup]) -> dict[tuple[int, int], int]:
    """How many workers, actors and tasks each bundle holds, by placement group and bundle.

    Ray gives every bundle 1000 of a resource of its own, and takes 0.001 of it for whatever runs
    in the bundle, also for what asks for nothing else.
    """
    indices = {group.id.hex(): index for index, group in enumerate(groups)}
    held: dict[tuple[int, int], int] = {}
    for name, left in ray.available_resources().items():
        bundle, _, identity = name.removeprefix("bundle_group_").partition("_")
        if identity in indices and bundle.isdigit():
            held[indices[identity], int(bundle)] = round((_BUNDLE_TOTAL - left) * 1000)
    return held


def source_of(module: str, first: Sequence[str] = ()) -> tuple[str, bool] | None:
    """The source of a module, found without importing anything, and whether it is a package.

    Args:
        module: Its full name.
        first: Folders that are searched before this process's search path.

    Returns:
        None when there is no source to be found, or it cannot be read.
    """
    path = [*first, *sys.path]
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for index in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: index + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        source = decode_source(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, UnicodeError):
        return None
    return source, spec.submodule_search_locations is not None
