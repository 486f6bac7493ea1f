"""What a failed call means for its group: who is dead or stuck, and whom it calls no more."""

import re
from collections.abc import Collection, Mapping, Sequence

from attrs import frozen

from planner.failure_policy import Domain, FailurePolicy, Survivors, fate_of
from planner.launch import LaunchPlan
from planner.outcomes import FailureReport, RankIdentity, ranks_text
from planner.resizing import give_back_text, serving_text

__all__ = ["Judgement", "Refusal", "judge_failure", "refusal", "stale_ranks", "watched_ranks"]

_UNSURE = "they are dead, or still in a call that failed: "
_REMEDY = ". Call recover() or end(); ranks that are only still in that call can be waited for"
_MENDED = (
    "they are being recovered: call again once recover() has returned; until then only its "
    "restore() may call them"
)


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


def watched_ranks(
    plan: LaunchPlan,
    policy: FailurePolicy,
    waiting: Collection[int],
    absent: Collection[int] = (),
    stale: Collection[int] = (),
) -> tuple[int, ...]:
    """Ranks whose death ends a wait for others: those may sit in a collective with them for ever.

    Args:
        plan: The group.
        policy: What its ranks' failures mean for each other.
        waiting: The ranks that are waited for: their own deaths are noticed anyway.
        absent: Ranks that were given up.
        stale: Ranks that were started again since the call.
    """
    here = frozenset(range(plan.world_size)).difference(absent, stale)
    struck = fate_of(plan, here.intersection(waiting), policy.domain)
    return tuple(sorted(struck.intersection(here).difference(waiting)))


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
        why=_why(plan, report, policy.domain, failed, gone, left),
    )


def _why(
    plan: LaunchPlan,
    report: FailureReport,
    domain: Domain,
    failed: Collection[int],
    gone: Collection[int],
    left: Collection[int],
) -> str:
    """In one line why ranks are gone, and why the others that are left behind are so.

    Of several reasons for the same, it is the first in time.
    """
    told: list[str] = []
    behind = frozenset(left)
    for failure, ranks in report.causes:
        those = [rank for rank in ranks if rank in failed]
        dead = [rank for rank in those if rank in gone]
        strikes = behind.intersection(fate_of(plan, those, domain))
        is_news = bool(dead) and not told
        if is_news or strikes:
            message = failure.message.partition("\n")[0]
            who = ranks_text(those if strikes else dead)
            told.append(f"{who}: {failure.error_type}: {message}")
            behind -= strikes
    return f"{report.subject}: {'; '.join(told)}"


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
    mended: Collection[int] = (),
    reasons: Sequence[str] = (),
) -> Refusal | None:
    """Why a call is refused; None when it may go.

    Args:
        plan: The group.
        policy: What its ranks' failures mean for each other.
        ranks: Whom the call is for; None when that is not known yet.
        broken: Ranks that are dead, or still in a call that failed elsewhere.
        absent: Ranks that were given up.
        mended: Ranks that another thread is recovering.
        reasons: Why ranks are broken, the first in time first.
    """
    gone = sorted(set(absent).intersection(ranks or ()))
    if gone:
        others = "" if ranks is None or len(ranks) == 1 else serving_text(plan, absent)
        remedy = f"call ranks that serve{others}, or {give_back_text(plan, absent, gone)}"
        return _refused(plan, gone, f"they were given up by resize(); {remedy}")
    if mended and not _passes_by(plan, policy, ranks, mended):
        return _refused(plan, sorted(mended), _MENDED)
    if not broken or _passes_by(plan, policy, ranks, broken):
        return None
    why = f"{_UNSURE}{'; '.join(_each_once(plan, reasons))}{_REMEDY}"
    return _refused(plan, sorted(broken), why)


def _passes_by(
    plan: LaunchPlan, policy: FailurePolicy, ranks: Collection[int] | None, struck: Collection[int]
) -> bool:
    """Whether a call is for none of those who share the fate of struck ranks."""
    if ranks is None:
        return policy.domain is not Domain.GROUP
    return fate_of(plan, struck, policy.domain).isdisjoint(ranks)


def _each_once(plan: LaunchPlan, reasons: Sequence[str]) -> list[str]:
    """Reasons without those that say the same: of a death, of whichever call it was seen in.

    A reason may be the refusal of another call, which has its own reasons.
    """
    call = re.compile(rf"worker group {re.escape(repr(plan.group))}(, [^:]*)?: (.*)", re.DOTALL)
    found: dict[str, str] = {}
    for reason in reasons:
        what, _, inner = reason.partition(_UNSURE)
        told = f"{what.partition(': ')[0]}: a call was refused" if inner else reason
        inner = inner.removesuffix(_REMEDY)
        for each in found.values():
            inner = inner.replace(each, "")
        for each in (told, inner.strip("; ")):
            about = call.fullmatch(each)
            key = about[2] if about else each
            if each and (key not in found or (about and about[1])):
                found[key] = each
    return list(found.values())


def _refused(plan: LaunchPlan, ranks: Sequence[int], why: str) -> Refusal:
    text = f"worker group {plan.group!r} refuses the call: {ranks_text(ranks)}: {why}"
    return Refusal(ranks=tuple(ranks), text=text)
