"""``Backend`` over plain objects in this process: no Ray, no processes, virtual time, a seed."""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from attrs import field, frozen
from ray.exceptions import ActorAlreadyExistsError

from planner.class_source import ClassFacts, scan_class
from planner.group import FULL_GPU, GroupSpec, HostRequest
from planner.interpreter import DriverInterpreter, Interpreter
from planner.inventory import BundleFacts
from planner.node_environment import group_node_variables
from runtime.backend import Looked, OutOfTimeError, WordsOfDeath
from runtime.errors import step_error
from runtime.faults import Called, Fault, Faults
from runtime.in_process import Process
from runtime.in_process_actor import InProcessActor
from runtime.in_process_being import inside_current
from runtime.in_process_direct import InProcessDirect
from runtime.in_process_hosts import (
    WorldCompanion,
    address_of,
    held_in,
    host_body,
    standing_in,
)
from runtime.in_process_objects import Item, ProcessDiedError, Reader, StreamEnd
from runtime.in_process_surroundings import Surroundings, being_in, put_back, replace_names
from runtime.in_process_threads import ControllerThreads
from runtime.observe import source_of
from runtime.raised import cargo_of
from runtime.virtual_time import VirtualLoop, VirtualTime
from runtime.worker_class import ask_configure_worker, probe_class

__all__ = ["InProcessGroup", "World"]

_ASKED_PID = 1000
"""The pid of the pretended process in which classes are asked what they need."""

_SMALL = 100 * 1024
"""Up to how many bytes a value comes to its caller by itself."""


@frozen
class InProcessGroup:
    """A pretended placement group.

    Attributes:
        bundles: Per bundle its node's number and its GPU's; a GPU of -1 is none.
    """

    bundles: tuple[tuple[int, int], ...]

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self.bundles)


