"""Whether a group may take calls: ranks that nobody can vouch for take none until recovered."""

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar

from attrs import frozen

from planner.failure_judgement import judge_failure, refusal, stale_ranks, watched_ranks
from planner.failure_policy import FailurePolicy
from planner.launch import LaunchPlan
from planner.outcomes import ranks_text
from runtime.backend import Actor, Backend, Reference
from runtime.errors import ExecutionError, WorkerGroupError
from runtime.gather import Gathered, error_of
from runtime.lane import Lane
from runtime.roster import Roster

__all__ = ["Health", "InconsistentGroupError"]

STACKS_SECONDS = 5.0
"""How long the error of a call waits for the stacks of ranks that had not answered."""


class InconsistentGroupError(ExecutionError):
    """The group takes no calls: some ranks are dead, or still in a call that failed elsewhere.

    Attributes:
        ranks: Those ranks.
    """

    ranks: tuple[int, ...]


_MENDED: "ContextVar[tuple[Health, ...]]" = ContextVar("_MENDED", default=())
"""The groups that are recovered by whoever runs here."""


@frozen(eq=False)
class _Trouble:
    subject: str
    why: str
    dead: tuple[int, ...]
    waiting: Mapping[int, Reference]

    def joined(self, later: "_Trouble") -> "_Trouble | None":
        """This and what was seen later, when that is the same trouble, maybe grown."""
        is_same = self.subject == later.subject and set(self.dead) <= set(later.dead)
        if not is_same or any(self.waiting.get(rank, e) != e for rank, e in later.waiting.items()):
            return None
        return _Trouble(later.subject, later.why, later.dead, {**self.waiting, **later.waiting})


