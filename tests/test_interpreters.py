"""The registry, and interpreters on the nodes of a real cluster."""

import copy
import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from attrs import evolve

from planner.findings import PlanError
from planner.interpreter import (
    BuiltEnvironment,
    DriverInterpreter,
    InterpreterPath,
    UvProject,
    requirement_environment,
)
from runtime.interpreters import (
    ACTOR_ENVIRONMENT_REGISTRY,
    EnvironmentBuildError,
    NodeOutcome,
    build_spec,
    get_actor_python_env,
    interpreter_of,
    observe_interpreter_facts,
    prepare_interpreter,
)
from tests.wheels import write_wheel


@pytest.fixture(autouse=True)
def _own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty registry and a folder of environments of the test's own."""
    monkeypatch.setenv("RANKPLAN_ENVIRONMENTS", str(tmp_path / "environments"))
    kept = dict(ACTOR_ENVIRONMENT_REGISTRY)
    ACTOR_ENVIRONMENT_REGISTRY.clear()
    yield
    ACTOR_ENVIRONMENT_REGISTRY.clear()
    ACTOR_ENVIRONMENT_REGISTRY.update(kept)


def test_a_registered_class_is_looked_up_when_asked() -> None:
    """A change of the registry counts from the next look-up."""
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = "/a/bin/python"
    assert get_actor_python_env("engine.Worker") == "/a/bin/python"
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = "/b/bin/python"
    assert get_actor_python_env("engine.Worker") == "/b/bin/python"
    assert interpreter_of("engine.Worker") == InterpreterPath(executable="/b/bin/python")


def test_an_unknown_class_is_told_how_to_register() -> None:
    """The error shows the line to write, and the nearest names."""
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = "/a/bin/python"
    with pytest.raises(ValueError, match="no Python environment is registered") as caught:
        get_actor_python_env("engine.Wroker")
    assert str(caught.value) == (
        "no Python environment is registered for 'engine.Wroker'. Register one: "
        "ACTOR_ENVIRONMENT_REGISTRY['engine.Wroker'] = '/path/of/python' or "
        "'uv run --locked --extra NAME --directory /folder/of/project'. "
        "The nearest registered names are engine.Worker."
    )


@pytest.mark.parametrize("name", [5, None, ["engine.Worker"]])
def test_what_is_no_name_is_no_class(name: Any) -> None:
    """A value that no registry can hold is not said to be missing from it."""
    with pytest.raises(ValueError, match="is not the full name of a class"):
        get_actor_python_env(name)


def test_an_entry_that_is_no_text_names_its_place() -> None:
    """With what it may be."""
    registry: dict[str, Any] = ACTOR_ENVIRONMENT_REGISTRY
    registry["engine.Worker"] = 5
    with pytest.raises(PlanError) as caught:
        interpreter_of("engine.Worker")
    assert str(caught.value) == (
        "python environment: ACTOR_ENVIRONMENT_REGISTRY['engine.Worker']: a value of type int; "
        "give the absolute path of an interpreter, 'uv run ...' or 'uv pip install ...'"
    )


def test_an_unregistered_class_runs_in_the_drivers_interpreter() -> None:
    """A group of such a class starts all the same."""
    assert interpreter_of("engine.Worker") == DriverInterpreter()


def test_a_bad_text_names_its_place_in_the_registry() -> None:
    """The finding's path is what the user would type."""
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = "python"
    with pytest.raises(PlanError) as caught:
        interpreter_of("engine.Worker")
    assert [each.path for each in caught.value.findings] == [
        "ACTOR_ENVIRONMENT_REGISTRY['engine.Worker']"
    ]


def test_missing_files_are_found_before_anything_is_sent(tmp_path: Path) -> None:
    """A project without a lock file cannot be the same on every node."""
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = f"uv run --locked --directory {tmp_path}"
    with pytest.raises(PlanError) as caught:
        interpreter_of("engine.Worker")
    assert str(caught.value) == (
        "python environment: ACTOR_ENVIRONMENT_REGISTRY['engine.Worker']: its files cannot be "
        f"read: {tmp_path} belongs to no project with a uv.lock; make it by 'uv lock'; correct "
        "the path, or make the file"
    )


def test_the_key_follows_the_projects_files(tmp_path: Path) -> None:
    """A new lock file is a new environment."""
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = f"uv run --locked --directory {tmp_path}"
    (tmp_path / "uv.lock").write_text("one", encoding="utf-8")
    first = interpreter_of("engine.Worker")
    (tmp_path / "uv.lock").write_text("two", encoding="utf-8")
    second = interpreter_of("engine.Worker")
    assert isinstance(first, BuiltEnvironment)
    assert isinstance(second, BuiltEnvironment)
    assert first.source == second.source
    assert first.key != second.key


def test_a_node_is_told_what_the_plan_says(tmp_path: Path) -> None:
    """The plan's environment becomes plain data, with the driver's versions."""
    (tmp_path / "uv.lock").write_text("one", encoding="utf-8")
    ACTOR_ENVIRONMENT_REGISTRY["engine.Worker"] = f"uv run --locked --directory {tmp_path}"
    environment = interpreter_of("engine.Worker")
    assert isinstance(environment, BuiltEnvironment)
    assert isinstance(environment.source, UvProject)
    assert build_spec(environment, 30.0) == {
        "executable": "",
        "uv_arguments": ["--directory", str(tmp_path), "--locked"],
        "requirements": [],
        "inherits_packages": False,
        "sources": [str(tmp_path)],
        "sources_digest": environment.content_digest,
        "folder": str(tmp_path / "environments"),
        "key": environment.key,
        "python": ".".join(map(str, sys.version_info[:3])),
        "ray": ray.__version__,
        "deadline_seconds": 30.0,
    }


