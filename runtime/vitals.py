"""What a worker's process shows of itself, so that it can be looked at from outside while busy.

It travels to the nodes by value with the host: standard library only. Nothing here needs the
worker's threads to answer: the state is a page of memory that another process of the same user
maps, and stacks are written by a signal handler in C, also while native code holds the
interpreter.
"""

import contextlib
import faulthandler
import mmap
import os
import signal
import struct
import time

__all__ = ["Vitals", "machine"]

PAGE = "<Id64s"
"""How many calls run, since when (seconds of the node's clock), and the method's name."""


class Vitals:
    """The page of one process."""

    def __init__(self) -> None:
        self._page_file = os.memfd_create("rankplan-state")
        os.ftruncate(self._page_file, struct.calcsize(PAGE))
        self._page = mmap.mmap(self._page_file, struct.calcsize(PAGE))
        self._stacks_file = os.memfd_create("rankplan-stacks", os.MFD_CLOEXEC)
        self._running = 0
        # A signal that launchers, schedulers and profilers do not use.
        self._signal = int(signal.SIGRTMAX) - 7
        faulthandler.register(self._signal, file=self._stacks_file, all_threads=True)
        _note_exit()

    def facts(self) -> dict[str, object]:
        """How to look at this process."""
        pid = os.getpid()
        return {
            "pid": pid,
            "started": started_at(pid),
            "page": self._page_file,
            "stacks": self._stacks_file,
            "signal": self._signal,
            "log": _log(),
            "machine": machine(),
            "oom_kills": oom_kills(),
        }

    def began(self, method: str) -> None:
        """Note that a call begins."""
        self._running += 1
        struct.pack_into(PAGE, self._page, 0, self._running, time.time(), method.encode()[:64])

    def ended(self) -> None:
        """Note that a call has ended."""
        self._running -= 1
        struct.pack_into("<Id", self._page, 0, self._running, time.time())


def _note_exit() -> None:
    leave = os._exit

    def noted(code: int) -> None:
        # Ray can't tell this from SIGKILL: the process itself says so before it goes.
        with contextlib.suppress(OSError):
            os.write(2, f"rankplan: os._exit called with {code}\n".encode())
        leave(code)

    os._exit = noted  # type: ignore[assignment]


def started_at(pid: int) -> int:
    """When a process started, in ticks since boot; tells it from a later one with its pid."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])
    return 0


def machine() -> str:
    """Which machine this is, and which processes of it are seen under which pids."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def oom_kills() -> int:
    """How many processes this kernel has ended for lack of memory since it booted."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _log() -> str:
    with contextlib.suppress(OSError):
        path = os.readlink("/proc/self/fd/2")
        return path if path.startswith("/") and os.path.isfile(path) else ""
    return ""
