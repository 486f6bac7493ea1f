"""What a long wait and a failure say of ranks that have not answered: who, since when, and why."""

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from planner.roles import First
from runtime import DeadlineError, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError, wait_all
from runtime.testing import Fault, FaultKind, InProcessCluster


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each, for two groups."""
    with InProcessCluster([2, 2], max_colocated_worker_groups=2) as made:
        yield made


def _group(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"), **more)


def _late(rank: int, method: str, seconds: float) -> Fault:
    return Fault(kind=FaultKind.SLOW, rank=rank, method=method, seconds=seconds)


def test_a_long_wait_says_who_is_slow_since_when_and_why(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that an earlier call holds come first; how many have answered is told too."""
    with _group(cluster) as group, caplog.at_level(logging.WARNING, "rankplan"):
        group.run_all_workers_single_data("sleep", seconds=100.0, ranks=[3])
        cluster.pause(30)
        assert group.call("sleep", 50.0, ranks=[1, 3]).by_rank() == {0: 0, 1: 1, 2: 2, 3: 3}
    assert len(caplog.messages) == 2
    assert re.fullmatch(
        r"worker group 'Worker', sleep\(\): still waiting for rank 3 after 60 s; "
        r"3 of 4 have answered; rank 3 .*on node 10.0.0.1, GPU 1, pid \d+; "
        r"not begun: rank 3, still in sleep\(\), called 90\.0 s ago",
        caplog.messages[0],
    )
    assert "still waiting for rank 3 after 120 s" in caplog.messages[1]
    assert "not begun" not in caplog.messages[1]


def test_a_wait_for_several_says_it_of_each(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """By its own name, and not of those that have returned."""
    with (
        _group(cluster, name_prefix="one") as one,
        _group(cluster, name_prefix="two") as two,
        caplog.at_level(logging.WARNING, "rankplan"),
    ):
        wait_all(one.call("sleep", 70.0), two.call("sleep", 70.0, ranks=[2]), two.call("total"))
    told = [each.partition("; ")[0] for each in caplog.messages]
    assert told == [
        "worker group 'one', sleep(): still waiting for ranks 0-3 after 60 s",
        "worker group 'two', sleep(): still waiting for rank 2 after 60 s",
        "worker group 'two', total(): still waiting for rank 2 after 60 s",
    ]


def test_a_wait_in_an_event_loop_says_it_too(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """For a result, and for the values of a stream."""

    async def both(group: RayWorkerGroup) -> list[Any]:
        await group.using(returns=First()).call("sleep", 70.0)
        return [answer.value async for answer in group.call("drip", 1, 70.0)]

    with _group(cluster) as group, caplog.at_level(logging.WARNING, "rankplan"):
        assert asyncio.run(both(group)) == [0, 0, 0, 0]
    told = [each.partition("; ")[0] for each in caplog.messages]
    assert told == [
        "worker group 'Worker', sleep(): still waiting for ranks 0-3 after 60 s",
        "worker group 'Worker', drip(): still waiting for values of ranks 0-3 after 60 s",
    ]


def test_a_slow_start_and_a_slow_end_say_for_whom_they_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A constructor, and a clean-up that may take as long as it likes."""
    faults = [_late(1, "__init__", 70.0), _late(2, "close", 130.0)]
    with (
        InProcessCluster([2, 2], faults=faults) as cluster,
        caplog.at_level(logging.WARNING, "rankplan"),
    ):
        group = _group(cluster)
        report = group.end("close", timeout=None)
    assert report.cleaned == (0, 1, 2, 3)
    told = [each.partition("; ")[0].partition(": still")[2] for each in caplog.messages]
    assert told == [
        " waiting for rank 1 after 60 s",
        " waiting for rank 2 after 60 s",
        " waiting for rank 2 after 120 s",
    ]


def test_a_start_that_takes_too_long_names_no_group_to_ask() -> None:
    """There is none yet; the rank is named with its node and process."""
    slow = _late(1, "__init__", 1e6)
    told = r"waiting for rank 1 .*on node 10.0.0.0, GPU 1, pid"
    with (
        InProcessCluster([2], faults=[slow]) as cluster,
        pytest.raises(DeadlineError, match=told) as raised,
    ):
        _group(cluster, start_timeout=5.0)
    assert "group.status()" not in str(raised.value)
    assert "start_timeout is over: give a longer one if rank 1 only needed" in str(raised.value)


def test_a_failure_says_who_was_still_running_and_since_when(cluster: InProcessCluster) -> None:
    """Since the call, not since the wait; and what holds those that have not begun."""
    with _group(cluster) as group:
        group.run_all_workers_single_data("sleep", seconds=50.0, ranks=[3])
        future = group.call("fail", ranks=[1], others=100.0)
        cluster.pause(20.0)
        with pytest.raises(ValueError, match="bad batch") as raised:
            future.result()
    lines = str(raised.value).splitlines()
    assert "  no answer yet: ranks 0, 2-3, after 20." in lines[3]
    assert lines[4].startswith("    waiting for rank 3 ")
    assert re.search(r"waiting for rank 0 .*on node 10.0.0.0, GPU 0, pid \d+$", lines[5])
    assert lines[7].startswith("  not begun: rank 3, still in sleep(), called 20.")


def test_where_it_was_raised_is_told(cluster: InProcessCluster) -> None:
    """The line of the worker's own code."""
    with _group(cluster) as group, pytest.raises(ValueError, match="bad batch") as raised:
        group.call("fail", ranks=[1]).result()
    told = re.search(r"\n    raised at tests/fault_workers.py:\d+ in fail\n", str(raised.value))
    assert told is not None
    assert isinstance(raised.value, WorkerGroupError)
    assert len(raised.value.report.causes[0][0].frames) == 1
