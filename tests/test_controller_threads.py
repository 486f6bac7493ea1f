"""Controllers with threads, in process: a wait that another thread can end is no dead end."""

import threading
from collections.abc import Iterator

import pytest

from runtime import RayWorkerBuilder, RayWorkerGroup
from runtime.errors import DeadlineError
from runtime.in_process_threads import ControllerThreads
from runtime.testing import InProcessCluster, NothingWillHappenError

WAITERS = RayWorkerBuilder("tests.fault_workers.AsyncWorker")
RANKS = {0: "0", 1: "1"}


@pytest.fixture
def group() -> Iterator[RayWorkerGroup]:
    """Two workers in process, many of whose calls are under way at once."""
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, WAITERS) as group:
        yield group


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
        except (NothingWillHappenError, DeadlineError) as error:
            self.found = error


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


def test_two_threads_that_both_wait_are_told_at_once(
    group: RayWorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is waited for."""
    rounds: list[int] = []
    real = ControllerThreads.others

    def others(self: ControllerThreads) -> list[str]:
        found = real(self)
        rounds.append(len(found))
        return found

    monkeypatch.setattr(ControllerThreads, "others", others)
    thread = Waiting(group, None)
    thread.start()
    thread.is_sent.wait()
    with pytest.raises(NothingWillHappenError):
        group.call("wait").by_rank()
    thread.join()
    assert isinstance(thread.found, NothingWillHappenError)
    assert 0 in rounds


def test_a_thread_that_does_nothing_is_named(group: RayWorkerGroup) -> None:
    """It has had its time: here it waits for the other, which nobody can see."""
    thread = Waiting(group, None)
    thread.start()
    thread.join()
    assert isinstance(thread.found, NothingWillHappenError)
    assert "threads MainThread, which had 1 s of real time" in str(thread.found)


def test_a_thread_that_has_ended_is_not_waited_for(group: RayWorkerGroup) -> None:
    """Nor is one that never used the cluster."""
    thread = threading.Thread(target=lambda: group.call("number").by_rank(), name="brief")
    thread.start()
    thread.join()
    with pytest.raises(NothingWillHappenError) as caught:
        group.call("wait").by_rank()
    assert "real time" not in str(caught.value)
