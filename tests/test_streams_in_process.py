"""Streams without a cluster: what comes after an error, and when nobody takes the values."""

import gc
from collections.abc import Iterator

import pytest

from runtime import DeadlineError, MultiWorkerFuture, RayWorkerBuilder, RayWorkerGroup
from runtime.in_flight import TooManyCallsError
from runtime.in_process_objects import MOST_UNTAKEN
from runtime.testing import Fault, FaultKind, InProcessCluster


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each."""
    with InProcessCluster([2, 2]) as made:
        yield made


def test_a_stream_goes_on_after_an_error() -> None:
    """With the ranks that have not failed, and without the same error again."""
    fails = [Fault(kind=FaultKind.RAISES, rank=1, method="drip", error=ValueError("rank 1 can't"))]
    with (
        InProcessCluster([2], faults=fails) as small,
        RayWorkerGroup(small, RayWorkerBuilder("tests.fault_workers.Worker")) as group,
    ):
        stream = group.call("drip", 3, 10.0)
        with pytest.raises(ValueError, match="rank 1 can't"):
            list(stream)
        left = [(each.rank, each.value) for each in stream.as_completed()]
        assert left == [(0, 0), (0, 1), (0, 2)]


def test_a_stream_that_nobody_holds_runs_to_its_end(cluster: InProcessCluster) -> None:
    """As on Ray: its worker is not held back, and takes other calls when it is through."""
    gc.disable()
    try:
        with RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.Sharer")) as group:
            stream = group.using(buffer=2).call("count", 100)
            assert next(iter(stream)).value == 0
            late = group.using(timeout=5)
            with pytest.raises(DeadlineError, match=r"not begun: ranks 0-3, still in count\(\)"):
                late.call("give", 1).by_rank()
            del stream
            done = late.call("take_calls").by_rank()
            assert [len(calls) for calls in done.values()] == [100] * 4
    finally:
        gc.enable()


def test_an_endless_stream_that_nobody_holds_is_closed(cluster: InProcessCluster) -> None:
    """Else nothing else would happen any more."""
    with RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.AsyncSharer")) as group:
        stream = group.using(buffer=2).call("count")
        next(iter(stream))
        del stream
        cluster.pause(1.0)
        made = group.call("how_many").by_rank()
        cluster.pause(1.0)
        assert group.call("how_many").by_rank() == made
        assert max(made.values()) <= MOST_UNTAKEN + 4


def test_streams_of_the_four_ways_are_read_when_they_have_ended(cluster: InProcessCluster) -> None:
    """They are not held back: who waits for the end before reading would wait for ever.

    Nor is a worker's stream that is read after another's. Those of ``group.call`` are.
    """
    with RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker")) as group:
        backend = cluster.backend
        streams = group.run_all_workers_single_data("count", upto=2_000)
        ready, late = backend.wait([backend.end_of(each) for each in streams], 4, 60.0)
        assert (len(ready), late) == (4, [])
        values = group.get_all_worker_results(MultiWorkerFuture(streams))
        assert values == [rank * 100 + n for rank in range(4) for n in range(2_000)]
        with group.call("count", 2_000) as held:
            ends = [backend.end_of(each) for each in held._running.references.values()]
            assert backend.wait(ends, 4, 60.0)[0] == []


def test_an_async_worker_goes_on_when_its_values_are_taken(cluster: InProcessCluster) -> None:
    """It was held back before."""
    with RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.AsyncSharer")) as group:
        with group.using(buffer=3).call("count") as stream:
            values = [each.value for _, each in zip(range(20), stream, strict=False)]
        assert max(values) > 4


def test_a_stream_counts_until_it_has_ended(cluster: InProcessCluster) -> None:
    """As one call of each rank; one that is closed or dropped does not count."""
    with RayWorkerGroup(
        cluster, RayWorkerBuilder("tests.share_workers.Sharer"), max_calls_in_flight=4
    ) as group:
        calls = group.using(buffer=2)
        with (
            calls.call("count", 100),
            pytest.raises(TooManyCallsError, match="4 calls are under way"),
        ):
            group.call("give", 1)
        held = calls.call("count", 100)
        with pytest.raises(TooManyCallsError):
            group.call("give", 1)
        del held
        cluster.pause(1.0)
        assert group.call("give", 1).by_rank() == dict.fromkeys(range(4), bytes(1))
