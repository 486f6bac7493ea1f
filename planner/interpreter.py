"""Which Python a worker group's hosts run in, read from the words of the registry.

The registry holds text in one of three forms: the path of an interpreter, which is used as it is;
a ``uv run ...`` command, whose locked project becomes an environment; or ``uv pip install ...``, a
set of requirements on top of the driver's packages. Only the form is judged here. Nothing is looked
up and nothing is run: what the text depends on (versions, the contents of files) comes as facts.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence

from attrs import frozen

from planner.findings import Findings
from planner.interpreter_text import (
    check_interpreter_path,
    hide_credentials,
    read_project_command,
    read_requirement,
    read_words,
)

__all__ = [
    "BuiltEnvironment",
    "DriverInterpreter",
    "Interpreter",
    "InterpreterFacts",
    "InterpreterPath",
    "RequirementSet",
    "UvProject",
    "built_executable",
    "describe_interpreter",
    "interpreter_variables",
    "local_sources_of",
    "parse_interpreter",
    "requirement_environment",
    "virtual_env_of",
]


@frozen(kw_only=True)
class InterpreterFacts:
    """What an environment depends on beside its own description.

    Attributes:
        python_version: The driver's Python, such as ``3.11.7``; workers need the same ``3.11``.
        ray_version: The driver's Ray; workers need the same.
        driver_prefix: Folder of the driver's own environment (``sys.prefix``).
        working_directory: Absolute folder against which relative paths are read.
        content_digest: Digest of the local files that the text names (``local_sources_of``); empty
            when it names none, or when they cannot be read where the plan is made.
    """

    python_version: str
    ray_version: str
    driver_prefix: str
    working_directory: str
    content_digest: str = ""


@frozen(kw_only=True)
class DriverInterpreter:
    """The driver's own interpreter: the class is not in the registry."""


@frozen(kw_only=True)
class InterpreterPath:
    """A prebuilt interpreter, used as it is.

    Attributes:
        executable: Absolute path, the same on every node.
    """

    executable: str


@frozen(kw_only=True)
class UvProject:
    """A locked uv project.

    Attributes:
        command: ``uv run --directory FOLDER`` and further options, the folder absolute, no program.
    """

    command: tuple[str, ...]

    @property
    def project(self) -> str:
        """Absolute folder from which uv looks for the project."""
        return self.command[3]


@frozen(kw_only=True)
class RequirementSet:
    """Packages to be installed. Ones without an exact version may differ from node to node.

    Attributes:
        requirements: In the form of ``pip``, sorted, local files as absolute paths.
        inherits_driver_packages: Whether the packages of the node's Ray interpreter stay visible
            behind them; without this, the requirements must name Ray.
    """

    requirements: tuple[str, ...]
    inherits_driver_packages: bool


@frozen(kw_only=True)
class BuiltEnvironment:
    """An environment that is built once per node, and found again by its key.

    Attributes:
        source: What it is built from.
        key: Hash of everything it is made of; equal keys mean equal environments.
        python_version: The driver's Python for which it is built.
        ray_version: The driver's Ray for which it is built.
        content_digest: Digest of the local files it is built from; empty when none were read.
    """

    source: UvProject | RequirementSet
    key: str
    python_version: str
    ray_version: str
    content_digest: str = ""


Interpreter = DriverInterpreter | InterpreterPath | BuiltEnvironment

_SUBJECT = "python environment"
_FORMS = (
    "give the absolute path of an interpreter, a command like "
    "'uv run --locked --extra vllm --directory /folder/of/project', "
    "or a set of packages like 'uv pip install vllm==0.11.0'; variables belong in env_vars"
)


def parse_interpreter(
    text: str | None, facts: InterpreterFacts, path: str = "interpreter"
) -> Interpreter:
    """The interpreter that a text of the registry means; None means the driver's own.

    Args:
        text: An absolute path, a ``uv run`` command or a ``uv pip install`` set.
        facts: What the environment's key depends on beside the text.
        path: Where the text stands, in the caller's words.

    Raises:
        PlanError: The text has none of these forms, or holds what cannot be planned.
    """
    if text is None:
        return DriverInterpreter()
    findings = Findings(_SUBJECT)
    words = read_words(text, findings, path)
    if not _has_known_form(words):
        # Only the first word is shown, without its value: the text may start with TOKEN=secret.
        first = hide_credentials(words[0].partition("=")[0]) if words else ""
        problem = f"a text that starts with {first!r} is neither a path nor a uv command"
        findings.fail(path, problem, _FORMS)
    match words:
        case ["uv", "run", *arguments]:
            command = read_project_command(arguments, facts.working_directory, findings, path)
            source: UvProject | RequirementSet = UvProject(command=command)
        case ["uv", "pip", "install", *requirements]:
            source = _requirement_set(requirements, facts, findings, path, inherits=True)
        case _:
            check_interpreter_path(words[0], facts.working_directory, findings, path)
            findings.check()
            return InterpreterPath(executable=words[0])
    findings.check()
    return _built(source, facts)


