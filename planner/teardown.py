"""In what order a group is ended, and what shows that it has."""

# Rank 0 goes last: it serves the rendezvous store, and ranks that lose it while they still run
# report its loss in the place of what really happened. Every rank is asked to clean up at the
# same time, because a clean-up is often a collective itself.

import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from planner.findings import Findings
from planner.launch import LaunchPlan
from planner.liveness import DEAF, WorkerState
from planner.outcomes import ranks_text

__all__ = ["TeardownPlan", "TeardownReport", "plan_teardown", "run_of", "teardown_text"]

GRACE_SECONDS = 30.0
"""How long a clean-up may take, unless the caller says."""


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
        bundles: Placement group and bundle of every rank, which must be free afterwards.
    """

    group: str
    cleanup: str | None
    asked: tuple[int, ...]
    not_asked: tuple[tuple[int, str], ...]
    grace: float | None
    waves: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    bundles: tuple[tuple[int, int], ...]


def plan_teardown(
    plan: LaunchPlan,
    states: Mapping[int, WorkerState] | None = None,
    *,
    cleanup: str | None = None,
    grace: float | None = GRACE_SECONDS,
    ranks: Sequence[int] | None = None,
) -> TeardownPlan:
    """The order in which ranks are asked and ended.

    Args:
        plan: The group.
        states: How its ranks are, as far as that is known: nobody asks a process that is dead,
            stopped or out of reach.
        cleanup: The method to call first.
        grace: Seconds for it; None waits without end.
        ranks: Only these; None for all.

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
    known = states or {}
    not_asked = tuple(
        (rank, known[rank].value) for rank in chosen if known.get(rank) in DEAF and cleanup
    )
    silent = {rank for rank, _ in not_asked}
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
        processes_unseen: Ranks on other machines, whose end only Ray vouches for.
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
    seconds: float = field(default=0.0, eq=False)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left: names free, processes gone."""
        return not self.names_held and not self.processes_left

    @property
    def went_well(self) -> bool:
        """Whether nothing is left and every rank cleaned up that was to."""
        return self.is_clean and not (self.failed or self.late or self.not_asked)


def teardown_text(report: TeardownReport) -> str:
    """The report for people."""
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
    return "\n".join(lines)


_RUN = re.compile(r".+-([0-9a-f]{8})-(?:node\d+|unified)")


def run_of(placement_group: str) -> str | None:
    """The run id in a placement group's name; None for one that rankplan did not make."""
    found = _RUN.fullmatch(placement_group)
    return found[1] if found else None
