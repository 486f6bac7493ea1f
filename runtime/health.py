"""Whether a group may take calls: ranks that nobody can vouch for take none until recovered."""

import threading
from collections.abc import Mapping, Sequence

from attrs import frozen

from planner.launch import LaunchPlan
from planner.outcomes import ranks_text
from planner.recovery import Domain, FailurePolicy, Survivors, domain_of
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


@frozen(eq=False)
class _Trouble:
    why: str
    dead: tuple[int, ...]
    waiting: Mapping[int, Reference]


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
        self._backend, self._lane = backend, lane
        self._troubles: list[_Trouble] = []
        self._lock = threading.Lock()

    def note(
        self, error: WorkerGroupError, waiting: Mapping[int, Reference], called: Roster
    ) -> None:
        """Take note of a failed call; act as the policy says.

        Args:
            error: How it failed.
            waiting: The calls that have not answered, by rank.
            called: The ranks as they were when they were called: what is told of one that was
                started again since, or given up, says nothing of the group as it is now.
        """
        report = error.report
        now = self._lane.roster
        here = {
            rank for rank in called if rank not in self.absent and called[rank] == now.get(rank)
        }
        waiting = {rank: each for rank, each in waiting.items() if rank in here}
        if self.policy.stacks and waiting:
            self._add_stacks(error, sorted(waiting))
        failed = here.intersection(report.failed)
        if not failed:
            # Time ran out and nothing failed: nobody is known to be in a wrong state.
            return
        # Out of reach counts: whether the call ran there, and still runs, nobody knows.
        gone = (rank for f, ranks in report.causes if f.death is not None for rank in ranks)
        dead = tuple(rank for rank in gone if rank in here)
        struck = self._struck(sorted(failed))
        left = {rank: ref for rank, ref in waiting.items() if rank in struck}
        if left and self.policy.survivors is Survivors.ABORT:
            self._lane.kill(sorted(left))
            error.add_note(f"ended by the failure policy: {ranks_text(sorted(left))}")
            dead = tuple(sorted({*dead, *left}))
            left = {}
        if dead or left:
            failure, ranks = report.causes[0]
            message = failure.message.partition("\n")[0]
            why = f"{report.subject}: {ranks_text(ranks)}: {failure.error_type}: {message}"
            with self._lock:
                self._troubles.append(_Trouble(why, dead, left))

    def _add_stacks(self, error: WorkerGroupError, ranks: Sequence[int]) -> None:
        try:
            stacks = self._lane.stacks(ranks, STACKS_SECONDS)
        except Exception as trouble:  # noqa: BLE001  # the failure itself is the one to tell
            error.add_note(f"no stacks: {type(trouble).__name__}: {trouble}")
            return
        for rank, text in stacks.items():
            error.add_note(f"rank {rank} had not answered; its stacks:\n{text}")

    def look(self, actors: Sequence[Actor]) -> None:
        """Take note of ranks that died while nobody waited for them through the group."""
        known = {*self.dead(), *self.absent}
        errors = {
            rank: error
            for rank, actor in enumerate(actors)
            if rank not in known and (error := self._backend.death(actor)) is not None
        }
        if errors:
            error_of(
                f"worker group {self.plan.group!r}", Gathered(errors=errors), self._lane.roster
            )

    def broken(self) -> tuple[int, ...]:
        """The ranks that are dead, or still in a failed call; sorted."""
        if not self._troubles:
            return ()
        with self._lock:
            self._troubles = [each for each in self._troubles if each.dead or self._is_stuck(each)]
            ranks = {rank for each in self._troubles for rank in (*each.dead, *each.waiting)}
        return tuple(sorted(ranks))

    def check(self, ranks: Sequence[int] | None = None) -> None:
        """Refuse a call to ranks that nobody can vouch for.

        Args:
            ranks: Whom the call is for; None when that is not known yet.

        Raises:
            InconsistentGroupError: They share the fate of ranks that are broken.
        """
        if self.absent and ranks is not None and (gone := self.absent.intersection(ranks)):
            raise _refusal(self.plan, sorted(gone), "they were given up: resize the group")
        broken = self.broken()
        if not broken or (ranks is None and self.policy.domain is not Domain.GROUP):
            return
        struck = self._struck(broken)
        if ranks is not None and not struck.intersection(ranks):
            return
        reasons = "; ".join(dict.fromkeys(each.why for each in self._troubles))
        raise _refusal(
            self.plan,
            broken,
            f"after this failure nobody can vouch for them: {reasons}. Call recover() or end()",
        )

    def dead(self) -> tuple[int, ...]:
        """The ranks that are known to be dead; sorted."""
        return tuple(sorted({rank for each in self._troubles for rank in each.dead}))

    def mark_dead(self, ranks: Sequence[int], why: str) -> None:
        """Note that ranks were ended on purpose."""
        with self._lock:
            self._troubles.append(_Trouble(why, tuple(ranks), {}))

    def mend(self, ranks: Sequence[int]) -> None:
        """Note that ranks were started again."""
        done = set(ranks)
        with self._lock:
            kept = []
            for each in self._troubles:
                dead = tuple(rank for rank in each.dead if rank not in done)
                waiting = {rank: ref for rank, ref in each.waiting.items() if rank not in done}
                if dead or waiting:
                    kept.append(_Trouble(each.why, dead, waiting))
            self._troubles = kept

    def _struck(self, ranks: Sequence[int]) -> set[int]:
        domain = self.policy.domain
        return {each for rank in ranks for each in domain_of(self.plan, rank, domain)}

    def _is_stuck(self, trouble: _Trouble) -> bool:
        references = list(trouble.waiting.values())
        if not references:
            return False
        ready, _ = self._backend.wait(references, len(references), 0)
        return len(ready) < len(references)


def _refusal(plan: LaunchPlan, ranks: Sequence[int], why: str) -> InconsistentGroupError:
    error = InconsistentGroupError(
        f"worker group {plan.group!r} refuses the call: {ranks_text(ranks)}: {why}"
    )
    error.ranks = tuple(ranks)
    return error
