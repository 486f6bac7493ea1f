"""What a class's ``configure_worker`` is asked for each slot, and what its answers come to."""

from collections.abc import Mapping, Sequence

from attrs import evolve

from planner.environment import EnvVar, overlay, rank_overrides
from planner.findings import Findings
from planner.group import FULL_GPU, GroupSpec, WorkerOverrides
from planner.options import json_object
from planner.runtime_env import (
    before_python_of,
    check_no_credentials,
    check_spelling,
    slow_start_note,
    split_variables,
)

__all__ = [
    "configure_questions",
    "configured_variables",
    "plan_overrides",
    "with_overrides",
]


def configure_questions(
    spec: GroupSpec, given: Sequence[object] | None = None
) -> tuple[object, ...]:
    """Per slot the ``bundle_indices`` that ``configure_worker`` is told.

    The leader of a tied group is told its node and the bundles of the group, the others None.

    Args:
        spec: The group.
        given: What the caller wants to be told in their place; None for what the slots say.
    """
    if given is not None:
        return tuple(given)
    return tuple(
        (slot.node, list(slot.tied_bundles)) if slot.is_leader else None for slot in spec.slots
    )


def plan_overrides(spec: GroupSpec, answers: Sequence[object]) -> tuple[WorkerOverrides, ...]:
    """What ``configure_worker`` returned for each slot, checked.

    Args:
        spec: The group as known so far.
        answers: Per slot ``(resources, env_vars, init_kwargs)``, optionally with a fourth item,
            overrides for Ray's runtime environment.

    Raises:
        PlanError: An answer has another form, or asks for what a worker cannot have.
    """
    findings = Findings(f"configure_worker of {spec.worker_class}")
    made = tuple(
        _override(f"{slot.name(spec.name)}", answer, spec.environment.variables, findings)
        for slot, answer in zip(spec.slots, answers, strict=True)
    )
    findings.check()
    return made


def with_overrides(spec: GroupSpec, answers: Sequence[object]) -> GroupSpec:
    """The group with what ``configure_worker`` returned for each slot.

    Raises:
        PlanError: As ``plan_overrides``.
    """
    overrides = plan_overrides(spec, answers)
    given = {
        slot.name(spec.name): override.runtime_env.value()
        for slot, override in zip(spec.slots, overrides, strict=True)
        if override.runtime_env
    }
    note = slow_start_note(given, len(spec.slots))
    return evolve(
        spec, overrides=overrides, notes=spec.notes if note is None else (*spec.notes, note)
    )


def _override(
    path: str, answer: object, shared: Sequence[EnvVar], findings: Findings
) -> WorkerOverrides:
    if not isinstance(answer, tuple | list) or len(answer) not in {3, 4}:
        findings.add(
            path,
            f"it returned {type(answer).__name__}, not three or four items",
            "return (resources, env_vars, init_kwargs) or (..., runtime_env)",
        )
        return WorkerOverrides()
    parts: list[Mapping[str, object]] = []
    for label, part in zip(
        ("resources", "env_vars", "init_kwargs", "runtime_env"), answer, strict=False
    ):
        if part is not None and not isinstance(part, Mapping):
            findings.add(
                f"{path}.{label}", f"it is of type {type(part).__name__}", "return a mapping"
            )
        parts.append(part if isinstance(part, Mapping) else {})
    resources, init_kwargs = parts[0], parts[2]
    runtime_env, further = split_variables(parts[3] if len(parts) > 3 else {})
    env_vars = {**further, **parts[1]}
    texts = {name: value for name, value in env_vars.items() if isinstance(value, str)}
    for name, value in env_vars.items():
        if not isinstance(value, str):
            findings.add(
                f"{path}.env_vars[{name!r}]",
                f"the value is of type {type(value).__name__}",
                "environment values are strings: convert it with str()",
            )
    environment = rank_overrides(f"{path}.env_vars", texts, findings)
    check_no_credentials(f"{path}.runtime_env", runtime_env, findings)
    check_spelling(f"{path}.runtime_env", runtime_env, findings)
    names = {each.name for each in environment}
    merged = overlay(shared, environment)
    early = before_python_of([each for each in merged if each.name in names], findings)
    if early:
        runtime_env["env_vars"] = early
    return WorkerOverrides(
        gpu_share=_share(path, resources, findings),
        environment=environment,
        constructor=tuple(sorted(str(name) for name in init_kwargs)),
        runtime_env=json_object(f"{path}.runtime_env", runtime_env, findings),
    )


def configured_variables(answer: Sequence[object]) -> dict[str, str]:
    """All the variables that one answer of ``configure_worker`` holds, with their values."""
    _, further = split_variables(answer[3] if len(answer) > 3 else {})
    own = answer[1] if isinstance(answer[1], Mapping) else {}
    return {str(name): str(value) for name, value in {**further, **own}.items()}


def _share(path: str, resources: Mapping[str, object], findings: Findings) -> int | None:
    asked = resources.get("num_gpus")
    if asked is None:
        return None
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked <= 1:
        findings.add(
            f"{path}.resources['num_gpus']",
            f"{asked!r} is not a share of one bundle's GPU",
            "return a number from 0 to 1",
        )
        return None
    return int(asked * FULL_GPU + 1e-6)
