"""Carries a launch out: hosts in one burst, their facts, the plan, then every rank's start.

Whatever fails on the way, everything that was started is ended before the error is raised.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from planner.acknowledgement import Acknowledgement, judge_affinity, judge_class
from planner.class_source import AssumedClass
from planner.difference import PlanDifference
from planner.environment import EnvironmentSources, environment_values
from planner.group import GroupSpec, plan_hosts, with_environment_before_python
from planner.launch import LaunchPlan, identity_of, plan_launch, slot_order
from planner.preflight import HostLook, PreflightReport
from planner.restart import in_rank_order
from planner.runtime_env import missing_before_python
from planner.signatures import Method, MethodKind, Parameter, ParameterKind
from runtime.backend import Actor, Backend, Reference
from runtime.places import PORTS
from runtime.preflight import Checks, compare, look_for, preflight
from runtime.roster import Roster
from runtime.rounds import Again, end_after, facts_of, refuse, start_hosts, start_workers
from runtime.teardown import end

__all__ = ["Launched", "launch", "missing_variables"]

_log = logging.getLogger("rankplan")


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
        looks: What each rank's host saw when it was started; empty where nothing was checked.
        acknowledged: What rank 0 said when its constructor had returned.
    """

    plan: LaunchPlan
    actors: tuple[Actor, ...]
    methods: Mapping[str, Method]
    described: Mapping[str, Mapping[str, object]]
    identities: Roster
    again: Again
    preflight: PreflightReport = PreflightReport()
    difference: PlanDifference | None = None
    looks: Mapping[int, HostLook] = field(factory=dict)
    acknowledged: Acknowledgement


def launch(
    backend: Backend,
    spec: GroupSpec,
    groups: Sequence[Any],
    payloads: Sequence[tuple[Reference, ...]],
    sources: EnvironmentSources,
    configured: Sequence[Mapping[str, str]],
    start_timeout: float,
    checks: Checks,
    assumed: AssumedClass,
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
        assumed: What was taken of the class when ``spec`` was made.

    Raises:
        PlanError: Where the hosts landed contradicts the plan.
        PreflightError: The nodes are not as the plan needs them.
        DifferenceError: Something that a prediction promised does not hold.
        ExecutionError: The class, or the binding of a process, is not as the plan counts on.
        WorkerGroupError: A host or a constructor failed; of that exception's own type too.
        DeadlineError: Not every constructor returned in time.
    """
    actors: dict[str, Actor] = {}
    ends = backend.now() + start_timeout
    asked = look_for(spec, sources, checks)
    plan: LaunchPlan | None = None
    try:
        hosts, reports = _hosts(backend, spec, groups, actors, ends, asked)
        missing = missing_variables(spec, sources, list(reports.values()))
        if missing:
            _log.info("worker group %r starts again with %s", spec.name, ", ".join(missing))
            end(backend, list(actors.values()), list(actors))
            actors.clear()
            spec = with_environment_before_python(spec, missing)
            hosts, reports = _hosts(backend, spec, groups, actors, ends, asked)
        facts = [facts_of(reports[slot]) for slot in range(len(spec.slots))]
        order = slot_order(spec, facts)
        left = max(0.0, ends - backend.now())
        checked = preflight(
            backend,
            spec,
            order,
            [reports[slot] for slot in range(len(facts))],
            list(hosts.values()),
            checks,
            left,
        )
        with PORTS.planning(spec) as told:
            plan = plan_launch(told, facts, checked.meeting_address)
            PORTS.note(plan)
        found = compare(checks, plan)
        ranked = {rank: hosts[index] for rank, index in enumerate(order)}
        identities = Roster(
            backend,
            {rank: identity_of(plan, rank, facts[index].pid) for rank, index in enumerate(order)},
            {rank: reports[index].get("vitals", {}) for rank, index in enumerate(order)},
            {rank: facts[index].node_id for rank, index in enumerate(order)},
        )
        again = Again(
            spec=in_rank_order(spec, order),
            groups=groups,
            payloads=[payloads[index] for index in order],
            sources=sources,
            configured=[configured[index] for index in order] if configured else (),
            facts=[facts[index] for index in order],
            asked=asked,
            checks=checks,
        )
        said, acknowledged = start_workers(
            backend,
            f"worker group {spec.name!r}, start of {spec.worker_class}",
            plan,
            ranked,
            identities,
            again,
            max(0.0, ends - backend.now()),
        )
        described = {str(each["name"]): each for each in said[0]["methods"]}
        methods = {name: _method(name, each) for name, each in described.items()}
        refuse(
            plan.group,
            [
                *judge_affinity(plan, acknowledged, identities),
                *judge_class(plan, assumed, methods, acknowledged, identities),
            ],
        )
    except BaseException as error:
        PORTS.release(plan)
        # A name whose host could not be started is another's.
        end_after(error, backend, spec.name, actors)
        raise
    return Launched(
        plan=plan,
        actors=tuple(ranked.values()),
        methods=methods,
        described=described,
        identities=identities,
        again=again,
        preflight=checked.report,
        difference=found,
        looks=checked.looks,
        acknowledged=acknowledged[0],
    )


def _hosts(
    backend: Backend,
    spec: GroupSpec,
    groups: Sequence[Any],
    actors: dict[str, Actor],
    ends: float,
    asked: Mapping[str, object],
) -> tuple[Mapping[int, Actor], Mapping[int, Mapping[str, Any]]]:
    return start_hosts(
        backend,
        f"worker group {spec.name!r}, start of its host processes",
        list(enumerate(plan_hosts(spec))),
        groups,
        actors,
        spec.environment.expected,
        asked,
        max(0.0, ends - backend.now()),
    )


def missing_variables(
    spec: GroupSpec, sources: EnvironmentSources, reports: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """What must exist before Python starts, and is not as planned on the node of some host."""
    expected = [e for e in spec.environment.variables if e.name in spec.environment.expected]
    wanted = environment_values(expected, sources)
    return missing_before_python(wanted, [report["seen"] for report in reports])


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
