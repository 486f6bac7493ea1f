"""Carries a teardown out: asked first, then made to, then seen to be gone."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve

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
)
from runtime.backend import Actor, Backend
from runtime.gather import failures_of
from runtime.roster import Roster
from runtime.watching import answered_of

__all__ = ["carry_out_teardown", "end"]

_log = logging.getLogger("rankplan")

PATIENCE_SECONDS = 3.0
"""How long a killed actor's process may take before the kernel is asked to end it."""


def carry_out_teardown(
    plan: TeardownPlan,
    backend: Backend,
    actors: Mapping[int, Actor],
    roster: Roster,
    groups: Sequence[Any] = (),
    beside: Callable[[], Mapping[Bundle, int]] = dict,
) -> TeardownReport:
    """End the ranks of a plan, whatever state each is in.

    Nothing is raised before the last rank was handled; what interrupts it is raised then.

    Args:
        plan: What to do.
        backend: Where they run.
        actors: The host actor of each rank.
        roster: Who the ranks are, and how their processes can be told from others.
        groups: The placement groups of their bundles.
        beside: Says how many workers of other groups each bundle holds.
    """
    begun = backend.now()
    report = TeardownReport(group=plan.group, not_asked=plan.not_asked)
    try:
        if plan.cleanup is not None and plan.asked:
            report = _clean_up(plan, backend, actors, roster, report)
    finally:
        ended = [rank for wave in plan.waves for rank in wave]
        before = BundlesBefore()
        try:
            if plan.bundles:
                before = _before(backend, actors, groups, beside())
        finally:
            for rank in ended:
                backend.kill(actors[rank])
        held = _names_held(backend, plan.names)
        left, unseen = _processes(backend, {rank: roster.vitals.get(rank, {}) for rank in ended})
        waits = not (held or left)
        found = _bundles(plan, backend, groups, beside, before, waits=waits)
        report = evolve(
            report,
            ended=tuple(sorted(ended)),
            names_held=held,
            processes_left=left,
            processes_unseen=unseen,
            bundles_held=found.held,
            bundles_unseen=found.unseen,
            seconds=backend.now() - begun,
        )
    return report


def _clean_up(
    plan: TeardownPlan,
    backend: Backend,
    actors: Mapping[int, Actor],
    roster: Roster,
    report: TeardownReport,
) -> TeardownReport:
    asked = {rank: actors[rank].drain.remote(plan.cleanup) for rank in plan.asked}
    subject = f"worker group {plan.group!r}, {plan.cleanup}()"
    answered = answered_of(backend, subject, asked, roster, plan.grace)
    in_time = set(map(id, answered))
    late = tuple(rank for rank, ref in asked.items() if id(ref) not in in_time)
    if late:
        _log.warning(
            "worker group %r: %s did not finish %s() in %s s and are ended without it",
            plan.group,
            ranks_text(late),
            plan.cleanup,
            plan.grace,
        )
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
    troubled = {*late, *(rank for rank, _ in failed)}
    return evolve(
        report,
        cleaned=tuple(rank for rank in plan.asked if rank not in troubled),
        failed=tuple(failed),
        late=late,
    )


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
    # Only in shared bundles it matters who is dead already, and it costs a question per rank.
    dead = {rank for rank, actor in actors.items() if beside and backend.death(actor)}
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
