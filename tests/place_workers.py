"""Workers that tell where they are and what they are bound to."""

import ctypes
import os
import platform
import socket
import subprocess
from pathlib import Path

import ray

__all__ = ["Asked", "Seated"]


class Seated:
    """Leaves a mark when it is constructed, and tells about its process."""

    def __init__(self, marks: str = "") -> None:
        self.cores_at_start = sorted(os.sched_getaffinity(0))
        if marks:
            Path(marks, os.environ["RANK"]).touch()

    def cores(self) -> tuple[list[int], list[list[int]]]:
        """The cores of this process when it was constructed, and those of its threads now."""
        threads = [
            sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")
        ]
        return self.cores_at_start, threads

    def memory_policy(self) -> int:
        """The number of the kernel's memory policy of this thread."""
        number = {"x86_64": 239, "aarch64": 236}[platform.machine()]
        mode = ctypes.c_int(-1)
        ctypes.CDLL(None).syscall(number, ctypes.byref(mode), None, 0, 0, 0)
        return mode.value

    def ports(self) -> tuple[int, int]:
        """Its ports, after it has listened on each of them."""
        first, last = map(int, os.environ["RANKPLAN_PORTS"].split("-"))
        for port in range(first, last + 1):
            with socket.socket() as listening:
                listening.bind(("", port))
                listening.listen(1)
        return first, last

    def runtime_environment(self) -> str:
        """Ray's runtime environment of this process, as Ray tells it."""
        return str(ray.get_runtime_context().get_runtime_env_string())

    def variable(self, name: str) -> str | None:
        """A variable of its environment."""
        return os.environ.get(name)


class Asked:
    """Tells in which environments its class was asked and it lives."""

    def __init__(self, when_asked: dict[str, str]) -> None:
        self.when_asked = when_asked

    @staticmethod
    def configure_worker(
        num_gpus: float, bundle_indices: object
    ) -> tuple[dict[str, float], dict[str, str], dict[str, dict[str, str]]]:
        """Hand the environment on as a constructor's argument."""
        del num_gpus, bundle_indices
        return {}, {}, {"when_asked": dict(os.environ)}

    def environments(self) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """When asked, now, and the lines that a child process prints of its own."""
        done = subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True)
        return self.when_asked, dict(os.environ), done.stdout.splitlines()


class TakesWholeGpu:
    """Asks for all of its bundle's GPU, whatever its part would be."""

    @staticmethod
    def configure_worker(
        num_gpus: float, bundle_indices: tuple[int, list[int]] | None
    ) -> tuple[dict[str, float], dict[str, str], dict[str, object]]:
        """One GPU."""
        del num_gpus, bundle_indices
        return {"num_gpus": 1.0}, {}, {}
