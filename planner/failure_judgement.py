"""What a failed call means for its group: who is dead or stuck, and whom it calls no more."""

from collections.abc import Collection, Mapping, Sequence

from attrs import frozen

from planner.failure_policy import Domain, FailurePolicy, Survivors, fate_of
from planner.launch import LaunchPlan
from planner.outcomes import FailureReport, RankIdentity, ranks_text
from planner.resizing import give_back_text, serving_text

__all__ = ["Judgement", "Refusal", "judge_failure", "refusal", "stale_ranks"]


@frozen(kw_only=True)
class Judgement:
    """What a failed call means for the group as it is now; ranks are sorted.

    Attributes:
        dead: Ranks that take no call any more: gone, out of reach, or to be ended.
        stuck: Ranks that nobody can vouch for until they have left the call.
        abort: Ranks of ``dead`` that are to be ended now.
        stacks: Ranks whose stacks the error shall show.
        why: What the refusal of later calls says; empty when there is nothing to refuse.
    """

    dead: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()
    abort: tuple[int, ...] = ()
    stacks: tuple[int, ...] = ()
    why: str = ""

    @property
    def is_harmless(self) -> bool:
        """Whether the group takes calls as before."""
        return not self.dead and not self.stuck


def stale_ranks(
    called: Mapping[int, RankIdentity], now: Mapping[int, RankIdentity]
) -> frozenset[int]:
    """Ranks that are not any more who they were when they were called."""
    return frozenset(rank for rank, identity in called.items() if identity != now.get(rank))


def judge_failure(
    plan: LaunchPlan,
    report: FailureReport,
    policy: FailurePolicy,
    *,
    waiting: Collection[int],
    absent: Collection[int] = (),
    stale: Collection[int] = (),
) -> Judgement:
    """What a failed call means.

    Args:
        plan: The group.
        report: How the call failed.
        policy: What its ranks' failures mean for each other.
        waiting: The ranks whose calls have not answered.
        absent: Ranks that were given up since: what is told of them changes nothing.
        stale: Ranks that were started again since: what is told of their former processes
            says nothing of them.
    """
    here = frozenset(range(plan.world_size)).difference(absent, stale)
    late = sorted(here.intersection(waiting))
    stacks = tuple(late) if policy.stacks else ()
    failed = here.intersection(report.failed)
    if not failed:
        # Time ran out and nothing failed: nobody is known to be in a wrong state.
        return Judgement(stacks=stacks)
    # Out of reach counts: whether the call ran there, and still runs, nobody knows.
    gone = {
        rank
        for failure, ranks in report.causes
        if failure.death is not None
        for rank in here.intersection(ranks)
    }
    struck = fate_of(plan, failed, policy.domain)
    left = tuple(rank for rank in late if rank in struck)
    aborts = policy.survivors is Survivors.ABORT
    dead = tuple(sorted(gone.union(left))) if aborts else tuple(sorted(gone))
    if not dead and not left:
        return Judgement(stacks=stacks)
    return Judgement(
        dead=dead,
        stuck=() if aborts else left,
        abort=left if aborts else (),
        stacks=stacks,
        why=_why(report, failed),
    )


def _why(report: FailureReport, failed: Collection[int]) -> str:
    """The first failure of a rank that counts, in one line."""
    told = ((failure, [r for r in ranks if r in failed]) for failure, ranks in report.causes)
    failure, ranks = next(each for each in told if each[1])
    message = failure.message.partition("\n")[0]
    return f"{report.subject}: {ranks_text(ranks)}: {failure.error_type}: {message}"


@frozen(kw_only=True)
class Refusal:
    """Why a group does not take a call.

    Attributes:
        ranks: The ranks that are the reason, sorted.
        text: The same for people: who refuses, because of whom, and what would work.
    """

    ranks: tuple[int, ...]
    text: str


def refusal(
    plan: LaunchPlan,
    policy: FailurePolicy,
    *,
    ranks: Collection[int] | None,
    broken: Collection[int],
    absent: Collection[int] = (),
    reasons: Sequence[str] = (),
) -> Refusal | None:
    """Why a call is refused; None when it may go.

    Args:
        plan: The group.
        policy: What its ranks' failures mean for each other.
        ranks: Whom the call is for; None when that is not known yet.
        broken: Ranks that are dead, or still in a call that failed elsewhere.
        absent: Ranks that were given up.
        reasons: Why ranks are broken, the first in time first.
    """
    gone = sorted(set(absent).intersection(ranks or ()))
    if gone:
        others = "" if ranks is None or len(ranks) == 1 else serving_text(plan, absent)
        remedy = f"call ranks that serve{others}, or {give_back_text(plan, absent, gone)}"
        return _refused(plan, gone, f"they were given up by resize(); {remedy}")
    if not broken or (ranks is None and policy.domain is not Domain.GROUP):
        return None
    if ranks is not None and fate_of(plan, broken, policy.domain).isdisjoint(ranks):
        return None
    told = "; ".join(dict.fromkeys(reasons))
    why = f"after this failure nobody can vouch for them: {told}. Call recover() or end()"
    return _refused(plan, sorted(broken), why)


def _refused(plan: LaunchPlan, ranks: Sequence[int], why: str) -> Refusal:
    text = f"worker group {plan.group!r} refuses the call: {ranks_text(ranks)}: {why}"
    return Refusal(ranks=tuple(ranks), text=text)
