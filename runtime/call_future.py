"""The answers of one call: waited for, in any order, with names and times."""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from attrs import evolve, field, frozen

from planner.call_requests import CallPlan
from planner.findings import Findings
from planner.outcomes import RankIdentity, ranks_text
from runtime.backend import Actor, Backend, Reference
from runtime.call_results import Fold, combine
from runtime.errors import WorkerGroupError
from runtime.gather import Behind, Gathered, check_timeout, gather, grace_of, late_error_of
from runtime.progress import Progress
from runtime.remote_batches import Makers, RemoteBatch
from runtime.roster import fallen_of
from runtime.taking import Answer, Running, answers
from runtime.watching import Watch

__all__ = ["CallFuture", "Outcome", "Sent", "Standing", "Timings"]

R = TypeVar("R")


class Standing(Enum):
    """How one rank's call stands."""

    RETURNED = "returned"
    FAILED = "failed"
    MISSING = "missing"


@frozen(kw_only=True)
class Outcome:
    """What became of a call on one rank.

    Attributes:
        rank: Which.
        standing: Whether it has returned, failed or not answered.
        error: What it raised.
    """

    rank: int
    standing: Standing
    error: BaseException | None = None


@frozen(kw_only=True)
class Timings:
    """When each rank ran a call, by its own node's clock.

    Attributes:
        began: Per rank, seconds since the epoch.
        ended: Per rank, seconds since the epoch.
    """

    began: Mapping[int, float]
    ended: Mapping[int, float]

    @property
    def durations(self) -> dict[int, float]:
        """Per rank, how many seconds the call ran."""
        return {rank: self.ended[rank] - start for rank, start in self.began.items()}

    @property
    def skew(self) -> float:
        """Seconds between the first start and the last; as good as the nodes' clocks agree."""
        return max(self.began.values()) - min(self.began.values())


@frozen(kw_only=True, eq=False)
class Sent:
    """A call that was sent.

    Attributes:
        plan: What was sent to whom.
        backend: Where it runs.
        references: What each rank's call gave.
        identities: Who the ranks are.
        actors: The called workers that return, in the order of ``plan.returns``.
        clocks: Per rank, its times; empty unless they were asked for.
        fold: The function that reduces the results.
        timeout: Seconds that a wait may take where it says nothing else.
        behind: Says which pending ranks have not begun, because an earlier call holds them.
        since: When it was sent, by the backend's clock.
    """

    plan: CallPlan
    backend: Backend
    references: Mapping[int, Reference]
    identities: Mapping[int, RankIdentity]
    actors: tuple[Actor, ...]
    clocks: Mapping[int, Reference] = field(factory=dict)
    fold: Fold | None = None
    timeout: float | None = None
    behind: Behind = lambda _: ()
    since: float = field()

    @since.default
    def _now(self) -> float:
        return self.backend.now()

    @property
    def subject(self) -> str:
        """What was called, for messages."""
        return f"worker group {self.plan.group!r}, {self.plan.method}()"

    @property
    def progress(self) -> Progress:
        """What is told of a wait for it."""
        return Progress(
            subject=self.subject,
            backend=self.backend,
            identities=self.identities,
            called=len(self.references),
            behind=self.behind,
            since=self.since,
        )


