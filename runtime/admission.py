"""What every call of a group passes on its way: refused where it can't be made, else counted."""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

from runtime.backend import Actor, Backend
from runtime.ending import Session
from runtime.health import Health
from runtime.in_flight import InFlight
from runtime.roster import Roster

__all__ = ["Admission"]

Send = Callable[[], Any]

LOOK_SECONDS = 5e-6
"""How old a look at all ranks may be, for each of them: looking takes a twentieth of the time."""


class Admission:
    """The way into a group, for its own calls and for those through its workers' handles.

    It does not hold the group: a group that nobody holds any more is ended at once.

    Args:
        backend: Where it runs.
        health: Which ranks nobody can vouch for.
        in_flight: How many calls are under way.
        lock: Held while a call is sent, so that all ranks see calls in one order.
        session: The session in which its workers run.
    """

    def __init__(
        self,
        backend: Backend,
        health: Health,
        in_flight: InFlight,
        lock: AbstractContextManager[object],
        session: Session,
    ) -> None:
        self._backend = backend
        self._health, self._in_flight, self._lock = health, in_flight, lock
        self._session = session
        self._actors: dict[int, Actor] = {}
        self._is_over = False
        self._looked = -math.inf

    def adopt(self, actors: Sequence[Actor]) -> None:
        """Note who the ranks are now."""
        self._actors = dict(enumerate(actors))

    def end(self) -> None:
        """Note that the group is ended: what is said about its workers is Ray's from now on."""
        self._is_over = True

    def look(self, ranks: Sequence[int]) -> None:
        """Take note of deaths that nobody waited for, before a call to some ranks is sent.

        It takes a while when there is one, to tell why; so nobody else is kept waiting.
        """
        # All ranks count, for the call may be a part of a collective; but a loop over the ranks
        # must not cost the square of their number.
        now = self._backend.now()
        if 0.0 < now - self._looked < LOOK_SECONDS * len(self._actors):
            self._health.look({rank: self._actors[rank] for rank in ranks})
        else:
            self._looked = now
            self._health.look(self._actors)

    def admit(self, ranks: Sequence[int]) -> None:
        """Refuse a call to ranks that nobody can vouch for, or one too many.

        Raises:
            InconsistentGroupError: Nobody can vouch for some of the ranks.
            TooManyCallsError: As many calls are under way as the group allows.
            WorkerGroupError: A call that was left to itself has failed meanwhile.
        """
        self._health.check(ranks)
        self._in_flight.admit(len(ranks))

    def fallen(self, waiting: Collection[int], called: Roster) -> dict[int, BaseException]:
        """The deaths of ranks for which those that are waited for may wait for ever.

        Args:
            waiting: Who is waited for.
            called: The ranks as they were when they were called.
        """
        if self._is_over:
            return {}
        watched = self._health.watched(waiting, called)
        deaths = {rank: self._backend.death(self._actors[rank]) for rank in watched}
        return {rank: error for rank, error in deaths.items() if error is not None}

    def gate(self, rank: int) -> Callable[[str, Send], Any]:
        """What calls pass that are made through the handle of a rank as it is now.

        Once the rank has been started again, or the group has ended, such calls go to the process
        that the handle is for, and Ray tells that it is gone. When the session is over, nothing
        is sent: Ray would connect by itself, to whatever there is.
        """
        actor = self._actors[rank]

        def passed(method: str, send: Send) -> Any:
            self._session.refuse_if_over()
            if self._is_past(rank, actor):
                return send()
            self.look((rank,))
            with self._lock:
                if self._is_past(rank, actor):
                    return send()
                self.admit((rank,))
                answer = send()
                self._in_flight.sent([answer], method, (rank,))
                return answer

        return passed

    def _is_past(self, rank: int, actor: Actor) -> bool:
        return self._is_over or self._actors[rank] is not actor
