"""Why a worker's process is gone: from what its cluster says and what it left behind."""

# Ray names few causes. It saw an exit code only when the process ended by itself; a connection
# that just closed may be SIGKILL, a crash or os._exit. What the process wrote at its end tells
# these apart: faulthandler names a crash's signal, and a host notes a call of os._exit.

import re
from collections.abc import Sequence
from enum import StrEnum

from attrs import frozen

from planner.amounts import size_text

__all__ = ["Death", "DeathCause", "Remains", "death_of", "tail_lines"]

EXIT_MARK = "rankplan: os._exit called with"
"""What a host writes to its standard error before it obeys ``os._exit``."""

TAIL_LINES = 12
LINES_BEFORE_CRASH = 4


class DeathCause(StrEnum):
    """What ended a process."""

    SIGNAL = "signal"
    EXIT = "exit"
    OUT_OF_MEMORY = "out of memory"
    NODE_LOST = "node lost"
    PREEMPTED = "preempted"
    ENDED = "ended"
    PLACE_REMOVED = "placement group removed"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"


@frozen(kw_only=True)
class Remains:
    """What a process left behind.

    Attributes:
        tail: The last lines of its standard error.
        oom_kills: How many processes the kernel of its node has ended for lack of memory since
            the process started; None when not known.
        kernel: What the kernel's log says of its end; empty where that could not be read.
        log: Where its standard error is.
        was_read: Whether its standard error could be read.
    """

    tail: tuple[str, ...] = ()
    oom_kills: int | None = None
    kernel: str = ""
    log: str = ""
    was_read: bool = True


@frozen(kw_only=True)
class Death:
    """Why a process is gone.

    Attributes:
        cause: What ended it.
        detail: The same in words.
        signal: Which signal, as ``SIGKILL``; the most likely one, where it left no trace; empty
            when it was none or is not known.
        exit_code: Its exit code, where it ended by itself.
        at: When, in seconds of the cluster's clock; None when not known.
        remains: What it left behind.
    """

    cause: DeathCause
    detail: str
    signal: str = ""
    exit_code: int | None = None
    at: float | None = None
    remains: Remains = Remains()

    @property
    def is_final(self) -> bool:
        """Whether the process is gone for good, not only out of reach."""
        return self.cause is not DeathCause.UNAVAILABLE


_FATAL = (
    ("Fatal Python error: Segmentation fault", "SIGSEGV"),
    ("Fatal Python error: Aborted", "SIGABRT"),
    ("Fatal Python error: Bus error", "SIGBUS"),
    ("Fatal Python error: Floating", "SIGFPE"),
    ("Fatal Python error: Illegal", "SIGILL"),
)
"""What faulthandler writes."""

_RECEIVED = re.compile(r"\*\*\* (SIG[A-Z0-9]+)\b")
"""What Ray's own handler writes of the signals that it takes."""

_CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"})
"""The signals by which a process ends itself."""

_KERNEL = re.compile(r"anon-rss:(\d+)kB, file-rss:(\d+)kB, shmem-rss:(\d+)kB")
"""What the kernel's log says that a process held when it was ended for lack of memory."""


def death_of(
    told: str, remains: Remains, *, at: float | None = None, preempted: bool = False
) -> Death:
    """Why a process is gone.

    Args:
        told: What Ray says about it.
        remains: What the process left behind.
        at: When it died.
        preempted: Whether Ray says that its node was taken away.
    """
    cause, detail, signal, code = _from_ray(told, preempted=preempted) or _from_remains(remains)
    return Death(cause=cause, detail=detail, signal=signal, exit_code=code, at=at, remains=remains)


