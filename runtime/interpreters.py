"""The registry of interpreters, and the step that puts them on the nodes before a group starts.

The planner reads what the registry says; here the driver's facts are gathered for it, and the
environment is looked up or built on every node at once.
"""

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Self

import ray
from attrs import evolve, frozen
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from planner.findings import Findings
from planner.interpreter import (
    BuiltEnvironment,
    DriverInterpreter,
    Interpreter,
    InterpreterFacts,
    InterpreterPath,
    UvProject,
    describe_interpreter,
    local_sources_of,
    parse_interpreter,
)
from planner.interpreter_text import check_interpreter_path
from runtime import bounded_program, environment_builder
from runtime.environment_builder import (
    BuildOutcome,
    BuildSpec,
    build_environment,
    digest_of_sources,
)
from runtime.errors import ExecutionError

__all__ = [
    "ACTOR_ENVIRONMENT_REGISTRY",
    "EnvironmentBuildError",
    "NodeOutcome",
    "PreparedInterpreter",
    "build_spec",
    "get_actor_python_env",
    "interpreter_of",
    "observe_interpreter_facts",
    "prepare_interpreter",
]

ACTOR_ENVIRONMENT_REGISTRY: dict[str, str] = {}
"""Full class name -> absolute path of an interpreter, ``uv run ...`` or ``uv pip install ...``.

Read once for each group, when it is built; a change affects groups built later.
"""

_ANSWER_SECONDS = 15.0
"""What a node gets beyond the deadline to start the builder's process and to send its answer."""


@frozen(kw_only=True)
class NodeOutcome:
    """How one node came to the interpreter.

    Attributes:
        node_id: The node, as Ray names it.
        address: Its address; empty when Ray does not know the node.
        host: Its host name; empty when it did not answer.
        built: Whether it was built now; False when it was there already.
        problem: What went wrong; empty when the node is ready.
        output: The last lines of the builder's output, without secrets.
    """

    node_id: str
    address: str = ""
    host: str = ""
    built: bool = False
    problem: str = ""
    output: str = ""


@frozen(kw_only=True)
class PreparedInterpreter:
    """An interpreter that every node has at one path, fit for Ray workers.

    Attributes:
        executable: The path, for ``py_executable``; None means the driver's own interpreter.
        outcomes: How each node came to it, in the order asked for.
    """

    executable: str | None
    outcomes: tuple[NodeOutcome, ...]


class EnvironmentBuildError(ExecutionError):
    """Some nodes do not have the interpreter.

    Attributes:
        interpreter: What was to be put there.
        failures: The nodes that failed, all of them.
    """

    def __init__(self, interpreter: Interpreter, failures: Sequence[NodeOutcome]) -> None:
        self.interpreter = interpreter
        self.failures = tuple(failures)
        super().__init__(_text(interpreter, self.failures))

    def __reduce__(self) -> tuple[type[Self], tuple[Interpreter, tuple[NodeOutcome, ...]]]:
        return type(self), (self.interpreter, self.failures)


def get_actor_python_env(actor_class_fqn: str) -> str:
    """What the registry holds for a worker class.

    Raises:
        ValueError: The class is not registered; the error says how to register it.
    """
    given: object = actor_class_fqn
    if not isinstance(given, str):
        raise ValueError(f"{given!r} is not the full name of a class: give 'package.Class'")  # noqa: TRY004
    text = ACTOR_ENVIRONMENT_REGISTRY.get(actor_class_fqn)
    if text is not None:
        return text
    # Copied in one step, since another thread may register a class meanwhile.
    names = sorted(ACTOR_ENVIRONMENT_REGISTRY)
    near = get_close_matches(actor_class_fqn, names, n=3)
    hint = f" The nearest registered names are {', '.join(near)}." if near else ""
    raise ValueError(
        f"no Python environment is registered for {actor_class_fqn!r}. Register one: "
        f"ACTOR_ENVIRONMENT_REGISTRY[{actor_class_fqn!r}] = '/path/of/python' or "
        f"'uv run --locked --extra NAME --directory /folder/of/project'.{hint}"
    )


