"""The runtime's effects on Ray. Nothing is decided here."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef, ObjectRefGenerator, cloudpickle
from ray._private import state
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorAlreadyExistsError,
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.experimental import get_local_object_locations
from ray.util import list_named_actors
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from planner.class_source import ClassFacts, scan_class
from planner.group import FULL_GPU, GroupSpec, HostRequest
from planner.interpreter import Interpreter
from planner.inventory import BundleFacts
from planner.node_environment import group_node_variables
from planner.tracebacks import readable
from runtime import (
    batch_bytes,
    batches,
    carrying,
    companion,
    direct_values,
    handle,
    host,
    host_body,
    inherited,
    linking,
    node_facts,
    probes,
    raised,
    tensor_storages,
    vitals,
    worker_class,
)
from runtime.backend import Looked, OutOfTimeError, Reference, WordsOfDeath
from runtime.batch_bytes import pack
from runtime.direct_on_ray import DIRECT_ON_RAY, DirectOnRay, Kept, copies_of
from runtime.interpreters import interpreter_of, prepare_interpreter
from runtime.observe import observe_bundles, observe_held, source_of
from runtime.probes import ask_configure_worker, import_class
from runtime.ray_session import DEAD, check_connected, forget_dead, session

__all__ = ["RAY", "RayBackend"]

BUILD_SECONDS = 1800.0
"""How long building a Python environment may take."""

NAME_SECONDS = 10.0
"""How long a name that is free on the cluster may seem to be taken."""

DEATH_SECONDS = 5.0
"""How long Ray may take to say why an actor is dead."""

# Python 3.11 keeps the depth of the parser in one place for all threads.
_PARSER = threading.Lock()

# Hosts and handles travel by value: the other side may not have rankplan installed.
cloudpickle.register_pickle_by_value(host)
cloudpickle.register_pickle_by_value(host_body)
cloudpickle.register_pickle_by_value(inherited)
cloudpickle.register_pickle_by_value(raised)
cloudpickle.register_pickle_by_value(worker_class)
cloudpickle.register_pickle_by_value(handle)
cloudpickle.register_pickle_by_value(probes)
cloudpickle.register_pickle_by_value(vitals)
cloudpickle.register_pickle_by_value(node_facts)
cloudpickle.register_pickle_by_value(companion)
cloudpickle.register_pickle_by_value(batches)
cloudpickle.register_pickle_by_value(batch_bytes)
cloudpickle.register_pickle_by_value(carrying)
cloudpickle.register_pickle_by_value(direct_values)
cloudpickle.register_pickle_by_value(linking)
cloudpickle.register_pickle_by_value(tensor_storages)
carrying.carry_named_sharding()

_HOST = ray.remote(host.Host)
_ASYNC_HOST = ray.remote(host.AsyncHost)
_COMPANION = ray.remote(companion.Companion)


class RayBackend:
    """``Backend`` on the Ray cluster that this process is connected to."""

    @property
    def is_up(self) -> bool:
        """Whether this process is connected."""
        return ray.is_initialized()

    @property
    def session(self) -> str:
        """Ray's name of it, and the job that this process is there."""
        return session()

    @property
    def direct(self) -> DirectOnRay:
        """Ray's direct transport."""
        return DIRECT_ON_RAY

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    async def rest(self, seconds: float) -> None:
        """``asyncio.sleep``."""
        await asyncio.sleep(seconds)

    def waits_until(self, ends: float) -> None:
        """Nothing: time passes by itself."""

    def start_host(self, request: HostRequest, group: PlacementGroup) -> ActorHandle[Any]:
        """Submit one host actor; returns at once."""
        options: dict[str, Any] = request.options.value()
        runtime_env = request.runtime_env.value()
        if runtime_env:
            options["runtime_env"] = runtime_env
        options.setdefault("num_cpus", 0)
        options |= {
            "name": request.name,
            "num_gpus": request.gpu_share / FULL_GPU,
            "max_restarts": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=group,
                placement_group_bundle_index=request.bundle,
                placement_group_capture_child_tasks=True,
            ),
        }
        kind: Any = _ASYNC_HOST if request.asynchronous else _HOST
        with_class = {"concurrency_groups": options.pop("concurrency_groups", None)}
        with_class["enable_tensor_transport"] = bool(options.pop("tensor_transport", "")) or None
        if any(with_class.values()):
            # Ray takes these with the class only.
            body = host.AsyncHost if request.asynchronous else host.Host
            kind = ray.remote(**{name: each for name, each in with_class.items() if each})(body)
        ends = time.monotonic() + NAME_SECONDS
        while True:
            try:
                actor: ActorHandle[Any] = kind.options(**options).remote(request.name)
            except ActorAlreadyExistsError:
                # This process may still know an actor whose name the cluster has given up.
                if request.name in self.names() or time.monotonic() > ends:
                    raise
                forget_dead(request.name)
                time.sleep(0.02)
            else:
                return actor

    def start_companion(self, node_id: str, name: str) -> ActorHandle[Any]:
        """Submit a companion; returns at once."""
        where = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "name": name}
        actor: ActorHandle[Any] = _COMPANION.options(**options, scheduling_strategy=where).remote()
        return actor

    def death(self, actor: ActorHandle[Any]) -> BaseException | None:
        """Ray tells every process that holds an actor's handle when the actor dies."""
        if actor._get_local_state() != DEAD:
            return None
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=DEATH_SECONDS)
        except RayError as error:
            return error
        return None

    def words_of_death(self, error: BaseException) -> WordsOfDeath | None:
        """What Ray says, and when its actor table says it was."""
        if isinstance(error, RayTaskError):
            return None
        if isinstance(error, RayActorError):
            return WordsOfDeath(str(error), _died_at(error.actor_id), error.preempted)
        if isinstance(error, NodeDiedError | OutOfMemoryError | WorkerCrashedError):
            return WordsOfDeath(f"{type(error).__name__}: {error}")
        return None

    def sees(self, shown: Mapping[str, Any]) -> bool:
        """Its boot id and its names of processes are ours."""
        return shown.get("machine") == vitals.machine()

    def remains_here(self, shown: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Read from the log, when it is on this machine."""
        return companion.remains_of(shown) if shown.get("log") and self.sees(shown) else None

    def is_gone(self, shown: Mapping[str, Any], *, force: bool) -> bool | None:
        """Seen in ``/proc``; a stopped process does not hear Ray, so it is killed at once."""
        if not shown or not self.sees(shown):
            return None
        state = companion.state_of(shown)
        if state == "T" or (state and force):
            companion.Companion().kill({0: shown})
        return not state

    def live_nodes(self) -> frozenset[str]:
        """Read from Ray's node table."""
        return frozenset(str(each["NodeID"]) for each in ray.nodes() if each["Alive"])

    def entry(self, actor: ActorHandle[Any], method: str) -> Callable[..., Reference]:
        """``Host.named``, with the method as the task's name, which Ray sends anyway.

        As an argument it would make a call without arguments a quarter slower.
        """
        return actor.named.options(name=method).remote

    def put(self, value: object) -> Reference:
        """Put an object into Ray's store."""
        check_connected()
        return ray.put(pack(value))

    def is_reference(self, value: object) -> bool:
        """Whether it is an ``ObjectRef``."""
        return isinstance(value, ObjectRef)

    def is_stream(self, value: object) -> bool:
        """Whether it is an ``ObjectRefGenerator``."""
        return isinstance(value, ObjectRefGenerator)

    def wait(
        self, references: Sequence[Reference], count: int, timeout: float | None
    ) -> tuple[list[Reference], list[Reference]]:
        """``ray.wait``; objects stay where they are."""
        check_connected()
        given = {each.object: each for each in references if type(each) is Kept}
        waited = [DIRECT_ON_RAY.argument(each) for each in references] if given else references
        ready, rest = ray.wait(list(waited), num_returns=count, timeout=timeout, fetch_local=False)
        if given:
            ready, rest = ([given.get(e, e) for e in found] for found in (ready, rest))
        return ready, rest

    def get(self, references: Sequence[Reference], timeout: float | None) -> list[Any]:
        """``ray.get``; of what stays with its maker, a copy, made once all are there."""
        check_connected()
        here, left = references, timeout
        if any(type(each) is Kept for each in references):
            here, left = copies_of(self, references, timeout)
        try:
            return ray.get(list(here), timeout=left)
        except GetTimeoutError as error:
            if isinstance(error, RayTaskError):
                # A worker's own timeout, which is a failure like any other.
                raise
            raise OutOfTimeError(f"not all were there after {timeout:g} s") from error

    async def fetch(self, references: Sequence[Reference]) -> list[Any]:
        """``ray.get`` in a thread."""
        return await asyncio.to_thread(self.get, references, None)

    def look(self, references: Sequence[ObjectRef[Any] | Kept]) -> Looked:
        """What Ray keeps in this process: small values, and errors of up to 100 KiB.

        The rest are in a node's store, and this process, which owns them, knows in whose; or they
        stay with their makers.
        """
        kept = [each for each in references if isinstance(each, Kept)]
        stored = [each for each in references if not isinstance(each, Kept)]
        places = get_local_object_locations(stored)
        away = {e for e, it in places.items() if it["node_ids"] or it["did_spill"]}
        values: dict[Reference, Any] = {}
        failed = {each: error for each in kept if (error := each.failure()) is not None}
        errors: dict[Reference, BaseException] = {}
        errors.update((each, self.cause_of(error)) for each, error in failed.items())
        for each in (each for each in stored if each not in away):
            try:
                values[each] = ray.get(each)
            except Exception as error:  # noqa: BLE001  # any type: it is the user's
                errors[each] = self.cause_of(error)
        return Looked(values, errors)

    def cancel(self, reference: Reference) -> None:
        """``ray.cancel``; between two values of a stream Ray closes the worker's generator."""
        ray.cancel(reference)

    def end_of(self, stream: Reference) -> Reference:
        """``completed()``; a cancelled stream counts as ready before its worker has left it."""
        return stream.completed()

    def cause_of(self, error: BaseException) -> BaseException:
        """What the user's code raised, inside ``RayTaskError``, whose text is its traceback."""
        cause = error.cause if isinstance(error, RayTaskError) else None
        if not isinstance(cause, BaseException):
            return error
        cause = raised.cargo_of(cause)
        raised.put(cause, "rankplan_trace", readable(str(error)))
        return cause

    def kill(self, actor: ActorHandle[Any]) -> None:
        """``ray.kill``; where this process has left Ray, Ray ends them by itself."""
        if not ray.is_initialized():
            return
        DIRECT_ON_RAY.note_ended([actor])
        try:
            ray.kill(actor)
        except (RayError, ValueError):
            # Dead already, or never registered: there is nothing left to end.
            return

    def names(self) -> frozenset[str]:
        """The names of live actors in this driver's namespace."""
        return frozenset(str(name) for name in list_named_actors(all_namespaces=False))

    def landed(self, groups: Sequence[PlacementGroup]) -> tuple[BundleFacts, ...]:
        """Read from the placement groups' table."""
        return observe_bundles(groups)

    def held(self, groups: Sequence[PlacementGroup]) -> Mapping[tuple[int, int], int]:
        """Read from what is left of each bundle, which the nodes report ten times a second."""
        return observe_held(groups) if ray.is_initialized() else {}

    def interpreter_of(self, worker_class: str) -> Interpreter:
        """Read from ``ACTOR_ENVIRONMENT_REGISTRY``."""
        return interpreter_of(worker_class)

    def prepare_interpreter(self, interpreter: Interpreter, node_ids: Sequence[str]) -> str | None:
        """Find or build it on every node."""
        return prepare_interpreter(interpreter, node_ids, BUILD_SECONDS).executable

    def class_facts(
        self, worker_class: str, runtime_env: Mapping[str, Any], node_id: str
    ) -> tuple[ClassFacts, str]:
        """Read from its source where that is the one the workers import; else by importing it.

        The source is looked for as the workers do: first on the group's ``PYTHONPATH``. With
        another interpreter, or when the path has an entry that this machine lacks, the workers
        may import another class than is found here. Then, and where the source does not tell,
        the class is imported once on a node before the hosts start. That costs the start as
        long as the import takes: 40 seconds for an inference engine.
        """
        path = str(runtime_env.get("env_vars", {}).get("PYTHONPATH", ""))
        first = [entry for entry in path.split(":") if entry]
        if "py_executable" in runtime_env:
            reason = "the workers' interpreter is another"
        elif not all(Path(entry).exists() for entry in first):
            reason = "its PYTHONPATH is not on this machine"
        else:
            with _PARSER:
                found = scan_class(worker_class, partial(source_of, first=first))
            if found is not None:
                return found, "read from its source"
            reason = "its source does not tell"
        facts = import_class(worker_class, runtime_env, node_id)
        return facts, f"by importing it once before the hosts started: {reason}"

    def ask_configure_worker(
        self,
        spec: GroupSpec,
        environment: Mapping[str, str],
        bundle_indices: Sequence[object],
        num_gpus_per_node: int,
        node_id: str,
    ) -> list[Any]:
        """Asked once for all, in the workers' interpreter on a node."""
        return ask_configure_worker(
            spec.worker_class,
            spec.runtime_env.value(),
            node_id,
            environment,
            [(spec.gpu_share / FULL_GPU, each) for each in bundle_indices],
            num_gpus_per_node,
            group_node_variables(spec.environment, spec.interpreter).told(),
        )


def _died_at(actor_id: str | None) -> float | None:
    if actor_id is None or not ray.is_initialized():
        return None
    ended = state.actors(actor_id).get("EndTime", 0)
    return ended / 1000 if ended else None


RAY = RayBackend()
"""The backend of every group on a ``RayVirtualCluster``."""
