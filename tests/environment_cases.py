"""Cases for building Python environments: plain requests, tiny packages, a uv that misbehaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from runtime.environment_builder import BuildOutcome, BuildSpec
from tests.wheels import write_wheel

__all__ = [
    "PYTHON",
    "RAY",
    "colours_wheel",
    "fake_ray_wheel",
    "fake_uv",
    "left_in",
    "plain_spec",
    "ready",
    "what_it_prints",
]

RAY = ray.__version__
PYTHON = ".".join(map(str, sys.version_info[:3]))


def plain_spec(tmp_path: Path, *requirements: str, key: str = "k") -> BuildSpec:
    """A request for an environment of these packages over the driver's own."""
    return BuildSpec(
        executable="",
        uv_arguments=[],
        requirements=list(requirements),
        inherits_packages=True,
        sources=[],
        sources_digest="",
        folder=str(tmp_path / "environments"),
        key=key,
        python=PYTHON,
        ray=RAY,
        deadline_seconds=100.0,
    )


def colours_wheel(tmp_path: Path, version: str) -> str:
    """A package that the driver does not have."""
    return write_wheel(tmp_path, "colours", version, f"VERSION = {version!r}\n")


def fake_ray_wheel(tmp_path: Path, version: str = RAY) -> str:
    """A stand-in for Ray that only knows its version."""
    return write_wheel(tmp_path, "ray", version, f"__version__ = {version!r}\n")


def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script first on the path, under the name uv."""
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def what_it_prints(executable: str, code: str) -> str:
    """What the environment's interpreter prints for a piece of code."""
    done = subprocess.run([executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ready(outcome: BuildOutcome) -> str:
    """The interpreter of an outcome that must be good."""
    assert outcome["problem"] == "", outcome["output"]
    return outcome["executable"]


def left_in(tmp_path: Path) -> list[str]:
    """The names in the folder of environments."""
    return sorted(path.name for path in (tmp_path / "environments").iterdir())
