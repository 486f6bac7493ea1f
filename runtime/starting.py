"""From a caller's arguments to a group that is up: facts, plans, then the launch."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import evolve, field, frozen

from planner.acknowledgement import judge_answers
from planner.class_source import AssumedClass
from planner.configured import configure_questions, configured_variables, with_overrides
from planner.environment import EnvironmentPolicy, EnvironmentSources, environment_values
from planner.findings import Findings
from planner.group import (
    GroupArguments,
    GroupSpec,
    checked_group,
    group_subject,
    plan_group,
    plan_hosts,
)
from planner.group_places import Place
from planner.interpreter import interpreter_variables
from planner.option_fit import check_options_fit
from planner.options import recursive_merge_options
from runtime.backend import Backend, Reference
from runtime.launching import Launched, launch
from runtime.payloads import record_unsendable
from runtime.places import check_still_there
from runtime.preflight import Checks
from runtime.rounds import naming, refuse

__all__ = ["START_SECONDS", "Ground", "StartRequest", "start_group"]

START_SECONDS = 600.0
"""How long a group may take until every constructor has returned."""


@frozen(kw_only=True)
class Ground:
    """What a group is started on.

    Attributes:
        groups: The placement groups.
        topology: Where the nodes stand in the network, as far as it is known.
    """

    groups: tuple[Any, ...]
    topology: tuple[Place, ...] = ()


def _no_claim(spec: GroupSpec) -> None:
    """Nobody counts what a worker outside any group takes."""


@frozen(kw_only=True)
class StartRequest:
    """A group to start: the caller's arguments, and what can't be part of a plan.

    Attributes:
        backend: Where to start it.
        constructor: Positional and keyword arguments of the class's constructor.
        ground: Gives the placement groups, reserving them when they are not yet: asked once
            the arguments are known to be good.
        arguments: What was asked for; what the driver and the class say is filled in here.
        claim: Told what the group takes of the bundles, before any host starts; refuses what
            is too much.
        env_vars: The group's variables.
        force_env_vars: Variables that win over the plan's own.
        policy: What of the driver's environment is handed on.
        asynchronous: Whether the class has async methods; None finds out.
        start_timeout: Seconds until every constructor must have returned.
        num_gpus_per_node: What ``configure_worker`` is told.
        bundle_indices: What ``configure_worker`` is told per slot; None for what the slots say.
        checks: What is checked before any constructor runs.
    """

    backend: Backend
    constructor: tuple[Sequence[object], Mapping[str, object]] = field(repr=False)
    ground: Callable[[], Ground]
    arguments: GroupArguments
    claim: Callable[[GroupSpec], None] = _no_claim
    env_vars: Mapping[str, str] = field(factory=dict, repr=False)
    force_env_vars: Mapping[str, str] = field(factory=dict, repr=False)
    policy: EnvironmentPolicy = EnvironmentPolicy()
    asynchronous: bool | None = None
    start_timeout: float = START_SECONDS
    num_gpus_per_node: int = 8
    bundle_indices: Sequence[object] | None = None
    checks: Checks = Checks()


def start_group(request: StartRequest, findings: Findings | None = None) -> Launched:
    """Check everything, find out what must be known, plan, and start.

    Args:
        request: What to start.
        findings: What was found wrong already: raised together with the rest.

    Raises:
        PlanError: An argument is wrong; nothing was started.
        ExecutionError: Something failed on the way; everything started was ended.
    """
    with _NAMES.reserved(request, findings) as checked:
        backend = request.backend
        ground = request.ground()
        landed = backend.landed(ground.groups)
        given = evolve(
            checked,
            bundle_counts=tuple(group.bundle_count for group in ground.groups),
            places=evolve(checked.places, topology=ground.topology),
        )
        check_still_there(given.bundle_counts, landed)
        node_ids = [each.node_id for each in landed]
        interpreter = backend.interpreter_of(given.worker_class)
        with naming(str(given.name_prefix)):
            executable = backend.prepare_interpreter(interpreter, node_ids)
        base = {"py_executable": executable} if executable else {}
        where = {**base, **_search_path(request)}
        with naming(str(given.name_prefix)):
            facts, found = backend.class_facts(given.worker_class, where, node_ids[0])
        own = dict(facts.options)
        options = recursive_merge_options(own, given.options)
        if base:
            options = recursive_merge_options(options, {"runtime_env": base})
        sources = evolve(
            given.sources,
            class_options=_env_vars(own),
            interpreter=interpreter_variables(executable, sys.prefix, sys.base_prefix),
        )
        spec = plan_group(
            evolve(
                given,
                interpreter=interpreter,
                options=options,
                sources=sources,
                asynchronous=(
                    facts.asynchronous if request.asynchronous is None else request.asynchronous
                ),
                notes=(*given.notes, f"{given.worker_class}: {found}"),
            )
        )
        check_options_fit(
            spec, {(e.placement_group, e.bundle): e.resources for e in landed if e.resources}
        )
        assumed = AssumedClass(configures=facts.configures, found=found)
        answers: list[Any] = []
        if assumed.configures:
            answers = _configured(request, spec, sources, node_ids[0])
            refuse(spec.name, judge_answers(spec, assumed, answers, node_ids[0]))
            spec = with_overrides(spec, answers)
        request.claim(spec)
        return launch(
            backend,
            spec,
            ground.groups,
            _payloads(request, spec, answers),
            sources,
            [configured_variables(answer) for answer in answers],
            request.start_timeout,
            request.checks,
            assumed,
        )


class _Names:
    """The names of groups that are being started: two threads must not choose the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starting: set[str] = set()

    @contextmanager
    def reserved(
        self, request: StartRequest, findings: Findings | None
    ) -> Iterator[GroupArguments]:
        """The arguments, checked, with a name that stays this group's until it is up."""
        asked, backend = request.arguments, request.backend
        found = findings
        if found is None:
            found = Findings(group_subject(asked.name_prefix, asked.worker_class))
        with self._lock:
            given = evolve(
                asked,
                policy=request.policy,
                names_taken=(backend.names() if backend.is_up else frozenset()) | self._starting,
                sources=EnvironmentSources(
                    driver=dict(os.environ),
                    group=request.env_vars,
                    forced=request.force_env_vars,
                ),
            )
            spec = checked_group(given, found)
            found.check()
            mine = {host.name for host in plan_hosts(spec)}
            self._starting |= mine
        try:
            yield evolve(given, name_prefix=spec.name, names_taken=frozenset())
        finally:
            with self._lock:
                self._starting -= mine


