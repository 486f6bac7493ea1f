"""Waiting for many answers at once: values, the errors of each, and who has not answered."""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from planner.failure_causes import Remains
from planner.findings import Findings
from planner.messages import Said, message_text
from planner.outcomes import (
    Aside,
    RankFailure,
    RankIdentity,
    fold_failures,
    ranks_of_lost_nodes,
    slowest_first,
)
from planner.times import seconds_of
from planner.tracebacks import frames_of
from runtime.backend import Backend, OutOfTimeError, Reference
from runtime.errors import WorkerGroupError, worker_group_error
from runtime.lookout import LOOK_SECONDS, Lookout
from runtime.progress import Behind, Progress, held_by, waits
from runtime.roster import Roster, fallen_of

__all__ = [
    "GRACE_SECONDS",
    "Behind",
    "Gathered",
    "add_text",
    "check_timeout",
    "error_of",
    "failures_of",
    "gather",
    "gather_or_raise",
    "grace_of",
    "late_error_of",
]

Late = Callable[[Sequence[int]], str]

GRACE_SECONDS = 0.5
"""How long the others have to answer once one has failed, where no policy says it."""

LOST_NODE_SECONDS = 5.0
"""How long the other ranks of a node that seems lost have to fail too."""

_OWN_FILES = (
    "runtime/host.py",
    "runtime/host_body.py",
    "runtime/in_process.py",
    "runtime/in_process_being.py",
)
"""Whose frames only carry a call to the user's code."""


