"""How many calls of a group are under way: a limit, so that a fast driver does not outrun it."""

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import frozen

from planner.outcomes import RankIdentity
from runtime.backend import Backend, Reference
from runtime.errors import ExecutionError
from runtime.gather import add_text, error_of
from runtime.watching import Watch

__all__ = ["MOST_CALLS", "InFlight", "TooManyCallsError", "first_of"]

MOST_CALLS = 10_000
"""How many calls of one group may be under way, each rank's counted by itself."""

_PARTS_KNOWN = 10_000
"""Of how many futures of calls of some ranks it is remembered whose they are."""

_LEAST_UNSEEN, _MOST_UNSEEN = 3, 15
"""How many times in a row is sent without a look: when the last found a result, and when not."""

_FEW = 512
"""How many calls may be noted behind one that still runs before all of them are looked at."""


def first_of(future: Reference | list[Reference] | None) -> Reference | None:
    """What stands for a call: the first of several returns; None when it returns nothing."""
    if isinstance(future, list):
        return future[0] if future else None
    return future


class TooManyCallsError(ExecutionError):
    """As many calls are under way as the group allows; nothing was sent."""


@frozen(eq=False)
class _Call:
    """One call: a reference for each rank that has not returned, whose number may be unknown.

    Of a stream it is what is ready at its end.
    """

    method: str
    ranks: Sequence[int]
    references: list[Reference]
    since: float

    def without(self, returned: AbstractSet[Reference]) -> "_Call":
        """What is left of it."""
        left = [place for place, each in enumerate(self.references) if each not in returned]
        return _Call(
            self.method,
            [self.ranks[place] for place in left] if self.ranks else (),
            [self.references[place] for place in left],
            self.since,
        )


@frozen(eq=False)
class _Part:
    """Whose future it is that has some hash.

    Attributes:
        rank: The rank that was called.
        method: What was called.
        alive: Gives the future while anybody holds it; None where hashes are never used again,
            because they are those of ids.
    """

    rank: int
    method: str
    alive: "weakref.ref[Any] | None"


def _weakly(reference: Reference) -> "weakref.ref[Any] | None":
    try:
        return weakref.ref(reference)
    except TypeError:
        # Ray's ``ObjectRef``: its hash is that of its id, and equal ones are the same object.
        return None