class Health:
    """What went wrong in a group and is not mended.

    Args:
        plan: The group.
        policy: What its ranks' failures mean for each other.
        backend: Where it runs.
        lane: How to look at ranks that are busy.
    """

    def __init__(
        self, plan: LaunchPlan, policy: FailurePolicy, backend: Backend, lane: Lane
    ) -> None:
        self.plan, self.policy = plan, policy
        self.absent: frozenset[int] = frozenset()
        self.mended: frozenset[int] = frozenset()
        self._backend, self._lane = backend, lane
        self._troubles: list[_Trouble] = []
        self._lock = threading.RLock()

    def note(
        self, error: WorkerGroupError, waiting: Mapping[int, Reference], called: Roster
    ) -> None:
        """Take note of a failed call; act as the policy says.

        Args:
            error: How it failed.
            waiting: The calls that have not answered, by rank.
            called: The ranks as they were when they were called.
        """
        judged = judge_failure(
            self.plan,
            error.report,
            self.policy,
            waiting=waiting,
            absent=self.absent,
            stale=stale_ranks(called, self._lane.roster),
        )
        if not judged.is_harmless:
            stuck = {rank: waiting[rank] for rank in judged.stuck}
            self._add(_Trouble(error.report.subject, judged.why, judged.dead, stuck))
        if judged.stacks:
            self._add_stacks(error, judged.stacks)
        if judged.abort:
            self._abort(error, judged.abort)

    def _add(self, trouble: _Trouble) -> None:
        # A future may be waited for again and again.
        with self._lock:
            for place, each in enumerate(self._troubles):
                joined = each.joined(trouble)
                if joined is not None:
                    self._troubles[place] = joined
                    return
            self._troubles.append(trouble)

    def watched(self, waiting: Collection[int], called: Roster) -> tuple[int, ...]:
        """The ranks whose death ends a wait for others.

        Args:
            waiting: Who is waited for.
            called: The ranks as they were when they were called.
        """
        now = self._lane.roster
        stale = () if called is now else stale_ranks(called, now)
        return watched_ranks(self.plan, self.policy, waiting, self.absent, stale)

    def _abort(self, error: WorkerGroupError, ranks: Sequence[int]) -> None:
        try:
            ended = self._lane.kill(ranks)
        except Exception as trouble:  # noqa: BLE001  # the failure itself is the one to tell
            told = f"{type(trouble).__name__}: {trouble}"
            error.add_note(f"the failure policy could not end {ranks_text(ranks)}: {told}")
            return
        left = [rank for rank in ranks if rank not in ended]
        if ended:
            error.add_note(f"ended by the failure policy: {ranks_text(ended)}")
        if left:
            error.add_note(f"not found to be ended by the failure policy: {ranks_text(left)}")

    def _add_stacks(self, error: WorkerGroupError, ranks: Sequence[int]) -> None:
        try:
            stacks = self._lane.stacks(ranks, STACKS_SECONDS)
        except Exception as trouble:  # noqa: BLE001  # the failure itself is the one to tell
            error.add_note(f"no stacks: {type(trouble).__name__}: {trouble}")
            return
        for rank, text in stacks.items():
            error.add_note(f"rank {rank} had not answered; its stacks:\n{text}")

    def look(self, actors: Mapping[int, Actor]) -> None:
        """Take note of those ranks that died while nobody waited for them through the group."""
        known = {*self.dead(), *self.absent}
        errors = {
            rank: error
            for rank, actor in actors.items()
            if rank not in known and (error := self._backend.death(actor)) is not None
        }
        if errors:
            subject, gathered = f"worker group {self.plan.group!r}", Gathered(errors=errors)
            error_of(subject, gathered, self._lane.roster, looks=False)

    def broken(self) -> tuple[int, ...]:
        """The ranks that are dead, or still in a failed call; sorted."""
        if not self._troubles:
            return ()
        left = {each: self._left_of(each) for each in list(self._troubles)}
        with self._lock:
            now = (left.get(each, each) for each in self._troubles)
            self._troubles = [each for each in now if each.dead or each.waiting]
            ranks = {rank for each in self._troubles for rank in (*each.dead, *each.waiting)}
        return tuple(sorted(ranks))

    def check(self, ranks: Sequence[int] | None = None) -> None:
        """Refuse a call to ranks that nobody can vouch for.

        Args:
            ranks: Whom the call is for; None when that is not known yet.

        Raises:
            InconsistentGroupError: They share the fate of ranks that are broken.
        """
        mended = self.mended
        if mended and self in _MENDED.get():
            mended = frozenset()
        if not self._troubles and not self.absent and not mended:
            return
        refused = refusal(
            self.plan,
            self.policy,
            ranks=ranks,
            broken=self.broken(),
            absent=self.absent,
            mended=mended,
            reasons=[each.why for each in self._troubles],
        )
        if refused is not None:
            error = InconsistentGroupError(refused.text)
            error.ranks = refused.ranks
            raise error

    def dead(self) -> tuple[int, ...]:
        """The ranks that are known to be dead; sorted."""
        return tuple(sorted({rank for each in self._troubles for rank in each.dead}))

    def mark_dead(self, ranks: Sequence[int], why: str) -> None:
        """Note that ranks were ended on purpose."""
        self._add(_Trouble(why, why, tuple(ranks), {}))

    def mending(self, ranks: Sequence[int]) -> AbstractContextManager[None]:
        """While it lasts, only who runs it, and what is called there, may call these ranks."""
        return _Mending(self, self.mended.union(ranks))

    def mend(self, ranks: Sequence[int]) -> None:
        """Note that ranks were started again."""
        done = set(ranks)
        with self._lock:
            kept = []
            for each in self._troubles:
                dead = tuple(rank for rank in each.dead if rank not in done)
                waiting = {rank: ref for rank, ref in each.waiting.items() if rank not in done}
                if dead or waiting:
                    kept.append(_Trouble(each.subject, each.why, dead, waiting))
            self._troubles = kept

    def _left_of(self, trouble: _Trouble) -> _Trouble:
        """What is left of a trouble: who has left the call is stuck no more."""
        references = list(trouble.waiting.values())
        if not references:
            return trouble
        ready = set(self._backend.wait(references, len(references), 0)[0])
        if not ready:
            return trouble
        waiting = {rank: each for rank, each in trouble.waiting.items() if each not in ready}
        return _Trouble(trouble.subject, trouble.why, trouble.dead, waiting)


class _Mending:
    """No generator: that would write on what passes it, which may be frozen."""

    def __init__(self, health: Health, ranks: frozenset[int]) -> None:
        self._health, self._ranks = health, ranks

    def __enter__(self) -> None:
        self._before, self._health.mended = self._health.mended, self._ranks
        self._mine = _MENDED.set((*_MENDED.get(), self._health))

    def __exit__(self, *error: object) -> None:
        _MENDED.reset(self._mine)
        self._health.mended = self._before
