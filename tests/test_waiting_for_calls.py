"""Waiting for calls, whichever way: who failed is known to the group, who is late is named."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from planner import NamedSharding
from planner.findings import PlanError
from planner.recovery import Domain, FailurePolicy, Survivors
from runtime import (
    DeadlineError,
    MultiWorkerFuture,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
    wait_all,
)
from runtime.health import InconsistentGroupError
from runtime.in_process_backend import World
from runtime.testing import Fault, FaultKind, InProcessCluster

LARGE = 300_000
"""Bytes of a value that does not come by itself."""

ABORT = FailurePolicy(domain=Domain.GROUP, survivors=Survivors.ABORT)


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each, for two groups."""
    with InProcessCluster([2, 2], max_colocated_worker_groups=2) as made:
        yield made


def _group(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"), **more)


def test_waiting_for_all_tells_each_group_of_its_failure(cluster: InProcessCluster) -> None:
    """Survivors that hang are ended as the policy says, and the next call is refused."""
    with (
        _group(cluster, name_prefix="one", failure_policy=ABORT) as one,
        _group(cluster, name_prefix="two", failure_policy=ABORT) as two,
    ):
        calls = [each.call("fail", ranks=[1], others=600.0) for each in (one, two)]
        with pytest.raises(WorkerGroupError, match="bad batch"):
            wait_all(*calls)
        assert one.broken == two.broken == (0, 2, 3)
        for each in (one, two):
            with pytest.raises(InconsistentGroupError):
                each.run_all_workers_single_data("total")


def test_streams_of_the_older_kind_tell_the_group_too(cluster: InProcessCluster) -> None:
    """Their survivors are ended as the policy says."""
    with _group(cluster, failure_policy=ABORT) as group:
        futures = group.run_all_workers_single_data("drip", upto=100, seconds=10.0)
        cluster.kill_worker(group, 2)
        with pytest.raises(WorkerGroupError, match="rank 2"):
            MultiWorkerFuture(futures).get_results(group, timeout=900.0)
        assert group.broken == (0, 1, 2, 3)


def test_a_stream_says_whose_values_do_not_come(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Now and then, as other waits do."""
    with (
        _group(cluster) as group,
        group.call("drip", upto=2, seconds=150.0) as stream,
        caplog.at_level(logging.WARNING, "rankplan"),
    ):
        assert len(list(stream)) == 8
    told = [each for each in caplog.messages if "still waiting for values of ranks 0-3" in each]
    assert len(told) == 4


def test_a_short_deadline_is_no_progress(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The error says all that there is to say."""
    with _group(cluster) as group, caplog.at_level(logging.WARNING, "rankplan"):
        future = group.call("sleep", seconds=100.0)
        with pytest.raises(TimeoutError, match="4 of 4 ranks did not answer"):
            future.result(0.2)
        assert caplog.messages == []
        future.by_rank(200.0)
    assert [each for each in caplog.messages if "still waiting for ranks 0-3" in each]


@pytest.mark.parametrize("wrong", [-1, "x", math.nan, True])
def test_what_is_no_time_is_refused(cluster: InProcessCluster, wrong: Any) -> None:
    """By every wait, before it begins."""
    with _group(cluster) as group:
        future = MultiWorkerFuture(group.run_all_workers_single_data("total"))
        finished = group.call("total")
        finished.by_rank()
        for wait in (
            lambda: finished.by_rank(wrong),
            lambda: group.get_all_worker_results(future, timeout=wrong),
            lambda: group.call("total").result(wrong),
            lambda: next(group.call("count", upto=2).as_completed(wrong)),
        ):
            with pytest.raises(PlanError, match=r"timeout: .* is not a time"):
                wait()
        with pytest.raises(PlanError, match="return_generators_as_proxies: 'x' is not a truth"):
            group.get_all_worker_results(future, return_generators_as_proxies="x")  # type: ignore[arg-type]


def test_futures_in_a_list_are_known_to_the_group(cluster: InProcessCluster) -> None:
    """Who failed is the rank that was called, whatever its place in the list."""
    axes = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])
    policy = FailurePolicy(domain=Domain.RANK)
    with _group(cluster, sharding_annotations=axes, failure_policy=policy) as group:
        futures = group.run_all_workers_single_data(
            "sleep", seconds=30.0, run_rank_0_only_axes=["tensor_parallel"]
        )
        cluster.kill_worker(group, 2)
        told = r"Worker', sleep\(\): 1 of 2 ranks failed; first rank 2 \(data_parallel=1"
        with pytest.raises(WorkerGroupError, match=told):
            MultiWorkerFuture(futures).get_results(group)
        assert group.broken == (2,)


