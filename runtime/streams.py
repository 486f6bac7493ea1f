"""Values as they come: from many ranks at once, in any order, each with its rank and number."""

import logging
from collections.abc import AsyncIterator, Collection, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from attrs import field, frozen

from planner.call_requests import CallPlan
from planner.outcomes import RankIdentity, ranks_text
from runtime.backend import Backend, Reference
from runtime.gather import PROGRESS_SECONDS, Gathered, check_timeout, error_of
from runtime.watching import polled

__all__ = ["STREAM_BUFFER", "Answer", "CallStream", "Running", "answers"]

T = TypeVar("T")

_log = logging.getLogger("rankplan")

STREAM_BUFFER = 16
"""How many values each worker may be ahead of the one who takes them, unless the call says."""

STOP_SECONDS = 10.0
"""How long a stream may take to end once it is told to."""


@frozen(kw_only=True)
class Answer(Generic[T]):
    """One value.

    Attributes:
        rank: Whose it is.
        coordinates: Where the rank is: axis and coordinate, outermost axis first.
        sequence: Which of the rank's values it is, counted from 0.
        value: The value.
    """

    rank: int
    coordinates: tuple[tuple[str, int], ...]
    sequence: int
    value: T


@frozen(kw_only=True, eq=False)
class Running:
    """Calls that give values: what is left of them.

    Attributes:
        subject: What was called, for messages.
        backend: Where they run.
        references: What each rank's call gave; a stream, or one object.
        returning: The ranks whose values count; the others are waited for.
        identities: Who the ranks are.
        received: How many values came from each rank.
        left: The calls that have not ended, and their ranks.
        ended: The ranks whose calls have ended well.
        begun: The ranks that are known to have begun.
    """

    subject: str
    backend: Backend
    references: Mapping[int, Reference]
    returning: frozenset[int]
    identities: Mapping[int, RankIdentity]
    received: dict[int, int] = field(factory=dict)
    left: dict[Reference, int] = field(factory=dict)
    ended: list[int] = field(factory=list)
    begun: set[int] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.left.update({reference: rank for rank, reference in self.references.items()})

    def ready(self, timeout: float | None) -> list[Reference]:
        """Those that have something now; waits for the first."""
        left = list(self.left)
        first, _ = self.backend.wait(left, 1, timeout)
        return self.backend.wait(left, len(left), 0)[0] if first else []

    def take(self, reference: Reference) -> Answer[Any] | None:
        """The next value of a call that is ready; None when there is none.

        Raises:
            Exception: What the worker raised.
        """
        rank = self.left[reference]
        if not self.backend.is_stream(reference):
            value = self.backend.get([reference], None)[0]
            self._end(reference)
            return self._answer(rank, value) if rank in self.returning else None
        try:
            item = next(reference)
        except StopIteration:
            self._end(reference)
            return None
        self.begun.add(rank)
        value = self.backend.get([item], None)[0]
        return self._answer(rank, value) if rank in self.returning else None

    def stop(self, timeout: float) -> bool:
        """Cancel what is left, each once it has begun; gives whether all have ended in time.

        Ray 2.60 does not take a cancellation before: one that overtakes its call makes the worker
        refuse all calls for half a minute, one that finds it queued works seconds late.
        """
        ends = self.backend.now() + timeout
        while self.left:
            waiting = [each for each, rank in self.left.items() if rank not in self.begun]
            if waiting:
                left = max(0.0, ends - self.backend.now())
                known, _ = self.backend.wait(waiting, 1, left)
                self.begun.update(self.left[each] for each in known)
            cancelled = {
                self._cancelled(each): each
                for each, rank in self.left.items()
                if rank in self.begun
            }
            if not cancelled:
                break
            left = max(0.0, ends - self.backend.now())
            over, late = self.backend.wait(list(cancelled), len(cancelled), left)
            for end in over:
                self._end(cancelled[end])
            if late:
                break
        return not self.left

    def _cancelled(self, reference: Reference) -> Reference:
        """What is ready when a call that was cancelled has ended."""
        self.backend.cancel(reference)
        streams = self.backend.is_stream(reference)
        return self.backend.end_of(reference) if streams else reference

    def standing(self, errors: Mapping[int, BaseException]) -> Gathered:
        """How every rank stands."""
        waiting = {
            rank: self.backend.end_of(reference) if self.backend.is_stream(reference) else reference
            for reference, rank in self.left.items()
            if rank not in errors
        }
        return Gathered(
            values=dict.fromkeys(self.ended),
            errors=errors,
            pending=tuple(sorted(waiting)),
            waiting=waiting,
        )

    def _answer(self, rank: int, value: Any) -> Answer[Any]:
        number = self.received.get(rank, 0)
        self.received[rank] = number + 1
        who = self.identities.get(rank)
        return Answer(
            rank=rank,
            coordinates=() if who is None else who.coordinates,
            sequence=number,
            value=value,
        )

    def _end(self, reference: Reference) -> None:
        self.ended.append(self.left.pop(reference))


