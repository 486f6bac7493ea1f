"""Controllers with threads, in process: a wait that another thread can end is no dead end."""

import threading
from collections.abc import Iterator

import pytest

from runtime import RayWorkerBuilder, RayWorkerGroup, in_process_threads
from runtime.errors import WorkerGroupError
from runtime.testing import InProcessCluster, NothingWillHappenError

WAITERS = RayWorkerBuilder("tests.fault_workers.AsyncWorker")
RANKS = {0: "0", 1: "1"}


@pytest.fixture
def group() -> Iterator[RayWorkerGroup]:
    """Two workers in process, many of whose calls are under way at once."""
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, WAITERS) as group:
        yield group


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other threads have as long as the slowest machine needs."""
    monkeypatch.setattr(in_process_threads, "PATIENCE_SECONDS", 300.0)


class Waiting(threading.Thread):
    """Waits for the answer of a call that ends when ``release`` is called."""

    def __init__(self, group: RayWorkerGroup, timeout: float | None) -> None:
        super().__init__(name="waiting")
        self.group, self.timeout = group, timeout
        self.found: object = None
        self.is_sent = threading.Event()

    def run(self) -> None:
        """Wait."""
        call = self.group.call("wait")
        self.is_sent.set()
        try:
            self.found = call.by_rank(self.timeout)
        except (NothingWillHappenError, WorkerGroupError) as error:
            self.found = error


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("timeout", [None, 50.0])
def test_one_thread_ends_the_wait_of_another(group: RayWorkerGroup, timeout: float | None) -> None:
    """Although nothing is under way meanwhile; virtual time does not leap to the deadline."""
    thread = Waiting(group, timeout)
    thread.start()
    thread.is_sent.wait()
    group.call("release").by_rank()
    thread.join()
    assert thread.found == RANKS
    assert group.backend.now() < 50.0


@pytest.mark.usefixtures("patient")
def test_of_two_threads_that_both_wait_none_is_waited_for(group: RayWorkerGroup) -> None:
    """Nobody is left who could do something."""
    thread = Waiting(group, None)
    thread.start()
    thread.is_sent.wait()
    with pytest.raises(NothingWillHappenError) as caught:
        group.call("wait").by_rank()
    group.shutdown(force=True)
    thread.join()
    assert "real time" not in str(caught.value)
    assert thread.found != RANKS


def test_a_thread_that_does_nothing_is_named(group: RayWorkerGroup) -> None:
    """It has had its time: here it waits for the other, which nobody can see."""
    thread = Waiting(group, None)
    thread.start()
    thread.join()
    assert isinstance(thread.found, NothingWillHappenError)
    assert "threads MainThread, which had 1 s of real time" in str(thread.found)


@pytest.mark.usefixtures("patient")
def test_a_thread_that_has_ended_is_not_waited_for(group: RayWorkerGroup) -> None:
    """Nor is one that never used the cluster."""
    thread = threading.Thread(target=lambda: group.call("number").by_rank(), name="brief")
    thread.start()
    thread.join()
    with pytest.raises(NothingWillHappenError) as caught:
        group.call("wait").by_rank()
    assert "real time" not in str(caught.value)