def requirement_environment(
    requirements: Sequence[str],
    facts: InterpreterFacts,
    *,
    inherit_driver_packages: bool = False,
    path: str = "requirements",
) -> BuiltEnvironment:
    """An environment that holds the packages asked for, with or without the driver's behind them.

    Raises:
        PlanError: A requirement is malformed, or holds credentials, an option or a source folder.
    """
    findings = Findings(_SUBJECT)
    source = _requirement_set(requirements, facts, findings, path, inherits=inherit_driver_packages)
    findings.check()
    return _built(source, facts)


def local_sources_of(source: UvProject | RequirementSet) -> tuple[str, ...]:
    """The local files and project folders whose contents the environment is made of."""
    if isinstance(source, UvProject):
        return (source.project,)
    return tuple(filter(None, map(_local_file, source.requirements)))


def built_executable(folder: str, key: str) -> str:
    """The interpreter of the environment with this key, under a folder of environments."""
    return f"{folder.rstrip('/')}/{key}/bin/python"


def virtual_env_of(executable: str) -> str | None:
    """The folder of the environment to which ``<folder>/bin/python`` belongs.

    This is what ``VIRTUAL_ENV`` and ``UV_PROJECT_ENVIRONMENT`` must hold: a folder, not the
    interpreter. None for a path of another form, and for a system's own Python.
    """
    folder, _, program = executable.rpartition("/")
    environment, _, last = folder.rpartition("/")
    if last != "bin" or not program.startswith(("python", "pypy")):
        return None
    return None if environment in {"", "/usr", "/usr/local"} else environment


def interpreter_variables(executable: str | None, prefix: str, base_prefix: str) -> dict[str, str]:
    """``VIRTUAL_ENV`` and ``UV_PROJECT_ENVIRONMENT`` of workers; empty outside an environment.

    Args:
        executable: The workers' interpreter; None for the driver's own.
        prefix: The driver's ``sys.prefix``.
        base_prefix: The driver's ``sys.base_prefix``: the same outside an environment.
    """
    if executable is not None:
        folder = virtual_env_of(executable)
    else:
        folder = prefix if prefix != base_prefix else None
    return {"VIRTUAL_ENV": folder, "UV_PROJECT_ENVIRONMENT": folder} if folder else {}


def describe_interpreter(interpreter: Interpreter) -> str:
    """One line for a reader of the plan."""
    match interpreter:
        case DriverInterpreter():
            return "the driver's own interpreter (the class is not in the registry)"
        case InterpreterPath():
            return f"prebuilt: {interpreter.executable}"
        case BuiltEnvironment():
            return f"built once per node, key {interpreter.key}: {_made_from(interpreter.source)}"


def _has_known_form(words: list[str]) -> bool:
    match words:
        case ["uv", "run", *_] | ["uv", "pip", "install", *_]:
            return True
        case [only]:
            return only != "uv"
        case _:
            return False


def _made_from(source: UvProject | RequirementSet) -> str:
    if isinstance(source, UvProject):
        return shlex.join(source.command)
    behind = ", over the driver's packages" if source.inherits_driver_packages else ""
    return ", ".join(source.requirements) + behind


def _requirement_set(
    requirements: Sequence[str],
    facts: InterpreterFacts,
    findings: Findings,
    path: str,
    *,
    inherits: bool,
) -> RequirementSet:
    if not requirements:
        findings.add(path, "no requirement is given", "name at least one, such as 'vllm==0.11.0'")
    named = {
        read_requirement(each, facts.working_directory, findings, f"{path}[{index}]")
        for index, each in enumerate(requirements)
    }
    return RequirementSet(requirements=tuple(sorted(named)), inherits_driver_packages=inherits)


def _local_file(requirement: str) -> str | None:
    if requirement.startswith("/"):
        return requirement
    _, marked, location = requirement.partition("file://")
    return location.partition(";")[0].strip() if marked else None


def _built(source: UvProject | RequirementSet, facts: InterpreterFacts) -> BuiltEnvironment:
    if isinstance(source, UvProject):
        parts = ["project", *source.command]
    else:
        # The driver's packages are part of the environment only where they stay visible.
        behind = facts.driver_prefix if source.inherits_driver_packages else ""
        parts = ["requirements", behind, *source.requirements]
    made_of = [facts.python_version, facts.ray_version, facts.content_digest, parts]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return BuiltEnvironment(
        source=source,
        # Half of the digest: the interpreter's path is the first line of scripts, which Linux
        # limits to 127 bytes.
        key=digest[:32],
        python_version=facts.python_version,
        ray_version=facts.ray_version,
        content_digest=facts.content_digest,
    )
