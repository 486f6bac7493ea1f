"""Asks the hosts what the plan counts on, and stops a launch that can't be as planned.

Nothing is decided here: ``planner.preflight``, ``planner.meeting`` and ``planner.difference`` do.
"""

import logging
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from attrs import evolve, field, frozen

from planner.amounts import checked_size
from planner.difference import PlanDifference, difference
from planner.environment import EnvironmentSources, environment_values
from planner.findings import Findings, PlanError
from planner.group import FULL_GPU, GroupSpec
from planner.launch import HostFacts, LaunchPlan
from planner.meeting import choose_meeting_address, judge_reach, meeting_candidates
from planner.nodes import NumaNode
from planner.outcomes import RankIdentity, ranks_text
from planner.ports import ReservedPorts
from planner.preflight import (
    GpuLook,
    HostLook,
    ModuleLook,
    PreflightReport,
    State,
    WantedHost,
    judge_hosts,
)
from planner.restart import doors_of
from runtime.backend import Actor, Backend
from runtime.errors import ExecutionError
from runtime.gather import gather_or_raise
from runtime.roster import Roster

__all__ = [
    "Checked",
    "Checks",
    "DifferenceError",
    "PreflightError",
    "checked_checks",
    "compare",
    "look_for",
    "more_facts",
    "preflight",
    "preflight_again",
]

_log = logging.getLogger("rankplan")

CONNECT_SECONDS = 3.0
"""How long one address of rank 0 may take to answer."""


class PreflightError(ExecutionError):
    """The nodes are not as the plan needs them; no constructor has run.

    Attributes:
        report: Every verdict, the good ones too.
    """

    report: PreflightReport


class DifferenceError(ExecutionError):
    """What was promised by a prediction does not hold; no constructor has run.

    Attributes:
        difference: Everything that differs.
    """

    difference: PlanDifference


@frozen(kw_only=True)
class Checks:
    """What is checked before any constructor runs.

    Attributes:
        preflight: True checks everything, False nothing; None checks that nodes reach rank 0
            only when there are several.
        expected: A prediction that must hold; None for none.
        free_gpu_memory: Bytes that must be free on every GPU; 0 for no matter.
    """

    preflight: bool | None = None
    expected: LaunchPlan | None = None
    free_gpu_memory: int = 0


@frozen(kw_only=True)
class Checked:
    """What the preflight came to.

    Attributes:
        report: Every verdict.
        meeting_address: The address of rank 0 that every node reaches; None when nobody tried.
        looks: What each host saw, by rank; empty where nothing was checked.
    """

    report: PreflightReport = PreflightReport()
    meeting_address: str | None = None
    looks: Mapping[int, HostLook] = field(factory=dict)


def checked_checks(
    preflight: object, expected: object, free_gpu_memory: object, findings: Findings
) -> Checks:
    """The checks, from a caller's arguments; what is wrong is added to ``findings``."""
    wanted = preflight if isinstance(preflight, bool) else None
    if preflight is not None and wanted is None:
        findings.add("preflight", f"{preflight!r} is no choice", "give True, False or None")
    if expected is not None and not isinstance(expected, LaunchPlan):
        findings.add(
            "expected_plan",
            f"a value of type {type(expected).__name__}",
            "give a LaunchPlan, as predict_launch makes it, or None",
        )
    free = checked_size("free_gpu_memory", free_gpu_memory, findings)
    if free and preflight is False:
        findings.add(
            "free_gpu_memory", "preflight=False looks at no GPU", "leave one of the two out"
        )
    return Checks(
        preflight=wanted,
        expected=expected if isinstance(expected, LaunchPlan) else None,
        free_gpu_memory=free,
    )


def look_for(spec: GroupSpec, sources: EnvironmentSources, checks: Checks) -> dict[str, object]:
    """What the hosts of a group are asked to look at; empty when nothing is wanted."""
    wants_facts = spec.places.wants_ports or spec.places.numa_binding
    if checks.preflight is False and not wants_facts:
        return {}
    path = [each for each in spec.environment.variables if each.name == "PYTHONPATH"]
    entries = environment_values(path, sources).get("PYTHONPATH", "").split(":")
    return {
        "worker_class": spec.worker_class,
        "path": [entry for entry in entries if entry],
        "ports": spec.places.wants_ports,
        "numa": spec.places.numa_binding,
    }


def more_facts(facts: HostFacts, report: Mapping[str, Any]) -> HostFacts:
    """The facts of a host with what it saw on its machine."""
    seen = report.get("look") or {}
    known = {str(gpu["index"]): gpu for gpu in (seen.get("gpus") or {}).get("gpus", ())}
    return evolve(
        facts,
        numa=tuple(
            NumaNode(index=each["index"], cores=tuple(each["cores"]), memory=each["memory"])
            for each in seen.get("numa", ())
        ),
        gpu_numa=tuple(known.get(gpu, {}).get("numa_node") for gpu in facts.gpus),
        reserved_ports=tuple(ReservedPorts(*each) for each in seen.get("reserved_ports", ())),
    )


