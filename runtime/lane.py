"""The lane that is never blocked: how workers are, their stacks, and ending them, while busy."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from planner.actor_names import companion_name
from planner.liveness import WorkerSeen, WorkerStatus, plan_statuses, stack_texts
from runtime.backend import Actor, Backend, Reference
from runtime.errors import step_error
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
        self._started: dict[str, Actor] = {}
        self._is_closed = False
        # The handler of a signal may end the group in the thread that starts a companion.
        self._lock = threading.RLock()

    @property
    def is_warm(self) -> bool:
        """Whether asking takes no start of a process."""
        return bool(self._companions)

    def status(self, timeout: float | None = None) -> tuple[WorkerStatus, ...]:
        """How every rank is; a rank whose node does not answer in time is out of reach."""
        looked = self._ask("look", timeout, self._by_node(self.roster))
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
        """The stacks of all threads of some ranks as text, or why there are none."""
        told = self._ask("stacks", timeout, self._by_node(ranks), STACK_SECONDS)
        live = self._backend.live_nodes()
        lost = [rank for rank in ranks if self.roster.nodes[rank] not in live]
        return stack_texts(ranks, told, lost, ANSWER_SECONDS if timeout is None else timeout)

    def remains(self, ranks: Sequence[int]) -> dict[int, Any]:
        """What some ranks left behind, as far as their nodes say so soon."""
        return self._ask("remains", REMAINS_SECONDS, self._by_node(ranks))

    def warm(self) -> None:
        """Start the companions of nodes that this process can't look at by itself.

        Else the first error of a rank there would wait a second for one.
        """
        for node_id, workers in self._by_node(self.roster).items():
            if not all(map(self._backend.sees, workers.values())):
                self._companion(node_id)

    def kill(self, ranks: Sequence[int], timeout: float | None = None) -> list[int]:
        """End processes at once, by their nodes; gives the ranks whose nodes did.

        A node that hears of it only when time is up does nothing any more: nobody counts on it.
        """
        ends = self._backend.now() + (ANSWER_SECONDS if timeout is None else timeout)
        wanted = self._by_node(ranks)
        clocks = self._ask("clock", timeout, wanted)
        left = max(0.0, ends - self._backend.now())
        orders = {
            node_id: {
                rank: {**told, "until": clocks[rank] + left} for rank, told in workers.items()
            }
            for node_id, workers in wanted.items()
            if clocks.keys() >= workers.keys()
        }
        return sorted(self._ask("kill", left, orders))

    def close(self) -> Mapping[str, Actor]:
        """Start no companion any more; gives all that were started, by name, for their end."""
        with self._lock:
            self._is_closed = True
            self._companions = {}
            return dict(self._started)

    def _ask(
        self,
        method: str,
        timeout: float | None,
        wanted: Mapping[str, Mapping[int, Mapping[str, Any]]],
        *more: object,
    ) -> dict[int, Any]:
        if self._is_closed:
            return {}
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
                if actor is not None:
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

    def _companion(self, node_id: str) -> Actor | None:
        """The one of a node, started when there is none; None once the group is ended."""
        with self._lock:
            if not self._is_closed and node_id not in self._companions:
                actor = self._start(node_id)
                if not self._is_closed:
                    self._companions[node_id] = actor
            return self._companions.get(node_id)

    def _start(self, node_id: str) -> Actor:
        taken = self._backend.names()
        while (name := companion_name(self._group, self._made)) in taken:
            self._made += 1
        self._made += 1
        try:
            actor = self._backend.start_companion(node_id, name)
        except Exception as error:
            address = next(
                (self.roster[rank].node for rank, at in self.roster.nodes.items() if at == node_id),
                node_id,
            )
            raise step_error(
                f"worker group {self._group!r}: starting {name!r}, the process that looks at its "
                f"workers on node {address},",
                error,
            ) from error
        self._started[name] = actor
        if self._is_closed:
            self._backend.kill(actor)
        return actor
