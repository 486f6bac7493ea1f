"""Virtual time: it passes for those who look again and again, and says who waits for ever."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from planner.findings import PlanError
from planner.roles import First
from runtime import (
    CallFuture,
    MultiWorkerFuture,
    RayWorkerBuilder,
    RayWorkerGroup,
    wait_all,
)
from runtime.errors import DeadlineError
from runtime.testing import Fault, FaultKind, FaultRates, InProcessCluster, NothingWillHappenError
from runtime.virtual_time import FREE_LOOKS, VirtualTime

WORKER = RayWorkerBuilder("tests.fault_workers.Worker")


@pytest.fixture
def group() -> Iterator[RayWorkerGroup]:
    """Two workers in process."""
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, WORKER) as group:
        yield group


def test_a_look_takes_no_time_at_first() -> None:
    """A few looks in a row, and any look that finds something, leave the clock alone."""
    time = VirtualTime(random.Random(0))  # noqa: S311
    time.at(5.0, lambda: None)
    for _ in range(FREE_LOOKS):
        assert not time.run_until(lambda: False, 0.0)
    assert time.now == 0.0
    assert time.run_until(lambda: True, 0.0)
    for _ in range(FREE_LOOKS):
        assert not time.run_until(lambda: False, 0.0)
    assert time.now == 0.0


def test_looking_in_vain_takes_time_until_the_next_event() -> None:
    """Each look takes longer than the one before, and none passes by an event."""
    time = VirtualTime(random.Random(0))  # noqa: S311
    happened: list[float] = []
    time.at(5.0, lambda: happened.append(time.now))
    seen = []
    while not happened:
        time.run_until(lambda: bool(happened), time.now)
        seen.append(time.now)
    assert happened == [5.0]
    steps = [after - before for before, after in itertools.pairwise(seen)]
    moving = [step for step in steps if step]
    assert moving[:-1] == sorted(moving[:-1])
    assert len(seen) < FREE_LOOKS + 20


def test_a_loop_that_asks_whether_a_call_is_done_ends(group: RayWorkerGroup) -> None:
    """At the same virtual time each time."""
    ends = []
    for _ in range(2):
        began = group.backend.now()
        future = group.call("sleep", 1000.0)
        looks = 1
        while not future.done():
            looks += 1
        assert looks < 100
        ends.append(round(group.backend.now() - began))
    assert ends == [1000, 1000]


def _look_until_done(future: CallFuture[Any]) -> None:
    while not future.done():
        pass


def test_a_loop_that_asks_for_what_never_comes_is_an_error() -> None:
    """It does not run for ever."""
    hangs = Fault(kind=FaultKind.HANG, rank=1, method="pid")
    with InProcessCluster([2], faults=[hangs]) as cluster, RayWorkerGroup(cluster, WORKER) as group:
        future = group.call("pid")
        with pytest.raises(NothingWillHappenError, match=r"rank 1: pid\(\) since"):
            _look_until_done(future)


def test_an_event_loop_waits_for_calls_and_streams(group: RayWorkerGroup) -> None:
    """Virtual time passes; the loop's other tasks go on."""

    async def main() -> tuple[Any, list[int], int]:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(turn())
        results = await group.using(returns=First()).call("sleep", 50.0)
        stream = group.call("drip", 3, 100.0)
        values = sorted([answer.value async for answer in stream])
        other.cancel()
        return results, values, turns

    began = group.backend.now()
    results, values, turns = asyncio.run(asyncio.wait_for(main(), 30))
    assert (results, values) == (0, [0, 0, 1, 1, 2, 2])
    assert group.backend.now() - began >= 350.0
    assert turns > 2


@pytest.mark.parametrize("limit", [499.0, 3600.0])
def test_a_deadline_is_kept_however_far_it_is(limit: float) -> None:
    """Of every kind of wait, though nothing at all is under way until then."""
    hangs = Fault(kind=FaultKind.HANG, rank=1, method="total")
    with InProcessCluster([2], faults=[hangs]) as cluster, RayWorkerGroup(cluster, WORKER) as group:
        future = group.call("total")
        old = MultiWorkerFuture(group.run_all_workers_single_data("pid"))
        stream = group.call("drip", 1, 0.0)
        waits: list[Callable[[], object]] = [
            lambda: future.result(limit),
            lambda: wait_all(future, timeout=limit),
            lambda: list(future.as_completed(limit)),
            lambda: old.get_results(group, timeout=limit),
            lambda: list(stream.as_completed(limit)),
        ]
        for wait in waits:
            began = cluster.now
            with pytest.raises(DeadlineError):
                wait()
            assert round(cluster.now - began) == limit
        with pytest.raises(NothingWillHappenError, match=r"rank 1: total\(\) since"):
            future.result()


def test_a_deadline_of_an_awaited_call_is_kept() -> None:
    """An event loop looks far more often than a thread."""
    hangs = Fault(kind=FaultKind.HANG, rank=1, method="total")
    with InProcessCluster([2], faults=[hangs]) as cluster, RayWorkerGroup(cluster, WORKER) as group:

        async def main() -> None:
            await group.using(timeout=600.0).call("total")

        with pytest.raises(DeadlineError, match=r"after 600\.0 s"):
            asyncio.run(main())


