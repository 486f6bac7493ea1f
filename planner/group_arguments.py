"""What a caller asks of a worker group, before any of it is checked."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

from attrs import evolve, field, frozen

from planner.accelerators import GpuVisibility
from planner.class_name import check_class_name
from planner.environment import EnvironmentPolicy, EnvironmentSources
from planner.findings import Findings
from planner.group_places import PlaceArguments
from planner.interpreter import DriverInterpreter, Interpreter

__all__ = ["GroupArguments", "well_typed"]

_T = TypeVar("_T")


@frozen(kw_only=True)
class GroupArguments:
    """What the caller asked for, and the facts about the cluster it is asked of.

    Attributes:
        worker_class: Full name of the worker's class.
        bundle_counts: How many bundles each placement group of the cluster has.
        workers_per_node: As in ``RayWorkerGroup``.
        bundle_indices_list: As in ``RayWorkerGroup``; None when not given.
        name_prefix: As in ``RayWorkerGroup``.
        is_alone: Whether this is one worker outside any group; the prefix is then its name.
        mesh: The group's axes, or None.
        gpu_share: The share of a GPU of each worker, in ten-thousandths.
        gpu_visibility: A ``GpuVisibility`` or its value.
        interpreter: What the hosts run in.
        options: Actor options of the class, merged with the caller's.
        sources: Everything that may set a variable.
        policy: What of the driver's environment is handed on.
        names_taken: Names of live actors.
        asynchronous: Whether the class has ``async`` methods.
        notes: What is known already and worth telling.
        places: What is asked of the workers' places: closeness, ports, cores, profilers.
        most_calls: How many calls may be under way, each worker's counted by itself; None for no
            limit.
        tensor_transport: The direct transport that the group shall be started for, or None.
    """

    worker_class: str
    bundle_counts: tuple[int, ...] = ()
    workers_per_node: object = None
    bundle_indices_list: object = None
    name_prefix: object = ""
    is_alone: bool = False
    mesh: object = None
    gpu_share: int = 0
    gpu_visibility: object = GpuVisibility.ISOLATED
    interpreter: Interpreter = DriverInterpreter()
    options: Mapping[str, object] = field(factory=dict)
    sources: EnvironmentSources = EnvironmentSources()
    policy: EnvironmentPolicy = EnvironmentPolicy()
    names_taken: AbstractSet[str] = frozenset()
    asynchronous: bool = False
    notes: tuple[str, ...] = ()
    places: PlaceArguments = PlaceArguments()
    most_calls: int | None = None
    tensor_transport: object = None


def well_typed(given: GroupArguments, findings: Findings) -> GroupArguments:
    """The arguments; a finding, and what does no harm, in the place of what is of a wrong type."""
    good_class = check_class_name("worker_class", given.worker_class, findings)
    nothing: Mapping[str, object] = {}
    sources = _kept("sources", given.sources, EnvironmentSources(), "EnvironmentSources", findings)
    unset: Mapping[str, str] = {}
    held = {
        "class_options": sources.class_options,
        "driver": sources.driver,
        "interpreter": sources.interpreter,
        "group": sources.group,
        "forced": sources.forced,
    }
    variables = {
        name: _kept(f"sources.{name}", each, unset, "a mapping of names to values", findings)
        for name, each in held.items()
    }
    return evolve(
        given,
        worker_class=given.worker_class if good_class else "unknown.Worker",
        options=_kept("options", given.options, nothing, "a mapping of actor options", findings),
        policy=_kept("policy", given.policy, EnvironmentPolicy(), "an EnvironmentPolicy", findings),
        places=_kept("places", given.places, PlaceArguments(), "PlaceArguments", findings),
        sources=EnvironmentSources(**variables),
    )


def _kept(path: str, value: _T, harmless: _T, wanted: str, findings: Findings) -> _T:
    """The value when it is of the type of the harmless one; any mapping is as good as another."""
    kind = Mapping if isinstance(harmless, Mapping) else type(harmless)
    if isinstance(value, kind):
        return value
    findings.add(path, f"a value of type {type(value).__name__}", f"give {wanted}")
    return harmless