@frozen(eq=False)
class World:
    """Everything that the in-process backend pretends.

    Attributes:
        seed: What every choice is drawn from.
        faults: What goes wrong.
    """

    seed: int = 0
    faults: Faults = Faults()
    random: Random = field(init=False)
    time: VirtualTime = field(init=False)
    direct: InProcessDirect = field(init=False, factory=InProcessDirect)
    numbers: "itertools.count[int]" = field(
        init=False, factory=lambda: itertools.count(_ASKED_PID + 1)
    )
    lock: threading.RLock = field(init=False, factory=threading.RLock)
    threads: ControllerThreads = field(init=False)
    processes: dict[str, Process] = field(init=False, factory=dict)
    nodes: set[str] = field(init=False, factory=set)
    dead_nodes: set[str] = field(init=False, factory=set)
    removed: set[InProcessGroup] = field(init=False, factory=set)
    moved: dict[int, int] = field(init=False, factory=dict)
    _loops: list[VirtualLoop] = field(init=False, factory=list)

    @threads.default
    def _of_lock(self) -> ControllerThreads:
        return ControllerThreads(self.lock)

    def __attrs_post_init__(self) -> None:
        source = Random(self.seed)  # noqa: S311  # a simulation
        object.__setattr__(self, "random", source)
        others = self.threads.wait_for_others
        object.__setattr__(self, "time", VirtualTime(source, lambda: standing_in(self), others))
        replace_names(self)

    # What processes need.

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen later."""
        self.threads.note()
        self.time.at(self.time.now + seconds, action)

    def fault(self, process: Process, method: str) -> Fault | None:
        """What goes wrong with a call that begins now."""
        called = Called(process.name, process.group, process.rank, method)
        return self.faults.strike(called, self.random)

    def gone(self, process: Process) -> None:
        """Note that a process is dead: its name is free again."""
        self.processes.pop(process.name, None)

    def run_task(self, process: Process, running: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of a process on the event loop."""
        if not self._loops:
            self._loops.append(VirtualLoop(self.time, inside_current))
        with process.inside():
            task = self._loops[0].create_task(running)
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
        self.settle_soon()

    def settle_soon(self) -> None:
        """Let the event loop run what can run now."""
        self.after(0.0, self._settle)

    def _settle(self) -> None:
        for loop in self._loops:
            following = loop.settle()
            if following is not None:
                self.time.at(following, self._settle)

    def close(self) -> None:
        """End everything."""
        with self.lock:
            for process in list(self.processes.values()):
                process.die("its cluster was shut down")
            self._settle()
            while self._loops:
                self._loops.pop().close()
            put_back(self)

    def process_of(self, actor: InProcessActor) -> Process:
        """The process behind a handle."""
        return actor.process

    # Backend.

    @property
    def is_up(self) -> bool:
        """Always."""
        return True

    @property
    def session(self) -> str:
        """Always the same: a world is one."""
        return "in process"

    def now(self) -> float:
        """Virtual seconds."""
        return self.time.now

    def pause(self, seconds: float) -> None:
        """Let virtual time pass."""
        with self.lock:
            ends = self.time.now + seconds
            self.time.at(ends, lambda: None)
            self.time.run_until(lambda: self.time.now >= ends, ends)

    async def rest(self, seconds: float) -> None:
        """Let virtual time pass, unless nothing is under way any more."""
        with self.lock:
            self.time.run_until(lambda: False, self.time.now + seconds)
        await asyncio.sleep(0)

    def waits_until(self, ends: float) -> None:
        """Pieces of such a wait may pass in which nothing is under way."""
        self.time.waits_until(ends)

    def start_host(self, request: HostRequest, group: InProcessGroup) -> InProcessActor:
        """Make a process."""
        node, gpu = group.bundles[request.bundle]
        node = self.moved.get(node, node)
        gpus = (str(gpu),) if gpu >= 0 and request.gpu_share else ()
        with self.lock:
            name, home = request.name, f"node-{node}"
            actor = self._start(name, home, lambda process: host_body(process, gpus, request))
            actor.process.bundle = (group, request.bundle)
            if group in self.removed:
                # As on Ray it is never placed, and nobody says so.
                actor.process.stop()
            return actor

    def _start(self, name: str, node_id: str, make: Callable[[Process], object]) -> InProcessActor:
        with self.lock:
            if name in self.processes:
                raise ActorAlreadyExistsError(f"the name {name!r} is taken")
            process = Process(self, name, node_id, make)
            self.processes[name] = process
            if node_id in self.dead_nodes:
                process.die("its node has died")
            return InProcessActor(process)

    def start_companion(self, node_id: str, name: str) -> InProcessActor:
        """Make one that looks at the processes of this world."""
        return self._start(name, node_id, lambda _: WorldCompanion(self))

    def death(self, actor: InProcessActor) -> BaseException | None:
        """What it died of."""
        process = actor.process
        return None if process.death is None else ProcessDiedError(process.death, process.died_at)

    def words_of_death(self, error: BaseException) -> WordsOfDeath | None:
        """What the dead process said, and when."""
        if isinstance(error, ProcessDiedError):
            return WordsOfDeath(str(error), error.at)
        return None

    def sees(self, shown: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def remains_here(self, shown: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing: what a worker prints goes where this process prints."""
        return {"text": "", "oom_kills": 0}

    def is_gone(self, shown: Mapping[str, Any], *, force: bool) -> bool | None:  # noqa: ARG002
        """Whether no live process has that pid."""
        return all(process.pid != shown.get("pid") for process in self.processes.values())

    def live_nodes(self) -> frozenset[str]:
        """All but those that were killed."""
        return frozenset(self.nodes) - self.dead_nodes

    def entry(self, actor: InProcessActor, method: str) -> Callable[..., Any]:
        """``Host.call`` with the method as the first argument."""
        return partial(actor.call.remote, method)

    def put(self, value: object) -> Item:
        """Serialise a value now."""
        item = Item(self)
        item.set(value)
        return item

    def is_reference(self, value: object) -> bool:
        """Whether it is an ``Item``."""
        return isinstance(value, Item)

    def is_stream(self, value: object) -> bool:
        """Whether it is a ``Reader``."""
        return isinstance(value, Reader)

    def wait(
        self, references: Sequence[Any], count: int, timeout: float | None
    ) -> tuple[list[Any], list[Any]]:
        """Let virtual time pass until that many are ready."""
        with self.lock:
            ends = None if timeout is None else self.time.now + timeout
            self.time.run_until(lambda: sum(each.is_ready for each in references) >= count, ends)
            ready = [each for each in references if each.is_ready][:count]
            chosen = set(map(id, ready))
            return ready, [each for each in references if id(each) not in chosen]

    def get(self, references: Sequence[Any], timeout: float | None) -> list[Any]:
        """Let virtual time pass until all are ready, or one has failed."""
        with self.lock:
            ends = None if timeout is None else self.time.now + timeout

            def is_over() -> bool:
                return any(e.error for e in references) or all(e.is_ready for e in references)

            if not self.time.run_until(is_over, ends):
                raise OutOfTimeError(f"not all were there after {timeout:g} s")
            failed = [each for each in references if each.error is not None]
            for each in sorted(failed, key=lambda each: each.done_at):
                each.load()
            self.direct.check_held(references)
            return [each.load() for each in references]

    async def fetch(self, references: Sequence[Any]) -> list[Any]:
        """``get``, which takes no time."""
        return self.get(references, None)

    def look(self, references: Sequence[Item]) -> Looked:
        """As on Ray: large values are left where they are, and what stays with its maker."""
        failed = {each: each.error for each in references if each.error is not None}
        errors = {each: self.cause_of(error) for each, error in failed.items()}
        here = [e for e in references if e.size <= _SMALL and not self.direct.transport_of(e)]
        return Looked({each: each.load() for each in here if each not in errors}, errors)

    def cancel(self, reference: Item | Reader) -> None:
        """End a call that is queued, or a stream; a call that runs goes on."""
        meant = reference.stream if isinstance(reference, Reader) else reference
        with self.lock:
            for process in self.processes.values():
                process.cancel(meant)

    def end_of(self, stream: Reader) -> StreamEnd:
        """Ready as soon as the worker is through, though values may wait to be taken."""
        return StreamEnd(stream.stream)

    def cause_of(self, error: BaseException) -> BaseException:
        """What it carries; else the error itself."""
        return cargo_of(error)

    def kill(self, actor: InProcessActor) -> None:
        """End a process."""
        with self.lock:
            actor.process.die("it was ended by ray.kill")

    def names(self) -> frozenset[str]:
        """The names of live processes."""
        return frozenset(self.processes)

    def landed(self, groups: Sequence[InProcessGroup]) -> tuple[BundleFacts, ...]:
        """As the groups say."""
        return tuple(
            BundleFacts(
                placement_group=index,
                bundle=bundle,
                node_id=f"node-{self.moved.get(node, node)}",
                address=address_of(self.moved.get(node, node)),
            )
            for index, group in enumerate(groups)
            if group not in self.removed
            for bundle, (node, _) in enumerate(group.bundles)
        )

    def held(self, groups: Sequence[InProcessGroup]) -> Mapping[tuple[int, int], int]:
        """Counted."""
        return held_in(self, groups)

    def interpreter_of(self, worker_class: str) -> Interpreter:  # noqa: ARG002
        """This process's own, whatever the registry says."""
        return DriverInterpreter()

    def prepare_interpreter(self, interpreter: Interpreter, node_ids: Sequence[str]) -> str | None:  # noqa: ARG002
        """Nothing to do."""
        return None

    def class_facts(
        self,
        worker_class: str,
        runtime_env: Mapping[str, Any],  # noqa: ARG002
        node_id: str,  # noqa: ARG002
    ) -> tuple[ClassFacts, str]:
        """Read from its source; where that does not tell, by importing it."""
        found = scan_class(worker_class, source_of)
        if found is not None:
            return found, "read from its source"
        try:
            told: Mapping[str, Any] = probe_class(worker_class)
        except Exception as error:
            raise step_error(f"importing {worker_class} in this process", error) from error
        facts = ClassFacts(
            asynchronous=told["asynchronous"],
            configures=told["configures"],
            options=told["options"],
        )
        return facts, "by importing it"

    def ask_configure_worker(
        self,
        spec: GroupSpec,
        environment: Mapping[str, str],
        bundle_indices: Sequence[object],
        num_gpus_per_node: int,
        node_id: str,  # noqa: ARG002
    ) -> list[Any]:
        """Asked here, with the group's environment in the place of this process's."""
        questions = [(spec.gpu_share / FULL_GPU, each) for each in bundle_indices]
        asked_in = Surroundings(_ASKED_PID, lambda: self.time.now, f"{self.seed}/{spec.name}")
        asked_in.environment.update(os.environ)
        replace_names(self)
        with being_in(asked_in):
            return ask_configure_worker(
                spec.worker_class,
                environment,
                questions,
                num_gpus_per_node,
                group_node_variables(spec.environment, spec.interpreter).told(),
            )