def tail_lines(text: str) -> tuple[str, ...]:
    """The last lines of a log that say something: Ray's own marks are left out.

    A crash writes its name, then the stacks of all threads: the lines around the name count.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    said = [line for line in lines if line.strip() and not line.startswith((":job_id:", ":actor_"))]
    crashes = [at for at, line in enumerate(said) if _signal_in(line)]
    if crashes and len(said) - crashes[0] > TAIL_LINES - LINES_BEFORE_CRASH:
        first = max(0, crashes[0] - LINES_BEFORE_CRASH)
        return tuple(said[first : first + TAIL_LINES])
    return tuple(said[-TAIL_LINES:])


_Found = tuple[DeathCause, str, str, int | None]


def _from_ray(told: str, *, preempted: bool) -> _Found | None:
    low = told.lower()
    found: _Found | None = None
    if preempted:
        found = (DeathCause.PREEMPTED, "its node was taken away (preempted)", "", None)
    elif "low on memory" in low or "OutOfMemory" in told:
        found = (DeathCause.OUT_OF_MEMORY, _memory_text(told), "", None)
    elif "placement group" in low and "removed" in low:
        found = (DeathCause.PLACE_REMOVED, "its placement group was removed", "", None)
    elif "node has died" in low or "node died" in low or "node is dead" in low:
        found = (DeathCause.NODE_LOST, "its node is lost", "", None)
    elif "ray.kill" in told:
        found = (DeathCause.ENDED, "it was ended by ray.kill", "", None)
    elif "unavailable" in low and "may or may not" in low:
        text = "it cannot be reached now; the call may or may not have run, and is not sent again"
        found = (DeathCause.UNAVAILABLE, text, "", None)
    elif "receives a SIGTERM" in told:
        found = (DeathCause.SIGNAL, "its process was ended by SIGTERM", "SIGTERM", None)
    elif ended := re.search(r"its process was ended by (SIG[A-Z0-9]+)$", told):
        found = (DeathCause.SIGNAL, ended[0], ended[1], None)
    elif left := re.search(r"it called os._exit\((\d+)\)", told):
        found = (DeathCause.EXIT, left[0], "", int(left[1]))
    elif code := re.search(r"exits with an exit code (\d+)", told):
        found = (DeathCause.EXIT, f"it left with exit code {code[1]}", "", int(code[1]))
    elif "End of file" not in told and "connection error" not in told:
        found = (DeathCause.UNKNOWN, _sentences(told, ("The actor", "Worker exit")), "", None)
    return found


def _memory_text(told: str) -> str:
    """What the process held, and what its node had, where Ray says so."""
    held = re.search(r"Selected to kill: .*?actual memory used=([0-9.]+[KMGT]?B)", told)
    node = re.search(r"was ([0-9.]+[KMGT]?B) used / ([0-9.]+[KMGT]?B) limit", told)
    if held is None or node is None:
        said = _sentences(told, ("Memory on the node", "memory used", "top 10 memory"))
        return f"Ray ended it for lack of memory. {said}"
    return (
        f"Ray ended it for lack of memory: it held {held[1]}, and {node[1]} of its node's "
        f"{node[2]} were in use"
    )


def _from_remains(remains: Remains) -> _Found:
    text = "\n".join(remains.tail)
    if signal := _signal_in(text):
        how = "it crashed with" if signal in _CRASHES else "its process was ended by"
        return DeathCause.SIGNAL, f"{how} {signal}", signal, None
    if left := re.search(rf"{re.escape(EXIT_MARK)} (\d+)", text):
        return DeathCause.EXIT, f"it called os._exit({left[1]})", "", int(left[1])
    if ended := _KERNEL.search(remains.kernel):
        held = size_text(sum(map(int, ended.groups())) * 1024)
        text = f"the kernel of its node ended it (SIGKILL) for lack of memory: it held {held}"
        return DeathCause.OUT_OF_MEMORY, text, "SIGKILL", None
    if remains.oom_kills:
        return (
            DeathCause.OUT_OF_MEMORY,
            (
                "its process was most likely ended by the kernel of its node (SIGKILL), which has "
                f"ended {remains.oom_kills} for lack of memory since it started"
            ),
            "SIGKILL",
            None,
        )
    if not remains.was_read:
        place = f" ({remains.log})" if remains.log else ""
        text = f"its process was killed or crashed; its standard error{place} could not be read"
        return DeathCause.SIGNAL, text, "", None
    text = "its process was ended by a signal that leaves no trace, most likely SIGKILL"
    return DeathCause.SIGNAL, text, "SIGKILL", None


def _signal_in(text: str) -> str:
    """The signal that a process wrote it has got; empty when it wrote none."""
    fatal = next((signal for mark, signal in _FATAL if mark in text), "")
    received = _RECEIVED.search(text)
    return fatal or (received[1] if received else "")


def _sentences(text: str, starts: Sequence[str]) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    chosen = [line for line in lines if any(start in line for start in starts)]
    return " ".join(chosen or lines[:1])[:600]
