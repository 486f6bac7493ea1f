"""What workers find around them in process is theirs, and the driver's stays the driver's."""

import os
import pickle
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runtime import RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.testing import InProcessCluster

BOUND = "tests.bound_names"
OBSERVER = RayWorkerBuilder("tests.surrounded_workers.Observer")
ASYNC_SLEEPER = RayWorkerBuilder("tests.surrounded_workers.AsyncSleeper")


@pytest.fixture
def unbound() -> Iterator[None]:
    """Whoever imports the module that binds names is the first."""
    sys.modules.pop(BOUND, None)
    yield
    sys.modules.pop(BOUND, None)


def _names() -> Any:
    return sys.modules[BOUND]


@pytest.mark.usefixtures("unbound")
def test_a_module_that_a_worker_imports_first_is_everybodys() -> None:
    """Each rank sees itself through it, in another cluster too; the driver sees the real."""
    for _ in range(2):
        with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
            before = cluster.now
            found = group.call("bound", BOUND).by_rank()
            assert found == {rank: (str(rank), str(rank), True, 100.0) for rank in range(2)}
            assert 100 <= cluster.now - before < 101
            _check_real(_names())
        _check_real(_names())
    assert _names().environ is os.environ


def _check_real(names: Any) -> None:
    assert names.environ.get("RANK") == os.environ.get("RANK")
    assert names.getpid() == os.getpid()
    first, real, second = names.monotonic(), time.monotonic(), names.monotonic()
    assert first <= real <= second
    names.sleep(0.002)
    assert names.monotonic() - second >= 0.002


@pytest.mark.usefixtures("unbound")
def test_ranks_of_an_async_class_see_themselves_too() -> None:
    """Although their steps take turns."""
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, ASYNC_SLEEPER) as group:
        assert group.call("bound", BOUND).by_rank() == {0: ("0", "0"), 1: ("1", "1")}


@pytest.mark.usefixtures("unbound")
def test_a_class_is_asked_what_it_needs_in_surroundings_of_its_own() -> None:
    """What that code binds is everybody's as well."""
    builder = RayWorkerBuilder("tests.surrounded_workers.Configured")
    colour = {"COLOUR": "blue"}
    with InProcessCluster([2]) as cluster:
        with RayWorkerGroup(cluster, builder, env_vars=colour) as group:
            assert group.call("environment", "SEEN").by_rank() == dict.fromkeys(
                range(2), "blue True"
            )
            assert group.call("environment", "RANK").by_rank() == {0: "0", 1: "1"}
        assert _names().environ is os.environ
        assert "COLOUR" not in os.environ


def test_nothing_is_replaced_once_the_last_cluster_is_shut_down() -> None:
    """Whatever the order in which they are."""
    real = (time.sleep, os.getpid, random.random, np.random.rand, type(os.environ))
    first, second = InProcessCluster([1]), InProcessCluster([1])
    assert time.sleep is not real[0]
    first.shutdown()
    assert time.sleep is not real[0]
    second.shutdown()
    assert (time.sleep, os.getpid, random.random, np.random.rand, type(os.environ)) == real
    with RayWorkerGroup(second, OBSERVER) as group:
        assert group.call("passed", 5.0).by_rank()[0]["time"] > 5.0
    second.shutdown()
    assert time.sleep is real[0]


