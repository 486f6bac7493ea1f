"""What looks at workers from outside, on processes that are really there."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.companion import Companion, remains_of, state_of


@pytest.fixture
def told() -> Iterator[dict[str, object]]:
    """A process that waits, as its vitals tell of it."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
            started = int(file.read().rpartition(")")[2].split()[19])
        yield {"pid": process.pid, "started": started}
        process.kill()


def test_an_order_that_is_late_is_not_carried_out(told: dict[str, object]) -> None:
    """By the clock of the node; one in time is, and one without a time always."""
    companion = Companion()
    clock = companion.clock({7: told, 8: told})
    assert clock.keys() == {7, 8}
    assert clock[7] <= time.monotonic()
    assert companion.kill({7: {**told, "until": clock[7] - 1.0}}) == []
    assert state_of(told)
    assert companion.kill({7: {**told, "until": clock[7] + 600.0}}) == [7]
    assert not state_of(told)
    assert companion.kill({7: told}) == []


def test_another_process_of_the_same_pid_is_left_alone(told: dict[str, object]) -> None:
    """It has begun at another time."""
    assert Companion().kill({7: {**told, "started": 1}}) == []
    assert os.path.exists(f"/proc/{told['pid']}")
    assert Companion().kill({7: told}) == [7]


def test_what_is_left_is_told_where_namespaces_cannot_be_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the kernel's words."""
    log = tmp_path / "log"
    log.write_text("Killed")

    def hidden(path: str, **_: object) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as shut:
        shut.setattr("runtime.companion.os.stat", hidden)
        found = remains_of({"pid": 1, "started": 1, "log": str(log), "oom_kills": -1})
    assert found["oom_kills"]
    assert (found["text"], found["kernel"]) == ("Killed", "")
