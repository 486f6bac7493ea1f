"""What the hosts of a worker group are started with: every argument checked, nothing started."""

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from planner.accelerators import GpuVisibility
from planner.environment import (
    EnvVar,
    GroupEnvironment,
    check_before_python,
    plan_environment,
)
from planner.findings import Findings
from planner.group_arguments import GroupArguments, well_typed
from planner.group_places import PlaceSpec, checked_places
from planner.interpreter import (
    BuiltEnvironment,
    DriverInterpreter,
    Interpreter,
    describe_interpreter,
)
from planner.mesh import NamedSharding
from planner.options import JsonObject, actor_options, json_object, recursive_merge_options
from planner.profiling import profiler_of
from planner.runtime_env import check_no_credentials, check_spelling
from planner.slots import Slot, choose_prefix, plan_slots, plan_tied_slots
from planner.transports import with_transport

__all__ = [
    "FULL_GPU",
    "GroupArguments",
    "GroupSpec",
    "HostRequest",
    "WorkerOverrides",
    "checked_group",
    "gpu_share_of",
    "group_subject",
    "plan_group",
    "plan_hosts",
    "with_environment_before_python",
]

FULL_GPU = 10_000
"""One GPU in the unit of shares: Ray's resolution, so that sums are exact."""


@frozen(kw_only=True)
class WorkerOverrides:
    """What a class's ``configure_worker`` asked for, for one worker.

    Attributes:
        gpu_share: Its share of a GPU in ten-thousandths; None keeps the group's.
        environment: Variables for this worker only.
        constructor: Names of the constructor arguments that it adds; their values are not data.
        runtime_env: Additions to Ray's runtime environment.
    """

    gpu_share: int | None = None
    environment: tuple[EnvVar, ...] = ()
    constructor: tuple[str, ...] = ()
    runtime_env: JsonObject = JsonObject()


@frozen(kw_only=True)
class GroupSpec:
    """A worker group as far as it is known before its hosts have reported.

    Attributes:
        name: The group's name: the prefix of its workers' names.
        worker_class: Full name of the worker's class.
        slots: One per worker. Their order is the rank order when ``keeps_order``; otherwise
            ranks follow the hardware.
        keeps_order: Whether the caller chose the order.
        mesh: The group's axes, or None.
        gpu_share: The share of a GPU of each worker, in ten-thousandths.
        gpu_visibility: Which GPUs of the node a worker sees.
        interpreter: What the hosts run in.
        environment: What all workers share.
        runtime_env: Ray's runtime environment, shared by all hosts.
        options: Further actor options of the hosts.
        asynchronous: Whether hosts run on an event loop.
        overrides: What ``configure_worker`` asked for, one per slot; empty when there is none.
        notes: What a reader of the plan should know.
        places: What is asked of the workers' places.
    """

    name: str
    worker_class: str
    slots: tuple[Slot, ...]
    keeps_order: bool
    mesh: NamedSharding | None
    gpu_share: int
    gpu_visibility: GpuVisibility
    interpreter: Interpreter
    environment: GroupEnvironment
    runtime_env: JsonObject
    options: JsonObject
    asynchronous: bool
    overrides: tuple[WorkerOverrides, ...] = ()
    notes: tuple[str, ...] = ()
    places: PlaceSpec = PlaceSpec()


@frozen(kw_only=True)
class HostRequest:
    """One host actor to start.

    Attributes:
        name: The actor's name.
        placement_group: Index of its placement group.
        bundle: Index of its bundle.
        gpu_share: In ten-thousandths of a GPU.
        runtime_env: Ray's runtime environment.
        options: Further actor options.
        asynchronous: Whether it runs on an event loop.
    """

    name: str
    placement_group: int
    bundle: int
    gpu_share: int
    runtime_env: JsonObject
    options: JsonObject
    asynchronous: bool


def gpu_share_of(*, use_gpus: bool, colocated: int) -> int:
    """The share of every GPU that one of the groups on a cluster gets, in ten-thousandths."""
    return FULL_GPU // colocated if use_gpus else 0