@frozen(kw_only=True)
class Gathered:
    """What became of each call.

    Attributes:
        values: The value of each that has returned; where not all have, None may stand for it.
        errors: What the failed ones raised.
        pending: Who has not answered.
        waiting: What their calls gave.
        kept: Values that are here, although not all have returned.
        seconds: How long ago the call was sent, or how long was waited.
    """

    values: Mapping[int, Any] = field(factory=dict)
    errors: Mapping[int, BaseException] = field(factory=dict)
    pending: tuple[int, ...] = ()
    waiting: Mapping[int, Reference] = field(factory=dict)
    kept: Mapping[int, Any] = field(factory=dict)
    seconds: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every call has returned."""
        return not self.errors and not self.pending


def grace_of(identities: Mapping[int, RankIdentity]) -> float:
    """How long the others have to answer once one of these ranks has failed."""
    return identities.grace if isinstance(identities, Roster) else GRACE_SECONDS


def gather(
    backend: Backend,
    references: Mapping[int, Reference],
    timeout: float | None = None,
    *,
    grace: float = GRACE_SECONDS,
    progress: Progress | None = None,
) -> Gathered:
    """Wait until every call has returned, one has failed, or time is up.

    Values are fetched when all have returned, and only then. A death of others by which these
    ranks fail too ends the wait as a failure does.

    Args:
        backend: Where the calls run.
        references: What each rank's call gave.
        timeout: Seconds to wait; None waits without end.
        grace: Seconds the others get once one has failed.
        progress: Told now and then who has not answered.
    """
    refs = list(references.values())
    begun = backend.now() if progress is None else progress.since
    looked: set[Reference] = set()
    identities = {} if progress is None else progress.identities

    def is_struck() -> bool:
        left = [rank for rank, each in references.items() if each not in looked]
        return bool(fallen_of(identities, left))

    def tell() -> None:
        if progress is not None:
            ready = set(backend.wait(refs, len(refs), 0)[0])
            progress.tell({rank: each for rank, each in references.items() if each not in ready})

    are_there, lookout = False, Lookout(backend, is_struck)
    for seconds in waits(backend, timeout, lambda: lookout.is_struck, tell, lookout):
        try:
            # A fetch that takes long is not begun again and again.
            values = backend.get(refs, seconds if are_there else min(seconds, LOOK_SECONDS))
            return Gathered(values=dict(zip(references, values, strict=True)))
        except OutOfTimeError:
            ready, waiting = backend.wait(refs, len(refs), 0)
        except Exception:  # noqa: BLE001  # whatever the user's code raised: sorted out by rank
            return _sorted_out(backend, references, grace, begun, fetches=True)
        if backend.look([each for each in ready if each not in looked]).errors:
            # Ray ends a wait at once for a small error only.
            return _sorted_out(backend, references, grace, begun)
        looked.update(ready)
        are_there = not waiting
        if are_there:
            lookout.due = math.inf
    left = grace if lookout.is_struck else 0.0
    gathered = _sorted_out(backend, references, left, begun)
    if gathered.is_complete:
        # All have returned in time, though what they gave is not here.
        return _sorted_out(backend, references, 0.0, begun, fetches=True)
    return gathered


def _sorted_out(
    backend: Backend,
    references: Mapping[int, Reference],
    grace: float,
    begun: float,
    *,
    fetches: bool = False,
) -> Gathered:
    """How all stand, from what is here.

    Args:
        backend: Where the calls run.
        references: What each rank's call gave.
        grace: Seconds that those get that have not answered.
        begun: When it began.
        fetches: Whether to fetch the rest of what is there, unless an error is here.
    """
    refs = list(references.values())
    answered, _ = backend.wait(refs, len(refs), grace)
    ready = set(answered)
    looked = backend.look(answered)
    waiting = {rank: each for rank, each in references.items() if each not in ready}
    there = {rank: each for rank, each in references.items() if each in ready}
    errors = {rank: looked.errors[each] for rank, each in there.items() if each in looked.errors}
    kept = {rank: looked.values[each] for rank, each in there.items() if each in looked.values}
    if fetches and not errors:
        more, errors = _fetched(backend, {r: e for r, e in there.items() if r not in kept})
        kept |= more
    return Gathered(
        values={rank: kept.get(rank) for rank in there if rank not in errors},
        errors=errors,
        pending=tuple(waiting),
        waiting=waiting,
        kept=kept,
        seconds=backend.now() - begun,
    )


def _fetched(
    backend: Backend, references: Mapping[int, Reference]
) -> tuple[dict[int, Any], dict[int, BaseException]]:
    """The values and errors of calls that have answered."""
    values: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    for rank, reference in references.items():
        try:
            values[rank] = backend.get([reference], None)[0]
        except Exception as error:  # noqa: BLE001  # any type: it is the user's
            errors[rank] = backend.cause_of(error)
    return values, errors


def check_timeout(subject: str, timeout: object) -> None:
    """Refuse what is no time to wait.

    Raises:
        PlanError: It is none.
    """
    if timeout is not None and seconds_of(timeout) is None:
        Findings(subject).fail(
            "timeout", f"{timeout!r} is not a time", "give seconds, 0 or more, or None"
        )


def gather_or_raise(
    backend: Backend,
    subject: str,
    references: Mapping[int, Reference],
    identities: Mapping[int, RankIdentity],
    timeout: float | None = None,
    behind: Behind | None = None,
    late: Late | None = None,
) -> Mapping[int, Any]:
    """Every rank's value, or one error that names every rank.

    Args:
        backend: Where the calls run.
        subject: What was called, for messages.
        references: What each rank's call gave.
        identities: Who the ranks are.
        timeout: Seconds to wait; None waits without end.
        behind: Says which ranks have not begun; None where there is no group yet.
        late: Says what would help some ranks for which only time was short.

    Raises:
        WorkerGroupError: Some rank failed; of the first failure's own type too.
        DeadlineError: Time is up.
    """
    progress = Progress(
        subject=subject,
        backend=backend,
        identities=identities,
        called=len(references),
        behind=behind,
    )
    grace = grace_of(identities)
    gathered = gather(backend, references, timeout, grace=grace, progress=progress)
    if gathered.is_complete:
        return gathered.values
    raise late_error_of(subject, gathered, identities, behind, late)


def late_error_of(
    subject: str,
    gathered: Gathered,
    identities: Mapping[int, RankIdentity],
    behind: Behind | None,
    late: Late | None = None,
) -> WorkerGroupError:
    """``error_of``; when only time was short, it says what would help, or who can be asked."""
    error = error_of(subject, gathered, identities, behind)
    report = error.report
    if report.failed or not report.running:
        return error
    if late is not None:
        add_text(error, f"\n  {late(report.running)}")
    if behind is not None:
        slowest = slowest_first(report.running, report.held)[:1]
        add_text(error, f"\n  group.status() and group.stacks({slowest}) say more")
    return error


def add_text(error: BaseException, text: str) -> None:
    """Put more at the end of what an error says."""
    error.args = (f"{error}{text}",)


def error_of(
    subject: str,
    gathered: Gathered,
    identities: Mapping[int, RankIdentity],
    behind: Behind | None = None,
    *,
    looks: bool = True,
) -> WorkerGroupError:
    """The one error for everything that was gathered.

    Args:
        subject: What was called.
        gathered: How its ranks stand.
        identities: Who they are.
        behind: Says which ranks have not begun; None where nobody can.
        looks: Whether to tell of deaths of others, too, by which these ranks fail.
    """
    roster = identities if isinstance(identities, Roster) else None
    failures = failures_of(gathered.errors, roster)
    if roster is not None:
        late = ranks_of_lost_nodes(failures, tuple(gathered.waiting), roster.nodes)
        if late:
            gathered = _with_late(roster.backend, gathered, late)
            failures = failures_of(gathered.errors, roster)
    concerned = [*gathered.errors, *gathered.pending]
    fallen = fallen_of(identities, concerned) if looks else {}
    failures += [
        evolve(each, aside=Aside.RETURNED if each.rank in gathered.values else Aside.OUTSIDE)
        for each in failures_of(fallen, roster)
    ]
    called = [*gathered.values, *concerned]
    held = () if roster is None else held_by(roster.backend, behind, gathered.waiting)
    report = fold_failures(
        subject, failures, called, tuple(gathered.values), gathered.seconds, held
    )
    error = worker_group_error(report, identities, {**gathered.errors, **fallen})
    if roster is not None and not gathered.is_complete:
        roster.tell(error, gathered.waiting)
    return error


def _with_late(backend: Backend, gathered: Gathered, late: Sequence[int]) -> Gathered:
    """The same with what some ranks still say."""
    waiting = {rank: gathered.waiting[rank] for rank in late}
    more = _sorted_out(backend, waiting, LOST_NODE_SECONDS, backend.now())
    left = {
        rank: each
        for rank, each in gathered.waiting.items()
        if rank not in late or rank in more.waiting
    }
    return evolve(
        gathered,
        values={**gathered.values, **more.values},
        errors={**gathered.errors, **more.errors},
        pending=tuple(rank for rank in gathered.pending if rank in left),
        waiting=left,
    )


def failures_of(
    errors: Mapping[int, BaseException], roster: Roster | None = None
) -> list[RankFailure]:
    """Exceptions as data, by rank; each is the user's own where there is one."""
    remains = roster.remains_of(errors) if roster is not None else {}
    return [
        _failure_of(rank, error, roster, remains.get(rank, Remains(was_read=False)))
        for rank, error in errors.items()
    ]


