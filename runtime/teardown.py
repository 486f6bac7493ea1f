"""Carries a teardown out: asked first, then made to, then seen to be gone."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from attrs import define, evolve

from planner.outcomes import ranks_text
from planner.teardown import (
    GONE_SECONDS,
    Bundle,
    BundlesBefore,
    BundlesFound,
    TeardownPlan,
    TeardownReport,
    bundles_text,
    judge_bundles,
    names_to_free,
    with_clean_up,
)
from runtime.backend import Actor, Backend, Reference
from runtime.gather import failures_of
from runtime.roster import Roster
from runtime.watching import answered_of

__all__ = ["Course", "carry_out_teardown", "end", "kill_each"]

_log = logging.getLogger("rankplan")

PATIENCE_SECONDS = 3.0
"""How long a killed actor's process may take before the kernel is asked to end it."""


@define(eq=False)
class Course:
    """How far the end of a group has come: it is kept whatever interrupts it.

    Attributes:
        report: What is known by now.
        is_over: Whether nothing is left to do.
        is_cut: Whether somebody wants the ranks to be ended at once, without a clean-up.
    """

    report: TeardownReport
    is_over: bool = False
    is_cut: bool = False

    def note(self, **found: Any) -> None:
        """Add to the report, unless it is over: an end inside this one has told everything."""
        if not self.is_over:
            self.report = evolve(self.report, **found)


def carry_out_teardown(
    plan: TeardownPlan,
    backend: Backend,
    actors: Mapping[int, Actor],
    roster: Roster,
    groups: Sequence[Any] = (),
    beside: Callable[[], Mapping[Bundle, int]] = dict,
    *,
    course: Course | None = None,
    look: Callable[[], TeardownPlan] | None = None,
    companions: Callable[[], Mapping[str, Actor]] = dict,
) -> TeardownReport:
    """End the ranks of a plan, whatever state each is in.

    Nothing is raised before the last rank was ended; what interrupts it is raised then.

    Args:
        plan: What to do.
        backend: Where they run.
        actors: The host actor of each rank.
        roster: Who the ranks are, and how their processes can be told from others.
        groups: The placement groups of their bundles.
        beside: Says how many workers of other groups each bundle holds.
        course: Told how far it has come; what an earlier one did is in it.
        look: Looks at the ranks, and makes the plan again from how they are.
        companions: Gives the processes, by name, that look at the ranks; they are ended too.
    """
    course = course or Course(TeardownReport(group=plan.group))
    begun = backend.now()
    ended = [rank for wave in plan.waves for rank in wave]
    more: Mapping[str, Actor] = {}
    before = BundlesBefore()
    try:
        if plan.cleanup is not None and not course.is_over:
            _clean_up(plan, look, backend, actors, roster, course)
    finally:
        try:
            if plan.bundles and not course.is_over:
                before = _before(backend, actors, groups, beside())
        finally:
            try:
                if not course.is_over:
                    kill_each(backend, plan.group, [actors[rank] for rank in ended])
            finally:
                course.note(ended=tuple(sorted(ended)))
                more = companions()
                kill_each(backend, plan.group, list(more.values()))
        if not course.is_over:
            names = (*names_to_free(plan, before.dead), *more)
            _prove(plan, backend, roster, groups, beside, course, before, names)
            course.note(seconds=backend.now() - begun)
            course.is_over = True
    return course.report


def _looked(plan: TeardownPlan, look: Callable[[], TeardownPlan] | None) -> TeardownPlan:
    """The plan for the ranks as they are; those that can't be looked at are asked all the same."""
    try:
        return plan if look is None else look()
    except Exception:  # noqa: BLE001  # they must be ended, whatever a look says
        _log.exception("worker group %r: its ranks are ended without a look at them", plan.group)
        return plan


def _prove(
    plan: TeardownPlan,
    backend: Backend,
    roster: Roster,
    groups: Sequence[Any],
    beside: Callable[[], Mapping[Bundle, int]],
    course: Course,
    before: BundlesBefore,
    names: Sequence[str],
) -> None:
    """Note what is left of a group whose ranks were killed."""
    held = _names_held(backend, names)
    vitals = {rank: roster.vitals.get(rank, {}) for rank in course.report.ended}
    left, unseen = _processes(backend, vitals)
    waits = not (held or left)
    found = _bundles(plan, backend, groups, beside, before, waits=waits)
    course.note(
        names_held=held,
        processes_left=left,
        processes_unseen=unseen,
        bundles_held=found.held,
        bundles_unseen=found.unseen,
    )


def _clean_up(
    plan: TeardownPlan,
    look: Callable[[], TeardownPlan] | None,
    backend: Backend,
    actors: Mapping[int, Actor],
    roster: Roster,
    course: Course,
) -> None:
    base = course.report
    asked: dict[int, Reference] = {}
    # Whatever comes from here on, these will not be asked again.
    unheard: _Told = {"failed": [], "unanswered": list(plan.asked)}
    _note_answers(course, base, plan, unheard, is_interrupted=True)
    if course.is_cut:
        return
    plan = _looked(plan, look)
    for rank in plan.asked:
        if not course.is_over:
            asked[rank] = actors[rank].drain.remote(plan.cleanup)
    subject = f"worker group {plan.group!r}, {plan.cleanup}()"
    try:
        answered = answered_of(backend, subject, asked, roster, plan.grace)
    except BaseException:
        answered, _ = backend.wait(list(asked.values()), len(asked), 0)
        told = _answers(plan, backend, asked, roster, answered)
        _note_answers(course, base, plan, told, is_interrupted=True)
        raise
    if course.is_over:
        return
    told = _answers(plan, backend, asked, roster, answered)
    _note_answers(course, base, plan, told)
    if told["unanswered"]:
        _log.warning(
            "worker group %r: %s did not finish %s() in %s s and are ended without it",
            plan.group,
            ranks_text(told["unanswered"]),
            plan.cleanup,
            plan.grace,
        )


