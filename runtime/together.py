"""Waiting for the calls of several groups at once, so that they fail together."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import frozen

from planner.findings import Findings
from planner.outcomes import FailureReport, fold_failures, standing_text
from runtime.backend import Reference
from runtime.call_future import CallFuture
from runtime.errors import WorkerGroupError
from runtime.gather import Gathered, add_text, check_timeout, grace_of
from runtime.progress import held_by
from runtime.roster import fallen_of
from runtime.watching import Struck, Tell, Watch

__all__ = ["wait_all", "wait_all_async"]


def wait_all(*futures: CallFuture[Any], timeout: float | None = None) -> None:
    """Wait until all calls have returned; the first failure of any is raised at once.

    So that a group does not wait for ever for another one that has failed. Results that are
    large stay where they are: ``held()`` afterwards moves nothing here.

    Args:
        futures: What ``group.call`` gave.
        timeout: Seconds; None for the shortest of the calls' own, ``group.using(timeout=...)``.

    Raises:
        PlanError: One is not a ``CallFuture``.
        WorkerGroupError: A rank of some group failed; how the other groups stand is told too.
        DeadlineError: Time is up.
    """
    if futures:
        waiting = _Together.of(futures, timeout)
        waiting.finish(waiting.watch.until_over(*waiting.terms))


async def wait_all_async(
    *futures: CallFuture[Any],
    timeout: float | None = None,  # noqa: ASYNC109  # as ``wait_all`` has it
) -> None:
    """``wait_all`` in an event loop, whose other tasks go on.

    Args:
        futures: As there.
        timeout: As there.

    Raises:
        PlanError: As there.
        WorkerGroupError: As there.
        DeadlineError: As there.
    """
    if futures:
        waiting = _Together.of(futures, timeout)
        waiting.finish(await waiting.watch.until_over_async(*waiting.terms))


@frozen(eq=False, kw_only=True)
class _Together:
    """Some calls, and the one watch over all their ranks, each rank under a number.

    Attributes:
        futures: The calls.
        timeout: Seconds that all may take.
        owners: Whose rank each number stands for.
        watch: The watch.
    """

    futures: Sequence[CallFuture[Any]]
    timeout: float | None
    owners: Sequence[tuple[CallFuture[Any], int]]
    watch: Watch

    @classmethod
    def of(cls, futures: Sequence[object], timeout: float | None) -> "_Together":
        """Check what is given, and number all ranks."""
        findings = Findings("wait_all()")
        known = []
        check_timeout("wait_all()", timeout)
        for place, future in enumerate(futures):
            if isinstance(future, CallFuture):
                known.append(future)
                continue
            findings.add(
                f"futures[{place}]",
                f"a value of type {type(future).__name__}",
                "give what group.call gave for a method with one result; a MultiWorkerFuture is "
                "waited for by get_results, a stream by taking its values",
            )
        findings.check()
        each_once = list(dict.fromkeys(known))
        limits = [limit for each in each_once if (limit := each._sent.timeout) is not None]
        owners = [(each, rank) for each in each_once for rank in each._sent.references]
        left = {owner._sent.references[rank]: n for n, (owner, rank) in enumerate(owners)}
        return cls(
            futures=each_once,
            timeout=min(limits, default=None) if timeout is None else timeout,
            owners=owners,
            watch=Watch(each_once[0]._sent.backend, left),
        )

    @property
    def terms(self) -> tuple[float | None, Tell, Struck, float]:
        """How long it waits, and what is told and asked meanwhile.

        Once one has failed, the others have the longest time that a group gives.
        """
        grace = max(grace_of(each._sent.identities) for each in self.futures)
        return self.timeout, self.tell, self.struck, grace

    def tell(self, waiting: Mapping[int, Reference]) -> None:
        """Say for whom it waits, of each call by itself."""
        for future in self.futures:
            left = self._named(future, waiting)
            if left:
                future._sent.progress.tell(left)

    def struck(self, waiting: Mapping[int, Reference]) -> bool:
        """Whether a death of others ends the wait for some call."""
        return any(_fallen(each, self._named(each, waiting)) for each in self.futures)

    def finish(self, gathered: Gathered) -> None:
        """Keep what came; raise the one error unless all have returned."""
        for number, value in self.watch.values.items():
            owner, rank = self.owners[number]
            owner._kept[rank] = value
        if gathered.is_complete:
            return
        parts = [(future, self._part(future, gathered)) for future in self.futures]
        unfinished = [each for each in parts if not each[1].is_complete]
        first, part = min(unfinished, key=lambda each: not _has_failed(*each))
        error: WorkerGroupError = first._error(part)
        for future, other in parts:
            if future is not first:
                told = standing_text(_report(future, other), future._sent.identities)
                add_text(error, f"\n{told}")
        raise error

    def _part(self, future: CallFuture[Any], gathered: Gathered) -> Gathered:
        waiting = self._named(future, gathered.waiting)
        return Gathered(
            values=self._named(future, gathered.values),
            errors=self._named(future, gathered.errors),
            pending=tuple(waiting),
            waiting=waiting,
            seconds=future._sent.backend.now() - future._sent.since,
        )

    def _named(self, future: CallFuture[Any], given: Mapping[int, Any]) -> dict[int, Any]:
        """What belongs to one call, by rank."""
        told = ((*self.owners[number], each) for number, each in given.items())
        return {rank: each for owner, rank, each in told if owner is future}


def _fallen(future: CallFuture[Any], waiting: Collection[int]) -> bool:
    return bool(fallen_of(future._sent.identities, waiting))


def _has_failed(future: CallFuture[Any], part: Gathered) -> bool:
    return bool(part.errors) or _fallen(future, part.pending)


def _report(future: CallFuture[Any], part: Gathered) -> FailureReport:
    """How one of several calls stands; where it has failed, its group takes note of that."""
    if _has_failed(future, part):
        return future._error(part).report
    sent, returned = future._sent, tuple(part.values)
    held = held_by(sent.backend, sent.behind, part.waiting)
    called = [*returned, *part.pending]
    return fold_failures(sent.subject, [], called, returned, part.seconds, held)