def test_an_environment_planned_elsewhere_is_refused_with_every_reason() -> None:
    """A plan for another driver, without its files, in a folder that Ray cannot use."""
    facts = evolve(observe_interpreter_facts(), ray_version="1.0")
    environment = requirement_environment(["/w/a-1.whl"], facts)
    with pytest.raises(PlanError) as caught:
        build_spec(environment, 30.0, "/my folder")
    name = f"environment {environment.key}"
    assert [str(each).partition(";")[0] for each in caught.value.findings] == [
        "folder of environments: Ray cannot start '/my folder': a blank, quote or wildcard",
        f"{name}: it was planned for Python {facts.python_version} and Ray 1.0",
        f"{name}: it was planned without reading /w/a-1.whl",
    ]


def test_nodes_that_fail_alike_share_a_line() -> None:
    """A hundred nodes usually fail for one reason; the error survives pickling."""
    failures = [
        NodeOutcome(
            node_id="a" * 56,
            address="10.0.0.1",
            host="one",
            problem="it failed",
            output="last\nwords",
        ),
        NodeOutcome(node_id="b" * 56, problem="it did not answer within 15 s"),
        NodeOutcome(node_id="c" * 56, host="two", problem="it failed", output="last\nwords"),
    ]
    error = EnvironmentBuildError(InterpreterPath(executable="/x/bin/python"), failures)
    assert str(error) == (
        "3 nodes do not have the interpreter prebuilt: /x/bin/python\n"
        "  - node 10.0.0.1 (one, aaaaaaaaaaaa), cccccccccccc (two): it failed\n"
        "      last\n"
        "      words\n"
        "  - node bbbbbbbbbbbb: it did not answer within 15 s"
    )
    again = copy.copy(error)
    assert (again.interpreter, again.failures) == (error.interpreter, error.failures)


def test_the_drivers_interpreter_needs_no_cluster() -> None:
    """Nothing is sent, and Ray is left to choose."""
    prepared = prepare_interpreter(DriverInterpreter(), ["a" * 56], 30.0)
    assert prepared.executable is None
    assert [each.node_id for each in prepared.outcomes] == ["a" * 56]


def test_bad_arguments_are_all_found_before_anything_is_sent() -> None:
    """Node ids that Ray would refuse one by one, and a deadline that leaves no time."""
    with pytest.raises(PlanError) as caught:
        prepare_interpreter(DriverInterpreter(), ["a" * 56, "node-1", "f" * 56], 0.0)
    assert [each.path for each in caught.value.findings] == [
        "node_ids[1]",
        "node_ids[2]",
        "deadline_seconds",
    ]


@pytest.fixture(scope="module")
def node_id() -> Iterator[str]:
    """The one node of a small cluster."""
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().get_node_id()
    if started:
        ray.shutdown()


class _Shade:
    """A worker whose package is not importable in the driver."""

    def version(self) -> tuple[str, str]:
        import colours  # type: ignore[import-not-found]

        return colours.VERSION, sys.executable


@pytest.mark.ray
def test_two_groups_use_different_versions_of_a_package(tmp_path: Path, node_id: str) -> None:
    """Each class gets its version, in one program; the driver can import neither."""
    seen = []
    for version in ("1.0", "2.0"):
        wheel = write_wheel(tmp_path, "colours", version, f"VERSION = {version!r}\n")
        ACTOR_ENVIRONMENT_REGISTRY[f"shades.V{version}"] = f"uv pip install {wheel}"
        interpreter = interpreter_of(f"shades.V{version}")
        prepared = prepare_interpreter(interpreter, [node_id], 100.0)
        assert prepared.outcomes == (
            NodeOutcome(
                node_id=node_id,
                address=ray.util.get_node_ip_address(),
                host=socket.gethostname(),
                built=True,
            ),
        )
        assert not prepare_interpreter(interpreter, [node_id], 100.0).outcomes[0].built
        shade = ray.remote(_Shade).options(
            num_cpus=0, runtime_env={"py_executable": prepared.executable}
        )
        actor = shade.remote()
        seen.append((ray.get(actor.version.remote(), timeout=60), prepared.executable))
        ray.kill(actor)
    assert [version for (version, _), _ in seen] == ["1.0", "2.0"]
    assert [used for (_, used), _ in seen] == [prepared for _, prepared in seen]
    assert importlib.util.find_spec("colours") is None


@pytest.mark.ray
def test_every_node_that_fails_is_named_at_once(node_id: str) -> None:
    """A node that fails and a node that is not there are told in one error."""
    missing = "a" * 56
    with pytest.raises(EnvironmentBuildError) as caught:
        prepare_interpreter(InterpreterPath(executable="/no/python"), [node_id, missing], 20.0)
    failures = {each.node_id: each.problem for each in caught.value.failures}
    assert failures[node_id] == "/no/python is not an executable file on this node"
    assert failures[missing].startswith("TaskUnschedulableError")


@pytest.mark.ray
def test_a_builders_failure_reaches_the_driver_with_its_output(
    tmp_path: Path, node_id: str
) -> None:
    """The exit code is seen inside Ray's workers too, and the last lines come along."""
    broken = tmp_path / "colours-1.0-py3-none-any.whl"
    broken.write_bytes(b"this is no wheel")
    environment = requirement_environment(
        [str(broken)], observe_interpreter_facts([str(broken)]), inherit_driver_packages=True
    )
    with pytest.raises(EnvironmentBuildError) as caught:
        prepare_interpreter(environment, [node_id], 100.0, shared=True)
    (failure,) = caught.value.failures
    assert "failed with exit code" in failure.problem
    assert "colours-1.0-py3-none-any.whl" in failure.output
    assert os.listdir(tmp_path / "environments") == []
