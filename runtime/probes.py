"""Short tasks that look at a node: which GPUs a bundle has, which port is free, what a class is."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from attrs import evolve
from ray.exceptions import GetTimeoutError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from planner.class_source import ClassFacts
from planner.inventory import BundleFacts
from runtime import worker_class
from runtime.errors import ExecutionError, step_error

__all__ = ["ask_configure_worker", "free_address", "gpus_of_bundles", "import_class"]

PROBE_SECONDS = 60.0
"""How long a look at a node may take."""

IMPORT_SECONDS = 300.0
"""How long importing a worker's class may take; inference engines need 40 seconds and more."""


def gpus_of_bundles(
    groups: Sequence[PlacementGroup], facts: Sequence[BundleFacts]
) -> tuple[BundleFacts, ...]:
    """The bundles with the ids of their GPUs; one short process in each bundle looks."""
    probe = ray.remote(num_gpus=1, num_cpus=0, max_calls=1)(_gpu_ids)
    asked = [
        probe.options(scheduling_strategy=_in_bundle(groups[each.placement_group], each.bundle))
        for each in facts
    ]
    found = _get([each.remote() for each in asked], PROBE_SECONDS, "looking at the bundles' GPUs")
    return tuple(evolve(each, gpus=tuple(gpus)) for each, gpus in zip(facts, found, strict=True))


def free_address(group: PlacementGroup, bundle: int) -> tuple[str, int]:
    """The address of a bundle's node and a port that is free there now."""
    probe = ray.remote(num_cpus=0)(_free_address)
    asked = probe.options(scheduling_strategy=_in_bundle(group, bundle)).remote()
    address, port = _get([asked], PROBE_SECONDS, "looking for a free port")[0]
    return str(address), int(port)


def import_class(full_name: str, runtime_env: Mapping[str, Any], node_id: str) -> ClassFacts:
    """What must be known of a class before its hosts start, by importing it once on a node.

    Raises:
        ExecutionError: It cannot be imported there; of the import's own error type too.
    """
    probe = ray.remote(num_cpus=0, max_calls=1)(worker_class.probe_class)
    asked = _on_node(probe, runtime_env, node_id).remote(full_name)
    what = f"importing {full_name} on node {_address(node_id)}"
    answer: Mapping[str, Any] = _get([asked], IMPORT_SECONDS, what)[0]
    return ClassFacts(
        asynchronous=answer["asynchronous"],
        configures=answer["configures"],
        options=answer["options"],
    )


def ask_configure_worker(
    full_name: str,
    runtime_env: Mapping[str, Any],
    node_id: str,
    environment: Mapping[str, str],
    questions: Sequence[tuple[float, object]],
    num_gpus_per_node: int,
    from_node: Mapping[str, object],
) -> list[object]:
    """What a class's ``configure_worker`` answers for each worker, in the workers' interpreter."""
    # Its process ends with it: as a host it would have imported the class too early.
    probe = ray.remote(num_cpus=0, max_calls=1)(worker_class.ask_configure_worker)
    asked = _on_node(probe, runtime_env, node_id).remote(
        full_name, environment, questions, num_gpus_per_node, from_node
    )
    what = f"asking configure_worker of {full_name} on node {_address(node_id)}"
    answers: list[object] = _get([asked], IMPORT_SECONDS, what)[0]
    return answers


def _address(node_id: str) -> str:
    """How a user knows a node."""
    found = (str(each["NodeManagerAddress"]) for each in ray.nodes() if each["NodeID"] == node_id)
    return next(found, node_id)


def _on_node(probe: Any, runtime_env: Mapping[str, Any], node_id: str) -> Any:
    options: dict[str, Any] = {
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    }
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    return probe.options(**options)


def _get(refs: Sequence["ray.ObjectRef[Any]"], seconds: float, what: str) -> list[Any]:
    try:
        return ray.get(list(refs), timeout=seconds)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise step_error(what, cause) from cause
    except GetTimeoutError as error:
        for ref in refs:
            ray.cancel(ref, force=True)
        raise ExecutionError(
            f"{what} took longer than {seconds:g} s: the node may be out of worker processes, or "
            "the interpreter of its runtime environment may not exist there"
        ) from error


def _in_bundle(group: PlacementGroup, bundle: int) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=bundle
    )


def _gpu_ids() -> list[str]:
    return [str(gpu) for gpu in ray.get_gpu_ids()]


def _free_address() -> tuple[str, int]:
    with socket.socket() as asked:
        asked.bind(("", 0))
        return ray.util.get_node_ip_address(), int(asked.getsockname()[1])
