"""Carries a recovery out: ends the struck ranks and starts them again in their places."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from planner.group import plan_hosts
from planner.launch import LaunchPlan, identity_of, plan_launch
from planner.outcomes import RankIdentity, ranks_text
from planner.recovery import RecoveryPlan, RestartedRank, recovery_text
from runtime.backend import Actor, Backend
from runtime.errors import ExecutionError
from runtime.gather import gather_or_raise
from runtime.launching import Launched, facts_of, told_to
from runtime.places import PORTS
from runtime.preflight import more_facts
from runtime.roster import Roster
from runtime.teardown import end

__all__ = ["RecoveryError", "free_slots", "start_again"]


class RecoveryError(ExecutionError):
    """A group can't be made whole again.

    Attributes:
        plan: What would have to be done, and what is missing for it.
    """

    plan: RecoveryPlan

    @classmethod
    def of(cls, plan: RecoveryPlan) -> "RecoveryError":
        """The error for a plan that lacks something."""
        error = cls(f"{recovery_text(plan)}\nnothing was ended or started")
        error.plan = plan
        return error


def free_slots(
    backend: Backend,
    launched: Launched,
    lost: Sequence[str],
    wait: float,
) -> tuple[tuple[int, int, str], ...]:
    """Bundles of lost nodes that the cluster has given to other nodes by now.

    Ray moves the bundles of a lost node to nodes that have room; this waits a while for it.
    """
    gone = frozenset(lost)
    struck = {
        (worker.placement_group, worker.bundle)
        for worker in launched.plan.workers
        if worker.node_id in gone
    }
    ends = backend.now() + wait
    while struck:
        landed = {
            (each.placement_group, each.bundle): each.node_id
            for each in backend.landed(launched.again.groups)
        }
        live = backend.live_nodes()
        free = [(pg, b, landed.get((pg, b), "")) for pg, b in sorted(struck)]
        moved = tuple(each for each in free if each[2] in live and each[2] not in gone)
        if len(moved) == len(struck) or backend.now() >= ends:
            return moved
        backend.pause(0.1)
    return ()


def start_again(
    backend: Backend, launched: Launched, restarted: Sequence[RestartedRank], timeout: float
) -> Launched:
    """The group with some ranks started again; the others go on meanwhile.

    Args:
        backend: Where it runs.
        launched: The group; the ranks to start have been ended.
        restarted: Whom to start, under which name, and where.
        timeout: Seconds until every constructor must have returned.

    Raises:
        WorkerGroupError: A host or a constructor failed; everything started here was ended.
        DeadlineError: Not every constructor returned in time.
    """
    ends = backend.now() + timeout
    actors: dict[int, Actor] = {}
    try:
        reports = _hosts(backend, launched, restarted, actors, timeout)
        plan, facts = _planned(launched, restarted, reports)
        identities = _roster(backend, launched, plan, reports)
        again = launched.again
        started = {
            rank: actor.start.remote(
                told_to(
                    plan,
                    rank,
                    identities,
                    again.sources,
                    again.configured[rank] if again.configured else {},
                ),
                list(again.payloads[rank]),
            )
            for rank, actor in actors.items()
        }
        gather_or_raise(
            backend,
            f"worker group {plan.group!r}, restart of {ranks_text(sorted(actors))}",
            started,
            identities,
            max(0.0, ends - backend.now()),
        )
    except BaseException:
        end(backend, list(actors.values()), [each.name for each in restarted][: len(actors)])
        raise
    PORTS.release(launched.plan)
    PORTS.note(plan)
    ranked = list(launched.actors)
    for rank, actor in actors.items():
        ranked[rank] = actor
    identities.listeners.extend(launched.identities.listeners)
    return evolve(
        launched,
        plan=plan,
        actors=tuple(ranked),
        identities=identities,
        again=evolve(again, facts=tuple(facts)),
    )


def _hosts(
    backend: Backend,
    launched: Launched,
    restarted: Sequence[RestartedRank],
    actors: dict[int, Actor],
    timeout: float,
) -> Mapping[int, Mapping[str, Any]]:
    again = launched.again
    requests = plan_hosts(again.spec)
    for each in restarted:
        request = evolve(
            requests[each.rank],
            name=each.name,
            placement_group=each.placement_group,
            bundle=each.bundle,
        )
        actors[each.rank] = backend.start_host(request, again.groups[each.placement_group])
    asked = {
        rank: actor.report.remote(again.spec.environment.expected, again.asked)
        for rank, actor in actors.items()
    }
    who = {
        each.rank: RankIdentity(rank=each.rank, node=f"(bundle {each.bundle}, {each.name!r})")
        for each in restarted
    }
    subject = f"worker group {launched.plan.group!r}, restart of its host processes"
    return gather_or_raise(backend, subject, asked, Roster(backend, who), timeout)


def _planned(
    launched: Launched,
    restarted: Sequence[RestartedRank],
    reports: Mapping[int, Mapping[str, Any]],
) -> tuple[LaunchPlan, list[Any]]:
    again, old = launched.again, launched.plan
    facts = list(again.facts)
    slots = list(again.spec.slots)
    for each in restarted:
        facts[each.rank] = more_facts(facts_of(reports[each.rank]), reports[each.rank])
        slots[each.rank] = evolve(
            slots[each.rank], placement_group=each.placement_group, bundle=each.bundle
        )
    with PORTS.planning(evolve(again.spec, slots=tuple(slots))) as told:
        planned = plan_launch(told, facts)
    names = {each.rank: each.name for each in restarted}
    # Those that go on keep what they were told: their environment can't be changed any more.
    workers = tuple(
        # Whoever starts again on its old machine finds its old ports free.
        evolve(
            new,
            name=names[new.rank],
            ports=kept.ports if kept.address == new.address else new.ports,
        )
        if new.rank in names
        else kept
        for new, kept in zip(planned.workers, old.workers, strict=True)
    )
    meeting = planned.rendezvous if 0 in names else old.rendezvous
    return evolve(old, workers=workers, rendezvous=meeting), facts


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
    )
