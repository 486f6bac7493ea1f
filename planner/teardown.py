"""In what order a group is ended, and what shows that it has."""

# Rank 0 goes last: it serves the rendezvous store, and ranks that lose it while they still run
# report its loss in the place of what really happened. Every rank is asked to clean up at the
# same time, because a clean-up is often a collective itself.

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from attrs import evolve, field, frozen

from planner.findings import Finding, Findings
from planner.launch import LaunchPlan
from planner.liveness import DEAF, WorkerState
from planner.outcomes import ranks_text

__all__ = [
    "INTERRUPTED",
    "Bundle",
    "BundlesBefore",
    "BundlesFound",
    "TeardownPlan",
    "TeardownReport",
    "bundles_text",
    "judge_bundles",
    "names_to_free",
    "plan_teardown",
    "report_of_lost_session",
    "teardown_text",
    "why_over",
    "with_clean_up",
]

GRACE_SECONDS = 30.0
"""How long a clean-up may take, unless the caller says."""

GONE_SECONDS = 10.0
"""How long killed actors may take to give up names, processes and bundles."""

CHILDREN_SECONDS = 2.0
"""How long what others started in the bundles may take to go, once the workers are gone."""

SESSION_OVER = "the Ray session in which its workers ran is over"

INTERRUPTED = "the end was interrupted before it had finished"

_T = TypeVar("_T", int, tuple[int, str])

Bundle = tuple[int, int]
"""A placement group, and a bundle of it."""


@frozen(kw_only=True)
class TeardownPlan:
    """How a group is ended.

    Attributes:
        group: Its name.
        cleanup: The method that ranks are asked to call first; None for none.
        asked: The ranks that are asked, all at once.
        not_asked: Ranks that are not, each with the reason.
        grace: Seconds that the asked ranks have together; None waits without end.
        waves: The ranks to end, wave after wave.
        names: The actors' names that must be free afterwards, in rank order.
        bundles: Placement group and bundle of every rank in ``waves``, in rank order, which must
            be free afterwards.
    """

    group: str
    cleanup: str | None
    asked: tuple[int, ...]
    not_asked: tuple[tuple[int, str], ...]
    grace: float | None
    waves: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    bundles: tuple[Bundle, ...]


def plan_teardown(
    plan: LaunchPlan,
    states: Mapping[int, WorkerState] | None = None,
    *,
    cleanup: str | None = None,
    grace: float | None = GRACE_SECONDS,
    ranks: Sequence[int] | None = None,
    absent: Collection[int] = (),
    before: "TeardownReport | None" = None,
) -> TeardownPlan:
    """The order in which ranks are asked and ended.

    Args:
        plan: The group.
        states: How its ranks are, as far as that is known: nobody asks a process that is dead,
            stopped or out of reach.
        cleanup: The method to call first.
        grace: Seconds for it; None waits without end.
        ranks: Only these; None for all.
        absent: Ranks that were given up. They had their end, so nobody misses their clean-up; but
            what interrupted that end is not known, so they are ended like the others.
        before: What came of an end that was interrupted: this one does the rest. No rank is
            asked twice, and none that was ended.

    Raises:
        PlanError: A rank is not in the group, or the grace is negative.
    """
    findings = Findings(f"worker group {plan.group!r}, teardown")
    chosen = tuple(range(plan.world_size)) if ranks is None else tuple(sorted(set(ranks)))
    for rank in chosen:
        if not 0 <= rank < plan.world_size:
            findings.add(
                "ranks", f"{rank!r} is not one of {plan.world_size}", "name ranks of the group"
            )
    if grace is not None and grace < 0:
        findings.add("grace", f"{grace!r} is not a time", "give seconds, 0 or more, or None")
    findings.check()
    known = {
        **(states or {}),
        **dict.fromkeys(() if before is None else before.ended, WorkerState.DEAD),
    }
    asked_before = frozenset[int]() if before is None else before.asked
    not_asked = tuple(
        (rank, known[rank].value)
        for rank in chosen
        if known.get(rank) in DEAF and cleanup and rank not in asked_before.union(absent)
    )
    silent = asked_before.union(absent, (rank for rank, _ in not_asked))
    rest = tuple(rank for rank in chosen if rank)
    return TeardownPlan(
        group=plan.group,
        cleanup=cleanup,
        asked=tuple(rank for rank in chosen if rank not in silent) if cleanup else (),
        not_asked=not_asked,
        grace=grace,
        waves=tuple(wave for wave in (rest, (0,) if 0 in chosen else ()) if wave),
        names=tuple(plan.workers[rank].name for rank in chosen),
        bundles=tuple(
            (plan.workers[rank].placement_group, plan.workers[rank].bundle) for rank in chosen
        ),
    )


