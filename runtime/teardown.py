"""Carries a teardown out: asked first, then made to, then seen to be gone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from planner.outcomes import ranks_text
from planner.teardown import TeardownPlan, TeardownReport
from runtime.backend import Actor, Backend
from runtime.gather import failures_of
from runtime.roster import Roster

__all__ = ["carry_out_teardown", "end"]

_log = logging.getLogger("rankplan")

GONE_SECONDS = 10.0
"""How long killed actors may take to give up their names, and their processes to go."""

PATIENCE_SECONDS = 3.0
"""How long a killed actor's process may take before the kernel is asked to end it."""


def carry_out_teardown(
    plan: TeardownPlan,
    backend: Backend,
    actors: Mapping[int, Actor],
    roster: Roster,
) -> TeardownReport:
    """End the ranks of a plan, whatever state each is in.

    Nothing is raised before the last rank was handled; what interrupts it is raised then.

    Args:
        plan: What to do.
        backend: Where they run.
        actors: The host actor of each rank.
        roster: Who the ranks are, and how their processes can be told from others.
    """
    begun = backend.now()
    report = TeardownReport(group=plan.group, not_asked=plan.not_asked)
    try:
        if plan.cleanup is not None and plan.asked:
            report = _clean_up(plan, backend, actors, roster, report)
    finally:
        ended = [rank for wave in plan.waves for rank in wave]
        for wave in plan.waves:
            for rank in wave:
                backend.kill(actors[rank])
        held = _names_held(backend, plan.names)
        left, unseen = _processes(backend, {rank: roster.vitals.get(rank, {}) for rank in ended})
        report = evolve(
            report,
            ended=tuple(sorted(ended)),
            names_held=held,
            processes_left=left,
            processes_unseen=unseen,
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
    answered, _ = backend.wait(list(asked.values()), len(asked), plan.grace)
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
