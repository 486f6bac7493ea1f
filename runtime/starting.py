"""From a caller's arguments to a group that is up: facts, plans, then the launch."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import evolve, field, frozen

from planner.acknowledgement import judge_answers
from planner.class_source import AssumedClass
from planner.configured import configure_questions, configured_variables, plan_overrides
from planner.environment import EnvironmentPolicy, EnvironmentSources, environment_values
from planner.findings import Findings
from planner.group import GroupArguments, GroupSpec, plan_group, plan_hosts
from planner.interpreter import interpreter_variables
from planner.options import recursive_merge_options
from runtime.backend import Backend, Reference
from runtime.launching import Launched, launch
from runtime.payloads import record_unsendable
from runtime.places import check_still_there
from runtime.preflight import Checks
from runtime.rounds import refuse

__all__ = ["START_SECONDS", "StartRequest", "start_group"]

START_SECONDS = 600.0
"""How long a group may take until every constructor has returned."""


@frozen(kw_only=True)
class StartRequest:
    """A group to start: the caller's arguments, and what can't be part of a plan.

    Attributes:
        backend: Where to start it.
        constructor: Positional and keyword arguments of the class's constructor.
        groups: The placement groups.
        arguments: What was asked for; what the driver and the class say is filled in here.
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
    groups: tuple[Any, ...]
    arguments: GroupArguments
    env_vars: Mapping[str, str] = field(factory=dict, repr=False)
    force_env_vars: Mapping[str, str] = field(factory=dict, repr=False)
    policy: EnvironmentPolicy = EnvironmentPolicy()
    asynchronous: bool | None = None
    start_timeout: float = START_SECONDS
    num_gpus_per_node: int = 8
    bundle_indices: Sequence[object] | None = None
    checks: Checks = Checks()


def start_group(request: StartRequest) -> Launched:
    """Check everything, find out what must be known, plan, and start.

    Raises:
        PlanError: An argument is wrong; nothing was started.
        ExecutionError: Something failed on the way; everything started was ended.
    """
    with _NAMES.reserved(request) as given:
        backend = request.backend
        landed = backend.landed(request.groups)
        check_still_there(given.bundle_counts, landed)
        node_ids = [each.node_id for each in landed]
        interpreter = backend.interpreter_of(given.worker_class)
        executable = backend.prepare_interpreter(interpreter, node_ids)
        base = {"py_executable": executable} if executable else {}
        where = {**base, **_search_path(request)}
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
        assumed = AssumedClass(configures=facts.configures, found=found)
        answers: list[Any] = []
        if assumed.configures:
            answers = _configured(request, spec, sources, node_ids[0])
            refuse(spec.name, judge_answers(spec, assumed, answers, node_ids[0]))
            spec = evolve(spec, overrides=plan_overrides(spec, answers))
        return launch(
            backend,
            spec,
            request.groups,
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
    def reserved(self, request: StartRequest) -> Iterator[GroupArguments]:
        """The arguments, checked, with a name that stays this group's until it is up."""
        with self._lock:
            given = evolve(
                request.arguments,
                policy=request.policy,
                names_taken=request.backend.names() | self._starting,
                sources=EnvironmentSources(
                    driver=dict(os.environ),
                    group=request.env_vars,
                    forced=request.force_env_vars,
                ),
            )
            spec = plan_group(given)
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