def names_to_free(plan: TeardownPlan, dead: Collection[int]) -> tuple[str, ...]:
    """The names that the end of a group frees.

    Args:
        plan: The teardown.
        dead: Ranks that were dead before: whoever has their names now is somebody else.
    """
    ranks = sorted(rank for wave in plan.waves for rank in wave)
    named = zip(ranks, plan.names, strict=True) if plan.names else ()
    return tuple(name for rank, name in named if rank not in dead)


@frozen(kw_only=True)
class BundlesBefore:
    """What was in the bundles of a group just before its workers were ended.

    Attributes:
        held: How many workers, actors and tasks of anyone each bundle held.
        beside: How many workers of other groups.
        dead: The ranks of the group that were dead already.
    """

    held: Mapping[Bundle, int] = field(factory=dict)
    beside: Mapping[Bundle, int] = field(factory=dict)
    dead: frozenset[int] = frozenset()


@frozen(kw_only=True)
class BundlesFound:
    """Which bundles of a group are not free again.

    Attributes:
        held: Those in which more is than other groups hold there.
        unseen: Those of which nothing is known: their node is lost, or their placement group is.
        patience: Seconds for which it is worth waiting that this changes by itself.
    """

    held: tuple[Bundle, ...] = ()
    unseen: tuple[Bundle, ...] = ()
    patience: float = 0.0


def judge_bundles(
    plan: TeardownPlan,
    before: BundlesBefore,
    held: Mapping[Bundle, int],
    beside: Mapping[Bundle, int],
) -> BundlesFound:
    """Which bundles are free, from what is in them now.

    A bundle that only this group used must be empty. What a colocated group has started in a
    bundle beside its worker is nobody's fault: there, only as much must be gone as this group's
    workers held.

    Args:
        plan: The teardown, carried out.
        before: What was there before its workers were ended.
        held: How many workers, actors and tasks of anyone each bundle holds now; a bundle that
            can't be looked at is not in it.
        beside: How many workers of other groups each bundle holds now.
    """
    ranks = sorted(rank for wave in plan.waves for rank in wave)
    own: dict[Bundle, int] = {}
    for rank, bundle in zip(ranks, plan.bundles, strict=True):
        own[bundle] = own.get(bundle, 0) + (rank not in before.dead)
    found: list[Bundle] = []
    patience = 0.0
    for bundle in sorted(own):
        more = held.get(bundle, 0) - beside.get(bundle, 0)
        known = own[bundle] + before.beside.get(bundle, 0)
        others = max(0, before.held.get(bundle, 0) - known)
        is_shared = bool(beside.get(bundle) or before.beside.get(bundle))
        if more > (others if is_shared else 0):
            found.append(bundle)
            patience = max(patience, GONE_SECONDS if more > others else CHILDREN_SECONDS)
    return BundlesFound(
        held=tuple(found),
        unseen=tuple(bundle for bundle in sorted(own) if bundle not in held),
        patience=patience,
    )


