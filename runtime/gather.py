"""Waiting for many answers at once: values, the errors of each, and who has not answered."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from planner.failure_causes import Remains
from planner.findings import Findings
from planner.outcomes import (
    RankFailure,
    RankIdentity,
    fold_failures,
    ranks_of_lost_nodes,
    ranks_text,
)
from planner.times import seconds_of
from runtime.backend import Backend, OutOfTimeError, Reference
from runtime.errors import WorkerGroupError, worker_group_error
from runtime.roster import Roster

__all__ = [
    "Behind",
    "Gathered",
    "add_text",
    "check_timeout",
    "error_of",
    "failures_of",
    "gather",
    "gather_or_raise",
    "late_error_of",
]

_log = logging.getLogger("rankplan")

Behind = Callable[[Mapping[int, Reference]], Iterable[tuple[str, Sequence[int]]]]
"""Says of calls that have not answered, by rank, which earlier call still holds which ranks."""

GRACE_SECONDS = 0.5
"""How long the others have to answer once one has failed, so that one error names them all."""

LOST_NODE_SECONDS = 5.0
"""How long the other ranks of a node that seems lost have to fail too."""

LOOK_SECONDS = 1.0
"""How often a wait for all looks whether one has failed."""

SHORTEST_SECONDS = 0.005
"""What is not worth waiting for: Ray counts in milliseconds."""

PROGRESS_SECONDS = 60.0
"""How often a wait without end says whom it waits for."""


@frozen(kw_only=True)
class Gathered:
    """What became of each call."""

    values: Mapping[int, Any] = field(factory=dict)
    errors: Mapping[int, BaseException] = field(factory=dict)
    pending: tuple[int, ...] = ()
    waiting: Mapping[int, Reference] = field(factory=dict)
    seconds: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every call has returned."""
        return not self.errors and not self.pending


def gather(
    backend: Backend,
    references: Mapping[int, Reference],
    timeout: float | None = None,
    *,
    grace: float = GRACE_SECONDS,
    progress: Callable[[Sequence[int]], None] | None = None,
) -> Gathered:
    """Wait until every call has returned, one has failed, or time is up.

    Args:
        backend: Where the calls run.
        references: What each rank's call gave.
        timeout: Seconds to wait; None waits without end.
        grace: Seconds the others get once one has failed.
        progress: Told now and then who has not answered.
    """
    refs = list(references.values())
    begun = backend.now()
    ends = math.inf if timeout is None else begun + timeout
    tells = begun + PROGRESS_SECONDS
    while True:
        try:
            values = backend.get(refs, min(max(0.0, ends - backend.now()), LOOK_SECONDS))
            return Gathered(values=dict(zip(references, values, strict=True)))
        except OutOfTimeError:
            if ends - backend.now() < SHORTEST_SECONDS:
                return _sorted_out(backend, references, 0.0, begun)
        except Exception:  # noqa: BLE001  # whatever the user's code raised: sorted out by rank
            return _sorted_out(backend, references, grace, begun)
        ready, waiting = backend.wait(refs, len(refs), 0)
        if backend.look(ready).errors:
            # Ray ends a wait at once for a small error only.
            return _sorted_out(backend, references, grace, begun)
        if progress is not None and backend.now() >= tells:
            tells = backend.now() + PROGRESS_SECONDS
            left = set(waiting)
            progress(tuple(rank for rank, ref in references.items() if ref in left))


def _sorted_out(
    backend: Backend,
    references: Mapping[int, Reference],
    grace: float,
    begun: float | None = None,
) -> Gathered:
    refs = list(references.values())
    ready, _ = backend.wait(refs, len(refs), grace)
    answered = set(ready)
    values: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    for rank, ref in references.items():
        if ref not in answered:
            continue
        try:
            values[rank] = backend.get([ref], None)[0]
        except Exception as error:  # noqa: BLE001  # any type: it is the user's
            errors[rank] = backend.cause_of(error)
    pending = tuple(rank for rank in references if rank not in values and rank not in errors)
    waiting = {rank: references[rank] for rank in pending}
    seconds = None if begun is None else backend.now() - begun
    return Gathered(values=values, errors=errors, pending=pending, waiting=waiting, seconds=seconds)


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
    behind: Behind = lambda _: (),
) -> Mapping[int, Any]:
    """Every rank's value, or one error that names every rank.

    Args:
        backend: Where the calls run.
        subject: What was called, for messages.
        references: What each rank's call gave.
        identities: Who the ranks are.
        timeout: Seconds to wait; None waits without end.
        behind: Says, when time is up, which ranks have not begun.

    Raises:
        WorkerGroupError: Some rank failed; of the first failure's own type too.
        DeadlineError: Time is up.
    """

    def tell(pending: Sequence[int]) -> None:
        _log.warning("%s: still waiting for %s", subject, ranks_text(pending))

    gathered = gather(backend, references, timeout, progress=tell)
    if gathered.is_complete:
        return gathered.values
    raise late_error_of(subject, gathered, identities, behind)


def late_error_of(
    subject: str, gathered: Gathered, identities: Mapping[int, RankIdentity], behind: Behind
) -> WorkerGroupError:
    """``error_of``; when only time was short, it says which ranks have not begun, and why."""
    error = error_of(subject, gathered, identities)
    if gathered.pending and not gathered.errors:
        held: dict[str, list[int]] = {}
        for method, ranks in behind(gathered.waiting):
            held.setdefault(method, []).extend(ranks)
        for method, ranks in held.items():
            add_text(error, f"\n  not begun: {ranks_text(ranks)}, still in {method}()")
        some = sorted(gathered.pending)[:1]
        add_text(error, f"\n  group.status() and group.stacks({some}) say more")
    return error


def add_text(error: BaseException, text: str) -> None:
    """Put more at the end of what an error says."""
    error.args = (f"{error}{text}",)


def error_of(
    subject: str, gathered: Gathered, identities: Mapping[int, RankIdentity]
) -> WorkerGroupError:
    """The one error for everything that was gathered."""
    roster = identities if isinstance(identities, Roster) else None
    failures = failures_of(gathered.errors, roster)
    if roster is not None:
        late = ranks_of_lost_nodes(failures, tuple(gathered.waiting), roster.nodes)
        if late:
            gathered = _with_late(roster.backend, gathered, late)
            failures = failures_of(gathered.errors, roster)
    called = [*gathered.values, *gathered.errors, *gathered.pending]
    report = fold_failures(subject, failures, called, tuple(gathered.values), gathered.seconds)
    error = worker_group_error(report, identities, gathered.errors)
    if roster is not None and not gathered.is_complete:
        roster.tell(error, gathered.waiting)
    return error


def _with_late(backend: Backend, gathered: Gathered, late: Sequence[int]) -> Gathered:
    """The same with what some ranks still say."""
    more = _sorted_out(backend, {rank: gathered.waiting[rank] for rank in late}, LOST_NODE_SECONDS)
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
        message=_message(error),
        raised_at=raised_at if isinstance(raised_at, float) else None,
        tail=remains.tail,
    )


def _message(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return "(no message)"
    told = [line for line in lines if "exit detail" in line or "died" in line.lower()]
    if type(error).__module__.startswith("ray.") and told:
        return " ".join(told[:2])
    return "\n".join(lines)
