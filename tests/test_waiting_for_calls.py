"""Waiting for calls, whichever way: who failed is known to the group, who is late is named."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest

from planner import NamedSharding
from planner.findings import PlanError
from planner.recovery import Domain, FailurePolicy, Survivors
from runtime import MultiWorkerFuture, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError, wait_all
from runtime.health import InconsistentGroupError
from runtime.testing import InProcessCluster

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
        for wait in (
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
