"""What each worker's process environment holds, and where every value comes from.

The names and their meanings follow torchrun (``torch.distributed.elastic``), so that
``torch.distributed.init_process_group("env://")`` and libraries built on it work unchanged.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from fnmatch import fnmatchcase

from attrs import evolve, field, frozen

from planner.credentials import is_credential
from planner.environment_names import (
    BEFORE_PYTHON,
    LAUNCHERS,
    NEVER_INHERITED,
    RANK_CONTRACT,
)
from planner.findings import Findings

__all__ = [
    "BEFORE_PYTHON",
    "LAUNCHERS",
    "NEVER_INHERITED",
    "RANK_CONTRACT",
    "EnvVar",
    "EnvironmentPolicy",
    "EnvironmentSources",
    "GroupEnvironment",
    "Origin",
    "check_before_python",
    "environment_values",
    "is_before_python",
    "is_credential",
    "overlay",
    "plan_environment",
    "rank_overrides",
]


class Origin(Enum):
    """Where a value comes from; later members win over earlier ones."""

    DEFAULT = "default"
    CLASS = "class options"
    DRIVER = "driver"
    INTERPRETER = "interpreter"
    GROUP = "env_vars"
    CONFIGURE_WORKER = "configure_worker"
    RANK = "rank"
    FORCED = "force_env_vars"


@frozen(kw_only=True)
class EnvVar:
    """One variable of a worker's environment.

    Attributes:
        name: Its name.
        value: Its value; None when it looks like a credential. Such a value is never in a plan:
            the runtime hands it to the worker from where ``origin`` says.
        origin: Who decided the value.
        merged: For path-like variables, whose entries were appended.
    """

    name: str
    value: str | None
    origin: Origin
    merged: tuple[Origin, ...] = ()

    @property
    def is_secret(self) -> bool:
        """Whether the value is kept out of the plan."""
        return self.value is None


@frozen(kw_only=True)
class EnvironmentPolicy:
    """What of the driver's environment workers inherit, and what of their node's.

    Ray's processes have the environment of whoever started Ray on their node, which may be the
    driver. So a worker removes from it what this does not let through; ``NEEDED`` and
    ``RAYS_OWN`` stay.

    Attributes:
        inherit: Patterns (``*`` and ``?``) of names that are handed on. The default hands on
            everything that is not listed in ``NEVER_INHERITED`` and is not a credential;
            an empty tuple hands on nothing.
        credentials: Patterns of credential-like names that are handed on all the same.
    """

    inherit: tuple[str, ...] = ("*",)
    credentials: tuple[str, ...] = ()


@frozen(kw_only=True)
class EnvironmentSources:
    """Everything that may set a variable for a whole group.

    These mappings hold real values, credentials included: an input of the planner, never a
    part of a plan, and not shown by ``repr``.
    """

    class_options: Mapping[str, str] = field(factory=dict, repr=False)
    driver: Mapping[str, str] = field(factory=dict, repr=False)
    interpreter: Mapping[str, str] = field(factory=dict, repr=False)
    group: Mapping[str, str] = field(factory=dict, repr=False)
    forced: Mapping[str, str] = field(factory=dict, repr=False)


@frozen(kw_only=True)
class GroupEnvironment:
    """The environment that all workers of a group share, sorted by name.

    Attributes:
        variables: What the host actor sets before it imports anything of the user's.
        before_python: What must be there before the interpreter starts, so that it goes into
            the group's shared Ray runtime environment. These are part of ``variables`` too.
        expected: Names that must be there before the interpreter starts and that the driver
            hands on: the hosts report whether their nodes have them already.
        withheld: Credential-like names of the driver that are not handed on.
        inherit: Patterns of names that a worker may have from its node.
        credentials: Patterns of credential-like names that it may have from there all the same.
    """

    variables: tuple[EnvVar, ...] = ()
    before_python: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    inherit: tuple[str, ...] = ("*",)
    credentials: tuple[str, ...] = ()


_PATH_LIKE = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_before_python(name: str) -> bool:
    """Whether a variable must exist before the interpreter starts."""
    return _matches(name, BEFORE_PYTHON)


def plan_environment(
    sources: EnvironmentSources,
    policy: EnvironmentPolicy,
    findings: Findings,
) -> GroupEnvironment:
    """Decide what all workers of a group share; what is wrong is added to ``findings``.

    Precedence, highest first: forced, the group's ``env_vars``, the interpreter's, what the
    driver hands on, what the class's own decorator says, library defaults.
    """
    policy = _checked_policy(policy, findings)
    sources = _checked_sources(sources, findings)
    group = checked_variables("env_vars", sources.group, findings)
    forced = checked_variables("force_env_vars", sources.forced, findings, forced=True)
    handed_on, withheld = _from_driver(sources.driver, policy)
    layers: tuple[tuple[Origin, Mapping[str, str]], ...] = (
        (Origin.DEFAULT, {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}),
        (Origin.CLASS, checked_variables("runtime_env.env_vars", sources.class_options, findings)),
        (Origin.DRIVER, handed_on),
        (Origin.INTERPRETER, sources.interpreter),
        (Origin.GROUP, group),
        (Origin.FORCED, forced),
    )
    chosen: dict[str, EnvVar] = {}
    for origin, values in layers:
        for name, value in values.items():
            chosen[name] = _over(chosen.get(name), name, value, origin)
    needed = [each for each in chosen.values() if is_before_python(each.name)]
    check_before_python((e for e in needed if e.origin is not Origin.DRIVER), findings)
    return GroupEnvironment(
        variables=tuple(sorted(chosen.values(), key=lambda each: each.name)),
        before_python=tuple(sorted(e.name for e in needed if e.origin is not Origin.DRIVER)),
        expected=tuple(sorted(e.name for e in needed if e.origin is Origin.DRIVER)),
        withheld=tuple(sorted(withheld)),
        inherit=policy.inherit,
        credentials=policy.credentials,
    )


def rank_overrides(path: str, values: Mapping[str, str], findings: Findings) -> tuple[EnvVar, ...]:
    """What ``configure_worker`` returned for one worker, as variables sorted by name."""
    given = checked_variables(path, values, findings)
    return tuple(_over(None, name, given[name], Origin.CONFIGURE_WORKER) for name in sorted(given))


def overlay(*layers: Iterable[EnvVar]) -> tuple[EnvVar, ...]:
    """One environment from several, sorted by name; the higher origin wins, then the later.

    The entries of path-like variables merge, those of the higher origin first.
    """
    chosen: dict[str, EnvVar] = {}
    ladder = list(Origin)
    for each in (each for layer in layers for each in layer):
        held = chosen.get(each.name)
        if held is None or ladder.index(each.origin) >= ladder.index(held.origin):
            chosen[each.name] = _merged(held, each)
    return tuple(chosen[name] for name in sorted(chosen))


def environment_values(
    variables: Iterable[EnvVar],
    sources: EnvironmentSources,
    configured: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables with their real values, credentials included: for the process, not a plan.

    Args:
        variables: What was planned.
        sources: What it was planned from; the values that the plan leaves out are taken there.
        configured: What ``configure_worker`` returned for the worker.
    """
    hidden: Mapping[Origin, Mapping[str, str]] = {
        Origin.CLASS: sources.class_options,
        Origin.DRIVER: sources.driver,
        Origin.GROUP: sources.group,
        Origin.CONFIGURE_WORKER: configured or {},
        Origin.FORCED: sources.forced,
    }
    return {
        each.name: hidden[each.origin][each.name] if each.value is None else each.value
        for each in variables
    }


