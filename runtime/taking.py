"""Values of many ranks as they come, in any order, each with its rank and number."""

import math
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from planner.outcomes import RankIdentity
from runtime.backend import Backend, Reference
from runtime.gather import Gathered, error_of, grace_of
from runtime.lookout import Lookout
from runtime.progress import SHORTEST_SECONDS, Behind, Progress, waits
from runtime.roster import fallen_of
from runtime.watching import fetched, polled

__all__ = ["Answer", "Running", "answers", "answers_async"]

T = TypeVar("T")


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
        behind: Says which ranks have not begun; None when nobody can.
        since: When they were called, by the backend's clock.
        received: How many values came from each rank.
        left: The calls that have not ended, and their ranks.
        ended: The ranks whose calls have ended well.
        failed: What the others raised, by rank.
        begun: The ranks that are known to have begun.
    """

    subject: str
    backend: Backend
    references: Mapping[int, Reference]
    returning: frozenset[int]
    identities: Mapping[int, RankIdentity]
    behind: Behind | None = None
    since: float = field()
    received: dict[int, int] = field(factory=dict)
    left: dict[Reference, int] = field(factory=dict)
    ended: list[int] = field(factory=list)
    failed: dict[int, BaseException] = field(factory=dict)
    begun: set[int] = field(factory=set)

    @since.default
    def _now(self) -> float:
        return self.backend.now()

    def __attrs_post_init__(self) -> None:
        self.left.update({reference: rank for rank, reference in self.references.items()})

    def ready(self, timeout: float | None) -> list[Reference]:
        """Those that have something now; waits for the first."""
        left = list(self.left)
        first, _ = self.backend.wait(left, 1, timeout)
        return self.backend.wait(left, len(left), 0)[0] if first else []

    def next_of(self, reference: Reference) -> Reference | None:
        """What stands for the next value of a call that is ready; None when there is none.

        Raises:
            Exception: What the worker raised.
        """
        if not self.backend.is_stream(reference):
            return reference
        try:
            item: Reference = next(reference)
        except StopIteration:
            self._end(reference)
            return None
        self.begun.add(self.left[reference])
        return item

    def answer(self, reference: Reference, rank: int, value: Any) -> Answer[Any] | None:
        """A value that came; None where values do not count."""
        if not self.backend.is_stream(reference):
            self._end(reference)
        return self._answer(rank, value) if rank in self.returning else None

    def fail(self, reference: Reference, rank: int, error: BaseException) -> None:
        """Note that a call has failed."""
        self.left.pop(reference, None)
        self.failed[rank] = self.backend.cause_of(error)

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

    def standing(self) -> Gathered:
        """How every rank stands."""
        waiting = self.waiting
        return Gathered(
            values=dict.fromkeys(self.ended),
            errors=dict(self.failed),
            pending=tuple(sorted(waiting)),
            waiting=waiting,
            seconds=self.backend.now() - self.since,
        )

    @property
    def waiting(self) -> dict[int, Reference]:
        """What is ready when a call has ended, of each that has not."""
        return {
            rank: self.backend.end_of(reference) if self.backend.is_stream(reference) else reference
            for reference, rank in self.left.items()
        }

    @property
    def progress(self) -> Progress:
        """What is told of a wait for values."""
        return Progress(
            subject=self.subject,
            backend=self.backend,
            identities=self.identities,
            called=len(self.references),
            behind=self.behind,
            streams=True,
            since=self.since,
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
        # Who takes the values may have closed the stream meanwhile.
        rank = self.left.pop(reference, None)
        if rank is not None:
            self.ended.append(rank)


@define(eq=False, kw_only=True)
class _Taking:
    """One who takes values: for what he waits, and when that is over.

    Once a rank has failed, values are given for a moment more, in which others may fail too.

    Attributes:
        running: The calls.
        timeout: Seconds that the next value may take; None for no limit.
        ends: When all is over, by the backend's clock.
        ready: Those that have something now.
        is_last: Whether no other round follows.
        lookout: Looks whether others died by which these ranks fail.
        is_struck: Whether that was taken note of.
    """

    running: Running
    timeout: float | None
    ends: float = math.inf
    ready: list[Reference] = field(factory=list)
    is_last: bool = False
    is_struck: bool = False
    known: int = field(init=False)
    lookout: Lookout = field(init=False)

    @known.default
    def _failed(self) -> int:
        return len(self.running.failed)

    @lookout.default
    def _look_out(self) -> Lookout:
        running = self.running
        struck = lambda: bool(fallen_of(running.identities, running.left.values()))  # noqa: E731
        return Lookout(running.backend, struck)

    @property
    def goes_on(self) -> bool:
        """Whether there is something to wait for."""
        return bool(self.running.left) and not self.is_last

    def waits(self) -> Iterator[float]:
        """How long to wait next for those that have something, until there are some."""
        running = self.running
        # Values that keep coming would keep it from ever looking.
        self.lookout.look()
        self._note_struck()
        left = max(0.0, self.ends - running.backend.now())
        limit = left if self.timeout is None else min(left, self.timeout)
        self.is_last, self.ready = left < SHORTEST_SECONDS, []
        yield from waits(
            running.backend,
            None if limit == math.inf else limit,
            lambda: bool(self.ready) or self.lookout.is_struck > self.is_struck,
            lambda: running.progress.tell(running.waiting),
            self.lookout,
        )
        is_news = self._note_struck()
        self.is_last = self.is_last or not (self.ready or is_news)

    def _note_struck(self) -> bool:
        """Whether others turn out to have died; then these get a moment."""
        is_news = self.lookout.is_struck > self.is_struck
        if is_news:
            self.is_struck = True
            self._give_grace()
        return is_news

    def _give_grace(self) -> None:
        grace = grace_of(self.running.identities)
        self.ends = min(self.ends, self.running.backend.now() + grace)

    def taken(self) -> Iterator[tuple[Reference, int]]:
        """Those that have something, and their ranks, without those that were closed meanwhile."""
        for reference in self.ready:
            rank = self.running.left.get(reference)
            if rank is not None:
                yield reference, rank

    def fail(self, reference: Reference, rank: int, error: BaseException) -> None:
        """Note a failure; after the first one the others get a moment."""
        running = self.running
        if len(running.failed) == self.known:
            self._give_grace()
        running.fail(reference, rank, error)

    def check(self) -> None:
        """Raise what there is to raise at the end."""
        running = self.running
        if len(running.failed) > self.known or (self.is_last and running.left):
            raise error_of(running.subject, running.standing(), running.identities, running.behind)


def answers(
    running: Running, timeout: float | None, within: float | None = None
) -> Generator[Answer[Any], None, None]:
    """Every value, as it comes: one from each rank that has some, then again.

    Args:
        running: The calls.
        timeout: Seconds that each next value may take; None for no limit.
        within: Seconds in which all must have come; None for no limit.

    Raises:
        WorkerGroupError: Ranks failed; what came before, and while the others had a moment to
            fail too, was given first.
        DeadlineError: It took longer.
    """
    ends = math.inf if within is None else running.backend.now() + within
    taking = _Taking(running=running, timeout=timeout, ends=ends)
    while taking.goes_on:
        for seconds in taking.waits():
            taking.ready = running.ready(seconds)
        for reference, rank in taking.taken():
            try:
                item = running.next_of(reference)
                if item is None:
                    continue
                value = running.backend.get([item], None)[0]
            except Exception as error:  # noqa: BLE001  # whatever the user's code raised
                taking.fail(reference, rank, error)
                continue
            answer = running.answer(reference, rank, value)
            if answer is not None:
                yield answer
    taking.check()


async def answers_async(
    running: Running,
    timeout: float | None,  # noqa: ASYNC109  # of each value, as ``answers`` has it
) -> AsyncIterator[Answer[Any]]:
    """``answers`` in an event loop, whose other tasks go on."""
    taking = _Taking(running=running, timeout=timeout)

    def is_ready() -> bool:
        taking.ready = running.ready(0)
        return bool(taking.ready)

    while taking.goes_on:
        for seconds in taking.waits():
            await polled(running.backend, is_ready, seconds)
        for reference, rank in taking.taken():
            try:
                item = running.next_of(reference)
                if item is None:
                    continue
                value = await fetched(running.backend, item)
            except Exception as error:  # noqa: BLE001  # whatever the user's code raised
                taking.fail(reference, rank, error)
                continue
            answer = running.answer(reference, rank, value)
            if answer is not None:
                yield answer
    taking.check()
