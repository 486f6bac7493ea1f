"""``init_ray``: attach to what runs, or start a local cluster for the GPUs that are seen."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.findings import PlanError
from runtime.connection import init_ray
from tests.conftest import ROOT

DRIVER = """
import json, sys
import ray
from runtime import init_ray
init_ray(log_dir=sys.argv[1] if len(sys.argv) > 1 else None)
init_ray()
context = ray.get_runtime_context()
print(json.dumps([context.gcs_address, ray.nodes()[0]["Labels"].get("rankplan/visible-gpus")]),
      flush=True)
sys.stdin.readline()
"""


class _Driver:
    """A driver in a process of its own that stays connected until it is told to end."""

    def __init__(self, folder: str, gpus: str, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        environment |= {
            "RAY_TMPDIR": folder,
            "CUDA_VISIBLE_DEVICES": gpus,
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def told(self) -> tuple[str, str]:
        """The cluster's address and whose GPUs it was made for."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("["):
                address, mark = json.loads(line)
                return address, mark
        raise AssertionError("the driver ended without a word")

    def end(self) -> None:
        """Let it go."""
        self._process.communicate("\n", timeout=60)


@pytest.fixture
def folder() -> Iterator[str]:
    """Where these drivers keep their note of a running cluster; the paths must be short."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as kept:
        yield kept


@pytest.mark.ray
def test_local_cluster_is_shared_by_drivers_that_see_the_same_gpus(folder: str) -> None:
    """The second driver with the same GPUs joins; one with others starts its own."""
    logs = f"{folder}/logs"
    # No other cluster on this machine was made for GPUs of these numbers.
    low, high, third = (number * 10_000_000 + os.getpid() for number in (1, 2, 3))
    first = _Driver(folder, f"{high},{low}", logs)
    address, mark = first.told()
    same, other = _Driver(folder, f"{low},{high}"), _Driver(folder, f"{third}")
    joined, apart = same.told(), other.told()
    for driver in (same, other, first):
        driver.end()
    assert mark == f"{low}_{high}"
    assert joined == (address, mark)
    assert apart[0] != address
    assert apart[1] == f"{third}"
    assert any(Path(logs).iterdir())


def test_log_folder_must_be_a_path() -> None:
    """Anything but a path is refused before Ray is touched."""
    with pytest.raises(PlanError, match="log_dir"):
        init_ray(3)  # type: ignore[arg-type]
