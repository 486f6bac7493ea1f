"""What may be part of Ray's runtime environment: others can read it, and it starts processes."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from planner.environment import EnvVar, check_before_python, is_before_python, is_credential
from planner.findings import Findings

__all__ = [
    "before_python_of",
    "check_no_credentials",
    "check_spelling",
    "missing_before_python",
    "slow_start_note",
    "split_variables",
]

_KNOWN = (
    *("conda", "config", "container", "env_vars", "excludes", "image_uri", "java_jars", "mpi"),
    *("nsight", "pip", "py_executable", "py_modules", "rocprof_sys", "uv"),
    *("worker_process_setup_hook", "working_dir"),
)
"""What Ray knows in a runtime environment; plugins may know more."""


def check_spelling(path: str, runtime_env: Mapping[str, object], findings: Findings) -> None:
    """Record the keys that are nearly, but not quite, what Ray knows: Ray would drop them."""
    for name in runtime_env:
        near = get_close_matches(str(name), _KNOWN, n=1, cutoff=0.75)
        if near and name not in _KNOWN and not str(name).startswith("_"):
            findings.add(
                f"{path}[{name!r}]",
                "Ray knows no such key, and would leave it out with a warning",
                f"did you mean {near[0]!r}?",
            )


def slow_start_note(given: Mapping[str, Mapping[str, object]], workers: int) -> str | None:
    """What the runtime environments cost that ``configure_worker`` gives, for the plan.

    Args:
        given: By worker name, what is added to its runtime environment; nothing for the others.
        workers: How many workers there are.
    """
    names = list(given)
    if not names:
        return None
    keys = ", ".join(sorted({key for each in given.values() for key in _keys(each)}))
    if len(names) == workers and all(each == given[names[0]] for each in given.values()):
        return (
            f"configure_worker gives all workers a Ray runtime environment ({keys}): hosts start "
            "about twice as slowly"
        )
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return (
        f"configure_worker gives {len(names)} of {workers} workers ({shown}) a Ray runtime "
        f"environment of their own ({keys}): each of them starts about four times as slowly"
    )


def _keys(runtime_env: Mapping[str, object]) -> list[str]:
    """The keys, for variables their names."""
    rest, variables = split_variables(runtime_env)
    return [*rest, *variables]


def check_no_credentials(path: str, value: object, findings: Findings) -> None:
    """Record whatever looks like a credential, at any depth; the value is never shown.

    A runtime environment is readable in the process list and in Ray's logs.
    """
    if isinstance(value, Mapping):
        for name, each in value.items():
            check_no_credentials(f"{path}.{name}", each, findings)
            if isinstance(each, str) and is_credential(str(name)):
                _record(f"{path}.{name}", findings)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            check_no_credentials(f"{path}[{index}]", each, findings)
    elif isinstance(value, str) and is_credential("", value):
        _record(path, findings)


def _record(path: str, findings: Findings) -> None:
    findings.add(
        path,
        "it looks like a credential, and a runtime environment is readable in the process list",
        "give it in env_vars, which reach the worker in its start message only",
    )


def split_variables(runtime_env: object) -> tuple[dict[str, object], dict[str, object]]:
    """A runtime environment without its variables, and the variables."""
    if not isinstance(runtime_env, Mapping):
        return {}, {}
    rest = {str(name): each for name, each in runtime_env.items() if name != "env_vars"}
    variables = runtime_env.get("env_vars")
    given = variables if isinstance(variables, Mapping) else {}
    return rest, {str(name): each for name, each in given.items()}


def before_python_of(variables: Sequence[EnvVar], findings: Findings) -> dict[str, str]:
    """Those of a worker's own variables that must exist before its interpreter starts."""
    needed = [each for each in variables if is_before_python(each.name)]
    check_before_python(needed, findings)
    return {each.name: each.value for each in needed if each.value is not None}


def missing_before_python(
    wanted: Mapping[str, str], seen: Sequence[Mapping[str, str]]
) -> tuple[str, ...]:
    """Which variables some host's node did not have as they are wanted when its Python started.

    Args:
        wanted: The planned values.
        seen: Per host, what it found in its process.
    """
    return tuple(
        name for name, value in wanted.items() if any(each.get(name) != value for each in seen)
    )