def interpreter_of(actor_class_fqn: str) -> Interpreter:
    """The interpreter for a worker class, with the driver's facts; unregistered: the driver's own.

    Raises:
        PlanError: The registered text cannot be planned, or names files that are not there.
    """
    text = ACTOR_ENVIRONMENT_REGISTRY.get(actor_class_fqn)
    path = f"ACTOR_ENVIRONMENT_REGISTRY[{actor_class_fqn!r}]"
    entry: object = text
    if entry is not None and not isinstance(entry, str):
        Findings("python environment").fail(
            path,
            f"a value of type {type(entry).__name__}",
            "give the absolute path of an interpreter, 'uv run ...' or 'uv pip install ...'",
        )
    facts = observe_interpreter_facts()
    interpreter = parse_interpreter(text, facts, path)
    if not isinstance(interpreter, BuiltEnvironment):
        return interpreter
    try:
        digest = digest_of_sources(local_sources_of(interpreter.source))
    except OSError as error:
        remedy = "correct the path, or make the file"
        Findings("python environment").fail(path, f"its files cannot be read: {error}", remedy)
    return parse_interpreter(text, evolve(facts, content_digest=digest), path)


def observe_interpreter_facts(sources: Sequence[str] = ()) -> InterpreterFacts:
    """The driver's facts on which an environment depends.

    Args:
        sources: Local files and project folders of the environment, to be read.

    Raises:
        FileNotFoundError: One of the sources is not there.
    """
    return InterpreterFacts(
        python_version=".".join(map(str, sys.version_info[:3])),
        ray_version=ray.__version__,
        driver_prefix=sys.prefix,
        working_directory=str(Path.cwd()),
        content_digest=digest_of_sources(tuple(sources)),
    )


def prepare_interpreter(
    interpreter: Interpreter,
    node_ids: Sequence[str],
    deadline_seconds: float,
    *,
    folder: str | None = None,
    shared: bool = False,
) -> PreparedInterpreter:
    """Make sure that every node has the interpreter, building it on all nodes at once.

    Builders use each node's own settings of uv and pip (indexes, credentials, caches).

    Args:
        interpreter: What the group is to run in.
        node_ids: The nodes, as Ray names them.
        deadline_seconds: Time for a build; the answer may take a little more.
        folder: Folder of environments, at the same path on all nodes; default
            ``$RANKPLAN_ENVIRONMENTS`` of the driver, else ``~/.cache/rankplan/environments``.
        shared: Whether all nodes see one folder; then one node builds, and the others find it.

    Raises:
        PlanError: A node id, the deadline or the folder's path cannot be used.
        EnvironmentBuildError: Nodes failed or did not answer; it names all of them and why.
    """
    nodes = tuple(dict.fromkeys(node_ids))
    _check_request(nodes, deadline_seconds)
    if isinstance(interpreter, DriverInterpreter):
        return PreparedInterpreter(
            executable=None, outcomes=tuple(NodeOutcome(node_id=each) for each in nodes)
        )
    spec = build_spec(interpreter, deadline_seconds, folder)
    waves = (nodes[:1], nodes[1:]) if shared else (nodes,)
    outcomes: list[NodeOutcome] = []
    for wave in waves:
        outcomes += _on_nodes(spec, wave)
        failures = [each for each in outcomes if each.problem]
        if failures:
            raise EnvironmentBuildError(interpreter, failures)
    executable = spec["executable"] or str(Path(spec["folder"], spec["key"], "bin", "python"))
    return PreparedInterpreter(executable=executable, outcomes=tuple(outcomes))


def build_spec(
    interpreter: InterpreterPath | BuiltEnvironment,
    deadline_seconds: float,
    folder: str | None = None,
) -> BuildSpec:
    """What a node is told, as plain data.

    Raises:
        PlanError: The folder's path cannot be used by Ray, or the environment was planned for
            another driver, or without the files that it is made of.
    """
    findings = Findings("python environment")
    default = os.environ.get("RANKPLAN_ENVIRONMENTS") or "~/.cache/rankplan/environments"
    place = str(Path(folder or default).expanduser().absolute())
    check_interpreter_path(place, place, findings, "folder of environments")
    facts = observe_interpreter_facts()
    spec = BuildSpec(
        executable="",
        uv_arguments=[],
        requirements=[],
        inherits_packages=False,
        sources=[],
        sources_digest="",
        folder=place,
        key="",
        python=facts.python_version,
        ray=facts.ray_version,
        deadline_seconds=deadline_seconds,
    )
    if isinstance(interpreter, InterpreterPath):
        spec["executable"] = interpreter.executable
    else:
        _check_plan(interpreter, facts, findings)
        _describe_build(interpreter, spec)
    findings.check()
    return spec