def checked_variables(
    path: str, values: Mapping[str, str], findings: Findings, *, forced: bool = False
) -> dict[str, str]:
    """The well-formed variables that a user gave; the others become findings.

    A value is never shown: it may be a credential.
    """
    good: dict[str, str] = {}
    given: Iterable[tuple[object, object]] = values.items()
    for name, value in given:
        where = f"{path}[{name!r}]"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            findings.add(
                where,
                "this is not a name of an environment variable",
                "use letters, digits and underscores, not starting with a digit",
            )
        elif not isinstance(value, str):
            findings.add(
                where,
                f"the value is of type {type(value).__name__}",
                "environment values are strings: convert it with str()",
            )
        elif "\0" in value:
            findings.add(where, "the value holds a NUL byte", "remove it")
        elif not forced and (name in RANK_CONTRACT or _lists_devices(name)):
            findings.add(
                where,
                "this variable is part of the rank contract, which the plan decides",
                "leave it out, or give it in force_env_vars to override the plan",
            )
        else:
            good[name] = value
    return good


def _checked_policy(given: EnvironmentPolicy, findings: Findings) -> EnvironmentPolicy:
    """The policy, its patterns as tuples; where it is no policy one that hands on nothing."""
    made: dict[str, tuple[str, ...]] = {}
    for name in ("inherit", "credentials"):
        patterns: object = getattr(given, name)
        if isinstance(patterns, list | tuple) and all(isinstance(e, str) for e in patterns):
            made[name] = tuple(patterns)
        else:
            made["inherit"] = ()
            findings.add(
                f"environment_policy.{name}",
                f"{patterns!r} is not a tuple of patterns",
                "give a tuple, as in ('NCCL_*',)",
            )
    return EnvironmentPolicy(**made)