_NAMES = _Names()


def _configured(
    request: StartRequest, spec: GroupSpec, sources: EnvironmentSources, node_id: str
) -> list[Any]:
    environment = environment_values(spec.environment.variables, sources)
    questions = configure_questions(spec, request.bundle_indices)
    with naming(spec.name):
        return request.backend.ask_configure_worker(
            spec, environment, questions, request.num_gpus_per_node, node_id
        )


def _payloads(
    request: StartRequest, spec: GroupSpec, answers: Sequence[Any]
) -> list[tuple[Reference, ...]]:
    """Per slot, the constructor's arguments: one object for all, and one more where they differ."""
    args, kwargs = request.constructor
    put = request.backend.put
    try:
        shared = put((list(args), dict(kwargs)))
    except Exception:
        _check_arguments(request, spec.name)
        raise
    if not answers:
        return [(shared,)] * len(spec.slots)
    return [(shared, put(([], dict(answer[2])))) if answer[2] else (shared,) for answer in answers]


def _check_arguments(request: StartRequest, group: str) -> None:
    findings = Findings(f"worker group {group!r}")
    args, kwargs = request.constructor
    named = {f"args[{index}]": value for index, value in enumerate(args)}
    for path, value in {**named, **{f"kwargs[{k!r}]": v for k, v in kwargs.items()}}.items():
        try:
            request.backend.put(value)
        except Exception as error:  # noqa: BLE001  # serialising runs code of the value's type
            record_unsendable(path, value, error, findings)
    findings.check()


def _search_path(request: StartRequest) -> dict[str, Any]:
    """The group's own PYTHONPATH, with which its class must be looked for too."""
    path = request.env_vars.get("PYTHONPATH")
    return {"env_vars": {"PYTHONPATH": path}} if path else {}


def _env_vars(options: Mapping[str, object]) -> Mapping[str, str]:
    return _mapping(_mapping(options.get("runtime_env")).get("env_vars"))


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
