"""Builders that die, hang, fail or meet: an environment is there completely, or not at all."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime import environment_builder
from runtime.environment_builder import BuildOutcome, build_environment, find_uv
from tests.environment_cases import (
    colours_wheel,
    fake_uv,
    left_in,
    plain_spec,
    ready,
    what_it_prints,
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and locks of the test's own."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """Half an environment is removed, and the next call builds again."""
    spec = plain_spec(tmp_path, str(tmp_path / "colours-1.0-py3-none-any.whl"))
    assert "'uv pip install' failed" in build_environment(spec)["problem"]
    assert left_in(tmp_path) == []
    colours_wheel(tmp_path, "1.0")
    assert build_environment(spec)["built"]


def test_the_deadline_ends_the_builder_and_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grandchild that holds the pipe open ends too, or this test would never read its end."""
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    fake_uv(tmp_path, monkeypatch, f"exec 9>{tmp_path}/alive; echo begun; sleep 1000 & wait")
    spec = plain_spec(tmp_path, "colours")
    spec["deadline_seconds"] = 0.5
    outcome = build_environment(spec)
    assert outcome["problem"] == "'uv venv --no-project' had not ended when the deadline passed"
    assert outcome["output"] == "begun"
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_an_interpreter_that_hangs_is_named(tmp_path: Path) -> None:
    """A prebuilt interpreter that does not answer is told by its name, without our own code."""
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n", encoding="utf-8")
    hanging.chmod(0o755)
    spec = plain_spec(tmp_path)
    spec["executable"] = str(hanging)
    spec["deadline_seconds"] = 0.2
    assert build_environment(spec)["problem"] == (
        "'hanging' had not ended when the deadline passed"
    )


def test_a_builder_that_was_killed_leaves_no_lock_no_orphan_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle of a build: the next builder cleans up and builds."""
    os.mkfifo(tmp_path / "begun")
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    with monkeypatch.context() as patch:
        fake_uv(
            tmp_path,
            patch,
            f'for last; do :; done; mkdir -p "$last/half"; exec 9>{tmp_path}/begun; echo x >&9; '
            "exec sleep 1000",
        )
        patch.setenv("TMPDIR", str(tmp_path))
        code = (
            "import json, sys; from runtime.environment_builder import build_environment; "
            "build_environment(json.loads(sys.argv[1]))"
        )
        root = Path(environment_builder.__file__).parents[1]
        builder = subprocess.Popen([sys.executable, "-c", code, json.dumps(spec)], cwd=root)
    with (tmp_path / "begun").open(encoding="utf-8") as begun:
        assert begun.readline() == "x\n"
        (half,) = left_in(tmp_path)
        builder.send_signal(signal.SIGKILL)
        assert builder.wait() == -signal.SIGKILL
        # The end of the file comes when the orphan is gone.
        assert begun.read() == ""
    outcome = build_environment(spec)
    assert what_it_prints(ready(outcome), "import colours; print(colours.VERSION)") == "1.0"
    assert outcome["built"]
    left = left_in(tmp_path)
    assert half not in left
    assert len(left) == 2


def test_two_builders_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the lock, and then finds the environment of the first."""
    os.mkfifo(tmp_path / "go")
    real = find_uv()
    fake_uv(
        tmp_path,
        monkeypatch,
        f'if [ "$1" = venv ]; then echo venv >> {tmp_path}/log; read x < {tmp_path}/go; fi\n'
        f'exec {real} "$@"',
    )
    waiting = threading.Event()
    sleep = time.sleep

    def _sleep(seconds: float) -> None:
        waiting.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", _sleep)
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    with ThreadPoolExecutor(2) as pool:
        builders = [pool.submit(build_environment, spec) for _ in range(2)]
        assert waiting.wait(60)
        (tmp_path / "go").write_text("go\n", encoding="utf-8")
        outcomes = [each.result() for each in builders]
    assert sorted(each["built"] for each in outcomes) == [False, True]
    assert ready(outcomes[0]) == ready(outcomes[1])
    assert (tmp_path / "log").read_text(encoding="utf-8") == "venv\n"


def test_a_builder_that_waits_too_long_names_the_one_at_work(tmp_path: Path) -> None:
    """The deadline counts the wait for the lock."""
    spec = plain_spec(tmp_path, "colours")
    published = Path(spec["folder"], spec["key"])
    spec["deadline_seconds"] = 0.0
    with environment_builder._lock(published, float("inf")):
        assert build_environment(spec)["problem"] == (
            f"process {os.getpid()} on this host was still building it when the deadline passed; "
            "allow more time"
        )


def test_two_hosts_without_a_common_lock_publish_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared folder the slower host discards its own work and uses the other's."""
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    published = Path(spec["folder"], spec["key"])
    publish = environment_builder._publish
    outcomes: list[BuildOutcome] = []

    def _other_host_is_first(place: Path, link: Path) -> bool:
        monkeypatch.setattr(environment_builder, "_publish", publish)
        monkeypatch.setattr(environment_builder, "_place", lambda: "other-host")
        outcomes.append(build_environment(spec))
        return publish(place, link)

    monkeypatch.setattr(environment_builder, "_lock", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(environment_builder, "_publish", _other_host_is_first)
    outcomes.append(build_environment(spec))
    assert [each["built"] for each in outcomes] == [True, False]
    assert left_in(tmp_path) == ["k", published.readlink().name]
    assert published.readlink().name.startswith("k.other-host.")


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    """A folder that rankplan did not make is neither used nor removed."""
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    published = Path(spec["folder"], spec["key"])
    published.mkdir(parents=True)
    assert build_environment(spec)["problem"] == (
        f"{published} is in the way and is no environment of rankplan; remove it"
    )
    assert left_in(tmp_path) == ["k"]


def test_an_environment_whose_folder_was_removed_is_built_again(tmp_path: Path) -> None:
    """A link that leads nowhere is no environment."""
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    build_environment(spec)
    (_, built) = left_in(tmp_path)
    Path(spec["folder"], built).rename(tmp_path / "away")
    assert build_environment(spec)["built"]
