"""A rank dies for which others wait, and nobody waits for it: who waits for them is told."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from planner.outcomes import Aside
from planner.recovery import Domain, FailurePolicy
from runtime import (
    DeadlineError,
    InconsistentGroupError,
    MultiWorkerFuture,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
    care,
    teardown,
    wait_all,
)
from runtime.testing import Fault, FaultKind, InProcessCluster
from runtime.together import wait_all_async

HOUR = 3_600.0
ENGINES = [(0, [0, 1]), (1, [0, 1])]


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each."""
    with InProcessCluster([2, 2], max_colocated_worker_groups=2) as made:
        yield made


def _group(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"), **more)


async def _awaited(future: Any) -> object:
    return await future


async def _taken(stream: Any) -> list[Any]:
    return [answer async for answer in stream]


WAYS: dict[str, Callable[[RayWorkerGroup], object]] = {
    "by rank": lambda group: _sleep(group).by_rank(),
    "await": lambda group: asyncio.run(_awaited(_sleep(group))),
    "wait for all": lambda group: wait_all(group.at(rank=2).call("total"), _sleep(group)),
    "await all": lambda group: asyncio.run(
        wait_all_async(group.at(rank=2).call("total"), _sleep(group))
    ),
    "as completed": lambda group: list(_sleep(group).as_completed()),
    "stream": lambda group: list(group.at(rank=0).call("drip", 9, HOUR)),
    "awaited stream": lambda group: asyncio.run(_taken(group.at(rank=0).call("drip", 9, HOUR))),
    "values that keep coming": lambda group: list(group.at(rank=0).call("drip", 99_999, 0.1)),
    "older": lambda group: _older(group, "sleep", seconds=HOUR),
    "older stream": lambda group: _older(group, "drip", upto=99_999, seconds=0.1),
}


def _sleep(group: RayWorkerGroup) -> Any:
    return group.at(rank=0).call("sleep", HOUR)


def _older(group: RayWorkerGroup, method: str, **data: Any) -> object:
    future = group.run_single_worker_single_data(method, 0, **data)
    return MultiWorkerFuture([future], called_workers=[0]).get_results(group)


@pytest.mark.parametrize("way", WAYS)
def test_every_wait_ends_when_a_rank_dies_that_is_called_by_itself(way: str) -> None:
    """Within a second, whoever waits; the others stay in their call, and the group knows it."""
    dies = Fault(kind=FaultKind.DEATH, rank=1, method="log", seconds=5.0)
    with InProcessCluster([2, 2], faults=[dies]) as cluster, _group(cluster) as group:
        group.at(rank=1).call("log")
        with pytest.raises(WorkerGroupError, match="rank 1, not in this call: ProcessDied") as seen:
            WAYS[way](group)
        assert 5.0 < cluster.now < 6.1
        assert (seen.value.report.dead, seen.value.report.running) == ((1,), (0,))
        assert list(seen.value.errors) == [1]
        assert group.broken == (0, 1)
        with pytest.raises(
            InconsistentGroupError, match="ranks 0-1: they are dead, or still in a call"
        ):
            group.at(rank=2).call("total")


def test_values_that_are_always_there_do_not_hide_it(cluster: InProcessCluster) -> None:
    """Whoever takes them slowly never waits, and is told all the same."""
    with _group(cluster) as group:
        stream = group.at(rank=0).call("drip", 99_999, 0.01)
        cluster.pause(1.0)
        cluster.kill_worker(group, 1)
        began = cluster.now

        def slowly(_: object) -> None:
            cluster.pause(0.1)

        with pytest.raises(WorkerGroupError, match="rank 1, not in this call"):
            deque(map(slowly, stream))
        assert cluster.now - began < 1.2


def test_a_rank_that_dies_after_its_answer_is_told(cluster: InProcessCluster) -> None:
    """Its answer is not waited for any more, but others wait for it in a collective."""
    with _group(cluster) as group:
        future = group.call("sleep", HOUR, ranks=[0, 2])
        cluster.pause(1.0)
        cluster.kill_worker(group, 1)
        for _ in range(2):
            with pytest.raises(WorkerGroupError) as raised:
                future.by_rank()
            report = raised.value.report
            assert (report.failed, report.finished, report.running) == ((1,), (1, 3), (0, 2))
            lines = str(raised.value).splitlines()
            assert lines[0].startswith("worker group 'Worker', sleep(): 1 of 4 ranks failed; first")
            assert lines[1].startswith("  rank 1, after it had returned: ProcessDiedError: its pro")
        assert group.recover().end == (0, 1, 2, 3)
        again = group.call("sleep", HOUR, ranks=[0, 2])
        cluster.pause(1.0)
        cluster.kill_worker(group, 1)
        with pytest.raises(WorkerGroupError, match="rank 1, after it had returned"):
            again.by_rank()


def test_a_deadline_that_passes_first_tells_of_it_too(cluster: InProcessCluster) -> None:
    """It is not the time that is short."""
    with _group(cluster) as group:
        future = group.at(rank=0).call("sleep", HOUR)
        with pytest.raises(DeadlineError):
            future.result(0.1)
        cluster.kill_worker(group, 3)
        with pytest.raises(WorkerGroupError) as raised:
            future.result(0.0)
    assert not isinstance(raised.value, DeadlineError)
    assert [each.aside for each, _ in raised.value.report.causes] == [Aside.OUTSIDE]


def test_the_cause_of_what_the_others_raise_comes_first(cluster: InProcessCluster) -> None:
    """They raise as soon as their peer is gone, before anybody looks."""
    with _group(cluster) as group:
        future = group.call("fail", ranks=[0, 2], after=1.0)
        cluster.pause(0.99)
        cluster.kill_worker(group, 1)
        with pytest.raises(WorkerGroupError) as raised:
            future.by_rank()
    report = raised.value.report
    assert [ranks for _, ranks in report.causes] == [(1,), (0, 2)]
    assert (report.finished, report.running) == ((1, 3), ())


def test_what_comes_in_the_grace_is_a_result(cluster: InProcessCluster) -> None:
    """Whoever waits has all that he waits for; the next call is refused."""
    with _group(cluster) as group:
        future = group.call("sleep", 0.7, ranks=[0, 2])
        cluster.pause(0.1)
        cluster.kill_worker(group, 1)
        assert future.by_rank() == {0: 0, 1: 1, 2: 2, 3: 3}
        with pytest.raises(
            InconsistentGroupError, match="rank 1: they are dead, or still in a call"
        ):
            group.call("total")


def test_whose_fate_is_another_is_none_of_it(cluster: InProcessCluster) -> None:
    """By the policy: each rank for itself, or each engine."""
    policy = FailurePolicy(domain=Domain.TIED_GROUP)
    with _group(cluster, failure_policy=policy, bundle_indices_list=ENGINES) as group:
        future = group.call("sleep", 100.0, ranks=[0, 1])
        cluster.pause(1.0)
        cluster.kill_worker(group, 2)
        assert future.by_rank() == {0: 0, 1: 1, 2: 2, 3: 3}


def test_ranks_that_were_started_again_do_not_count(cluster: InProcessCluster) -> None:
    """Calls from before a recovery go on where ranks were kept, whoever dies now elsewhere."""
    policy = FailurePolicy(domain=Domain.TIED_GROUP, first_pause=0.0)
    with _group(cluster, failure_policy=policy, bundle_indices_list=ENGINES) as group:
        kept = group.at(rank=0).call("sleep", 100.0)
        cluster.kill_worker(group, 2)
        assert group.recover().keep == (0, 1)
        cluster.kill_worker(group, 3)
        assert kept.by_rank() == {0: 0}
        before = group.at(rank=0).call("sleep", 100.0)
        cluster.kill_worker(group, 1)
        with pytest.raises(WorkerGroupError, match="rank 1, not in this call"):
            before.by_rank()


def test_ranks_that_were_given_up_do_not_count(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while they are being ended, and not once they are back as other processes."""
    with _group(cluster, bundle_indices_list=ENGINES) as group:
        kept = group.at(rank=0).call("sleep", HOUR)
        ended: list[tuple[int, ...]] = []
        carry_out = teardown.carry_out_teardown

        def slowly(*given: Any, **more: Any) -> Any:
            done = carry_out(*given, **more)
            with pytest.raises(DeadlineError):
                kept.result(2.0)
            ended.append(done.ended)
            return done

        monkeypatch.setattr(care, "carry_out_teardown", slowly)
        group.resize([0])
        monkeypatch.undo()
        assert ended == [(2, 3)]
        with pytest.raises(DeadlineError):
            kept.result(2.0)
        group.resize([0, 1])
        cluster.kill_worker(group, 2)
        assert kept.by_rank() == {0: 0}


def test_a_group_that_waits_with_another_is_told(cluster: InProcessCluster) -> None:
    """The error is that of the group whose rank died; the other's standing is a line in it."""
    with (
        _group(cluster, name_prefix="one") as one,
        _group(cluster, name_prefix="two") as two,
    ):
        calls = [one.call("sleep", HOUR), two.at(rank=0).call("sleep", HOUR)]
        cluster.kill_worker(two, 1)
        with pytest.raises(WorkerGroupError, match=r"^worker group 'two', sleep\(\)") as raised:
            wait_all(*calls)
        assert "\nworker group 'one', sleep(): ranks 0-3 had not answered" in str(raised.value)
        assert (one.broken, two.broken) == ((), (0, 1))


def test_the_end_of_a_group_is_no_failure_of_others(cluster: InProcessCluster) -> None:
    """What is said then of its workers is the cluster's."""
    group = _group(cluster)
    future = group.at(rank=0).call("sleep", HOUR)
    group.end()
    with pytest.raises(WorkerGroupError) as raised:
        future.by_rank()
    assert raised.value.report.failed == (0,)


def test_closing_a_stream_tells_who_is_late_only(cluster: InProcessCluster) -> None:
    """Who died elsewhere is told by the next wait."""
    with _group(cluster) as group:
        stream = group.at(rank=0).call("drip", 9, HOUR)
        cluster.kill_worker(group, 1)
        with pytest.raises(DeadlineError, match="1 of 1 ranks did not answer"):
            stream.close(1.0)
