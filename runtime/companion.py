"""A small process on a node that looks at workers from outside, and ends them.

One per node and group, started when first needed. It answers whatever state the workers are in:
it reads what they show (``runtime/vitals.py``) and what the kernel says about them, and asks
nothing of them. It travels by value: standard library only.
"""

import contextlib
import mmap
import os
import signal
import struct
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Companion", "kernel_line", "remains_of", "state_of"]

_PAGE = "<Id64s"
_GONE_SECONDS = 10.0
_OUTERMOST = 0xEFFFFFFC  # where pids are those of the kernel's log: the first namespace of all
_KILL_BIT = 1 << (signal.SIGKILL - 1)
_STOP_BIT = 1 << (signal.SIGSTOP - 1)


class Companion:
    """Looks after the workers of one group on one node; each is told by its vitals."""

    def look(self, workers: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, object]]:
        """Per rank: the kernel's state letter (empty when it is gone), and what it runs."""
        return {rank: _look(told) for rank, told in workers.items()}

    def stacks(self, workers: Mapping[int, Mapping[str, Any]], seconds: float) -> dict[int, str]:
        """Per rank the stacks of all its threads, or why there are none."""
        asked = {}
        texts = {}
        for rank, told in workers.items():
            state = state_of(told)
            if state in {"", "T"}:
                texts[rank] = "(it is stopped)" if state else "(it is dead)"
                continue
            asked[rank] = _size(told)
            os.kill(told["pid"], told["signal"])
        ends = time.monotonic() + seconds
        for rank, before in asked.items():
            texts[rank] = _written(workers[rank], before, ends)
        return texts

    def clock(self, workers: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
        """Per rank the time of its node, as ``kill`` reads it."""
        return dict.fromkeys(workers, time.monotonic())

    def kill(self, workers: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """End processes at once, stopped ones too; gives those that were alive and are gone.

        What is told of a worker may say ``until`` when by this node's clock: after that whoever
        asked has been told that it was not done.
        """
        now = time.monotonic()
        wanted = [rank for rank, told in workers.items() if now <= told.get("until", now)]
        alive = [rank for rank in wanted if state_of(workers[rank])]
        for rank in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[rank]["pid"], signal.SIGKILL)
        # A process that holds much memory takes a while to go.
        ends = time.monotonic() + _GONE_SECONDS
        while any(state_of(workers[rank]) for rank in alive) and time.monotonic() < ends:
            time.sleep(0.002)
        return [rank for rank in alive if not state_of(workers[rank])]

    def remains(self, workers: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, object]]:
        """Per rank what it left behind."""
        return {rank: remains_of(told) for rank, told in workers.items()}


def remains_of(told: Mapping[str, Any]) -> dict[str, object]:
    """The end of a process's standard error, and what the kernel says of its end."""
    kills = 0
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        kills = next((int(x.split()[1]) for x in file if x.startswith("oom_kill ")), 0)
    text = ""
    with contextlib.suppress(OSError), open(str(told.get("log", "")), "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 65536))
        text = log.read().decode(errors="replace")
    kills = max(0, kills - int(told.get("oom_kills", kills)))
    kernel = ""
    with contextlib.suppress(OSError):
        if kills and os.stat("/proc/self/ns/pid").st_ino == _OUTERMOST:
            kernel = kernel_line(told)
    return {"text": text, "oom_kills": kills, "kernel": kernel}


def kernel_line(told: Mapping[str, Any], log_file: str = "/dev/kmsg") -> str:
    """What the kernel's log says of the end of a process; empty where it can't be read."""
    mark, since = f"Killed process {told['pid']} (", told["started"] / os.sysconf("SC_CLK_TCK") - 1
    found = ""
    with contextlib.suppress(OSError, ValueError, IndexError):
        log = os.open(log_file, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while record := _next_record(log):
                told_at, _, line = record.partition(";")
                if mark in line and int(told_at.split(",")[2]) / 1e6 >= since:
                    found = line.partition("\n")[0]
        finally:
            os.close(log)
    return found


def _next_record(log: int) -> str:
    while True:
        with contextlib.suppress(BrokenPipeError):  # a record that was overwritten meanwhile
            try:
                return os.read(log, 8192).decode(errors="replace")
            except BlockingIOError:
                return ""


def _look(told: Mapping[str, Any]) -> dict[str, object]:
    state = _state_to_come(told)
    found: dict[str, object] = {"state": state, "running": 0, "method": "", "seconds": 0.0}
    if not state:
        return found
    with contextlib.suppress(OSError, ValueError):
        page = os.open(f"/proc/{told['pid']}/fd/{told['page']}", os.O_RDONLY)
        try:
            with mmap.mmap(page, struct.calcsize(_PAGE), prot=mmap.PROT_READ) as mapped:
                running, since, method = struct.unpack_from(_PAGE, mapped, 0)
        finally:
            os.close(page)
        found["running"] = running
        found["seconds"] = max(0.0, time.time() - since) if since else 0.0
        found["method"] = method.rstrip(b"\0").decode(errors="replace") if running else ""
    return found


def state_of(told: Mapping[str, Any]) -> str:
    """The kernel's state letter; empty when the process is gone, or its pid is another's now."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{told['pid']}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
        if int(fields[19]) == told["started"] and fields[0] not in {"Z", "X"}:
            return "T" if fields[0] == "t" else fields[0]
    return ""


def _state_to_come(told: Mapping[str, Any]) -> str:
    """The state, signals included that were sent and not obeyed yet: a busy node takes a moment."""
    state = state_of(told)
    with contextlib.suppress(OSError), open(f"/proc/{told['pid']}/status") as file:
        for line in file:
            if line.startswith(("SigPnd:", "ShdPnd:")):
                pending = int(line.split()[1], 16)
                if pending & _KILL_BIT:
                    return ""
                state = "T" if state and pending & _STOP_BIT else state
    return state


def _size(told: Mapping[str, Any]) -> int:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{told['pid']}/fd/{told['stacks']}").st_size
    return 0


def _written(told: Mapping[str, Any], before: int, ends: float) -> str:
    size = before
    while time.monotonic() < ends:
        now = _size(told)
        if now > before and now == size:
            break
        size = now
        time.sleep(0.02)
    text = ""
    with contextlib.suppress(OSError), open(f"/proc/{told['pid']}/fd/{told['stacks']}", "rb") as f:
        f.seek(before)
        text = f.read(65536).decode(errors="replace")
    return text or "(no answer: it may be in a system call that can't be interrupted)"
