"""The hosts of the in-process backend, and what looks at them; their code is ``runtime.host``'s."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from planner.group import HostRequest
from runtime import host
from runtime.in_process import Process
from runtime.in_process_objects import fetched
from runtime.in_process_threads import PATIENCE_SECONDS

if TYPE_CHECKING:
    from runtime.in_process_backend import InProcessGroup, World

__all__ = ["WorldCompanion", "address_of", "held_in", "host_body", "standing_in"]

_MOST_STANDING = 16
"""How many processes are named when nothing will happen any more."""


def address_of(node: int) -> str:
    """The address of a pretended node."""
    return f"10.0.{node // 256}.{node % 256}"


def host_body(process: Process, gpus: tuple[str, ...], request: HostRequest) -> object:
    """The host object of a process, with the environment that its node hands it."""
    process.around.environment.update(os.environ)
    given = request.runtime_env.value().get("env_vars", {})
    if isinstance(given, Mapping):
        process.around.environment.update({name: str(value) for name, value in given.items()})
    if gpus:
        process.around.environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    made = _AsyncBody if request.asynchronous else _PlainBody
    return made(process, gpus)


def held_in(world: "World", groups: "Sequence[InProcessGroup]") -> dict[tuple[int, int], int]:
    """How many processes are in each bundle of some groups; those of dead nodes are left out."""
    held = {
        (fact.placement_group, fact.bundle): 0
        for fact in world.landed(groups)
        if fact.node_id not in world.dead_nodes
    }
    indices: dict[object, int] = {group: index for index, group in enumerate(groups)}
    for process in list(world.processes.values()):
        group, bundle = process.bundle or (None, 0)
        place = (indices.get(group, -1), bundle)
        if place in held:
            held[place] += 1
    return held


def standing_in(world: "World") -> list[str]:
    """The calls that have not answered, and on which ranks; for people."""
    found: list[str] = []
    for name, process in world.processes.items():
        calls = [f"{method}() since {since:g} s" for method, since in process.running.values()]
        if process.queued:
            calls.append(f"{process.queued} calls that have not begun")
        if calls:
            who = f"{name}, rank {process.rank}" if process.rank >= 0 else name
            state = ", stopped" if process.is_stopped else ""
            found.append(f"{who}{state}: {', '.join(calls)}")
    more = len(found) - _MOST_STANDING
    named = found[:_MOST_STANDING] + ([f"and {more} more"] if more > 0 else [])
    threads = world.threads.others()
    waited = f"which had {PATIENCE_SECONDS:g} s of real time to do something"
    return [*named, f"threads {', '.join(threads)}, {waited}"] if threads else named


class WorldCompanion:
    """Looks at processes, as ``runtime.companion.Companion`` does."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def look(self, workers: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, object]]:
        """What each runs."""
        return {rank: self._look(told["pid"]) for rank, told in workers.items()}

    def stacks(self, workers: Mapping[int, Mapping[str, Any]], seconds: float) -> dict[int, str]:
        """The name of the method stands for the stack."""
        del seconds
        looks = self.look(workers)
        return {rank: f"in {look['method'] or 'nothing'}" for rank, look in looks.items()}

    def clock(self, workers: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
        """Virtual time."""
        return dict.fromkeys(workers, self._world.now())

    def kill(self, workers: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """End processes at once, unless it is too late; gives those that were alive."""
        now = self._world.now()
        wanted = {rank: told for rank, told in workers.items() if now <= told["until"]}
        found = {rank: self._process(told["pid"]) for rank, told in wanted.items()}
        for process in found.values():
            if process is not None:
                process.die("its process was ended by SIGKILL")
        return [rank for rank, process in found.items() if process is not None]

    def remains(self, workers: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, object]]:
        """Nothing: processes here leave nothing behind."""
        return {rank: {"text": "", "oom_kills": 0} for rank in workers}

    def _process(self, pid: int) -> Process | None:
        return next((each for each in self._world.processes.values() if each.pid == pid), None)

    def _look(self, pid: int) -> dict[str, object]:
        process = self._process(pid)
        if process is None:
            return {"state": "", "running": 0, "method": "", "seconds": 0.0}
        method, since = next(iter(process.running.values()), ("", self._world.now()))
        return {
            "state": "T" if process.is_stopped else "S",
            "running": len(process.running),
            "method": method,
            "seconds": self._world.now() - since,
        }


class _Port:
    """A port that is held by nobody."""

    def __init__(self, number: int) -> None:
        self._number = number

    def getsockname(self) -> tuple[str, int]:
        return "", self._number

    def close(self) -> None:
        """Nothing to give back."""


class _Unseen:
    """Vitals that nobody needs: the world sees its processes."""

    def began(self, method: str) -> None:
        """Nothing to note."""

    def ended(self) -> None:
        """Nothing to note."""


class _Told:
    """What a pretended host does in its own way: no socket, no Ray."""

    _name: str
    _identity: str
    _worker: object
    _port: Any
    _vitals: Any

    def __init__(self, process: Process, gpus: tuple[str, ...]) -> None:
        self._process, self._gpus = process, gpus
        self._name = self._identity = process.name
        self._worker = None
        self._vitals = _Unseen()
        self._port = _Port(20_000 + process.pid % 40_000)

    def report(
        self,
        expected: Sequence[str],
        asked: Mapping[str, object] | None = None,  # noqa: ARG002  # there is no machine to see
    ) -> dict[str, object]:
        """Where this host is."""
        node = int(self._process.node_id.rpartition("-")[2])
        return {
            "node_id": self._process.node_id,
            "address": address_of(node),
            "gpus": self._gpus,
            "accelerator": "GPU",
            "pid": self._process.pid,
            "port": self._port.getsockname()[1],
            "uuids": (),
            "visible_variables": ("CUDA_VISIBLE_DEVICES",) if self._gpus else (),
            "seen": {name: os.environ.get(name, "") for name in expected},
            "vitals": {"pid": self._process.pid},
            "look": None,
        }


class _PlainBody(_Told, host.Host):
    def start(self, told: Mapping[str, object], payloads: Sequence[Any]) -> object:
        """As ``Host.start``; the arguments are here already."""
        self._prepare(told)
        with self._named("__init__"):
            self._process.check_faults(str(told["worker_class"]))
            return self._construct(told, [_resolved(each) for each in payloads])


class _AsyncBody(_Told, host.AsyncHost):
    async def start(self, told: Mapping[str, object], payloads: Sequence[Any]) -> object:
        """As ``AsyncHost.start``; the arguments are here already."""
        self._prepare(told)
        with self._named("__init__"):
            self._process.check_faults(str(told["worker_class"]))
            return self._construct(told, [_resolved(each) for each in payloads])

    async def report(  # type: ignore[override]
        self,
        expected: Sequence[str],
        asked: Mapping[str, object] | None = None,  # noqa: ARG002  # there is no machine to see
    ) -> dict[str, object]:
        """Where this host is."""
        return _Told.report(self, expected)


def _resolved(payload: Any) -> tuple[list[object], dict[str, object]]:
    args, kwargs = fetched(payload)
    return [fetched(each) for each in args], {name: fetched(v) for name, v in kwargs.items()}
