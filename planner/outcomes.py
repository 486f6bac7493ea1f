"""What became of a call on every rank, and how a failure or a long wait is told: with names."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

from attrs import frozen

from planner.failure_causes import Death, DeathCause
from planner.tracebacks import WAS_CUT

__all__ = [
    "Aside",
    "FailureReport",
    "Held",
    "RankFailure",
    "RankIdentity",
    "fold_failures",
    "held_text",
    "ranks_of_lost_nodes",
    "ranks_text",
    "slowest_first",
    "standing_text",
    "still_waiting_text",
]

MOST_CAUSES = 8
"""How many failures that differ a message tells; the report has them all."""

MOST_LINES = 20
"""How many lines of one failure's message are told."""

MOST_CHARACTERS = 2_000
"""How many characters of one failure's message are told."""

MOST_NAMED = 5
"""How many ranks that have not answered are told in full."""

NOTICE_SECONDS = 0.1
"""How much earlier a death counts than its cluster says. The cluster says when it noticed: Ray up
to 25 ms late, while peers raise as soon as their connections break."""

MOST_RUNS = 12
"""How many runs of ranks a list of them tells."""

_LOST_WITH_OTHERS = {DeathCause.NODE_LOST, DeathCause.UNAVAILABLE, DeathCause.UNKNOWN}


class Aside(StrEnum):
    """How a rank that failed stood to a call in which it was not waited for."""

    RETURNED = "after it had returned"
    OUTSIDE = "not in this call"


@frozen(kw_only=True)
class RankIdentity:
    """Who a rank is, for people.

    Attributes:
        rank: Its global rank.
        coordinates: Axis and coordinate, outermost axis first.
        node: Its node's address.
        gpus: Ids of its GPUs on the node.
        pid: Its process; None when not known.
        bundle: Its placement group and bundle, told where its node is not known yet.
    """

    rank: int
    coordinates: tuple[tuple[str, int], ...] = ()
    node: str = ""
    gpus: tuple[str, ...] = ()
    pid: int | None = None
    bundle: tuple[int, int] | None = None

    def __str__(self) -> str:
        place = ", ".join(f"{axis}={coordinate}" for axis, coordinate in self.coordinates)
        parts = [f"rank {self.rank}" + (f" ({place})" if place else "")]
        if self.node:
            parts.append(f"on node {self.node}")
        elif self.bundle is not None:
            parts.append("in bundle {1} of placement group {0}".format(*self.bundle))
        if self.gpus:
            parts.append(f"GPU {','.join(self.gpus)}")
        if self.pid is not None:
            parts.append(f"pid {self.pid}")
        return parts[0] + (" " + ", ".join(parts[1:]) if len(parts) > 1 else "")


@frozen(kw_only=True)
class RankFailure:
    """How a call failed on one rank.

    Attributes:
        rank: Which.
        error_type: The exception's type.
        message: What it says.
        raised_at: When, in seconds of its node's clock; None when the process could not say.
        death: Why its process is gone, if it is.
        tail: The last lines of its standard error.
        frames: Where it was raised, and from where that was called: ``train.py:41 in step``.
        aside: How it stood to the call, when it was not waited for.
    """

    rank: int
    error_type: str
    message: str
    raised_at: float | None = None
    death: Death | None = None
    tail: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    aside: Aside | None = None

    @property
    def counts_from(self) -> float:
        """When it counts as failed; infinity where nobody can say."""
        if self.raised_at is None:
            return math.inf
        is_noticed = self.death is not None and self.death.is_final
        return self.raised_at - NOTICE_SECONDS if is_noticed else self.raised_at


@frozen(kw_only=True)
class Held:
    """Ranks that have not begun a call, because an earlier one holds them.

    Attributes:
        method: The earlier call's.
        ranks: The ranks that it holds.
        seconds: How long ago it was sent; None when not known.
    """

    method: str
    ranks: tuple[int, ...]
    seconds: float | None = None