def plan_group(given: GroupArguments) -> GroupSpec:
    """Check everything that was asked for and say what the hosts are started with.

    Raises:
        PlanError: Something is wrong; all of it is in the error.
    """
    findings = Findings(group_subject(given.name_prefix, given.worker_class))
    spec = checked_group(given, findings)
    findings.check()
    return spec


def group_subject(name_prefix: object, worker_class: object) -> str:
    """How errors about a group call it before its name is known."""
    for name in (name_prefix, worker_class):
        if isinstance(name, str) and name:
            return f"worker group {name!r}"
    return "worker group"


def checked_group(asked: GroupArguments, findings: Findings) -> GroupSpec:
    """The same as ``plan_group``, together with what others find out.

    Args:
        asked: What was asked for.
        findings: Where problems are recorded; while there are any, the result is of no use.
    """
    given = well_typed(asked, findings)
    notes = list(given.notes)
    explicit = given.bundle_indices_list is not None
    if explicit:
        slots = plan_tied_slots(given.bundle_indices_list, given.bundle_counts, findings)
    else:
        slots = plan_slots(given.workers_per_node, given.bundle_counts, findings)
    if given.is_alone:
        slots = tuple(evolve(slot, is_alone=True) for slot in slots)
    name = choose_prefix(given.name_prefix, given.worker_class, slots, given.names_taken, findings)
    mesh = _checked_mesh(given.mesh, len(slots), findings)
    _check_calls(given.most_calls, len(slots), findings)
    visibility = _checked_visibility(given.gpu_visibility, findings)
    environment = plan_environment(given.sources, given.policy, findings)
    options = with_transport(
        actor_options(given.options, findings, notes),
        given.tensor_transport,
        findings,
        notes,
        asynchronous=given.asynchronous,
    )
    runtime_env = _runtime_env(given, environment, findings, notes)
    names = [slot.name(name) for slot in slots]
    places = checked_places(given.places, mesh, names, findings, notes)
    return GroupSpec(
        name=name,
        worker_class=given.worker_class,
        slots=slots,
        keeps_order=explicit,
        mesh=mesh,
        gpu_share=given.gpu_share,
        gpu_visibility=visibility,
        interpreter=given.interpreter,
        environment=environment,
        runtime_env=runtime_env,
        options=options,
        asynchronous=given.asynchronous,
        notes=(*notes, *_environment_notes(given, environment)),
        places=places,
    )


def plan_hosts(spec: GroupSpec) -> tuple[HostRequest, ...]:
    """The hosts to start, one per slot in slot order."""
    shared = HostRequest(
        name="",
        placement_group=0,
        bundle=0,
        gpu_share=spec.gpu_share,
        runtime_env=spec.runtime_env,
        options=spec.options,
        asynchronous=spec.asynchronous,
    )
    return tuple(_host(spec, shared, index) for index in range(len(spec.slots)))


def with_environment_before_python(spec: GroupSpec, names: Sequence[str]) -> GroupSpec:
    """The group again, with more variables in its runtime environment.

    The driver hands on some variables that must exist before Python starts. The nodes usually
    have them already; where they do not, the hosts must start with them.

    Raises:
        PlanError: A value cannot be part of a runtime environment.
    """
    findings = Findings(f"worker group {spec.name!r}")
    held = {each.name: each for each in spec.environment.variables}
    check_before_python([held[name] for name in names], findings)
    findings.check()
    given = {name: held[name].value for name in names}
    merged = recursive_merge_options(spec.runtime_env.value(), {"env_vars": given})
    note = f"{', '.join(names)} must exist before Python starts and differ on some node: slow start"
    return evolve(
        spec,
        runtime_env=json_object("runtime_env", merged, findings),
        environment=evolve(spec.environment, expected=()),
        notes=(*spec.notes, note),
    )


