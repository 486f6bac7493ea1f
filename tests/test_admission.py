"""Calls through handles: refused and counted as the group's own, and Ray's once that is gone."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from ray import cloudpickle

from planner.failure_policy import Domain, FailurePolicy
from runtime import (
    InconsistentGroupError,
    MultiWorkerFuture,
    RayWorkerBuilder,
    RayWorkerGroup,
    TooManyCallsError,
    WorkerGroupError,
    actor_of,
)
from runtime.in_flight import InFlight
from runtime.in_process_actor import InProcessActor
from runtime.in_process_backend import World
from runtime.in_process_objects import Item, ProcessDiedError, dumped
from runtime.testing import InProcessCluster

RANKS = FailurePolicy(domain=Domain.RANK, first_pause=0.0, budget=9)


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each; nothing may be alive at the end of a test."""
    with InProcessCluster([2, 2]) as made:
        yield made
        assert made.live == []


def group_on(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    """A group of four."""
    return RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"), **more)


def got(cluster: InProcessCluster, future: Any) -> Any:
    """A call's value."""
    return cluster.backend.get([future], 60.0)[0]


def test_a_broken_group_refuses_calls_through_its_handles(cluster: InProcessCluster) -> None:
    """Of the ranks that share the fate, before anything is sent; Ray's handle stays open."""
    with group_on(cluster) as group:
        worker = group.workers[0]
        assert got(cluster, worker.add.remote(5)) == (0, 5)
        cluster.kill_worker(group, 2)
        with pytest.raises(InconsistentGroupError, match=r"rank 2: .*Call recover\(\) or end"):
            worker.add.remote(7)
        assert got(cluster, group.actors[0].call.remote("total")) == 5
        assert got(cluster, actor_of(worker).call.remote("total")) == 5
        group.recover()
        assert got(cluster, group.workers[0].total.remote()) == 0


def test_ranks_of_other_domains_are_called_through_their_handles(
    cluster: InProcessCluster,
) -> None:
    """As through the group."""
    with group_on(cluster, failure_policy=RANKS) as group:
        cluster.kill_worker(group, 2)
        assert got(cluster, group.workers[0].add.remote(5)) == (0, 5)
        with pytest.raises(InconsistentGroupError, match="rank 2"):
            group.workers[2].total.remote()


def test_handles_of_former_processes_tell_that_these_are_gone(cluster: InProcessCluster) -> None:
    """In the backend's own words, at the answer; those of ranks that went on stay good."""
    with group_on(cluster, failure_policy=RANKS) as group:
        old = group.workers
        cluster.kill_worker(group, 2)
        group.recover()
        with pytest.raises(ProcessDiedError):
            got(cluster, old[2].total.remote())
        assert group.broken == ()
        assert (old[1], old[2]) == (group.workers[1], old[2])
        assert old[2] != group.workers[2]
        cluster.kill_worker(group, 1)
        with pytest.raises(InconsistentGroupError):
            old[1].total.remote()
        with pytest.raises(ProcessDiedError):
            got(cluster, old[2].total.remote())


def test_handles_of_an_ended_group_tell_that_the_processes_are_gone(
    cluster: InProcessCluster,
) -> None:
    """Whether it was ended, or nobody holds it any more."""
    ended, dropped = group_on(cluster), None
    (worker, *_) = ended.workers
    ended.end()
    with pytest.raises(ProcessDiedError):
        got(cluster, worker.total.remote())
    gc.disable()
    try:
        dropped = group_on(cluster)
        (worker, *_) = dropped.workers
        method = worker.total
        assert got(cluster, method.remote()) == 0
        del dropped
        assert cluster.live == []
        with pytest.raises(ProcessDiedError):
            got(cluster, method.remote())
    finally:
        gc.enable()


def test_calls_through_handles_count(cluster: InProcessCluster) -> None:
    """With those of the group; streams and lists once each, calls without returns never."""
    with group_on(cluster, max_calls_in_flight=5) as group:
        worker = group.workers[1]
        slow = [worker.sleep.remote(9.0), *worker.sleep.options(num_returns=2).remote(9.0)]
        stream = worker.drip.remote(1, 9.0)
        nothing = [worker.sleep.options(num_returns=0).remote(9.0) for _ in range(3)]
        assert group._in_flight.count == 3
        with pytest.raises(TooManyCallsError, match="3 calls are under way and 4 more"):
            group.run_all_workers_single_data("total")
        more = [group.workers[3].sleep.remote(9.0) for _ in range(2)]
        with pytest.raises(TooManyCallsError, match="5 calls are under way and 1 more"):
            worker.add.remote(7)
        cluster.backend.wait([*slow, *more], 5, 99.0)
        assert (len([*stream]), nothing) == (1, [[], [], []])
        assert got(cluster, worker.total.remote()) == 0


def test_a_call_that_runs_for_long_keeps_no_results(cluster: InProcessCluster) -> None:
    """Of those that were sent after it and have returned, however many there are."""
    with RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.AsyncWorker")) as group:
        worker = group.workers[0]
        long = worker.wait.remote()
        alive: weakref.WeakSet[Any] = weakref.WeakSet()
        for _ in range(3000):
            future = worker.number.remote()
            alive.add(future)
            cluster.backend.wait([future], 1, 9.0)
        future = None
        assert len(alive) < 600
        worker.release.remote()
        assert got(cluster, long) == "0"


def test_all_ranks_are_looked_at_as_often_as_it_costs_little(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a quick round only at each that is called; an instant later at all again."""
    looked: list[int] = []
    clock, death = [100.0], World.death

    def seen(world: World, actor: InProcessActor) -> BaseException | None:
        looked.append(actor.process.rank)
        return death(world, actor)

    with group_on(cluster) as group:
        workers = group.workers
        with monkeypatch.context() as patched:
            patched.setattr(World, "death", seen)
            patched.setattr(World, "now", lambda _: clock[0])
            for worker in (workers[0], workers[2], workers[2]):
                worker.total.remote()
                clock[0] += 6e-6
            assert looked == [0, 1, 2, 3, 2, 2]
            looked.clear()
            clock[0] += 6e-6
            workers[2].total.remote()
            assert looked == [0, 1, 2, 3]


def test_a_death_right_after_a_look_is_noticed(cluster: InProcessCluster) -> None:
    """Also by calls to other ranks, which may be meant to meet the dead one."""
    with group_on(cluster) as group:
        group.workers[0].total.remote()
        cluster.kill_worker(group, 1)
        with pytest.raises(InconsistentGroupError, match="rank 1"):
            group.workers[2].total.remote()
        with pytest.raises(InconsistentGroupError, match="rank 1"):
            group.at(rank=3).call("total")


def test_a_call_in_the_middle_of_another_ones_look_is_counted(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal handler makes it, or a finalizer that the collector runs."""
    with group_on(cluster) as group:
        held = [group.workers[0].sleep.remote(9.0)]
        wait, within = World.wait, list[int]()

        def interrupted(
            world: World, references: Any, count: int, timeout: float | None
        ) -> tuple[list[Any], list[Any]]:
            if not within:
                within.append(group._in_flight.count)
                held.append(group.workers[1].sleep.remote(9.0))
            return wait(world, references, count, timeout)

        with monkeypatch.context() as patched:
            patched.setattr(World, "wait", interrupted)
            held.extend([group.workers[2].sleep.remote(9.0) for _ in range(5)])
        assert (len(within), group._in_flight.count) == (1, 7)
        cluster.backend.wait(held, 7, 99.0)
        assert got(cluster, group.workers[3].total.remote()) == 0
        group._in_flight.admit(group._in_flight.limit)
        assert group._in_flight.count == 0


def test_what_travels_has_no_gate(cluster: InProcessCluster) -> None:
    """Elsewhere there is no group: a handle reaches the worker directly."""
    with group_on(cluster, failure_policy=RANKS) as group:
        worker = group.workers[1]
        blob, holds = dumped(worker)
        copy = cloudpickle.loads(blob)
        assert copy == worker
        assert got(cluster, copy.add.remote(5)) == (1, 5)
        group.resize([0, 2, 3])
        with pytest.raises(InconsistentGroupError, match="given up"):
            worker.total.remote()
        with pytest.raises(ProcessDiedError):
            got(cluster, copy.total.remote())
        del holds


def test_futures_of_handles_are_known_by_their_ranks(cluster: InProcessCluster) -> None:
    """In any order; where a rank occurs twice, every future keeps its result."""
    with group_on(cluster) as group:
        three, zero = group.workers[3], group.workers[0]
        futures = [three.fail.remote([3]), zero.fail.remote([3])]
        with pytest.raises(WorkerGroupError, match=r"fail\(\): 1 of 2 ranks failed") as caught:
            MultiWorkerFuture(futures).get_results(group)
        assert (caught.value.report.failed, caught.value.report.finished) == ((3,), (0,))
        twice = [three.add.remote(1), three.add.remote(2)]
        assert MultiWorkerFuture(twice).get_results(group) == [(3, 1), (3, 3)]


def test_calls_without_returns_are_not_known_by_their_ranks(cluster: InProcessCluster) -> None:
    """All give the same nothing: each has its place in the results."""
    with group_on(cluster) as group:
        calls = InFlight(cluster.backend, "g", 9, 4)
        calls.sent([None, None], "quiet", [2, 3])
        calls.sent([[], []], "quiet", [2, 3])
        assert calls.ranks_of([None, None]) is None
        assert calls.ranks_of([[], []]) is None
        loud = group.run_single_worker_single_data("total", 3)
        calls.sent([loud], "total", [3])
        assert calls.ranks_of([loud]) == ([3], "total")
        assert calls.ranks_of([loud, None]) is None


def test_the_place_of_a_freed_future_says_nothing_of_the_next(cluster: InProcessCluster) -> None:
    """Where hashes come from addresses, another future may have that of one that is gone."""

    class Placed(Item):
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            return self is other

    with group_on(cluster) as group:
        calls = InFlight(group.backend, "g", 9, 4)
        first = Placed(cluster.backend)
        first.set(1)
        calls.sent([first], "total", [3])
        assert calls.ranks_of([first]) == ([3], "total")
        assert calls.ranks_of([Placed(cluster.backend)]) is None
        calls.admit(1)
        calls.sent([group.run_single_worker_single_data("total", 0)], "total", [0])
        del first
        assert calls.ranks_of([Placed(cluster.backend)]) is None