@frozen(kw_only=True)
class FailureReport:
    """A failed call, folded by cause.

    Attributes:
        subject: What was tried, such as ``worker group 'policy', train()``.
        causes: Each distinct failure with the ranks it struck; the first in time comes first.
        finished: Ranks that had returned.
        running: Ranks that had not answered.
        seconds: How long ago the call was sent; where that is not known, how long was waited.
        held: Those that had not begun, and what held them.
    """

    subject: str
    causes: tuple[tuple[RankFailure, tuple[int, ...]], ...]
    finished: tuple[int, ...]
    running: tuple[int, ...]
    seconds: float | None = None
    held: tuple[Held, ...] = ()

    @property
    def first(self) -> RankFailure | None:
        """The first failure in time; None when nothing failed but time ran out."""
        return self.causes[0][0] if self.causes else None

    @property
    def failed(self) -> tuple[int, ...]:
        """Every rank that failed, sorted."""
        return tuple(sorted(rank for _, ranks in self.causes for rank in ranks))

    @property
    def dead(self) -> tuple[int, ...]:
        """The failed ranks whose process is gone, sorted."""
        gone = (ranks for failure, ranks in self.causes if failure.death and failure.death.is_final)
        return tuple(sorted(rank for ranks in gone for rank in ranks))

    @property
    def outside(self) -> tuple[int, ...]:
        """The failed ranks that are not in the call, but share the fate of some that are."""
        beside = (ranks for failure, ranks in self.causes if failure.aside is Aside.OUTSIDE)
        return tuple(sorted(rank for ranks in beside for rank in ranks))


def fold_failures(
    subject: str,
    failures: Sequence[RankFailure],
    called: Sequence[int],
    finished: Sequence[int],
    seconds: float | None = None,
    held: Sequence[Held] = (),
) -> FailureReport:
    """Fold equal failures together, the first in time first.

    Args:
        subject: What was tried.
        failures: One per failed rank, in the order in which they arrived.
        called: Every rank that took part.
        finished: Those that returned.
        seconds: How long ago it was sent, or how long the caller has waited.
        held: Ranks that have not begun, and what holds them.
    """
    arrived = {failure.rank: place for place, failure in enumerate(failures)}
    in_time = sorted(failures, key=lambda each: (each.counts_from, arrived[each.rank]))
    causes: dict[tuple[str, str, Aside | None], list[RankFailure]] = {}
    for failure in in_time:
        kind = (failure.error_type, failure.message, failure.aside)
        causes.setdefault(kind, []).append(failure)
    ended = {failure.rank for failure in failures}.union(finished)
    return FailureReport(
        subject=subject,
        causes=tuple(
            (group[0], tuple(sorted(failure.rank for failure in group)))
            for group in causes.values()
        ),
        finished=tuple(sorted(finished)),
        running=tuple(sorted(rank for rank in called if rank not in ended)),
        seconds=seconds,
        held=tuple(held),
    )


def ranks_of_lost_nodes(
    failures: Sequence[RankFailure], pending: Sequence[int], nodes: Mapping[int, str]
) -> tuple[int, ...]:
    """Ranks that have not answered, on nodes that seem lost: they deserve a longer wait.

    Ray notices the loss of a node for one process after the other.

    Args:
        failures: What has failed.
        pending: Who has not answered.
        nodes: The node of each rank, as far as it is known.
    """
    lost = {
        nodes.get(each.rank)
        for each in failures
        if each.death is not None and each.death.cause in _LOST_WITH_OTHERS
    } - {None}
    return tuple(rank for rank in pending if nodes.get(rank) in lost)


def failure_text(report: FailureReport, identities: Mapping[int, RankIdentity]) -> str:
    """The report as the message of an error: who, what, and how the others stood."""
    first = report.first
    lines = [f"{report.subject}: {_count_text(report)}"]
    if first is not None:
        who = identities.get(first.rank, RankIdentity(rank=first.rank))
        lines[0] += f"; first {who}"
    for failure, ranks in report.causes[:MOST_CAUSES]:
        aside = "" if failure.aside is None else f", {failure.aside}"
        told = f"{failure.error_type}: {_told(failure.message)}"
        lines.append(f"  {ranks_text(ranks)}{aside}: {told}")
        if failure is first and failure.frames:
            lines.append(f"    raised at {', from '.join(failure.frames)}")
        if failure.tail:
            lines.append(f"    last lines of rank {failure.rank}'s standard error:")
            lines += [f"    | {line}" for line in failure.tail]
    rest = report.causes[MOST_CAUSES:]
    if rest:
        others = [rank for _, ranks in rest for rank in ranks]
        causes = "1 more cause" if len(rest) == 1 else f"{len(rest)} more causes"
        lines.append(f"  and {causes} on {ranks_text(others)}")
    if report.finished:
        lines.append(f"  returned: {ranks_text(report.finished)}")
    if report.running:
        waited = "" if report.seconds is None else f", after {report.seconds:.1f} s"
        lines.append(f"  no answer yet: {ranks_text(report.running)}{waited}")
        named, more = _slowest(report.running, identities, report.held)
        lines += [f"    waiting for {each}" for each in named]
        lines += [f"    {more}"] if more else []
    lines += [f"  not begun: {held_text(each)}" for each in report.held]
    return "\n".join(lines)