def test_a_constructor_that_hangs_meets_the_deadline_that_nobody_gave() -> None:
    """The default of ten minutes is a deadline too."""
    hangs = Fault(kind=FaultKind.HANG, rank=1, method="__init__")
    with InProcessCluster([2], faults=[hangs]) as cluster:
        with pytest.raises(DeadlineError) as caught:
            RayWorkerGroup(cluster, WORKER)
        assert caught.value.report.running == (1,)
        assert round(cluster.now) == 600
        assert cluster.live == []


def test_who_waits_for_ever_is_named() -> None:
    """The calls, their ranks, and since when; also those of a stopped process."""
    hangs = Fault(kind=FaultKind.HANG, rank=1, method="total")
    with InProcessCluster([2], faults=[hangs]) as cluster, RayWorkerGroup(cluster, WORKER) as group:
        cluster.stop_worker(group, 0)
        with pytest.raises(NothingWillHappenError) as caught:
            group.call("total").result()
        assert "Worker-0-0, rank 0, stopped: 1 calls that have not begun" in str(caught.value)
        assert "Worker-0-1, rank 1: total() since " in str(caught.value)


def test_the_error_of_a_call_says_how_long_it_was_waited_for(group: RayWorkerGroup) -> None:
    """Also that of a ``CallFuture``, and when it was awaited."""
    with pytest.raises(DeadlineError, match=r"no answer yet: ranks 0-1, after 5\.0 s"):
        group.call("sleep", 100.0).result(5.0)

    async def main() -> None:
        await group.using(timeout=7.0).call("sleep", 100.0)

    with pytest.raises(DeadlineError, match=r"no answer yet: ranks 0-1, after 7\.0 s"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("strike", "problem"),
    [
        (lambda c, _: c.kill_node(9), "kill_node: node: there is no node 9; name one of 0"),
        (lambda c, g: c.kill_worker(g, -1), "kill_worker: rank: there is no rank -1"),
        (lambda c, g: c.stop_worker(g, "a"), "stop_worker: rank: there is no rank 'a'"),
        (lambda c, g: c.state_of(g, 2), "state_of: rank: there is no rank 2; name one of 0 to 1"),
        (lambda c, g: c.kill_worker(g, 0, "SIGFOO"), "signal: there is no signal 'SIGFOO'"),
        (lambda c, _: c.pause(-5), "pause: seconds: -5 is not a time"),
    ],
)
def test_striking_what_is_not_there_is_refused(
    group: RayWorkerGroup,
    strike: Callable[[InProcessCluster, RayWorkerGroup], object],
    problem: str,
) -> None:
    """Nothing happens; the error says what would work."""
    cluster: Any = group.cluster
    with pytest.raises(PlanError) as caught:
        strike(cluster, group)
    assert problem in str(caught.value)
    assert group.ping() == {0: True, 1: True}


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: InProcessCluster([1], faults=Fault(kind=FaultKind.HANG)), "faults: "),  # type: ignore[arg-type]
        (lambda: InProcessCluster([1], faults=["x"]), "faults[0]: 'x' is not a Fault"),  # type: ignore[list-item]
        (lambda: InProcessCluster([1], rates=0.5), "rates: 0.5 is not FaultRates"),  # type: ignore[arg-type]
        (lambda: InProcessCluster([1], seed="a"), "seed: 'a' is not a whole number"),  # type: ignore[arg-type]
        (lambda: InProcessCluster([1], spare_nodes=-1), "spare_nodes: -1 is"),
        (lambda: FaultRates(death=3), "death: 3 is not a chance; give a number from 0 to 1"),
        (lambda: FaultRates(death=0.7, hang=0.7), "together they are 1.4"),
        (lambda: FaultRates(slow_seconds=-1.0), "slow_seconds: -1.0 is not a time"),
        (lambda: FaultRates(methods="add"), "methods: 'add' is not a set of names"),  # type: ignore[arg-type]
        (lambda: Fault(kind="death"), "kind: 'death' is not a FaultKind"),  # type: ignore[arg-type]
        (lambda: Fault(kind=FaultKind.HANG, rank=-1), "rank: -1 is not a rank"),
        (lambda: Fault(kind=FaultKind.HANG, call=-1), "call: -1 is not a number of a call"),
        (lambda: Fault(kind=FaultKind.HANG, seconds=-1.0), "seconds: -1.0 is not a time"),
        (lambda: Fault(kind=FaultKind.RAISES, error="x"), "error: 'x' is not an exception"),  # type: ignore[arg-type]
    ],
)
def test_faults_that_make_no_sense_are_refused(make: Callable[[], object], problem: str) -> None:
    """Before anything is pretended."""
    with pytest.raises(PlanError) as caught:
        make()
    assert problem in str(caught.value)
