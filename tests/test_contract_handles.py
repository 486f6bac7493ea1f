"""Handles, and workers on event loops: every kind of method, called from anywhere."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayActorError

from runtime import (
    InconsistentGroupError,
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    TooManyCallsError,
    WorkerGroupError,
)
from tests.workers import Witness

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Four bundles without GPUs."""
    with RayVirtualCluster([4], use_gpus=False, name="handles") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def group(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Four plain workers."""
    builder = RayWorkerBuilder("tests.workers.Recorder")
    with RayWorkerGroup(places, builder, name_prefix="plain") as made:
        yield made


@pytest.fixture(scope="module")
def engines(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Two workers on event loops; no axes."""
    with RayWorkerGroup(
        places,
        RayWorkerBuilder("tests.async_workers.AsyncRecorder", Witness(), key=ray.put("fetched")),
        workers_per_node=2,
    ) as made:
        yield made


def test_a_single_stream_can_be_read_asynchronously(engines: RayWorkerGroup) -> None:
    """As callers of inference engines do."""

    async def read() -> list[Any]:
        stream = engines.run_single_worker_single_data("count", 1, number=3)
        return [await ref async for ref in stream]

    assert asyncio.run(read()) == [(1, 0), (1, 1), (1, 2)]


def test_arguments_of_async_workers_are_unpickled_in_their_environment(
    engines: RayWorkerGroup,
) -> None:
    """As those of plain ones; references at the top are resolved."""
    assert ray.get(engines.run_all_workers_single_data("witnessed")) == [["0"], ["1"]]
    _, kwargs = ray.get(engines.run_single_worker_single_data("made_with", 1))
    assert kwargs == {"key": "fetched"}


def test_async_methods_of_every_kind_through_a_group(engines: RayWorkerGroup) -> None:
    """Plain, async, generator and async generator methods of one class."""
    assert ray.get(engines.run_all_workers_single_data("rank")) == [0, 1]
    streams = engines.run_all_workers_single_data("count", number=2)
    assert [ray.get(list(stream)) for stream in streams] == [[(0, 0), (0, 1)], [(1, 0), (1, 1)]]
    (plain,) = engines.run_all_workers_multiple_data("plain_count", number=[2, 3])[1:]
    assert ray.get(list(plain)) == [0, 1, 2]
    future = MultiWorkerFuture(engines.run_all_workers_single_data("count", number=2), [1])
    assert future.get_results(engines) == [(1, 0), (1, 1)]
    with pytest.raises(ZeroDivisionError, match="async trouble"):
        MultiWorkerFuture(engines.run_all_workers_single_data("fail", rank=1)).get_results(engines)


def test_kinds_of_methods_survive_rays_decorator(places: RayVirtualCluster) -> None:
    """Ray wraps the methods of a decorated class; streams stay streams, own and inherited."""
    for name, inherited in (("AsyncDecorated", False), ("Late", True)):
        builder = RayWorkerBuilder(f"tests.async_workers.{name}")
        with RayWorkerGroup(places, builder, workers_per_node=1) as group:
            worker = group.workers[0]
            if inherited:
                assert ray.get(worker.answer.remote(value=3)) == 3
                continue
            assert ray.get(list(worker.count.remote(2))) == [(0, 0), (0, 1)]
            assert ray.get(list(worker.plain_count.remote(number=2))) == [0, 1]
            assert ray.get(list(worker.more.remote(2))) == [0, 1]
            assert ray.get(list(worker.fewer.remote(2))) == [0, 1]
            assert ray.get(worker.soon.remote(4)) == 4
            assert ray.get(worker.rank.remote()) == 0
    builder = RayWorkerBuilder("tests.workers.Colocated", 1)
    with RayWorkerGroup(places, builder, workers_per_node=1) as group:
        assert ray.get(list(group.workers[0].count.remote(2))) == [(0, 0), (0, 1)]
        assert "max_restarts=3 of the worker class" in " ".join(group.plan.notes)


def test_many_calls_run_at_once_on_an_event_loop(engines: RayWorkerGroup) -> None:
    """Twenty calls of one worker meet each other."""
    calls = [engines.workers[0].meet.remote(20) for _ in range(20)]
    assert ray.get(calls) == [20] * 20


def test_handles_call_every_kind_of_method(group: RayWorkerGroup) -> None:
    """Positional and keyword arguments, two returns, streams, options, a hidden name."""
    worker = group.workers[3]
    assert ray.get(worker.exactly.remote(1, 2, third=9)) == (1, 2, 9)
    assert ray.get(worker.echo.remote("a", ray.put("b"), key=1)) == (("a", "b"), {"key": 1})
    assert ray.get(worker.pair.remote(data=4)) == [3, 4]
    assert ray.get(worker.wrapped.remote(1, 2, key=3)) == (3, (1, 2), {"key": 3})
    assert ray.get(list(worker.count.remote(2))) == [(3, 0), (3, 1)]
    streamed = worker.count.options(num_returns="streaming").remote(number=1)
    assert ray.get(list(streamed)) == [(3, 0)]
    assert ray.get(worker.rank.options(name="a name for the task").remote()) == 3
    assert ray.get(worker._hidden.remote()) == "hidden"
    assert ray.get(worker.__ray_ready__.remote()) is True


def test_handles_refuse_what_the_class_cannot_take(group: RayWorkerGroup) -> None:
    """Before anything is sent, and with the nearest name."""
    worker = group.workers[0]
    with pytest.raises(AttributeError, match="plain-0-0 has no method 'rnk'; did you mean 'rank'"):
        worker.rnk.remote()
    with pytest.raises(TypeError, match="missing a required argument: 'second'"):
        worker.exactly.remote(1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'numbr'"):
        worker.count.remote(1, numbr=1)
    with pytest.raises(TypeError) as caught:
        worker.pair.options(name="task").remote(1, 2)
    assert str(caught.value) == (
        "plain-0-0: pair(data=...): too many positional arguments; nothing was sent"
    )
    with pytest.raises(TypeError, match=r"call rank.remote\(...\)"):
        worker.rank()


def test_handles_travel_to_other_workers_and_tasks(
    group: RayWorkerGroup, places: RayVirtualCluster
) -> None:
    """As constructor argument, as call argument, inside a list, and in a plain task."""
    target = group.workers[1]
    builder = RayWorkerBuilder("tests.workers.Caller", group.workers[2])
    with RayWorkerGroup(places, builder, workers_per_node=1) as callers:
        caller = callers.workers[0]
        assert ray.get(caller.ask.remote()) == (2, [(2, 0), (2, 1)])
        assert ray.get(caller.ask.remote(target)) == (1, [(1, 0), (1, 1)])
    task = ray.remote(num_cpus=0)(_rank_of)
    assert ray.get(task.remote([target])) == 1
    assert group.workers[1] == target
    assert len({*group.workers, *group.workers}) == 4
    assert group.workers[0] != group.workers[1]
    method = cloudpickle.loads(cloudpickle.dumps(target.rank.options(name="task")))
    assert ray.get(method.remote()) == 1


def test_calls_through_handles_pass_the_gate_of_their_group(places: RayVirtualCluster) -> None:
    """Counted while they run; refused once a rank is dead, and Ray's own once the group is gone."""
    builder = RayWorkerBuilder("tests.fault_workers.Worker")
    group = RayWorkerGroup(
        places, builder, workers_per_node=2, max_calls_in_flight=2, preflight=True
    )
    worker, other = group.workers
    method = other.total
    stream, nothing = worker.count.remote(1), worker.total.options(num_returns=0).remote()
    assert nothing is None
    # A stream counts until it has ended.
    assert ray.get(list(stream)) == [0]
    slow = [worker.sleep.remote(1.0), *other.sleep.options(num_returns=2).remote(1.0)]
    with pytest.raises(TooManyCallsError, match="2 calls are under way and 1 more"):
        worker.total.remote()
    ray.wait(slow, num_returns=3)
    assert ray.get(method.remote()) == 0
    with pytest.raises(WorkerGroupError):
        MultiWorkerFuture([other.die.remote([1])]).get_results(group)
    with pytest.raises(InconsistentGroupError, match=r"rank 1: .*SIGKILL"):
        worker.total.remote()
    assert ray.get(group.actors[0].call.remote("total")) == 0
    group.recover()
    assert ray.get(group.workers[1].total.remote()) == 0
    with pytest.raises(RayActorError):
        ray.get(method.remote())
    last = group.workers[0].total
    group.end()
    with pytest.raises(RayActorError):
        ray.get(last.remote())


def _rank_of(handles: list[Any]) -> Any:
    return ray.get(handles[0].rank.remote())