def preflight(
    backend: Backend,
    spec: GroupSpec,
    order: Sequence[int],
    reports: Sequence[Mapping[str, Any]],
    actors: Sequence[Actor],
    checks: Checks,
    timeout: float,
) -> Checked:
    """One round of looking, and one of knocking when the group is on several nodes.

    Args:
        backend: Where the hosts are.
        spec: The group.
        order: For each rank the index of its host.
        reports: What each host reported.
        actors: The hosts.
        checks: What is checked.
        timeout: Seconds it may take.

    Raises:
        PreflightError: Something is not as it must be; all of it is in the error.
    """
    looks = {
        rank: _look(rank, reports[index])
        for rank, index in enumerate(order)
        if reports[index].get("look")
    }
    if checks.preflight is False or len(looks) < len(order):
        return Checked()
    report = judge_hosts(list(looks.values()), _wanted(spec, checks))
    visitors = _visitors(looks, everyone=checks.preflight is True)
    address: str | None = None
    if visitors:
        doors = meeting_candidates(looks[0], [looks[rank] for rank in visitors])
        ranked = {rank: actors[index] for rank, index in enumerate(order)}
        port = reports[order[0]]["port"]
        knocked, address = _knock(backend, spec, looks, visitors, ranked, doors, port, timeout)
        report += knocked
    _refuse(spec, f"preflight of worker group {spec.name!r}", report)
    return Checked(report=report, meeting_address=address, looks=looks)


def preflight_again(
    backend: Backend,
    spec: GroupSpec,
    plan: LaunchPlan,
    reports: Mapping[int, Mapping[str, Any]],
    actors: Mapping[int, Actor],
    beside: Mapping[int, HostLook],
    checks: Checks,
    timeout: float,
) -> Checked:
    """The same for hosts that take the place of others: the ranks that go on are not called.

    Whether they are reached is known only when rank 0 is among them: a rank 0 that goes on does
    not hold its port for others to try.

    Args:
        backend: Where the hosts are.
        spec: The group.
        plan: The group before.
        reports: What each host reported, by rank.
        actors: The hosts, by rank.
        beside: What the hosts of ranks that go on saw when they were started.
        checks: What is checked.
        timeout: Seconds it may take.

    Raises:
        PreflightError: Something is not as it must be; all of it is in the error.
    """
    looks = {
        rank: _look(rank, report) for rank, report in sorted(reports.items()) if report.get("look")
    }
    if checks.preflight is False or len(looks) < len(reports):
        return Checked()
    report = judge_hosts(list(looks.values()), _wanted(spec, checks), list(beside.values()))
    address: str | None = None
    visitors = _visitors(looks, everyone=checks.preflight is True) if 0 in looks else []
    if visitors:
        doors, port = doors_of(plan, looks, visitors), reports[0]["port"]
        knocked, address = _knock(backend, spec, looks, visitors, actors, doors, port, timeout)
        report += knocked
    who = ranks_text(list(looks))
    _refuse(spec, f"preflight of worker group {spec.name!r}, restart of {who}", report)
    return Checked(report=report, meeting_address=address, looks=looks)


def _wanted(spec: GroupSpec, checks: Checks) -> WantedHost:
    return WantedHost(
        worker_class=spec.worker_class,
        python=platform.python_version(),
        ray=ray.__version__,
        exclusive_gpus=spec.gpu_share == FULL_GPU,
        free_gpu_memory=checks.free_gpu_memory,
    )


def _refuse(spec: GroupSpec, subject: str, report: PreflightReport) -> None:
    if report.failed:
        error = PreflightError(f"{PlanError(subject, report.findings)}\n{report.text()}")
        error.report = report
        raise error
    for row in report.rows:
        if row.state is State.NOTE:
            _log.warning("worker group %r, node %s: %s", spec.name, row.node, row.found)


def _look(rank: int, report: Mapping[str, Any]) -> HostLook:
    seen: Mapping[str, Any] = report["look"]
    gpus = seen["gpus"]
    return HostLook(
        rank=rank,
        node_id=report["node_id"],
        address=report["address"],
        python=seen["python"],
        ray=seen["ray"],
        interpreter=seen["interpreter"],
        module=ModuleLook(**seen["module"]) if "module" in seen else None,
        gpus=None if gpus is None else tuple(GpuLook(**gpu) for gpu in gpus["gpus"]),
        addresses=tuple((str(name), str(address)) for name, address in seen["addresses"]),
    )


def _visitors(looks: Mapping[int, HostLook], *, everyone: bool) -> list[int]:
    """One rank of each node but rank 0's; of that one too when everything is checked."""
    first: dict[str, int] = {}
    for rank, look in looks.items():
        first.setdefault(look.node_id, rank)
    return [rank for rank in first.values() if rank or everyone]


def _knock(
    backend: Backend,
    spec: GroupSpec,
    looks: Mapping[int, HostLook],
    visitors: Sequence[int],
    actors: Mapping[int, Actor],
    candidates: Sequence[str],
    port: int,
    timeout: float,
) -> tuple[PreflightReport, str | None]:
    subject = f"worker group {spec.name!r}, preflight"
    roster = Roster(
        backend, {rank: RankIdentity(rank=rank, node=look.address) for rank, look in looks.items()}
    )
    opened = {0: actors[0].open_door.remote()}
    gather_or_raise(backend, subject, opened, roster, timeout)
    knocking = {
        rank: actors[rank].knock.remote(list(candidates), port, CONNECT_SECONDS)
        for rank in visitors
    }
    reached = gather_or_raise(backend, subject, knocking, roster, timeout)
    closed = {0: actors[0].close_door.remote()}
    gather_or_raise(backend, subject, closed, roster, timeout)
    report = judge_reach(looks[0], port, candidates, reached, looks)
    return report, choose_meeting_address(candidates, reached)


def compare(checks: Checks, plan: LaunchPlan) -> PlanDifference | None:
    """What differs from the prediction; None without one.

    Raises:
        DifferenceError: Something that held in the prediction does not hold.
    """
    if checks.expected is None:
        return None
    found = difference(checks.expected, plan)
    if found.broken:
        error = DifferenceError(found.text())
        error.difference = found
        raise error
    if found:
        _log.warning("%s", found.text())
    return found