def answers(running: Running, timeout: float | None) -> Generator[Answer[Any], None, None]:
    """Every value, as it comes: one from each rank that has some, then again.

    Raises:
        WorkerGroupError: A rank failed; what the others had ready was given first.
        DeadlineError: The next value took longer than ``timeout``.
    """
    while running.left:
        yield from _round(running, _told(running, timeout))


def _told(running: Running, timeout: float | None) -> list[Reference]:
    """Those that have something, waited for; says now and then whose values do not come."""
    ends = None if timeout is None else running.backend.now() + timeout
    while True:
        left = PROGRESS_SECONDS if ends is None else max(0.0, ends - running.backend.now())
        ready = running.ready(min(left, PROGRESS_SECONDS))
        if ready or left < PROGRESS_SECONDS:
            return ready
        ranks = ranks_text(sorted(running.left.values()))
        _log.warning("%s: still waiting for values of %s", running.subject, ranks)


def _round(running: Running, ready: Sequence[Reference]) -> Iterator[Answer[Any]]:
    errors: dict[int, BaseException] = {}
    for reference in ready:
        if reference not in running.left:
            # Who takes the values has closed the stream meanwhile.
            continue
        rank = running.left[reference]
        try:
            answer = running.take(reference)
        except Exception as error:  # noqa: BLE001  # whatever the user's code raised
            errors[rank] = running.backend.cause_of(error)
            continue
        if answer is not None:
            yield answer
    if errors or not ready:
        raise error_of(running.subject, running.standing(errors), running.identities)


class CallStream(Generic[T]):
    """The values of a streaming method, from all ranks that return, interleaved as they come.

    Iterate over it, also with ``async for``. ``close()`` ends the workers' generators, so that
    their ``finally`` runs; leaving a ``with`` block does so too. After an error the values that
    came before have been given, and ``received`` says how many there were.

    A worker is at most 16 values ahead of the one who takes them, or as many as
    ``group.using(buffer=...)`` says, ``math.inf`` for no limit; then it waits. While it waits it
    takes no other call, unless its class has ``async`` methods: take the values, or close the
    stream, before you wait for another call of the group. A rank that returns no values runs on
    by itself.
    """

    def __init__(self, plan: CallPlan, running: Running, timeout: float | None) -> None:
        self._plan = plan
        self._running = running
        self._timeout = timeout
        self._answers = answers(running, timeout)
        self._collected: dict[int, list[T]] = {rank: [] for rank in plan.returns}

    @property
    def plan(self) -> CallPlan:
        """What was sent to whom."""
        return self._plan

    @property
    def received(self) -> dict[int, int]:
        """How many values have come from each rank that returns."""
        return {rank: self._running.received.get(rank, 0) for rank in self._plan.returns}

    def as_completed(self, timeout: float | None = None) -> Iterator[Answer[T]]:
        """The values as they come.

        Args:
            timeout: Seconds that the next value may take; None for that of the call.
        """
        check_timeout(self._running.subject, timeout)
        return answers(self._running, self._timeout if timeout is None else timeout)

    def by_rank(self, timeout: float | None = None) -> dict[int, list[T]]:
        """All values that are still to come, by rank, each rank's in order.

        After an error, those that came before it are in ``collected``.

        Args:
            timeout: Seconds that each next value may take; None for that of the call.
        """
        for answer in self.as_completed(timeout):
            self._collected[answer.rank].append(answer.value)
        return self.collected

    @property
    def collected(self) -> dict[int, list[T]]:
        """What ``by_rank`` has taken so far, by rank."""
        return {rank: list(values) for rank, values in self._collected.items()}

    def holding(self, ranks: Collection[int]) -> list[int]:
        """Those of some ranks whose generators have not ended."""
        waiting = {
            reference: rank
            for rank, reference in self._running.standing({}).waiting.items()
            if rank in ranks
        }
        _, rest = (
            self._running.backend.wait(list(waiting), len(waiting), 0) if waiting else ([], [])
        )
        return [waiting[each] for each in rest]

    def close(self, timeout: float = STOP_SECONDS) -> None:
        """End the stream: the workers' generators are closed where they stand.

        A worker that is busy between two values is closed when it gives the next one; one that has
        not come to the call yet, when it begins. Called again, it goes on with those.

        Raises:
            DeadlineError: Some have not ended in time.
        """
        running = self._running
        check_timeout(running.subject, timeout)
        self._answers.close()
        if not running.stop(timeout):
            raise error_of(running.subject, running.standing({}), running.identities)

    def __iter__(self) -> Iterator[Answer[T]]:
        return self._answers

    async def __aiter__(self) -> AsyncIterator[Answer[T]]:
        running = self._running
        while running.left:
            await polled(running.backend, lambda: bool(running.ready(0)), self._timeout)
            for answer in _round(running, running.ready(0)):
                yield answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