def _failure_of(
    rank: int, error: BaseException, roster: Roster | None, remains: Remains
) -> RankFailure:
    death = roster.death_of(error, remains) if roster is not None else None
    if death is not None:
        return RankFailure(
            rank=rank,
            error_type=type(error).__name__,
            message=death.detail,
            raised_at=death.at,
            death=death,
            tail=death.remains.tail,
        )
    raised_at = getattr(error, "rankplan_raised_at", None)
    return RankFailure(
        rank=rank,
        error_type=type(error).__name__,
        message=message_text(_said(error)),
        raised_at=raised_at if isinstance(raised_at, float) else None,
        tail=remains.tail,
        frames=frames_of(_trace_of(error), _OWN_FILES),
    )


def _trace_of(error: BaseException) -> str:
    """Where it was raised: told by its worker, or seen here when it was raised here."""
    told = getattr(error, "rankplan_trace", None)
    return told if isinstance(told, str) else "".join(traceback.format_tb(error.__traceback__))


def _said(error: BaseException) -> Said:
    try:
        text = str(error)
    except Exception as failed:  # noqa: BLE001  # any type: it is the user's
        text = f"(its message can't be had: {type(failed).__name__})"
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return Said(
        kind=type(error).__name__,
        module=type(error).__module__,
        text=text,
        parts=tuple(map(_said, parts)),
    )
