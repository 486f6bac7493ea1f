"""Profilers for some workers of a group, chosen by name."""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from planner.findings import Findings
from planner.options import JsonObject, json_object, recursive_merge_options
from planner.runtime_env import check_no_credentials, check_spelling

__all__ = ["PROFILE_VARIABLE", "Profile", "plan_profiles", "profile_note", "profiler_of"]

PROFILE_VARIABLE = "RANKPLAN_PROFILE"
"""The driver's variable that asks for profilers: ``pattern, ...``, or a JSON object."""

DEFAULT_PROFILER: Mapping[str, object] = {"nsight": "default"}
"""What a pattern without settings gets: Ray's own settings for Nsight Systems."""


@frozen(kw_only=True)
class Profile:
    """A profiler for the workers whose names match.

    Attributes:
        pattern: Worker names, with ``*`` and ``?``.
        settings: What is added to their Ray runtime environment, such as ``{"nsight": ...}``.
    """

    pattern: str
    settings: JsonObject


def plan_profiles(given: object, asked: str | None, findings: Findings) -> tuple[Profile, ...]:
    """The profiles that an argument and the driver's variable ask for, the argument's last.

    Args:
        given: Patterns to settings, a list of patterns, or None.
        asked: The value of ``RANKPLAN_PROFILE``; None when it is not set.
        findings: Where problems are recorded.
    """
    return (*_from_text(asked, findings), *_checked("profile", given, findings))


_NOTHING = JsonObject()


def profiler_of(profiles: Sequence[Profile], name: str) -> JsonObject:
    """What a worker's runtime environment is given; empty when no pattern matches its name."""
    if not profiles:
        return _NOTHING
    merged: Mapping[str, object] = {}
    for each in profiles:
        if fnmatchcase(name, each.pattern):
            merged = recursive_merge_options(merged, each.settings.value())
    return json_object("profile", merged, Findings("profile"))


def profile_note(profiles: Sequence[Profile], names: Sequence[str]) -> str | None:
    """What profiling costs, for the plan; None when nothing is profiled."""
    chosen = [name for name in names if profiler_of(profiles, name)]
    if not profiles:
        return None
    if not chosen:
        patterns = ", ".join(repr(each.pattern) for each in profiles)
        return f"no worker is profiled: no name matches {patterns}"
    shown = ", ".join(chosen[:4]) + (f" and {len(chosen) - 4} more" if len(chosen) > 4 else "")
    return (
        f"{len(chosen)} of {len(names)} workers are profiled ({shown}): each has a runtime "
        "environment of its own and starts about four times as slowly, and its calls are slower"
    )


def _from_text(text: str | None, findings: Findings) -> tuple[Profile, ...]:
    if text is None or not text.strip():
        return ()
    if not text.lstrip().startswith("{"):
        return _checked(PROFILE_VARIABLE, [part.strip() for part in text.split(",")], findings)
    try:
        loaded: object = json.loads(text)
    except json.JSONDecodeError as error:
        findings.add(
            PROFILE_VARIABLE,
            f"it is no JSON ({error})",
            'give patterns, as "policy-*,rollout-0-*", or {"policy-*": {"nsight": "default"}}',
        )
        return ()
    return _checked(PROFILE_VARIABLE, loaded, findings)


def _checked(path: str, given: object, findings: Findings) -> tuple[Profile, ...]:
    if given is None:
        return ()
    if isinstance(given, list | tuple):
        given = dict.fromkeys(given, DEFAULT_PROFILER)
    if not isinstance(given, Mapping):
        findings.add(
            path,
            f"a value of type {type(given).__name__}",
            "give patterns of worker names, each with its settings",
        )
        return ()
    profiles: list[Profile] = []
    for pattern, settings in given.items():
        where = f"{path}[{pattern!r}]"
        if not isinstance(pattern, str) or not pattern.strip():
            findings.add(where, "it is no pattern of names", "give a text such as 'policy-*'")
        elif not isinstance(settings, Mapping) or not settings:
            findings.add(
                where,
                f"its settings are {settings!r}",
                "give what the runtime environment gets, as {'nsight': 'default'}",
            )
        else:
            check_spelling(where, settings, findings)
            check_no_credentials(where, settings, findings)
            made = json_object(where, settings, findings)
            profiles.append(Profile(pattern=pattern, settings=made))
    return tuple(profiles)