def test_futures_of_all_ranks_in_a_list_tell_what_was_called(cluster: InProcessCluster) -> None:
    """As those of a few do; what nobody knows is told as a call."""
    with _group(cluster) as group:
        futures = group.run_all_workers_single_data("sleep", seconds=30.0)
        with pytest.raises(DeadlineError, match=r"Worker', sleep\(\): 4 of 4 ranks did not answer"):
            MultiWorkerFuture(futures).get_results(group, timeout=1.0)
        with pytest.raises(DeadlineError, match=r"Worker', sleep\(\): 1 of 1 ranks did not answer"):
            MultiWorkerFuture(futures[:1]).get_results(group, timeout=1.0)
        unknown = [group.actors[0].call.remote("sleep", 30.0)]
        with pytest.raises(DeadlineError, match=r"Worker', call\(\): 1 of 1 ranks did not answer"):
            MultiWorkerFuture(unknown).get_results(group, timeout=1.0)


def test_every_object_of_a_failed_call_is_looked_at(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ray warns of the error in the second object, though the first one's was caught."""
    seen: list[Any] = []
    look = World.look

    def noted(world: World, references: Sequence[Any]) -> Any:
        seen.extend(references)
        return look(world, references)

    monkeypatch.setattr(World, "look", noted)
    with _group(cluster) as group:
        twice = [each.fail.options(num_returns=2).remote([1]) for each in group.workers[:2]]
        late = group.workers[2].sleep.options(num_returns=2).remote(30.0)
        with pytest.raises(WorkerGroupError, match="rank 1: ValueError"):
            MultiWorkerFuture([*twice, late]).get_results(group)
    assert twice[1][1] in seen
    assert late[1] not in seen


def test_a_failure_that_is_told_again_is_noted_once(cluster: InProcessCluster) -> None:
    """However often its future is waited for; as it grows, it stays one."""
    with _group(cluster) as group:
        future = group.call("sleep", 30.0)
        cluster.kill_worker(group, 1)
        for _ in range(3):
            with pytest.raises(WorkerGroupError, match="1 of 4 ranks failed"):
                future.by_rank()
        cluster.kill_worker(group, 2)
        with pytest.raises(WorkerGroupError, match="2 of 4 ranks failed"):
            future.by_rank()
        with pytest.raises(InconsistentGroupError) as refused:
            group.call("total")
        assert str(refused.value).count("ProcessDiedError") == 1
        assert "sleep(): ranks 1-2: ProcessDiedError" in str(refused.value)
        assert len(group._health._troubles) == 1
        cluster.pause(60.0)
        assert group.broken == (1, 2)


def test_who_has_left_a_failed_call_is_stuck_no_more(cluster: InProcessCluster) -> None:
    """Also when another one has died in it: that is the trouble of those who share its fate."""
    policy = FailurePolicy(domain=Domain.TIED_GROUP)
    engines = [(0, [0, 1]), (1, [0, 1])]
    with _group(cluster, failure_policy=policy, bundle_indices_list=engines) as group:
        future = group.call("fail", ranks=[2], after=1.0, others=30.0)
        cluster.pause(0.9)
        cluster.kill_worker(group, 0)
        with pytest.raises(WorkerGroupError, match="2 of 4 ranks failed"):
            future.by_rank()
        broken = [group.broken]
        cluster.pause(60.0)
        broken.append(group.broken)
        assert broken == [(0, 1, 3), (0,)]
        assert group.at(rank=3).call("total").by_rank() == {3: 0}


def test_values_that_keep_coming_do_not_outlast_a_deadline(cluster: InProcessCluster) -> None:
    """It is for all of them."""
    with _group(cluster) as group:
        futures = group.run_all_workers_single_data("drip", upto=1_000, seconds=0.5)
        with pytest.raises(TimeoutError, match="4 of 4 ranks did not answer"):
            MultiWorkerFuture(futures).get_results(group, timeout=5.0)
        assert cluster.now < 10


def test_a_stream_may_be_closed_by_who_takes_its_values(cluster: InProcessCluster) -> None:
    """Nothing more comes."""
    with _group(cluster) as group:
        stream = group.call("count", upto=100)
        for taken, _ in enumerate(stream.as_completed()):
            if taken == 2:
                stream.close()
        assert group.call("total").by_rank() == dict.fromkeys(range(4), 0)


@pytest.mark.parametrize("wrong", [-1, "x", math.nan])
def test_what_is_no_time_is_refused_by_the_others_too(
    cluster: InProcessCluster, wrong: Any
) -> None:
    """By waits for several, by views, by the end of a stream."""
    with _group(cluster) as group:
        with pytest.raises(PlanError, match=r"timeout: .* is not a time"):
            wait_all(group.call("total"), timeout=wrong)
        with pytest.raises(PlanError, match=r"timeout: .* is not a time"):
            group.using(timeout=wrong)
        with (
            group.call("count", upto=2) as stream,
            pytest.raises(PlanError, match=r"timeout: .* is not a time"),
        ):
            stream.close(wrong)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many values each fetch has asked for, in which nothing was in the way."""
    counts: list[int] = []
    get = World.get

    def counted(world: World, references: Sequence[Any], timeout: float | None) -> list[Any]:
        values = get(world, references, timeout)
        counts.append(len(references))
        return values

    monkeypatch.setattr(World, "get", counted)
    return counts


def _late(rank: int, method: str, seconds: float) -> Fault:
    return Fault(kind=FaultKind.SLOW, rank=rank, method=method, seconds=seconds)


def _raises(rank: int, method: str, seconds: float = 0.0) -> Fault:
    error = ValueError(f"rank {rank} can't")
    return Fault(kind=FaultKind.RAISES, rank=rank, method=method, seconds=seconds, error=error)


@pytest.mark.parametrize("size", [3, LARGE])
def test_a_late_wait_fetches_nothing_and_keeps_what_is_here(fetched: list[int], size: int) -> None:
    """What came by itself is not fetched by the next wait; large values are, once."""
    with (
        InProcessCluster([2, 2], faults=[_late(3, "give", 100.0)]) as cluster,
        RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.Sharer")) as group,
    ):
        future = group.call("give", size)
        fetched.clear()
        for _ in range(3):
            with pytest.raises(DeadlineError, match="1 of 4 ranks did not answer"):
                future.by_rank(2.0)
        assert sum(fetched) == 0
        assert future.by_rank(200.0) == dict.fromkeys(range(4), bytes(size))
        assert sum(fetched) == (4 if size == LARGE else 1)


def test_a_failure_fetches_none_of_the_other_values(fetched: list[int]) -> None:
    """They are of no use; that their ranks returned is known without them."""
    with (
        InProcessCluster([2, 2], faults=[_raises(3, "give", 1.0)]) as cluster,
        RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.Sharer")) as group,
    ):
        future = group.call("give", LARGE)
        fetched.clear()
        with pytest.raises(WorkerGroupError, match="rank 3 can't") as raised:
            future.result()
    assert raised.value.report.finished == (0, 1, 2)
    assert sum(fetched) == 0


def test_what_has_come_in_time_counts_although_it_is_fetched_late(fetched: list[int]) -> None:
    """All have returned when time is up."""
    with (
        InProcessCluster([2, 2]) as cluster,
        RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.Sharer")) as group,
    ):
        future = group.call("give", LARGE)
        cluster.pause(1.0)
        fetched.clear()
        assert future.by_rank(0.0) == dict.fromkeys(range(4), bytes(LARGE))


def test_a_large_result_is_not_fetched_by_the_event_loop(
    fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``fetch`` does it, of which the backend says how; nothing is fetched twice."""
    asked: list[int] = []
    fetch = World.fetch

    async def counted(world: World, references: Sequence[Any]) -> list[Any]:
        asked.append(len(references))
        return await fetch(world, references)

    monkeypatch.setattr(World, "fetch", counted)

    async def main(group: RayWorkerGroup) -> tuple[int, int]:
        calls = group.using(returns=_bytes_of_all)
        return await calls.call("give", LARGE), await calls.call("give", 3)

    with (
        InProcessCluster([2, 2]) as cluster,
        RayWorkerGroup(cluster, RayWorkerBuilder("tests.share_workers.Sharer")) as group,
    ):
        fetched.clear()
        assert asyncio.run(main(group)) == (4 * LARGE, 12)
    assert (asked, sum(fetched)) == ([4], 4)


def _bytes_of_all(values: Sequence[bytes]) -> int:
    return sum(map(len, values))


@pytest.mark.parametrize("way", ["calls", "stream", "awaited stream"])
def test_one_error_names_all_that_fail_in_the_grace(way: str) -> None:
    """Values are given first: those that came before, and those that come meanwhile."""
    method = "sleep" if way == "calls" else "drip"
    faults = [_raises(1, method), _raises(2, method, 0.3), _late(3, method, 50.0)]
    given: list[tuple[int, int]] = []

    async def take(stream: Any) -> None:
        async for answer in stream:
            given.extend([(answer.rank, answer.value)])

    def taken(group: RayWorkerGroup) -> None:
        if way == "awaited stream":
            asyncio.run(take(group.call("drip", 10, 0.2)))
            return
        calls = way == "calls"
        come = group.call("sleep", 0.2).as_completed() if calls else group.call("drip", 10, 0.2)
        given.extend((each.rank, each.value) for each in come)

    with InProcessCluster([2, 2], faults=faults) as cluster, _group(cluster) as group:
        began = cluster.now
        with pytest.raises(ValueError, match="2 of 4 ranks failed") as raised:
            taken(group)
        assert cluster.now - began < 1
        assert isinstance(raised.value, WorkerGroupError)
        assert raised.value.report.failed == (1, 2)
        assert raised.value.report.running == ((3,) if way == "calls" else (0, 3))
        assert given == ([(0, 0)] if way == "calls" else [(0, 0), (0, 1)])


def test_a_policy_says_how_long_the_others_have() -> None:
    """For every way to wait."""
    faults = [
        Fault(kind=kind, rank=rank, method=method, call=0, seconds=seconds, error=ValueError("no"))
        for method in ("sleep", "drip")
        for kind, rank, seconds in ((FaultKind.RAISES, 1, 0.0), (FaultKind.RAISES, 2, 3.0))
    ]
    policy = FailurePolicy(domain=Domain.RANK, grace=5.0)

    async def awaited(group: RayWorkerGroup) -> None:
        await group.call("sleep", 0.0)

    with (
        InProcessCluster([2, 2], faults=faults) as cluster,
        _group(cluster, failure_policy=policy) as group,
    ):
        waits: list[Callable[[], object]] = [
            lambda: group.call("sleep", 0.0).result(),
            lambda: list(group.call("sleep", 0.0).as_completed()),
            lambda: asyncio.run(awaited(group)),
            lambda: wait_all(group.call("sleep", 0.0)),
            lambda: group.call("drip", 1, 0.0).by_rank(),
            lambda: MultiWorkerFuture(
                group.run_all_workers_single_data("sleep", seconds=0.0)
            ).get_results(group),
            lambda: MultiWorkerFuture(
                group.run_all_workers_single_data("drip", upto=1, seconds=0.0)
            ).get_results(group),
        ]
        for wait in waits:
            with pytest.raises(WorkerGroupError) as raised:
                wait()
            assert raised.value.report.failed == (1, 2)