class InFlight:
    """The calls of a group that have not returned, oldest first.

    It holds the futures of calls that run, and of a few that have returned: when the caller
    waits for each, of four at most; when many are sent in a row, of those since the last look. So
    results are not kept from being freed for long.

    Args:
        backend: Where the calls run.
        group: The group's name, for messages.
        limit: How many may be under way.
        world_size: How many ranks the group has; 0 where nobody asks whose a future is.
    """

    def __init__(self, backend: Backend, group: str, limit: int, world_size: int = 0) -> None:
        self.limit = limit
        self._world_size = world_size
        self._backend, self._group = backend, group
        self._calls: deque[_Call] = deque()
        self._parts: OrderedDict[int, _Part] = OrderedDict()
        self._left: list[tuple[str, Watch, Mapping[int, RankIdentity]]] = []
        self._count = 0
        self._unseen, self._pause, self._many = 0, _LEAST_UNSEEN, _FEW
        # A signal handler, or a finalizer, may send a call in the middle of another one's look.
        self._lock, self._one_look = threading.RLock(), threading.RLock()
        self._is_looking = False

    @property
    def count(self) -> int:
        """How many are under way, as far as was looked."""
        return self._count

    def leave(
        self, subject: str, calls: Mapping[int, Reference], identities: Mapping[int, RankIdentity]
    ) -> None:
        """Note calls whose answers nobody takes; what they raise, the next call tells.

        Args:
            subject: What was called, for messages.
            calls: What each rank's call gave.
            identities: Who the ranks are.
        """
        with self._lock:
            watch = Watch(self._backend, {each: rank for rank, each in calls.items()})
            self._left.append((subject, watch, identities))

    def _tell_what_was_left(self) -> None:
        with self._lock:
            left, self._left = self._left, []
        for _, watch, _ in left:
            if watch.left:
                watch.look(0.0)
        left = [each for each in left if each[1].left or each[1].errors]
        failed = next((each for each in left if each[1].errors), None)
        with self._lock:
            self._left = [*(each for each in left if each is not failed), *self._left]
        if failed is not None:
            subject, watch, identities = failed
            error = error_of(subject, watch.gathered(), identities)
            add_text(error, "\n  told by the next call of the group, of which nothing was sent")
            raise error

    def admit(self, calls: int) -> None:
        """Refuse that many more calls when they would be too many.

        Raises:
            TooManyCallsError: They would.
            WorkerGroupError: A call that was left to itself has failed meanwhile.
        """
        if self._left:
            self._tell_what_was_left()
        if self._count + calls > self.limit:
            self._look(self._look_at_all)
        if calls > self.limit:
            raise TooManyCallsError(
                f"worker group {self._group!r}: a call of {calls} ranks passes the limit of "
                f"{self.limit} by itself: start the group with a higher max_calls_in_flight"
            )
        if self._count + calls > self.limit:
            raise TooManyCallsError(
                f"worker group {self._group!r}: {self._count} calls are under way and "
                f"{calls} more would pass the limit of {self.limit}: wait for some results, "
                "or start the group with a higher max_calls_in_flight"
            )

    def sent(
        self, references: Sequence[Reference], method: str = "", ranks: Sequence[int] = ()
    ) -> None:
        """Note calls that were sent, one item per rank.

        A call that returns several objects gives a list; they are there at the same time, so
        the first stands for all. One that returns none (None, or an empty list) has nothing to
        look at, so it is not counted.
        """
        if self._world_size and len(ranks) == len(references):
            # Of a call of all ranks nobody asks but for its method: one future tells.
            few = len(references) if len(ranks) < self._world_size else 1
            self._note_part(references[:few], method, ranks[:few])
        firsts = [first_of(each) for each in references]
        if ranks and None in firsts:
            told = zip(firsts, ranks, strict=True)
            ranks = [rank for first, rank in told if first is not None]
        is_stream, end_of = self._backend.is_stream, self._backend.end_of
        counted = [
            end_of(first) if is_stream(first) else first for first in firsts if first is not None
        ]
        if self._unseen < self._pause:
            self._unseen += 1
        else:
            self._look(self._look_at_the_oldest)
        with self._lock:
            if counted:
                self._calls.append(_Call(method, ranks, counted, self._backend.now()))
                self._count += len(counted)

    def _note_part(
        self, references: Sequence[Reference], method: str, ranks: Sequence[int]
    ) -> None:
        # By hash, so that no result is kept.
        with self._lock:
            for each, rank in zip(references, ranks, strict=True):
                first = first_of(each)
                if first is not None:
                    part = _Part(rank, method, _weakly(first))
                    self._parts.pop(hash(first), None)
                    self._parts[hash(first)] = part
            while len(self._parts) > _PARTS_KNOWN:
                self._parts.popitem(last=False)

    def ranks_of(self, references: Sequence[Reference]) -> tuple[list[int], str] | None:
        """Ranks and method of a call of some ranks; None when it is not known, or is of all.

        Of several calls it is the first one's method; None where a rank occurs twice.
        """
        found = [self._part_of(first_of(each)) for each in references]
        known = [each for each in found if each is not None]
        ranks = [each.rank for each in known]
        if not known or len(known) < len(references) or len(set(ranks)) < len(ranks):
            return None
        return ranks, known[0].method

    def method_of(self, references: Sequence[Reference]) -> str:
        """What was called, where the first of some futures is known; else empty."""
        part = self._part_of(first_of(references[0])) if references else None
        return "" if part is None else part.method

    def _part_of(self, reference: Reference | None) -> "_Part | None":
        part = None if reference is None else self._parts.get(hash(reference))
        if part is None or (part.alive is not None and part.alive() is not reference):
            return None
        return part

    def behind(self, waiting: Mapping[int, Reference]) -> list[tuple[str, list[int], float]]:
        """Which calls have not begun, where a rank takes one after the other.

        Args:
            waiting: Calls that have not answered, by rank.

        Returns:
            For each earlier call that still runs or waits, its method, the ranks that it
            holds, and when it was sent; a rank counts for the oldest only.
        """
        with self._lock:
            calls = list(self._calls)
        left, held_by = dict(waiting), dict[int, int]()
        found: dict[int, list[int]] = {}
        for place, call in enumerate(calls):
            if left.keys().isdisjoint(call.ranks):
                continue
            _, rest = self._backend.wait(call.references, len(call.references), 0)
            running = set(rest)
            for rank, reference in zip(call.ranks, call.references, strict=False):
                if rank in left and reference == left[rank]:
                    del left[rank]
                    if rank in held_by:
                        found.setdefault(held_by[rank], []).append(rank)
                elif rank in left and reference in running:
                    held_by.setdefault(rank, place)
        return [
            (calls[place].method, sorted(ranks), calls[place].since)
            for place, ranks in sorted(found.items())
        ]

    def _look(self, how: Callable[[], None]) -> None:
        # Whoever looks takes calls out; others, who may interrupt it, only put some behind.
        with self._one_look:
            if self._is_looking:
                return
            self._is_looking = True
            try:
                how()
            finally:
                self._is_looking = False

    def _look_at_the_oldest(self) -> None:
        # Calls return about in the order in which they were sent. A look at one that still runs
        # takes as long as sending to several ranks, so the next waits for some sends.
        self._unseen = 0
        while self._calls:
            oldest = self._calls[0]
            ready, rest = self._backend.wait(oldest.references, len(oldest.references), 0)
            with self._lock:
                self._count -= len(ready)
                if not rest:
                    self._calls.popleft()
                    continue
                self._calls[0] = oldest.without(set(ready))
            self._pause = min(2 * self._pause + 1, _MOST_UNSEEN)
            # One that runs for hours must not keep the results of all that were sent since. A
            # look at all that left twice as many is paid for by as many sends.
            if len(self._calls) >= self._many:
                self._look_at_all()
                self._many = max(_FEW, 2 * len(self._calls))
            return
        self._pause = _LEAST_UNSEEN

    def _look_at_all(self) -> None:
        calls = list(self._calls)
        references = [each for call in calls for each in call.references]
        if not references:
            return
        ready, _ = self._backend.wait(references, len(references), 0)
        gone = set(ready)
        left = [each for call in calls if (each := call.without(gone)).references]
        with self._lock:
            for _ in calls:
                self._calls.popleft()
            self._calls.extendleft(reversed(left))
            self._count -= len(ready)
