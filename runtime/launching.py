"""Carries a launch out: hosts in one burst, their facts, the plan, then every rank's start.

Whatever fails on the way, everything that was started is ended before the error is raised.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from planner.difference import PlanDifference
from planner.environment import EnvironmentSources, environment_values
from planner.group import GroupSpec, plan_hosts, with_environment_before_python
from planner.launch import (
    HostFacts,
    LaunchPlan,
    environment_of,
    identity_of,
    plan_launch,
    slot_order,
    unset_patterns,
)
from planner.outcomes import RankIdentity
from planner.preflight import PreflightReport
from planner.runtime_env import missing_before_python
from planner.signatures import Method, MethodKind, Parameter, ParameterKind
from planner.slots import regroup
from runtime.backend import Actor, Backend, Reference
from runtime.errors import ExecutionError
from runtime.gather import gather_or_raise
from runtime.places import PORTS
from runtime.preflight import Checks, check_affinity, compare, look_for, more_facts, preflight
from runtime.roster import Roster
from runtime.teardown import end

__all__ = ["Again", "Launched", "facts_of", "launch", "told_to"]

_log = logging.getLogger("rankplan")


@frozen(kw_only=True)
class Again:
    """What it takes to start some ranks of a group again; everything in rank order.

    Attributes:
        spec: What was started; its slots are those of the ranks.
        groups: The cluster's placement groups.
        payloads: References to the constructors' ``(args, kwargs)``.
        sources: The values that the plan does not hold.
        configured: The variables that ``configure_worker`` gave; may be empty.
        facts: Where each host landed.
        asked: What hosts are asked to look at.
    """

    spec: GroupSpec
    groups: Sequence[Any]
    payloads: Sequence[tuple[Reference, ...]]
    sources: EnvironmentSources
    configured: Sequence[Mapping[str, str]] = field(repr=False)
    facts: Sequence[HostFacts]
    asked: Mapping[str, object]


@frozen(kw_only=True)
class Launched:
    """A group that is up: every constructor has returned.

    Attributes:
        plan: What was carried out.
        actors: The host actors in rank order.
        methods: The methods of the worker's class.
        described: The same as the hosts told them.
        identities: Who each rank is.
        again: What it takes to start ranks again.
        preflight: What was checked before any constructor ran.
        difference: What differs from the prediction; None without one.
    """

    plan: LaunchPlan
    actors: tuple[Actor, ...]
    methods: Mapping[str, Method]
    described: Mapping[str, Mapping[str, object]]
    identities: Roster
    again: Again
    preflight: PreflightReport = PreflightReport()
    difference: PlanDifference | None = None


def launch(
    backend: Backend,
    spec: GroupSpec,
    groups: Sequence[Any],
    payloads: Sequence[tuple[Reference, ...]],
    sources: EnvironmentSources,
    configured: Sequence[Mapping[str, str]],
    start_timeout: float,
    checks: Checks | None = None,
) -> Launched:
    """Start a group.

    Args:
        backend: Where to start it.
        spec: What to start.
        groups: The cluster's placement groups.
        payloads: Per slot, references to the constructor's ``(args, kwargs)``.
        sources: The values that the plan does not hold.
        configured: Per slot, the variables that ``configure_worker`` gave; may be empty.
        start_timeout: Seconds until every constructor must have returned.
        checks: What is checked before any constructor runs.

    Raises:
        PlanError: Where the hosts landed contradicts the plan.
        PreflightError: The nodes are not as the plan needs them.
        DifferenceError: Something that a prediction promised does not hold.
        WorkerGroupError: A host or a constructor failed; of that exception's own type too.
        DeadlineError: Not every constructor returned in time.
    """
    actors: list[Actor] = []
    names = [slot.name(spec.name) for slot in spec.slots]
    ends = backend.now() + start_timeout
    checks = checks or Checks()
    asked = look_for(spec, sources, checks)
    plan: LaunchPlan | None = None
    try:
        reports = _hosts(backend, spec, groups, actors, ends, asked)
        missing = _missing_before_python(spec, sources, reports)
        if missing:
            _log.info("worker group %r starts again with %s", spec.name, ", ".join(missing))
            end(backend, actors, names)
            actors.clear()
            spec = with_environment_before_python(spec, missing)
            reports = _hosts(backend, spec, groups, actors, ends, asked)
        facts = [more_facts(facts_of(report), report) for report in reports]
        order = slot_order(spec, facts)
        left = max(0.0, ends - backend.now())
        checked = preflight(backend, spec, order, reports, actors, checks, left)
        with PORTS.planning(spec) as told:
            plan = plan_launch(told, facts, checked.meeting_address)
            PORTS.note(plan)
        found = compare(checks, plan)
        ranked = [actors[index] for index in order]
        identities = Roster(
            backend,
            {rank: identity_of(plan, rank, facts[index].pid) for rank, index in enumerate(order)},
            {rank: reports[index].get("vitals", {}) for rank, index in enumerate(order)},
            {rank: facts[index].node_id for rank, index in enumerate(order)},
        )
        started = {
            rank: actor.start.remote(
                told_to(
                    plan, rank, identities, sources, configured[order[rank]] if configured else {}
                ),
                list(payloads[order[rank]]),
            )
            for rank, actor in enumerate(ranked)
        }
        acks = gather_or_raise(
            backend,
            f"worker group {spec.name!r}, start of {spec.worker_class}",
            started,
            identities,
            max(0.0, ends - backend.now()),
        )
        check_affinity(plan, acks, identities)
        described = _described(spec, acks, identities)
    except BaseException:
        PORTS.release(plan)
        # A name whose host could not be started is another's.
        end(backend, actors, names[: len(actors)])
        raise
    return Launched(
        plan=plan,
        actors=tuple(ranked),
        methods={name: _method(name, each) for name, each in described.items()},
        described=described,
        identities=identities,
        again=Again(
            spec=_in_rank_order(spec, order),
            groups=groups,
            payloads=[payloads[index] for index in order],
            sources=sources,
            configured=[configured[index] for index in order] if configured else (),
            facts=[facts[index] for index in order],
            asked=asked,
        ),
        preflight=checked.report,
        difference=found,
    )


def _hosts(
    backend: Backend,
    spec: GroupSpec,
    groups: Sequence[Any],
    actors: list[Actor],
    ends: float,
    asked: Mapping[str, object],
) -> list[dict[str, Any]]:
    requests = plan_hosts(spec)
    actors.extend(
        backend.start_host(request, groups[request.placement_group]) for request in requests
    )
    reports = {
        slot: actor.report.remote(spec.environment.expected, asked)
        for slot, actor in enumerate(actors)
    }
    who = {
        slot: RankIdentity(rank=slot, node=f"(bundle {request.bundle}, {request.name!r})")
        for slot, request in enumerate(requests)
    }
    subject = f"worker group {spec.name!r}, start of its host processes"
    left = max(0.0, ends - backend.now())
    found = gather_or_raise(backend, subject, reports, Roster(backend, who), left)
    return [found[slot] for slot in range(len(actors))]


def _in_rank_order(spec: GroupSpec, order: Sequence[int]) -> GroupSpec:
    in_order = tuple(spec.slots[index] for index in order)
    return evolve(
        spec,
        slots=in_order if spec.keeps_order else regroup(in_order),
        overrides=tuple(spec.overrides[index] for index in order) if spec.overrides else (),
        keeps_order=True,
    )


def _missing_before_python(
    spec: GroupSpec, sources: EnvironmentSources, reports: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    expected = [e for e in spec.environment.variables if e.name in spec.environment.expected]
    wanted = environment_values(expected, sources)
    return missing_before_python(wanted, [report["seen"] for report in reports])


def facts_of(report: Mapping[str, Any]) -> HostFacts:
    """What a host reported, as the planner takes it."""
    return HostFacts(
        node_id=report["node_id"],
        address=report["address"],
        gpus=tuple(report["gpus"]),
        accelerator=report["accelerator"],
        pid=report["pid"],
        port=report["port"],
        uuids=tuple(report["uuids"]),
        visible_variables=tuple(report["visible_variables"]),
    )


def told_to(
    plan: LaunchPlan,
    rank: int,
    identities: Mapping[int, RankIdentity],
    sources: EnvironmentSources,
    configured: Mapping[str, str],
) -> dict[str, object]:
    """What the host of a rank is told before it makes its worker."""
    environment = environment_values(environment_of(plan, rank), sources, configured)
    bound = plan.workers[rank].affinity
    return {
        "worker_class": plan.worker_class,
        "environment": environment,
        "unset": list(unset_patterns(plan.workers[rank])),
        "holds_port": rank == 0,
        "identity": str(identities[rank]),
        "describes": rank == 0,
        "affinity": bound
        and {
            "cores": list(bound.cores),
            "memory_node": bound.numa_node if bound.binds_memory else None,
        },
    }


def _described(
    spec: GroupSpec, acks: Mapping[int, Mapping[str, Any]], identities: Mapping[int, RankIdentity]
) -> dict[str, Mapping[str, object]]:
    other = [rank for rank, ack in acks.items() if ack["digest"] != acks[0]["digest"]]
    if other:
        raise ExecutionError(
            f"worker group {spec.name!r}: {spec.worker_class} has other methods on "
            f"{identities[other[0]]} than on {identities[0]}: the nodes hold different versions "
            "of it"
        )
    described: dict[str, Mapping[str, object]] = {
        str(each["name"]): each for each in acks[0]["methods"]
    }
    hidden = [name for name, each in described.items() if str(each["kind"]).startswith("async")]
    if hidden and not spec.asynchronous:
        raise ExecutionError(
            f"worker group {spec.name!r}: {spec.worker_class} has async methods that its source "
            f"does not show ({hidden[0]}): start the group with asynchronous=True"
        )
    return described


def _method(name: str, told: Mapping[str, Any]) -> Method:
    parameters = told["parameters"]
    return Method(
        name=name,
        kind=MethodKind(told["kind"]),
        returns=told["returns"],
        declared=told["dispatch"],
        options=tuple((str(key), str(value)) for key, value in told["options"]),
        parameters=None
        if parameters is None
        else tuple(
            Parameter(name=each, kind=ParameterKind(kind), required=required)
            for each, kind, required in parameters
        ),
    )
