"""Worker groups in Python environments of their own, on a real Ray cluster."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from planner.codec import plan_to_json
from planner.interpreter import BuiltEnvironment
from runtime import (
    ACTOR_ENVIRONMENT_REGISTRY,
    PreflightError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
)
from tests.wheels import write_wheel

WORKER = """
import os
import sys

import colours


class Shade:
    def __init__(self, factor):
        self.factor = factor

    def about(self, number):
        return colours.VERSION, sys.executable, os.environ["VIRTUAL_ENV"], number * self.factor
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The registry, with a folder of environments of the test's own."""
    monkeypatch.setenv("RANKPLAN_ENVIRONMENTS", str(tmp_path / "environments"))
    kept = dict(ACTOR_ENVIRONMENT_REGISTRY)
    yield ACTOR_ENVIRONMENT_REGISTRY
    ACTOR_ENVIRONMENT_REGISTRY.clear()
    ACTOR_ENVIRONMENT_REGISTRY.update(kept)


def _shade(folder: Path, number: str) -> str:
    """A worker's package that needs one version of another; the command that installs both."""
    colours = write_wheel(folder, "colours", f"{number}.0", f"VERSION = '{number}.0'\n")
    worker = write_wheel(folder, f"shade_{number}", "0.1", WORKER)
    return f"uv pip install {colours} {worker}"


def test_two_groups_whose_classes_need_different_versions(
    cluster_of_nodes: Cluster, tmp_path: Path, registry: dict[str, str]
) -> None:
    """One program, two groups, two versions of a package; the driver can import none of it."""
    answers = []
    with RayVirtualCluster([2], max_colocated_worker_groups=2) as cluster:
        groups = []
        for number in ("1", "2"):
            registry[f"shade_{number}.Shade"] = _shade(tmp_path, number)
            builder = RayWorkerBuilder(f"shade_{number}.Shade", 10)
            groups.append(RayWorkerGroup(cluster, builder, name_prefix=f"shade{number}"))
        for group in groups:
            futures = group.run_all_workers_single_data("about", number=3)
            answers.append(ray.get(futures))
            assert isinstance(group.plan.interpreter, BuiltEnvironment)
            [row] = [row for row in group.preflight.rows if row.check == "class"]
            assert row.found.endswith(f"shade_{group.name[-1]}.py (0.1)")
            group.shutdown()
    assert [[each[0] for each in group] for group in answers] == [["1.0"] * 2, ["2.0"] * 2]
    assert [each[3] for group in answers for each in group] == [30] * 4
    for _, executable, folder, _ in (each for group in answers for each in group):
        assert executable == os.path.join(folder, "bin", "python")
    assert importlib.util.find_spec("colours") is None
    assert importlib.util.find_spec("shade_1") is None


def test_class_that_is_not_in_its_environment(
    cluster_of_nodes: Cluster, tmp_path: Path, registry: dict[str, str]
) -> None:
    """The class is missing where it should be: an error that names it, before any constructor."""
    colours = write_wheel(tmp_path, "colours", "1.0", "VERSION = '1.0'\n")
    registry["shade_9.Shade"] = f"uv pip install {colours}"
    with RayVirtualCluster([1]) as cluster, pytest.raises((ImportError, PreflightError)) as caught:
        RayWorkerGroup(cluster, RayWorkerBuilder("shade_9.Shade", 1))
    assert "shade_9" in str(caught.value)


def test_a_secret_is_in_no_plan_and_no_process_list(
    cluster_of_nodes: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A credential reaches the worker, and is nowhere that others can read."""
    hidden = "hunter2-and-a-half"
    caplog.set_level("DEBUG", logger="rankplan")
    with (
        RayVirtualCluster([1]) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("tests.place_workers.Seated"),
            name_prefix="careful",
            env_vars={"MY_API_TOKEN": hidden, "PYTHONUTF8": "1"},
        ) as group,
    ):
        assert ray.get(group.workers[0].variable.remote("MY_API_TOKEN")) == hidden
        told = [*_command_lines(), plan_to_json(group.plan), repr(group.plan), caplog.text]
        options = ray.get(group.workers[0].runtime_environment.remote())
        assert not any(hidden in text for text in (*told, options))
        assert "PYTHONUTF8" in options
        assert any("start about twice as slowly" in note for note in group.plan.notes)


def _command_lines() -> list[str]:
    lines: list[str] = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(process.read_bytes().decode(errors="replace"))
    return lines
