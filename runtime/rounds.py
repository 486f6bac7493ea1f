"""The rounds in which hosts are started and become workers, at a launch and when ranks restart.

Hosts start in one burst and report; once the plan is made of that, each is told its rank.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen

from planner.acknowledgement import Acknowledgement, memory_notes
from planner.environment import EnvironmentSources, environment_values
from planner.findings import Finding, PlanError
from planner.group import GroupSpec, HostRequest
from planner.host_facts import HostFacts
from planner.host_instructions import host_instructions
from planner.launch_plan import LaunchPlan
from planner.messages import late_start_text
from planner.outcomes import RankIdentity
from runtime.backend import Actor, Backend, Reference
from runtime.errors import ExecutionError
from runtime.gather import gather_or_raise
from runtime.preflight import Checks, more_facts
from runtime.roster import Roster
from runtime.teardown import end

__all__ = ["Again", "end_after", "facts_of", "naming", "refuse", "start_hosts", "start_workers"]

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
        checks: What is checked before any constructor runs.
    """

    spec: GroupSpec
    groups: Sequence[Any]
    payloads: Sequence[tuple[Reference, ...]]
    sources: EnvironmentSources
    configured: Sequence[Mapping[str, str]] = field(repr=False)
    facts: Sequence[HostFacts]
    asked: Mapping[str, object]
    checks: Checks


def facts_of(report: Mapping[str, Any]) -> HostFacts:
    """What a host reported, as the planner takes it."""
    facts = HostFacts(
        node_id=report["node_id"],
        address=report["address"],
        gpus=tuple(report["gpus"]),
        accelerator=report["accelerator"],
        pid=report["pid"],
        port=report["port"],
        uuids=tuple(report["uuids"]),
        visible_variables=tuple(report["visible_variables"]),
    )
    return more_facts(facts, report)


def start_hosts(
    backend: Backend,
    subject: str,
    requests: Sequence[tuple[int, HostRequest]],
    groups: Sequence[Any],
    actors: dict[str, Actor],
    expected: Sequence[str],
    asked: Mapping[str, object],
    timeout: float,
) -> tuple[dict[int, Actor], dict[int, Mapping[str, Any]]]:
    """Start hosts in one burst.

    Args:
        backend: Where to start them.
        subject: The first words of an error.
        requests: The hosts, each with its number.
        groups: The cluster's placement groups.
        actors: Takes up every actor by its name as soon as it is started.
        expected: Variables whose values the plan counts on.
        asked: What they are asked to look at.
        timeout: Seconds until all must have reported.

    Returns:
        The actors and what they reported, by number.

    Raises:
        WorkerGroupError: A host failed.
        DeadlineError: Not every host reported in time.
    """
    hosts: dict[int, Actor] = {}
    for number, request in requests:
        hosts[number] = actors[request.name] = backend.start_host(
            request, groups[request.placement_group]
        )
    reports = {number: actor.report.remote(expected, asked) for number, actor in hosts.items()}
    who = {
        number: RankIdentity(rank=number, bundle=(request.placement_group, request.bundle))
        for number, request in requests
    }
    roster = Roster(backend, who)
    found = gather_or_raise(backend, subject, reports, roster, timeout, late=late_start_text)
    return hosts, dict(found)


def start_workers(
    backend: Backend,
    subject: str,
    plan: LaunchPlan,
    actors: Mapping[int, Actor],
    identities: Mapping[int, RankIdentity],
    again: Again,
    timeout: float,
) -> tuple[Mapping[int, Mapping[str, Any]], Mapping[int, Acknowledgement]]:
    """Have hosts become the workers of their ranks, all at the same time.

    Args:
        backend: Where they are.
        subject: The first words of an error.
        plan: What they become.
        actors: The hosts by rank.
        identities: Who the ranks are.
        again: The values that the plan does not hold.
        timeout: Seconds until every constructor must have returned.

    Returns:
        What each host said, as it said it and as the planner takes it.

    Raises:
        WorkerGroupError: A constructor failed; of that exception's own type too.
        DeadlineError: Not every constructor returned in time.
    """
    started: dict[int, Reference] = {}
    for rank, actor in actors.items():
        told = host_instructions(plan, identities[rank])
        configured = again.configured[rank] if again.configured else {}
        values = environment_values(told.environment, again.sources, configured)
        started[rank] = actor.start.remote(told.told(values), list(again.payloads[rank]))
    said = gather_or_raise(backend, subject, started, identities, timeout, late=late_start_text)
    acknowledged = {rank: _acknowledgement(each) for rank, each in said.items()}
    for note in memory_notes(acknowledged, identities):
        _log.warning("worker group %r: %s", plan.group, note)
    return said, acknowledged


def refuse(group: str, findings: Sequence[Finding]) -> None:
    """Do nothing when nothing was found.

    Raises:
        ExecutionError: Something was; all of it is in the error.
    """
    if findings:
        raise ExecutionError(str(PlanError(f"worker group {group!r}", findings)))


@contextmanager
def naming(group: str) -> Iterator[None]:
    """Put the group in front of the text of every ``ExecutionError`` that is raised inside."""
    try:
        yield
    except ExecutionError as error:
        error.args = (f"worker group {group!r}: {error}",)
        raise


def end_after(
    error: BaseException, backend: Backend, group: str, actors: Mapping[str, Actor]
) -> None:
    """End what was started before an error; what goes wrong in that is a note on the error.

    Args:
        error: The error that is being raised.
        backend: Where the actors are.
        group: The group's name.
        actors: What was started, by name.
    """
    left: dict[str, Exception] = {}
    for name, actor in actors.items():
        try:
            backend.kill(actor)
        except Exception as trouble:  # noqa: BLE001  # the others must still be ended
            left[name] = trouble
    try:
        end(backend, [], [name for name in actors if name not in left])
    except Exception as trouble:  # noqa: BLE001  # the first error is the one to raise
        left["the wait for their end"] = trouble
    if left:
        name, first = next(iter(left.items()))
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        told = (
            f"what was started could not all be ended: {name}{more}: {type(first).__name__}: "
            f"{first}; such a process holds its name and its share of a GPU until it is ended "
            "with ray.kill, or its cluster is shut down"
        )
        error.add_note(told)
        _log.error("worker group %r: %s", group, told, exc_info=first)


def _acknowledgement(told: Mapping[str, Any]) -> Acknowledgement:
    bound = told["affinity"]
    return Acknowledgement(
        digest=told["digest"],
        configures=told["configures"],
        cores=None if bound is None else tuple(bound["cores"]),
        memory_problem="" if bound is None else bound["memory_problem"],
    )