class _Told(TypedDict):
    """What ranks said to the clean-up: who failed, each with the reason, and who did not answer."""

    failed: list[tuple[int, str]]
    unanswered: list[int]


def _note_answers(
    course: Course,
    base: TeardownReport,
    plan: TeardownPlan,
    told: _Told,
    *,
    is_interrupted: bool = False,
) -> None:
    """Note what came of the clean-up, in place of what was noted of it since ``base``."""
    if not course.is_over:
        report = evolve(
            course.report,
            cleaned=base.cleaned,
            failed=base.failed,
            late=base.late,
            not_asked=base.not_asked,
        )
        course.report = with_clean_up(report, plan, **told, is_interrupted=is_interrupted)


def _answers(
    plan: TeardownPlan,
    backend: Backend,
    asked: Mapping[int, Reference],
    roster: Roster,
    answered: Sequence[Reference],
) -> _Told:
    in_time = set(map(id, answered))
    errors: dict[int, BaseException] = {}
    for rank, ref in asked.items():
        if id(ref) not in in_time:
            continue
        try:
            backend.get([ref], None)
        except Exception as error:  # noqa: BLE001  # the others must still be ended
            errors[rank] = backend.cause_of(error)
    failed: list[tuple[int, str]] = []
    for failure in failures_of(errors, roster):
        why = f"{failure.error_type}: {failure.message}"
        told = (plan.group, plan.cleanup, failure.rank, why)
        _log.warning("worker group %r: %s() failed on rank %d: %s", *told)
        failed.append((failure.rank, why))
    late = [rank for rank, ref in asked.items() if id(ref) not in in_time]
    return {"failed": failed, "unanswered": late}


def kill_each(backend: Backend, group: str, actors: Sequence[Actor]) -> None:
    """Kill actors, one after the other; what interrupts it is raised when all were killed."""
    left = deque(actors)
    try:
        while left:
            try:
                backend.kill(left[0])
            except Exception:  # noqa: BLE001  # the others must still be ended
                _log.exception("worker group %r: killing one of its actors failed", group)
            left.popleft()
    finally:
        if left:
            kill_each(backend, group, left)


def end(backend: Backend, actors: Sequence[Actor], names: Sequence[str]) -> bool:
    """End actors at once and wait until their names are free again.

    Returns:
        Whether they are.
    """
    for actor in actors:
        backend.kill(actor)
    return not _names_held(backend, names)


def _names_held(backend: Backend, names: Sequence[str]) -> tuple[str, ...]:
    mine = frozenset(names)
    ends = backend.now() + GONE_SECONDS
    while held := mine & backend.names():
        if backend.now() > ends:
            _log.warning("still alive after %g s: %s", GONE_SECONDS, ", ".join(sorted(held)))
            return tuple(sorted(held))
        backend.pause(0.01)
    return ()


def _processes(
    backend: Backend, vitals: Mapping[int, Mapping[str, Any]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ranks whose processes are still there, and those that can't be seen from here."""
    begun = backend.now()
    states = {rank: backend.is_gone(shown, force=False) for rank, shown in vitals.items()}
    while any(gone is False for gone in states.values()) and backend.now() < begun + GONE_SECONDS:
        backend.pause(0.005)
        force = backend.now() > begun + PATIENCE_SECONDS
        states = {
            rank: backend.is_gone(vitals[rank], force=force) if gone is False else gone
            for rank, gone in states.items()
        }
    return (
        tuple(sorted(rank for rank, gone in states.items() if gone is False)),
        tuple(sorted(rank for rank, gone in states.items() if gone is None)),
    )


def _before(
    backend: Backend,
    actors: Mapping[int, Actor],
    groups: Sequence[Any],
    beside: Mapping[Bundle, int],
) -> BundlesBefore:
    dead = {rank for rank, actor in actors.items() if backend.death(actor) is not None}
    return BundlesBefore(held=backend.held(groups), beside=beside, dead=frozenset(dead))


def _bundles(
    plan: TeardownPlan,
    backend: Backend,
    groups: Sequence[Any],
    beside: Callable[[], Mapping[Bundle, int]],
    before: BundlesBefore,
    *,
    waits: bool,
) -> BundlesFound:
    """The bundles that are not free again; Ray learns of it up to 0.1 s after the processes."""
    begun = backend.now()
    while plan.bundles:
        found = judge_bundles(plan, before, backend.held(groups), beside())
        if not waits or backend.now() >= begun + found.patience:
            if found.held:
                told = (plan.group, bundles_text(found.held))
                _log.warning("worker group %r has ended, and not free again: %s", *told)
            return found
        backend.pause(0.01)
    return BundlesFound()