@frozen(kw_only=True)
class TeardownReport:
    """What came of ending a group.

    Attributes:
        group: Its name.
        cleaned: The ranks that cleaned up.
        failed: Those whose clean-up failed, each with the reason.
        late: Those that did not finish it in time.
        not_asked: Those that were not asked, each with the reason.
        ended: The ranks that were ended.
        names_held: Names that are not free again.
        processes_left: Ranks whose process is still there.
        processes_unseen: Ranks on other machines, whose end only Ray vouches for; all ranks,
            when their session is over.
        bundles_held: Placement group and bundle of what is not free again: something is in it
            that no other group's claim explains, such as an actor that a worker started.
        bundles_unseen: Those that can't be looked at: their node is lost, or their placement
            group or their session is gone.
        session_is_over: Whether this process had left the session in which the ranks ran. Ray
            ends them with it; nobody was asked or ended here, and nobody could look.
        seconds: How long it took.
    """

    group: str
    cleaned: tuple[int, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()
    late: tuple[int, ...] = ()
    not_asked: tuple[tuple[int, str], ...] = ()
    ended: tuple[int, ...] = ()
    names_held: tuple[str, ...] = ()
    processes_left: tuple[int, ...] = ()
    processes_unseen: tuple[int, ...] = ()
    bundles_held: tuple[Bundle, ...] = ()
    bundles_unseen: tuple[Bundle, ...] = ()
    session_is_over: bool = False
    seconds: float = field(default=0.0, eq=False)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left: names free, processes gone, bundles free."""
        left = (self.names_held, self.processes_left, self.bundles_held, self.session_is_over)
        return not any(left)

    @property
    def went_well(self) -> bool:
        """Whether every rank is gone and cleaned up if it was to; others may be in its bundles."""
        troubles = (self.failed, self.late, self.not_asked, self.names_held, self.processes_left)
        return not any(troubles)

    @property
    def asked(self) -> frozenset[int]:
        """The ranks of which it is known whether they cleaned up."""
        told = (rank for rank, _ in (*self.failed, *self.not_asked))
        return frozenset((*self.cleaned, *self.late, *told))

    def __str__(self) -> str:
        return teardown_text(self)


def with_clean_up(
    report: TeardownReport,
    plan: TeardownPlan,
    *,
    failed: Sequence[tuple[int, str]] = (),
    unanswered: Collection[int] = (),
    is_interrupted: bool = False,
) -> TeardownReport:
    """A report with what came of the clean-up.

    Args:
        report: What is known beside it.
        plan: Who was asked, and who was not.
        failed: The asked ranks whose clean-up failed, each with the reason.
        unanswered: The asked ranks that have not answered.
        is_interrupted: Whether they still had time.
    """
    late = tuple(rank for rank in plan.asked if rank in unanswered)
    stopped = tuple((rank, INTERRUPTED) for rank in late) if is_interrupted else ()
    troubled = {*late, *(rank for rank, _ in failed)}
    return evolve(
        report,
        cleaned=_merged(report.cleaned, [rank for rank in plan.asked if rank not in troubled]),
        failed=_merged(report.failed, [*failed, *stopped]),
        late=report.late if is_interrupted else _merged(report.late, late),
        not_asked=_merged(report.not_asked, plan.not_asked),
    )


def _merged(old: Sequence[_T], new: Sequence[_T]) -> tuple[_T, ...]:
    both = set[_T](old).union(new)
    return tuple(sorted(both))


def report_of_lost_session(plan: TeardownPlan, before: TeardownReport) -> TeardownReport:
    """What is reported of a group whose session this process has left: nothing is done.

    Args:
        plan: What would have been done.
        before: What was done by an end that was interrupted.
    """
    ranks = sorted(rank for wave in plan.waves for rank in wave)
    unheard = [(rank, WorkerState.OUT_OF_REACH.value) for rank in plan.asked]
    return evolve(
        before,
        not_asked=_merged(before.not_asked, [*plan.not_asked, *unheard]),
        processes_unseen=tuple(ranks),
        bundles_unseen=tuple(sorted(set(plan.bundles))),
        session_is_over=True,
    )


def why_over(*, has_ended: bool, began_in: str, is_in: str) -> Finding | None:
    """Why a group does nothing any more; None while it lives.

    Args:
        has_ended: Whether it was ended.
        began_in: The session in which it was started.
        is_in: The session that this process is in now; empty for none.
    """
    if has_ended:
        return Finding("group", "it has ended", "start a new group: an ended one takes no calls")
    if began_in == is_in:
        return None
    remedy = "start a new cluster and a new group in this one"
    if not is_in:
        remedy = "call ray.init() or init_ray(), then start a new cluster and a new group"
    return Finding("group", SESSION_OVER, remedy)


def teardown_text(report: TeardownReport) -> str:
    """The report for people."""
    if report.session_is_over:
        return (
            f"worker group {report.group!r}: {SESSION_OVER}: nothing was asked or ended here, and "
            f"nobody can tell what is left of {ranks_text(report.processes_unseen)}"
        )
    lines = [f"worker group {report.group!r}: {len(report.ended)} ranks ended"]
    if report.cleaned:
        lines.append(f"  cleaned up: {ranks_text(report.cleaned)}")
    lines += [f"  rank {rank}: clean-up failed: {why}" for rank, why in report.failed]
    if report.late:
        lines.append(f"  clean-up not finished in time: {ranks_text(report.late)}")
    lines += [
        f"  rank {rank}: not asked to clean up, it is {why}" for rank, why in report.not_asked
    ]
    if report.names_held:
        lines.append(f"  names not free again: {', '.join(report.names_held)}")
    if report.processes_left:
        lines.append(f"  processes still there: {ranks_text(report.processes_left)}")
    if report.processes_unseen:
        seen = ranks_text(report.processes_unseen)
        lines.append(f"  on other machines, where only Ray says that they are gone: {seen}")
    if report.bundles_held:
        lines.append(f"  not free again: {bundles_text(report.bundles_held)}")
    if report.bundles_unseen:
        unseen = bundles_text(report.bundles_unseen)
        lines.append(f"  nobody can tell whether they are free: {unseen}")
    return "\n".join(lines)


def bundles_text(bundles: Sequence[Bundle]) -> str:
    """Bundles for people: ``bundles 0-3 of placement group 1``."""
    return "; ".join(
        f"{ranks_text([bundle for _, bundle in mine]).replace('rank', 'bundle', 1)} "
        f"of placement group {group}"
        for group, mine in groupby(sorted(bundles), lambda each: each[0])
    )
