"""Worker groups in Python environments of their own, on a real Ray cluster."""

import contextlib
import importlib.util
import os
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from planner.codec import plan_to_json
from planner.environment import EnvironmentPolicy
from planner.findings import PlanError
from planner.interpreter import BuiltEnvironment
from planner.mesh import NamedSharding
from runtime import (
    ACTOR_ENVIRONMENT_REGISTRY,
    PreflightError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
)
from runtime.interpreters import EnvironmentBuildError
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


ABROAD = """
class Abroad:
    def __init__(self, axes):
        self.axes = axes

    def has_rankplan(self):
        try:
            import runtime
        except ImportError:
            return False
        return True

    def coordinates(self, rank):
        return self.axes.get_worker_coords(rank)

    def takes(self, axes):
        return type(axes).__module__, axes == self.axes

    def gives(self):
        return self.axes
"""

WITHOUT = """
import sys


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("planner", "runtime"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Finder())
"""


def _python_without_rankplan(folder: Path) -> str:
    """An interpreter with this one's packages and a worker's module.

    The nodes have this folder on their search path, so it must refuse to import rankplan.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    shared = [each for each in sys.path if Path(each).name == "site-packages"]
    lines = "\n".join([*shared, "import without_rankplan"])
    (packages / "shared.pth").write_text(lines, encoding="utf-8")
    (packages / "without_rankplan.py").write_text(WITHOUT, encoding="utf-8")
    (packages / "axes_abroad.py").write_text(ABROAD, encoding="utf-8")
    return str(folder / "bin" / "python")


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


def test_an_interpreter_that_is_not_there(
    cluster_of_nodes: Cluster, registry: dict[str, str]
) -> None:
    """The error names the group, the node by its address, and what is missing."""
    registry["shade_8.Shade"] = "/no/such/python"
    with RayVirtualCluster([1]) as cluster, pytest.raises(EnvironmentBuildError) as caught:
        RayWorkerGroup(cluster, RayWorkerBuilder("shade_8.Shade", 1), name_prefix="pale")
    address = ray.util.get_node_ip_address()
    text = str(caught.value)
    assert text.startswith(
        "worker group 'pale': 1 node does not have the interpreter prebuilt: /no/such/python\n"
        f"  - node {address} ("
    )
    assert text.endswith("/no/such/python is not an executable file on this node")
    (failure,) = caught.value.failures
    assert failure.address == address


def test_axes_reach_an_interpreter_that_lacks_rankplan(
    cluster_of_nodes: Cluster, tmp_path: Path, registry: dict[str, str]
) -> None:
    """As the constructor's argument, a call's, and a result; errors and other actors too."""
    registry["axes_abroad.Abroad"] = _python_without_rankplan(tmp_path / "abroad")
    axes = NamedSharding([[2, 3], [0, 1]], ["data_parallel", "tensor_parallel"])
    with (
        RayVirtualCluster([1], max_colocated_worker_groups=2) as cluster,
        RayWorkerGroup(cluster, RayWorkerBuilder("axes_abroad.Abroad", axes=axes)) as group,
    ):
        worker = group.workers[0]
        assert ray.get(worker.has_rankplan.remote()) is False
        assert ray.get(worker.coordinates.remote(2)) == axes.get_worker_coords(2)
        assert ray.get(worker.takes.remote(axes)) == ("planner.mesh", True)
        again = ray.get(worker.gives.remote())
        assert type(again) is NamedSharding
        assert again == axes
        with pytest.raises(PlanError, match="rank 9 is not in the layout"):
            ray.get(worker.coordinates.remote(9))


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


@pytest.mark.parametrize(
    ("policy", "stays"),
    [
        (EnvironmentPolicy(), {"RANKPLAN_TEST_PLAIN"}),
        (EnvironmentPolicy(inherit=()), set()),
        (EnvironmentPolicy(inherit=("RANKPLAN_TEST_P*",)), {"RANKPLAN_TEST_PLAIN"}),
        (
            EnvironmentPolicy(credentials=("RANKPLAN_TEST_*",)),
            {"RANKPLAN_TEST_PLAIN", "RANKPLAN_TEST_API_TOKEN"},
        ),
    ],
    ids=["default", "strict", "by pattern", "credential named"],
)
def test_the_policy_counts_for_what_the_nodes_have(
    cluster_of_nodes: Cluster, policy: EnvironmentPolicy, stays: set[str]
) -> None:
    """The shell that started Ray handed its variables to every process of the node."""
    with (
        RayVirtualCluster([1]) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("tests.place_workers.Asked"),
            env_vars={"GIVEN_TOKEN": "mine"},
            environment_policy=policy,
        ) as group,
    ):
        *own, child = ray.get(group.workers[0].environments.remote())
    for found in own:
        assert {name for name in found if name.startswith("RANKPLAN_TEST_")} == stays
        assert "SLURM_JOB_ID" not in found
        assert {"PATH", "HOME", "GIVEN_TOKEN"} <= found.keys()
    assert {line.partition("=")[0] for line in child if "RANKPLAN_TEST_" in line} == stays


def _command_lines() -> list[str]:
    lines: list[str] = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(process.read_bytes().decode(errors="replace"))
    return lines
