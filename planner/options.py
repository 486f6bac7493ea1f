"""Ray actor options as data: how they merge, and which of them a host actor takes."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import TypeAlias

from attrs import frozen

from planner.findings import Findings

__all__ = ["Json", "JsonObject", "actor_options", "json_object", "recursive_merge_options"]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""Anything that JSON can hold."""


@frozen
class JsonObject:
    """A JSON object as an immutable value: equal when the content is equal.

    Attributes:
        text: The object in canonical form (sorted keys, no spaces).
    """

    text: str = "{}"

    def value(self) -> dict[str, Json]:
        """The object as a fresh dictionary."""
        loaded: dict[str, Json] = json.loads(self.text)
        return loaded

    def __bool__(self) -> bool:
        return self.text != "{}"


def json_object(path: str, value: Mapping[str, object], findings: Findings) -> JsonObject:
    """A mapping as an immutable value; whatever JSON can't hold becomes a finding."""
    plain = _plain(path, value, findings)
    return JsonObject(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def recursive_merge_options(
    default_options: Mapping[str, object], extra_options: Mapping[str, object]
) -> dict[str, object]:
    """Merge two nested sets of actor options; the extra ones win.

    Mappings merge key by key at every level, everything else (lists too) is replaced; neither
    input is changed. Ray renames the key ``nsight`` of a decorated class's ``runtime_env`` to
    ``_nsight``: it gets its name back, unless ``nsight`` is there as well.

    Raises:
        PlanError: One of them is no mapping.
    """
    findings = Findings("actor options")
    pairs: tuple[tuple[str, object], ...] = (
        ("default_options", default_options),
        ("extra_options", extra_options),
    )
    for path, given in pairs:
        if not isinstance(given, Mapping):
            problem = f"{given!r} is of type {type(given).__name__}"
            findings.add(path, problem, "give a mapping, as {'num_cpus': 1}; {} for none")
    findings.check()
    merged = _merge(default_options, extra_options)
    runtime_env = merged.get("runtime_env")
    if isinstance(runtime_env, dict) and "_nsight" in runtime_env:
        hidden = runtime_env.pop("_nsight")
        runtime_env.setdefault("nsight", hidden)
    return merged


def _merge(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    merged = {key: _copied(value) for key, value in lower.items()}
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = _copied(value)
    return merged


def _copied(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return value


_HANDED_ON = frozenset(
    {
        *("num_cpus", "memory", "object_store_memory", "resources", "accelerator_type"),
        *("max_concurrency", "concurrency_groups", "label_selector"),
        *("fallback_strategy", "enable_task_events"),
    }
)

_DECIDED_BY_THE_PLAN = frozenset(
    {
        *("num_gpus", "name", "scheduling_strategy", "placement_group", "runtime_env"),
        *("placement_group_bundle_index", "placement_group_capture_child_tasks", "namespace"),
        *("num_returns", "get_if_exists"),
    }
)


def actor_options(
    options: Mapping[str, object], findings: Findings, notes: list[str]
) -> JsonObject:
    """The options a host actor takes over from the worker's class and the caller.

    Placement, name, GPU share and runtime environment are the plan's. A restarted process would
    have lost the worker's state, so Ray's own restarts are not handed on; ``notes`` says so.
    """
    kept: dict[str, object] = {}
    for key, value in sorted(options.items()):
        if value is None or key in _DECIDED_BY_THE_PLAN:
            continue
        if key in {"max_restarts", "max_task_retries", "retry_exceptions"}:
            if value:
                notes.append(
                    f"{key}={value!r} of the worker class is not handed on: a process that Ray "
                    "restarts has lost its rank and its state"
                )
        elif key == "max_pending_calls":
            notes.append(
                "max_pending_calls of the worker class is not handed on: Ray would refuse a call "
                "when some ranks have it already; max_calls_in_flight is checked before sending"
            )
        elif key == "lifetime":
            if value == "detached":
                findings.add(
                    "options.lifetime",
                    "'detached' would leave workers behind when the driver ends",
                    "leave lifetime out: the group owns its workers",
                )
        elif key in _HANDED_ON or key.startswith("_"):
            before = len(findings.found)
            _check_value(f"options.{key}", key, value, findings)
            if len(findings.found) == before:
                kept[key] = value
        else:
            near = get_close_matches(key, [*_HANDED_ON, *_DECIDED_BY_THE_PLAN], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            findings.add(
                f"options.{key}",
                "this is not an actor option that a worker can have",
                f"{hint}use one of {', '.join(sorted(_HANDED_ON))}",
            )
    return json_object("options", kept, findings)


def _check_value(path: str, key: str, value: object, findings: Findings) -> None:
    """Record what Ray would refuse in the middle of a start."""
    match key:
        case "num_cpus" | "memory" | "object_store_memory":
            if not _is_amount(value):
                findings.add(path, f"{value!r} is not an amount", "give a number of 0 or more")
        case "resources":
            _check_resources(path, value, findings)
        case "max_concurrency":
            if not _is_count(value):
                remedy = "give a whole number of 1 or more"
                findings.add(path, f"{value!r} is not a number of calls", remedy)
        case "concurrency_groups":
            if not isinstance(value, Mapping) or not all(map(_is_count, value.values())):
                remedy = "give names with the calls that each runs at a time, as {'io': 2}"
                findings.add(path, f"{value!r} are not groups of calls", remedy)
        case "accelerator_type":
            if not isinstance(value, str):
                findings.add(
                    path, f"{value!r} is not a kind of accelerator", "give a name as 'H100'"
                )
        case "label_selector":
            if not isinstance(value, Mapping) or not all(
                isinstance(e, str) for e in value.values()
            ):
                remedy = "give labels and expressions, as {'rack': 'in(r1, r2)'}"
                findings.add(path, f"{value!r} is not a selector of labels", remedy)
        case _:
            pass


def _check_resources(path: str, value: object, findings: Findings) -> None:
    if not isinstance(value, Mapping):
        findings.add(path, f"{value!r} are not resources", "give names and amounts, as {'nic': 1}")
        return
    for name, amount in value.items():
        where = f"{path}[{name!r}]"
        if name in _OPTION_OF:
            findings.add(where, "it has an option of its own", f"use {_OPTION_OF[name]}")
        elif not isinstance(name, str) or not name:
            findings.add(where, f"{name!r} is not the name of a resource", "give a string")
        elif not _is_amount(amount):
            findings.add(where, f"{amount!r} is not an amount", "give a number of 0 or more")


_OPTION_OF = {
    "CPU": "num_cpus",
    "GPU": "the group's own share of GPUs, which the cluster decides",
    "memory": "memory",
    "object_store_memory": "object_store_memory",
}


def _is_amount(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and isinstance(value, int | float) and isfinite(value) and value >= 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _plain(path: str, value: object, findings: Findings) -> Json:
    if isinstance(value, float) and not isfinite(value):
        findings.add(path, f"{value} is not a number of JSON", "give a finite number")
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{path}.{key}", each, findings) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{path}[{i}]", each, findings) for i, each in enumerate(value)]
    findings.add(
        path,
        f"a value of type {type(value).__name__} cannot be part of a plan",
        "give numbers, strings, lists and mappings of these",
    )
    return None