class CallFuture(Generic[R]):
    """The answers of one call; the result of type ``R`` is there when all have come.

    Every wait takes a ``timeout`` in seconds; without one, that of the call counts, and without
    that it waits without end and says now and then for whom. A wait that fails raises
    ``WorkerGroupError``, of the first failure's own type too; one that takes too long
    ``DeadlineError``, which says who has answered, who runs, and who is known not to have begun.
    A rank that does not return sends nothing back, but is waited for, and its errors count.
    """

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._values: Mapping[int, Any] | None = None
        self._kept: dict[int, Any] = {}

    @property
    def plan(self) -> CallPlan:
        """What was sent to whom."""
        return self._sent.plan

    def done(self) -> bool:
        """Whether every rank has answered, be it with an error."""
        return not self.pending()

    def pending(self) -> tuple[int, ...]:
        """The ranks that have not answered."""
        if self._values is not None:
            return ()
        references = self._sent.references
        ready, _ = self._sent.backend.wait(list(references.values()), len(references), 0)
        answered = set(ready)
        return tuple(rank for rank, each in references.items() if each not in answered)

    def result(self, timeout: float | None = None) -> R:
        """The results combined, as the call's roles say.

        Raises:
            ResultError: They do not combine, or there is one for each slice or rank.
        """
        values = self._wait(timeout)
        combined: R = combine(self.plan, [values[rank] for rank in self.plan.returns], self._fold)
        return combined

    def per_shard(self, timeout: float | None = None) -> list[R]:
        """The results of the ranks that return, one for each slice, in the slices' order."""
        values = self._wait(timeout)
        return [values[rank] for rank in self.plan.returns]

    def by_rank(self, timeout: float | None = None) -> dict[int, R]:
        """The results of the ranks that return, by rank."""
        values = self._wait(timeout)
        return {rank: values[rank] for rank in sorted(self.plan.returns)}

    def held(self) -> RemoteBatch[R]:
        """The results where they are, to be an argument of another call; waits for nothing.

        Raises:
            PlanError: They are not the rows of a batch that was cut.
        """
        findings = Findings(self._sent.subject)
        if self.plan.slices is None or len(self.plan.returns) != self.plan.slices.slices:
            findings.fail(
                "held",
                "its results are not the rows of a batch that was cut into slices",
                "hold the results of a call with a Shard argument, one result for each slice",
            )
        return RemoteBatch(
            references=tuple(self._sent.references[rank] for rank in self.plan.returns),
            slices=self.plan.slices,
            is_cut=False,
            homes=self._sent.actors,
            backend=self._sent.backend,
            makers=Makers(
                subject=self._sent.subject,
                ranks=self.plan.returns,
                identities=self._sent.identities,
                behind=self._sent.behind,
            ),
        )

    def outcomes(self) -> dict[int, Outcome]:
        """How every rank stands now."""
        watch = self._watch()
        while watch.left and watch.look(0.0):
            pass
        self._kept.update(watch.values)
        standings = {
            **dict.fromkeys(watch.left.values(), Standing.MISSING),
            **dict.fromkeys(watch.errors, Standing.FAILED),
        }
        return {
            rank: Outcome(
                rank=rank,
                standing=standings.get(rank, Standing.RETURNED),
                error=watch.errors.get(rank),
            )
            for rank in self._sent.references
        }

    def timings(self, timeout: float | None = None) -> Timings:
        """When each rank ran.

        Raises:
            PlanError: The call was made without ``timed=True``.
        """
        if not self._sent.clocks:
            Findings(self._sent.subject).fail(
                "timings", "its workers were not asked for times", "call group.using(timed=True)"
            )
        self._wait(timeout)
        clocks = self._sent.backend.get(list(self._sent.clocks.values()), timeout)
        pairs = dict(zip(self._sent.clocks, clocks, strict=True))
        return Timings(
            began={rank: pair[0] for rank, pair in pairs.items()},
            ended={rank: pair[1] for rank, pair in pairs.items()},
        )

    def as_completed(self, timeout: float | None = None) -> Iterator[Answer[R]]:
        """The answers of the ranks that return, each as it comes.

        Once a rank has failed, answers are given for a moment more; then comes one error that
        names all that have failed.

        Args:
            timeout: Seconds that the next answer may take.

        Raises:
            WorkerGroupError: Some rank failed.
            DeadlineError: The next answer took longer.
        """
        return answers(self._running(), self._limit(timeout))

    def __await__(self) -> Generator[Any, None, R]:
        if self._values is None:
            yield from self._come().__await__()
        return self.result()

    async def _come(self) -> None:
        """Wait in an event loop until all values are here."""
        sent, watch = self._sent, self._watch()
        gathered = await watch.until_over_async(
            self._limit(None),
            sent.progress.tell,
            lambda waiting: bool(fallen_of(sent.identities, waiting)),
            grace_of(sent.identities),
        )
        self._kept.update(watch.values)
        if not gathered.is_complete:
            raise self._error(gathered)
        away = {rank: each for rank, each in sent.references.items() if rank not in self._kept}
        if away:
            # What was lost meanwhile is told with its rank, by ``result``.
            with contextlib.suppress(Exception):
                values = await sent.backend.fetch(list(away.values()))
                self._kept.update(zip(away, values, strict=True))

    def __repr__(self) -> str:
        missing = self.pending()
        state = f"waiting for {ranks_text(missing)}" if missing else "done"
        return f"<CallFuture of {self._sent.subject}: {state}>"

    @property
    def _fold(self) -> Fold | None:
        return self._sent.fold

    def _limit(self, timeout: float | None) -> float | None:
        check_timeout(self._sent.subject, timeout)
        return self._sent.timeout if timeout is None else timeout

    def _running(self) -> Running:
        return Running(
            subject=self._sent.subject,
            backend=self._sent.backend,
            references=self._sent.references,
            returning=frozenset(self.plan.returns),
            identities=self._sent.identities,
            behind=self._sent.behind,
            since=self._sent.since,
        )

    def _wait(self, timeout: float | None) -> Mapping[int, Any]:
        limit = self._limit(timeout)
        if self._values is None:
            sent, kept = self._sent, self._kept
            missing = sent.references
            if kept:
                missing = {rank: each for rank, each in missing.items() if rank not in kept}
            gathered = gather(
                sent.backend,
                missing,
                limit,
                grace=grace_of(sent.identities),
                progress=sent.progress,
            )
            if kept:
                gathered = evolve(gathered, values={**gathered.values, **kept})
            if not gathered.is_complete:
                kept.update(gathered.kept)
                raise self._error(gathered)
            self._values = gathered.values
        return self._values

    def _watch(self) -> Watch:
        sent = self._sent
        return Watch(sent.backend, {ref: n for n, ref in sent.references.items()}, sent.since)

    def _error(self, gathered: Gathered) -> WorkerGroupError:
        sent = self._sent
        return late_error_of(sent.subject, gathered, sent.identities, sent.behind)
