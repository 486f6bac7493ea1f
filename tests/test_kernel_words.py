"""What the kernel's log says of processes that it ended for lack of memory."""

import os

import pytest

from planner.failure_causes import DeathCause, Remains, death_of
from runtime.companion import kernel_line

TICKS = os.sysconf("SC_CLK_TCK")
END_OF_FILE = "Worker exit detail: Worker unexpectedly exits with a connection error. End of file."
KILLED = (
    "Memory cgroup out of memory: Killed process {pid} (ray::eat) total-vm:8917664kB, "
    "anon-rss:450724kB, file-rss:39600kB, shmem-rss:0kB, UID:0 pgtables:1196kB oom_score_adj:1000"
)


def _log(*records: str) -> int:
    """A file from which each read gives one record, as from the kernel's log."""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    for record in records:
        os.write(writing, record.encode())
    return reading


def _line_of(pid: int, log: int, started: int = 100 * TICKS) -> str:
    return kernel_line({"pid": pid, "started": started}, f"/proc/self/fd/{log}")


def test_the_kernels_word_for_a_process_is_found() -> None:
    """The one about this process; lines that follow a record are no part of it."""
    log = _log(
        "6,1,200000000,-;usb 1-1: new device\n",
        f"3,2,201000000,-;{KILLED.format(pid=7)}\n",
        f"3,3,202000000,-;{KILLED.format(pid=77)}\n SUBSYSTEM=memory\n",
    )
    assert _line_of(77, log) == KILLED.format(pid=77)


def test_a_process_that_had_the_same_pid_before_is_another() -> None:
    """It was ended before this one started."""
    log = _log(f"3,2,50000000,-;{KILLED.format(pid=7)}\n")
    assert _line_of(7, log) == ""


@pytest.mark.parametrize(
    "record", ["no record", "3,2;Killed process 7 (", "3,2,x,-;Killed process 7 ("]
)
def test_what_cannot_be_read_says_nothing(record: str) -> None:
    """Neither does a log that may not be opened."""
    assert _line_of(7, _log(record)) == ""
    assert kernel_line({"pid": 7, "started": 0}, "/nowhere") == ""


def test_the_error_says_what_the_process_held() -> None:
    """Memory of its own, of files and shared."""
    death = death_of(END_OF_FILE, Remains(oom_kills=1, kernel=KILLED.format(pid=7)))
    assert (death.cause, death.signal) == (DeathCause.OUT_OF_MEMORY, "SIGKILL")
    told = "the kernel of its node ended it (SIGKILL) for lack of memory: it held 478.8 MiB"
    assert death.detail == told
