"""The lane that is never blocked: how workers are, their stacks, and ending them, while busy."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from planner.liveness import WorkerSeen, WorkerStatus, plan_statuses
from runtime.backend import Actor, Backend, Reference
from runtime.roster import Roster

__all__ = ["Lane"]

ANSWER_SECONDS = 30.0
"""How long a companion may take, its own start included."""

REMAINS_SECONDS = 3.0
"""How long an error waits for what its ranks left behind on other machines."""

STACK_SECONDS = 2.0
"""How long a worker may take to write its stacks."""


class Lane:
    """Asks the companions of a group, one per node, about its workers.

    Companions are started when first needed, all at once, and end with the group.

    Args:
        backend: Where the group runs.
        group: Its name.
        roster: Its ranks.
    """

    def __init__(self, backend: Backend, group: str, roster: Roster) -> None:
        self._backend, self._group = backend, group
        self.roster = roster
        self._companions: dict[str, Actor] = {}
        self._made = 0
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def is_warm(self) -> bool:
        """Whether asking takes no start of a process."""
        return bool(self._companions)

    def status(self, timeout: float | None = None) -> tuple[WorkerStatus, ...]:
        """How every rank is; a rank whose node does not answer in time is out of reach."""
        looked = self._ask("look", timeout)
        seen = {
            rank: WorkerSeen(
                state=str(each["state"]),
                running=int(each["running"]),
                method=str(each["method"]),
                seconds=float(each["seconds"]),
            )
            for rank, each in looked.items()
        }
        return plan_statuses([self.roster[rank] for rank in sorted(self.roster)], seen)

    def stacks(self, ranks: Sequence[int], timeout: float | None = None) -> dict[int, str]:
        """The stacks of all threads of some ranks, as text."""
        return self._ask("stacks", timeout, ranks, STACK_SECONDS)

    def remains(self, ranks: Sequence[int]) -> dict[int, Any]:
        """What some ranks left behind, as far as their nodes say so soon."""
        return self._ask("remains", REMAINS_SECONDS, ranks)

    def warm(self) -> None:
        """Start the companions of nodes that this process can't look at by itself.

        Else the first error of a rank there would wait a second for one.
        """
        for node_id, workers in self._by_node(self.roster).items():
            if not all(map(self._backend.sees, workers.values())):
                self._companion(node_id)

    def kill(self, ranks: Sequence[int], timeout: float | None = None) -> list[int]:
        """End processes at once, by their nodes; gives the ranks whose nodes did."""
        return sorted(self._ask("kill", timeout, ranks))

    def end(self) -> list[str]:
        """End the companions; gives their names."""
        with self._lock:
            self._is_closed = True
            companions, self._companions = self._companions, {}
        for actor in companions.values():
            self._backend.kill(actor)
        return [f"{self._group}.companion-{index}" for index in range(self._made)]

    def _ask(
        self, method: str, timeout: float | None, ranks: Sequence[int] | None = None, *more: object
    ) -> dict[int, Any]:
        if self._is_closed:
            return {}
        wanted = self._by_node(self.roster if ranks is None else ranks)
        ends = self._backend.now() + (ANSWER_SECONDS if timeout is None else timeout)
        found, lost = self._asked(method, ends, wanted, *more)
        if lost:
            # Its workers may be well: a companion that died is replaced, once.
            again, _ = self._asked(method, ends, {each: wanted[each] for each in lost}, *more)
            found.update(again)
        return found

    def _asked(
        self,
        method: str,
        ends: float,
        wanted: Mapping[str, Mapping[int, Mapping[str, Any]]],
        *more: object,
    ) -> tuple[dict[int, Any], list[str]]:
        """The answers, and the nodes whose companion turned out to be dead."""
        asked: dict[str, Reference] = {}
        live = self._backend.live_nodes() if wanted.keys() - self._companions.keys() else wanted
        for node_id, told in wanted.items():
            # Nothing can be started on a node that is lost: its ranks are out of reach.
            if node_id in live:
                actor = self._companion(node_id)
                asked[node_id] = getattr(actor, method).remote(told, *more)
        found: dict[int, Any] = {}
        lost: list[str] = []
        if asked:
            left = max(0.0, ends - self._backend.now())
            self._backend.wait(list(asked.values()), len(asked), left)
        for node_id, reference in asked.items():
            ready, _ = self._backend.wait([reference], 1, 0)
            try:
                if ready:
                    left = max(1.0, ends - self._backend.now())
                    answer = self._backend.get([reference], left)[0]
                    named = answer if isinstance(answer, Mapping) else dict.fromkeys(answer)
                    found.update(named)
            except Exception as error:
                if self._backend.words_of_death(error) is None:
                    raise
                lost.append(node_id)
                with self._lock:
                    self._companions.pop(node_id, None)
        return found, lost

    def _by_node(self, ranks: Any) -> dict[str, dict[int, Mapping[str, Any]]]:
        wanted: dict[str, dict[int, Mapping[str, Any]]] = {}
        for rank in ranks:
            wanted.setdefault(self.roster.nodes[rank], {})[rank] = self.roster.vitals[rank]
        return wanted

    def _companion(self, node_id: str) -> Actor:
        with self._lock:
            if node_id not in self._companions:
                name = f"{self._group}.companion-{self._made}"
                self._made += 1
                self._companions[node_id] = self._backend.start_companion(node_id, name)
            return self._companions[node_id]
