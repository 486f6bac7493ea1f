"""Streams: the values of many workers at once, held back, ended early, broken half way."""

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from attrs import evolve

from planner.call_requests import CallPlan
from runtime.gather import check_timeout, error_of
from runtime.taking import Answer, Running, answers, answers_async

__all__ = ["STREAM_BUFFER", "Answer", "CallStream", "Running", "answers"]

T = TypeVar("T")

STREAM_BUFFER = 16
"""How many values each worker may be ahead of the one who takes them, unless the call says."""

STOP_SECONDS = 10.0
"""How long a stream may take to end once it is told to."""


class CallStream(Generic[T]):
    """The values of a streaming method, from all ranks that return, interleaved as they come.

    Iterate over it, also with ``async for``. ``close()`` ends the workers' generators, so that
    their ``finally`` runs; leaving a ``with`` block does so too. Once a rank has failed, values are
    given for a moment more, then comes one error that names all that have failed; ``received`` says
    how many values there were.

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
            late = evolve(running.standing(), errors={})
            who, behind = running.identities, running.behind
            raise error_of(running.subject, late, who, behind, looks=False)

    def __iter__(self) -> Iterator[Answer[T]]:
        return self._answers

    async def __aiter__(self) -> AsyncIterator[Answer[T]]:
        async for answer in answers_async(self._running, self._timeout):
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
