"""Looks at the machines of a cluster: one short task on each node says what Ray does not know."""

from collections.abc import Mapping
from typing import Any

import ray
from attrs import evolve
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from planner.inventory import Gpu, Inventory, Node, NumaNode
from runtime import node_facts
from runtime.errors import ExecutionError

__all__ = ["observe_hardware"]

LOOK_SECONDS = 60.0
"""How long looking at the nodes may take."""


def observe_hardware(inventory: Inventory) -> Inventory:
    """The inventory with the NUMA layout of each node, and its GPUs' kinds, memory and UUIDs.

    Args:
        inventory: The live nodes, as ``observe_inventory`` gives them.

    Raises:
        ExecutionError: A node did not answer; the error names all that did not.
    """
    looking = ray.remote(num_cpus=0, max_calls=1)(node_facts.look)
    asked: dict[str, Any] = {}
    for node in inventory.nodes:
        there = NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False)
        gpus = [str(gpu.index) for gpu in node.gpus]
        asked[node.node_id] = looking.options(scheduling_strategy=there).remote(
            {"numa": True}, gpus, ray.__version__
        )
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=LOOK_SECONDS)
    found: dict[str, Mapping[str, Any]] = {}
    silent: list[str] = []
    for node in inventory.nodes:
        try:
            found[node.node_id] = ray.get(asked[node.node_id], timeout=0)
        except (GetTimeoutError, RayError) as error:
            ray.cancel(asked[node.node_id], force=True)
            silent.append(f"{node.address} ({type(error).__name__})")
    if silent:
        raise ExecutionError(
            f"{len(silent)} of {len(asked)} nodes did not say what they have within "
            f"{LOOK_SECONDS:g} s: {', '.join(silent[:8])}"
        )
    return Inventory(_seen(node, found[node.node_id]) for node in inventory.nodes)


def _seen(node: Node, look: Mapping[str, Any]) -> Node:
    numa = tuple(
        NumaNode(index=each["index"], cores=tuple(each["cores"]), memory=each["memory"])
        for each in look["numa"]
    )
    known = {each.index for each in numa}
    gpus = {each["index"]: each for each in (look["gpus"] or {}).get("gpus", ())}
    return evolve(
        node, numa=numa, gpus=tuple(_gpu(gpu, gpus.get(gpu.index, {}), known) for gpu in node.gpus)
    )


def _gpu(gpu: Gpu, look: Mapping[str, Any], known: set[int]) -> Gpu:
    home = look.get("numa_node")
    return evolve(
        gpu,
        kind=look.get("kind") or gpu.kind,
        memory=look.get("total") or gpu.memory,
        uuid=look.get("uuid") or gpu.uuid,
        numa_node=home if home in known else None,
    )