def test_what_others_have_replaced_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a cluster is open: the driver gets it. While one is: it is left there."""
    anything: Any = len
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 5.0)
        with InProcessCluster([1]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
            assert time.time() == 5.0
            assert group.call("passed", 9.0).by_rank()[0]["time"] > 9.0
            patch.setattr(time, "sleep", anything)
        assert time.time() == 5.0
        assert time.sleep is anything
    assert time.time() > 1e9


def test_other_threads_see_what_is_real() -> None:
    """Also while a worker's code runs."""
    with InProcessCluster([1]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
        seen: list[object] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                seen.append((os.environ.get("RANK"), os.getpid()))

        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(20):
            group.call("draw").by_rank()
        stop.set()
        thread.join()
        assert set(seen) == {(os.environ.get("RANK"), os.getpid())}


def test_all_clocks_are_virtual() -> None:
    """Each says the same; no two readings are equal, and a loop that waits for a time ends."""
    with InProcessCluster([1]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
        passed = group.call("passed", 50.0).by_rank()[0]
        assert len(passed) == 6
        assert all(50.0 < each < 50.001 for each in passed.values())
        read = group.call("read", 100).by_rank()[0]
        assert sorted(set(read)) == read
        before = cluster.now
        assert group.call("wait_busily", 0.01).by_rank()[0] > 1
        assert 0.01 <= cluster.now - before < 0.02
        assert group.call("held_clock").by_rank()[0] > before


@pytest.mark.parametrize(
    ("seconds", "error", "text"),
    [
        (-1, ValueError, "must be non-negative"),
        (float("nan"), ValueError, "NaN"),
        ("1", TypeError, "'str' object cannot be interpreted as an integer"),
        (1e400, OverflowError, "timestamp"),
        (1e10, OverflowError, "timestamp"),
    ],
)
def test_a_sleep_that_makes_no_sense_is_refused(
    seconds: Any, error: type[Exception], text: str
) -> None:
    """As by the real one."""
    with pytest.raises(error, match=text):
        time.sleep(seconds)
    with InProcessCluster([1]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
        with pytest.raises(error, match=text) as caught:
            group.call("sleep", seconds).by_rank()
        assert isinstance(caught.value, WorkerGroupError)
        group.call("sleep", 1).by_rank()


def test_a_sleep_holds_up_an_async_worker() -> None:
    """Its answers and values come later, and its clock does not go back."""
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, ASYNC_SLEEPER) as group:
        before = cluster.now
        assert all(11.0 <= each < 11.001 for each in group.call("sleep", 10.0).by_rank().values())
        assert 11.0 <= cluster.now - before < 12.0
        before = cluster.now
        assert group.call("stream", 10.0).by_rank() == {0: [0, 1, 2], 1: [0, 1, 2]}
        assert 30.0 <= cluster.now - before < 31.0


def test_a_worker_writes_an_environment_of_its_own() -> None:
    """In every way; wrong names and values are refused as by the real one."""
    before = dict(os.environ)
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
        written = {"RANKPLAN_X": "1", "RANKPLAN_X_MORE": "1"}
        assert group.call("write", "RANKPLAN_X", "1").by_rank() == {0: written, 1: written}
        assert group.call("misuse").by_rank()[0] == [
            "str expected, not int",
            "str expected, not int",
            "False",
            "True",
        ]
        assert dict(os.environ) == before
        os.environ["RANKPLAN_Y"] = "2"
        assert os.environ.pop("RANKPLAN_Y") == "2"
    with os.popen("env") as told:  # noqa: S605, S607
        assert "RANKPLAN_X" not in told.read()


@pytest.mark.parametrize(("how", "signal"), [("abort", "SIGABRT"), ("raise", "SIGTERM")])
def test_a_worker_that_ends_itself_ends_nobody_else(how: str, signal: str) -> None:
    """The error says by which signal."""
    with InProcessCluster([1]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
        with pytest.raises(WorkerGroupError, match=signal) as caught:
            group.call("leave", how).by_rank()
        assert caught.value.report.dead == (0,)


def test_random_numbers_of_workers_come_from_the_seed() -> None:
    """The same in two runs, others for each rank, and the driver's are left alone."""

    def run(seed: int) -> list[list[float]]:
        random.seed(random.random())  # noqa: S311
        with (
            InProcessCluster([2], seed=seed) as cluster,
            RayWorkerGroup(cluster, OBSERVER) as group,
        ):
            return [*group.call("draw").by_rank().values(), *group.call("draw").by_rank().values()]

    first = run(5)
    assert first == run(5)
    assert len({tuple(each) for each in [*first, *run(6)]}) == 8


def test_a_worker_seeds_what_is_its_own() -> None:
    """It gets what that seed gives everywhere; the driver's numbers go on as they were."""
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), float(np.random.random_sample())  # noqa: S311
    state, legacy = random.getstate(), np.random.get_state(legacy=False)
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, OBSERVER) as group:
        assert group.call("seed", 1).by_rank() == {0: expected, 1: expected}
        assert random.getstate() == state
    assert random.getstate() == state
    np.testing.assert_equal(np.random.get_state(legacy=False), legacy)


def test_what_is_replaced_can_be_serialised() -> None:
    """By its name, so it is the real one elsewhere."""
    with InProcessCluster([1]):
        sent = pickle.dumps((time.sleep, random.random, np.random.rand))
        kept = time.sleep
    assert pickle.loads(sent) == (time.sleep, random.random, np.random.rand)  # noqa: S301
    assert pickle.loads(pickle.dumps(kept)) is time.sleep  # noqa: S301
    assert "Delay" in str(time.sleep.__doc__)