def _count_text(report: FailureReport) -> str:
    outside = frozenset(report.outside)
    inside = [rank for rank in report.failed if rank not in outside]
    count = len({*inside, *report.finished, *report.running})
    if not report.failed:
        return f"{len(report.running)} of {count} ranks did not answer"
    if not outside:
        return f"{len(inside)} of {count} ranks failed"
    others = f"that {'is' if len(outside) == 1 else 'are'} not in it"
    if not inside:
        return f"{len(outside)} rank{'s'[: len(outside) > 1]} failed {others}"
    return f"{len(inside)} of {count} ranks failed, and {len(outside)} {others}"


def still_waiting_text(
    subject: str,
    pending: Sequence[int],
    called: int,
    seconds: float,
    identities: Mapping[int, RankIdentity],
    held: Sequence[Held] = (),
    *,
    streams: bool = False,
) -> str:
    """What a long wait says now and then: for whom it waits.

    Args:
        subject: What was called.
        pending: Who has not answered.
        called: How many were called.
        seconds: How long ago, or how long the caller has waited.
        identities: Who the ranks are.
        held: Those that have not begun, and what holds them.
        streams: Whether it waits for values of streams, of which each may give many.
    """
    whose, done = ("values of ", "ended") if streams else ("", "answered")
    named, more = _slowest(pending, identities, held)
    answered = called - len(pending)
    parts = [*named, *([more] if more else []), *(f"not begun: {held_text(e)}" for e in held)]
    return (
        f"{subject}: still waiting for {whose}{ranks_text(pending)} after {seconds:.0f} s; "
        f"{answered} of {called} {'has' if answered == 1 else 'have'} {done}; {'; '.join(parts)}"
    )


def standing_text(report: FailureReport, identities: Mapping[int, RankIdentity]) -> str:
    """In one line how a call stood when another one failed, or time was up."""
    standings = (
        ("returned", report.finished),
        ("failed", report.failed),
        ("had not answered", report.running),
    )
    told = [f"{ranks_text(ranks)} {what}" for what, ranks in standings if ranks]
    if report.running and report.seconds is not None:
        told[-1] += f" after {report.seconds:.1f} s"
    named, more = _slowest(report.running, identities, report.held)
    waiting = [
        *named,
        *([more] if more else []),
        *(f"not begun: {held_text(e)}" for e in report.held),
    ]
    return f"{report.subject}: {'; '.join(told)}" + (f": {'; '.join(waiting)}" if waiting else "")


def slowest_first(pending: Sequence[int], held: Sequence[Held]) -> list[int]:
    """Those that have not answered; those that have not begun come first.

    Whoever runs may be waiting for those, in a collective.
    """
    behind = {rank for each in held for rank in each.ranks}
    return sorted(pending, key=lambda rank: (rank not in behind, rank))


def _slowest(
    pending: Sequence[int], identities: Mapping[int, RankIdentity], held: Sequence[Held]
) -> tuple[list[str], str]:
    """The first few in full, where more than their numbers is known; and the others."""
    ordered = slowest_first(pending, held)
    known = [identities[rank] for rank in ordered[:MOST_NAMED] if rank in identities]
    rest = ordered[MOST_NAMED:]
    return [str(each) for each in known], f"and {len(rest)} more: {ranks_text(rest)}" * bool(rest)


def held_text(held: Held) -> str:
    """``ranks 1, 3, still in save(), called 52 s ago``."""
    ago = "" if held.seconds is None else f", called {held.seconds:.1f} s ago"
    return f"{ranks_text(held.ranks)}, still in {held.method}(){ago}"


def _told(message: str) -> str:
    """A message of a few lines, the others indented below the first."""
    ends = (each for each in WAS_CUT.finditer(message) if each.end() == len(message))
    cut = next(ends, None)
    whole, gone = (message[: cut.start()], int(cut[1].replace(",", ""))) if cut else (message, 0)
    lines = whole[:MOST_CHARACTERS].splitlines()[:MOST_LINES]
    left = gone + len(whole) - len("\n".join(lines))
    more = f"... ({left:,} more characters)" if left > 0 else ""
    return "\n    ".join(lines) + more


def ranks_text(ranks: Sequence[int]) -> str:
    """Ranks for people, runs folded: ``ranks 0-3, 7``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], rank]
        else:
            runs.append([rank, rank])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:MOST_RUNS])
    left = sum(b - a + 1 for a, b in runs[MOST_RUNS:])
    more = f" and {left} more" if left else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{more}"