def _checked_sources(given: EnvironmentSources, findings: Findings) -> EnvironmentSources:
    """The sources without those that are no mappings."""
    wrong: dict[str, Mapping[str, str]] = {}
    for name in ("class_options", "driver", "interpreter", "group", "forced"):
        values: object = getattr(given, name)
        if not isinstance(values, Mapping):
            wrong[name] = {}
            problem = f"a value of type {type(values).__name__}"
            findings.add(f"sources.{name}", problem, "give a mapping from names to values")
    return evolve(given, **wrong) if wrong else given


def _lists_devices(name: str) -> bool:
    # The variables that stop Ray from masking devices end in the same words; programs set them.
    return fnmatchcase(name, "*_VISIBLE_DEVICES") and not name.startswith("RAY_EXPERIMENTAL_NOSET_")


def _from_driver(
    driver: Mapping[str, str], policy: EnvironmentPolicy
) -> tuple[dict[str, str], list[str]]:
    handed_on: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in driver.items():
        if _matches(name, NEVER_INHERITED) or not _NAME.fullmatch(name):
            continue
        if not _matches(name, policy.inherit):
            continue
        if is_credential(name, value) and not _matches(name, policy.credentials):
            withheld.append(name)
        else:
            handed_on[name] = value
    return handed_on, withheld


def _over(lower: EnvVar | None, name: str, value: str, origin: Origin) -> EnvVar:
    if is_credential(name, value):
        return EnvVar(name=name, value=None, origin=origin)
    return _merged(lower, EnvVar(name=name, value=value, origin=origin))


def _merged(lower: EnvVar | None, higher: EnvVar) -> EnvVar:
    """The higher value; where it is path-like, followed by the entries of the lower one."""
    forced = higher.origin is Origin.FORCED
    if lower is None or higher.name not in _PATH_LIKE or forced:
        return higher
    if lower.value is None or higher.value is None:
        return higher
    entries = list(dict.fromkeys([*higher.value.split(":"), *lower.value.split(":")]))
    merged = ":".join(entry for entry in entries if entry)
    if merged == higher.value:
        return higher
    return evolve(higher, value=merged, merged=(lower.origin, *lower.merged))


def check_before_python(needed: Iterable[EnvVar], findings: Findings) -> None:
    """Record what cannot be part of Ray's runtime environment, which others can read."""
    for each in needed:
        if each.value is None:
            findings.add(
                f"env_vars[{each.name!r}]",
                "it looks like a credential and must exist before Python starts, where it would "
                "be readable in the process list",
                "take the credential out of its value",
            )
        elif "$" in each.value:
            findings.add(
                f"env_vars[{each.name!r}]",
                "it must exist before Python starts, and Ray's runtime environment would expand "
                "the '$' in its value",
                "write the value out in full",
            )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
