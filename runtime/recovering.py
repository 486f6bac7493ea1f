"""Carries a recovery out: ends the struck ranks and starts them again in their places."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import evolve

from planner.acknowledgement import judge_affinity, judge_class_again
from planner.group import with_environment_before_python
from planner.launch import LaunchPlan, identity_of
from planner.outcomes import ranks_text
from planner.recovery import (
    RecoveryFacts,
    RecoveryPlan,
    RestartedRank,
    awaited_text,
    gone_groups,
    lost_nodes,
    recovery_text,
)
from planner.restart import (
    bundles_on,
    moved_bundles,
    plan_restart,
    restart_hosts,
    restarted_spec,
    with_first_names,
)
from runtime.backend import Actor, Backend
from runtime.errors import ExecutionError
from runtime.launching import Launched, missing_variables
from runtime.places import PORTS
from runtime.preflight import compare, preflight_again
from runtime.progress import waits
from runtime.roster import Roster
from runtime.rounds import Again, end_after, facts_of, refuse, start_hosts, start_workers
from runtime.teardown import end

__all__ = ["RecoveryError", "back_off", "recovery_facts", "start_again"]

_log = logging.getLogger("rankplan")

LOOK_SECONDS = 0.1
"""How often a recovery looks where the bundles of a lost node are."""


class RecoveryError(ExecutionError):
    """A group can't be made whole again.

    Attributes:
        plan: What would have to be done, and what is missing for it.
    """

    plan: RecoveryPlan

    @classmethod
    def of(cls, plan: RecoveryPlan) -> "RecoveryError":
        """The error for a plan that lacks something."""
        why = "; ".join(plan.missing)
        text = f"{why}; nothing was ended or started. The plan was:\n{recovery_text(plan)}"
        error = cls(f"worker group {plan.group!r}: {text}")
        error.plan = plan
        return error


def recovery_facts(
    backend: Backend,
    launched: Launched,
    failed: Sequence[int],
    absent: Collection[int],
    attempt: int,
    wait: float,
) -> RecoveryFacts:
    """What a recovery is planned from.

    Args:
        backend: Where the group runs.
        launched: The group.
        failed: Its ranks that have failed.
        absent: Ranks that were given up: nobody takes their bundles.
        attempt: How many recoveries there were.
        wait: Seconds that the cluster may take to give the bundles of lost nodes to others; 0
            looks once.
    """
    lost = lost_nodes(launched.identities.nodes, failed, backend.live_nodes())
    gone = gone_groups(launched.plan, backend.landed(launched.again.groups))
    return RecoveryFacts(
        failed=tuple(failed),
        lost_nodes=lost,
        attempt=attempt,
        free_slots=_free_slots(backend, launched, lost, absent, gone, wait),
        absent=tuple(sorted(absent)),
        gone_groups=gone,
    )


def _free_slots(
    backend: Backend,
    launched: Launched,
    lost: Sequence[str],
    absent: Collection[int],
    gone: Collection[int],
    wait: float,
) -> tuple[tuple[int, int, str], ...]:
    """Bundles of lost nodes that the cluster has given to other nodes by now.

    Ray moves the bundles of a lost node to nodes that have room.
    """
    plan = launched.plan
    struck = [each for each in bundles_on(plan, lost, absent) if each[0] not in gone]
    moved: tuple[tuple[int, int, str], ...] = ()

    def has_moved() -> bool:
        nonlocal moved
        landed = backend.landed(launched.again.groups)
        moved = moved_bundles(struck, lost, landed, backend.live_nodes())
        return len(moved) == len(struck)

    def left() -> str:
        there = {each[:2] for each in moved}
        return awaited_text(plan, [each for each in struck if each not in there])

    if not struck or has_moved() or wait <= 0:
        return moved
    told = "worker group %r: its recovery waits up to %.1f s for %s"
    _log.info(told, plan.group, wait, left())
    began = backend.now()

    def tell() -> None:
        waited = backend.now() - began
        told = "worker group %r: its recovery still waits for %s, after %.0f s"
        _log.warning(told, plan.group, left(), waited)

    for seconds in waits(backend, wait, lambda: len(moved) == len(struck), tell):
        backend.pause(min(seconds, LOOK_SECONDS))
        has_moved()
    return moved


def back_off(backend: Backend, plan: RecoveryPlan) -> None:
    """Let the pause before a recovery pass."""
    _log.info(
        "worker group %r recovers, generation %d%s",
        plan.group,
        plan.generation,
        f", after a pause of {plan.pause:g} s" if plan.pause else "",
    )
    began = backend.now()

    def tell() -> None:
        passed = backend.now() - began
        told = "worker group %r: its recovery pauses first: %.0f of %g s are over"
        _log.warning(told, plan.group, passed, plan.pause)

    for seconds in waits(backend, plan.pause, lambda: False, tell) if plan.pause else ():
        backend.pause(seconds)


def start_again(
    backend: Backend, launched: Launched, restarted: Sequence[RestartedRank], timeout: float
) -> Launched:
    """The group with some ranks started again; the others go on meanwhile.

    Whatever is raised, everything that was started here was ended.

    Args:
        backend: Where it runs.
        launched: The group; the ranks to start have been ended.
        restarted: Whom to start, under which name, and where.
        timeout: Seconds until every constructor must have returned.

    Raises:
        PreflightError: A node of a rank that starts is not as the plan needs it.
        PlanError: A rank came back elsewhere than planned, or what landed contradicts the plan.
        DifferenceError: Something that a prediction promised does not hold any more.
        ExecutionError: The class, or the binding of a process, is not as the group counts on.
        WorkerGroupError: A host or a constructor failed.
        DeadlineError: Not every constructor returned in time.
    """
    ends = backend.now() + timeout
    actors: dict[str, Actor] = {}
    again = launched.again
    plan: LaunchPlan | None = None
    try:
        hosts, reports = _hosts(backend, again, restarted, actors, ends)
        missing = missing_variables(again.spec, again.sources, list(reports.values()))
        if missing:
            _log.info("worker group %r starts again with %s", again.spec.name, ", ".join(missing))
            end(backend, list(actors.values()), list(actors))
            actors.clear()
            again = evolve(again, spec=with_environment_before_python(again.spec, missing))
            hosts, reports = _hosts(backend, again, restarted, actors, ends)
        facts = list(again.facts)
        for rank, report in reports.items():
            facts[rank] = facts_of(report)
        beside = {rank: each for rank, each in launched.looks.items() if rank not in reports}
        checked = preflight_again(
            backend,
            again.spec,
            launched.plan,
            reports,
            hosts,
            beside,
            again.checks,
            max(0.0, ends - backend.now()),
        )
        with PORTS.planning(restarted_spec(again.spec, restarted)) as told:
            plan = plan_restart(launched.plan, told, facts, restarted, checked.meeting_address)
            PORTS.note(plan)
        found = compare(again.checks, with_first_names(plan))
        identities = _roster(backend, launched, plan, reports)
        _, acknowledged = start_workers(
            backend,
            f"worker group {plan.group!r}, restart of {ranks_text(sorted(hosts))}",
            plan,
            hosts,
            identities,
            again,
            max(0.0, ends - backend.now()),
        )
        refuse(
            plan.group,
            [
                *judge_affinity(plan, acknowledged, identities),
                *judge_class_again(plan, launched.acknowledged, acknowledged, identities),
            ],
        )
    except BaseException as error:
        PORTS.release(plan)
        end_after(error, backend, launched.plan.group, actors)
        raise
    PORTS.release(launched.plan)
    ranked = list(launched.actors)
    for rank, actor in hosts.items():
        ranked[rank] = actor
    identities.listeners.extend(launched.identities.listeners)
    identities.readers.extend(launched.identities.readers)
    identities.lookers.extend(launched.identities.lookers)
    return evolve(
        launched,
        plan=plan,
        actors=tuple(ranked),
        identities=identities,
        again=evolve(again, facts=tuple(facts)),
        difference=found,
        looks={**launched.looks, **checked.looks},
    )


def _hosts(
    backend: Backend,
    again: Again,
    restarted: Sequence[RestartedRank],
    actors: dict[str, Actor],
    ends: float,
) -> tuple[Mapping[int, Actor], Mapping[int, Mapping[str, Any]]]:
    return start_hosts(
        backend,
        f"worker group {again.spec.name!r}, restart of its host processes",
        restart_hosts(again.spec, restarted),
        again.groups,
        actors,
        again.spec.environment.expected,
        again.asked,
        max(0.0, ends - backend.now()),
    )


def _roster(
    backend: Backend,
    launched: Launched,
    plan: LaunchPlan,
    reports: Mapping[int, Mapping[str, Any]],
) -> Roster:
    old = launched.identities
    fresh = {rank: identity_of(plan, rank, report["pid"]) for rank, report in reports.items()}
    vitals = {rank: report.get("vitals", {}) for rank, report in reports.items()}
    nodes = {rank: report["node_id"] for rank, report in reports.items()}
    return Roster(
        backend,
        {**old.identities, **fresh},
        {**old.vitals, **vitals},
        {**old.nodes, **nodes},
        grace=old.grace,
    )