def _check_request(node_ids: Sequence[str], deadline_seconds: float) -> None:
    """What Ray would refuse in the middle of sending is found before anything is sent."""
    findings = Findings("python environment")
    for index, each in enumerate(node_ids):
        if not re.fullmatch(r"[0-9a-f]{56}", each) or each == "f" * 56:
            problem = f"{each!r} is not the id of a node"
            findings.add(f"node_ids[{index}]", problem, "give a NodeID of ray.nodes()")
    if not deadline_seconds > 0:
        remedy = "give a number of seconds above 0"
        findings.add("deadline_seconds", f"{deadline_seconds!r} leaves no time", remedy)
    findings.check()


def _check_plan(environment: BuiltEnvironment, facts: InterpreterFacts, findings: Findings) -> None:
    planned = (environment.python_version, environment.ray_version)
    if planned != (facts.python_version, facts.ray_version):
        problem = f"it was planned for Python {planned[0]} and Ray {planned[1]}"
        remedy = f"plan again: this driver has {facts.python_version} and {facts.ray_version}"
        findings.add(f"environment {environment.key}", problem, remedy)
    sources = local_sources_of(environment.source)
    if sources and not environment.content_digest:
        problem = f"it was planned without reading {', '.join(sources)}"
        remedy = "plan again where these can be read"
        findings.add(f"environment {environment.key}", problem, remedy)


def _describe_build(environment: BuiltEnvironment, spec: BuildSpec) -> None:
    spec["key"] = environment.key
    spec["sources"] = list(local_sources_of(environment.source))
    spec["sources_digest"] = environment.content_digest
    if isinstance(environment.source, UvProject):
        spec["uv_arguments"] = list(environment.source.command[2:])
    else:
        spec["requirements"] = list(environment.source.requirements)
        spec["inherits_packages"] = environment.source.inherits_driver_packages


def _on_nodes(spec: BuildSpec, node_ids: Sequence[str]) -> list[NodeOutcome]:
    """Run the builder once on each node, all at the same time, and gather every outcome."""
    # By value: rankplan may not be installed on the nodes.
    for module in (bounded_program, environment_builder):
        ray.cloudpickle.register_pickle_by_value(module)
    task = ray.remote(build_environment)
    answers = {
        node: task.options(
            name="rankplan: python environment",
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(spec)
        for node in node_ids
    }
    if not answers:
        return []
    seconds = spec["deadline_seconds"] + _ANSWER_SECONDS
    done, late = ray.wait(list(answers.values()), num_returns=len(answers), timeout=seconds)
    for answer in late:
        ray.cancel(answer, force=True)
    answered = set(done)
    addresses = {str(each["NodeID"]): str(each["NodeManagerAddress"]) for each in ray.nodes()}
    outcomes = [
        _outcome(node, answer)
        if answer in answered
        else NodeOutcome(node_id=node, problem=f"it did not answer within {seconds:g} s")
        for node, answer in answers.items()
    ]
    return [evolve(each, address=addresses.get(each.node_id, "")) for each in outcomes]


def _outcome(node_id: str, answer: ray.ObjectRef[BuildOutcome]) -> NodeOutcome:
    try:
        found = ray.get(answer)
    except ray.exceptions.RayError as error:
        return NodeOutcome(node_id=node_id, problem=f"{type(error).__name__}: {error}")
    return NodeOutcome(
        node_id=node_id,
        host=found["host"],
        built=found["built"],
        problem=found["problem"],
        output=found["output"],
    )


def _text(interpreter: Interpreter, failures: Sequence[NodeOutcome]) -> str:
    """Nodes with the same problem share a paragraph: a hundred nodes fail for one reason."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for each in failures:
        known = [text for text in (each.host, each.address and each.node_id[:12]) if text]
        name = each.address or each.node_id[:12]
        name = f"{name} ({', '.join(known)})" if known else name
        nodes.setdefault((each.problem, each.output), []).append(name)
    few = "1 node does" if len(failures) == 1 else f"{len(failures)} nodes do"
    lines = [f"{few} not have the interpreter {describe_interpreter(interpreter)}"]
    for (problem, output), names in nodes.items():
        lines.append(f"  - node {', '.join(names)}: {problem}")
        lines += [f"      {line}" for line in output.splitlines()]
    return "\n".join(lines)