def _host(spec: GroupSpec, shared: HostRequest, index: int) -> HostRequest:
    slot = spec.slots[index]
    share, runtime_env = shared.gpu_share, shared.runtime_env
    if spec.overrides:
        override = spec.overrides[index]
        share = share if override.gpu_share is None else override.gpu_share
        if override.runtime_env:
            merged = recursive_merge_options(runtime_env.value(), override.runtime_env.value())
            runtime_env = json_object("runtime_env", merged, Findings(spec.name))
    profiler = profiler_of(spec.places.profiles, slot.name(spec.name))
    if profiler:
        merged = recursive_merge_options(runtime_env.value(), profiler.value())
        runtime_env = json_object("profile", merged, Findings(spec.name))
    return HostRequest(
        name=slot.name(spec.name),
        placement_group=slot.placement_group,
        bundle=slot.bundle,
        gpu_share=share,
        runtime_env=runtime_env,
        options=shared.options,
        asynchronous=shared.asynchronous,
    )


def _checked_mesh(given: object, workers: int, findings: Findings) -> NamedSharding | None:
    if given is None:
        return None
    if not isinstance(given, NamedSharding):
        findings.add(
            "sharding_annotations",
            f"a value of type {type(given).__name__}",
            "give a NamedSharding(layout, names), or None",
        )
        return None
    if workers and sorted(given.ranks) != list(range(workers)):
        sizes = " x ".join(f"{name}={size}" for name, size in given.shape.items())
        findings.add(
            "sharding_annotations",
            f"its {given.size} ranks ({sizes}) are not the ranks 0 to {workers - 1} of the "
            f"{workers} workers",
            f"arrange exactly the ranks 0 to {workers - 1}, or start {given.size} workers",
        )
    return given


def _check_calls(most: int | None, workers: int, findings: Findings) -> None:
    if most is not None and 0 < most < workers:
        findings.add(
            "max_calls_in_flight",
            f"{most} calls may be under way, and a call of all {workers} workers makes {workers}",
            f"give {workers} or more",
        )


def _checked_visibility(given: object, findings: Findings) -> GpuVisibility:
    if isinstance(given, GpuVisibility):
        return given
    for mode in GpuVisibility:
        if given == mode.value:
            return mode
    modes = ", ".join(repr(mode.value) for mode in GpuVisibility)
    findings.add("gpu_visibility", f"{given!r} is not a mode", f"use one of {modes}")
    return GpuVisibility.ISOLATED


def _runtime_env(
    given: GroupArguments, environment: GroupEnvironment, findings: Findings, notes: list[str]
) -> JsonObject:
    own = given.options.get("runtime_env") or {}
    shared = {k: v for k, v in own.items() if k != "env_vars"} if isinstance(own, Mapping) else {}
    if not isinstance(own, Mapping):
        findings.add(
            "options.runtime_env", f"a value of type {type(own).__name__}", "give a mapping"
        )
    check_no_credentials("options.runtime_env", shared, findings)
    check_spelling("options.runtime_env", shared, findings)
    if environment.before_python:
        values = {each.name: each.value for each in environment.variables}
        shared["env_vars"] = {name: values[name] for name in environment.before_python}
    if shared:
        notes.append(
            "the group has a Ray runtime environment "
            f"({', '.join(sorted(shared))}): hosts start about twice as slowly"
        )
    return json_object("options.runtime_env", shared, findings)


def _environment_notes(given: GroupArguments, environment: GroupEnvironment) -> list[str]:
    notes: list[str] = []
    match given.interpreter:
        case DriverInterpreter():
            notes.append(
                f"{given.worker_class} is not in the registry: it runs in the driver's interpreter"
            )
        case BuiltEnvironment():
            notes.append(f"interpreter: {describe_interpreter(given.interpreter)}")
        case _:
            pass
    if environment.withheld:
        notes.append(
            f"not handed on, they look like credentials: {', '.join(environment.withheld)} "
            "(give them in env_vars, or name them in EnvironmentPolicy.credentials)"
        )
    return notes
