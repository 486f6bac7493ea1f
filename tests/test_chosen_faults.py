"""Faults that are told where to strike: they do so once, for every rank, and never in silence."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from planner.findings import PlanError
from planner.recovery import Domain, FailurePolicy
from runtime import RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.testing import Fault, FaultKind, InProcessCluster, UnstruckFaultsWarning

WORKER = RayWorkerBuilder("tests.fault_workers.Worker")
POLICY = FailurePolicy(domain=Domain.RANK, budget=100, first_pause=0.0)


def _group(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, WORKER, failure_policy=POLICY, **more)


def _outcomes(group: RayWorkerGroup, calls: int) -> list[tuple[int, ...]]:
    """The ranks that failed in each of some calls, with a recovery where one died."""
    failed: list[tuple[int, ...]] = []
    for number in range(calls):
        try:
            group.call("add", number).by_rank()
        except WorkerGroupError as error:
            failed.append(error.report.failed)
            group.recover()
        else:
            failed.append(())
    return failed


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (
            [
                Fault(kind=FaultKind.RAISES, rank=1, method="add", call=1),
                Fault(kind=FaultKind.RAISES, rank=1, method="add", call=2),
            ],
            [(1,), (1,), (), ()],
        ),
        (
            [
                Fault(kind=FaultKind.SLOW, method="add", call=0, seconds=1),
                Fault(kind=FaultKind.RAISES, rank=1, method="add", call=2),
            ],
            [(), (1,), (), ()],
        ),
        (
            [
                Fault(kind=FaultKind.RAISES, rank=1, call=4),
                Fault(kind=FaultKind.RAISES, rank=0, method="add", call=4),
                Fault(kind=FaultKind.RAISES, method="add", call=2),
            ],
            [(), (0, 1), (1,), (0,)],
        ),
        ([Fault(kind=FaultKind.DEATH, rank=1, method="add", call=2)], [(), (1,), (), ()]),
        ([Fault(kind=FaultKind.DEATH, method="add", call=3)], [(), (), (0, 1), ()]),
        ([Fault(kind=FaultKind.DEATH, rank=0, method="add", call=0)], [(0,)] * 4),
    ],
)
def test_a_fault_strikes_the_call_that_it_names(
    faults: Sequence[Fault], expected: list[tuple[int, ...]]
) -> None:
    """Every fault counts every call that fits, over recoveries; one with a number strikes once."""
    with InProcessCluster([2], faults=faults) as cluster, _group(cluster) as group:
        assert _outcomes(group, 4) == expected
        assert cluster.unstruck == []


def test_of_faults_that_are_due_at_once_the_first_strikes() -> None:
    """The other one never does, and is told."""
    raises = Fault(kind=FaultKind.RAISES, rank=1, method="add", call=2)
    dies = Fault(kind=FaultKind.DEATH, rank=1, method="add", call=2)
    cluster = InProcessCluster([2], faults=[raises, dies])
    with _group(cluster) as group:
        assert _outcomes(group, 3) == [(), (1,), ()]
        assert [each.kind for _, _, each in cluster.struck] == [FaultKind.RAISES]
        assert cluster.unstruck == [dies]
    cluster.shutdown()


def test_a_constructor_can_fail_at_the_restart() -> None:
    """It is the second one of that rank; the third succeeds."""
    dies = Fault(kind=FaultKind.DEATH, rank=1, method="__init__", call=2)
    with InProcessCluster([2], faults=[dies]) as cluster, _group(cluster) as group:
        cluster.kill_worker(group, 1)
        with pytest.raises(WorkerGroupError) as caught:
            group.recover()
        assert caught.value.report.dead == (1,)
        group.recover()
        assert _outcomes(group, 1) == [()]
        assert [(rank, method) for rank, method, _ in cluster.struck] == [(1, "__init__")]


def test_a_group_of_the_same_name_goes_on_counting() -> None:
    """A controller that starts its group again is not struck for ever."""
    dies = Fault(kind=FaultKind.DEATH, rank=1, method="add", call=2)
    outcomes = []
    with InProcessCluster([2], faults=[dies]) as cluster:
        for _ in range(3):
            with _group(cluster, name_prefix="train") as group:
                outcomes += _outcomes(group, 2)
    assert outcomes == [(), (1,), (), (), (), ()]


def test_a_fault_may_name_its_group() -> None:
    """Each group counts by itself; the names of workers do not confuse it."""
    faults = [
        Fault(kind=FaultKind.RAISES, group="g-2", rank=1, method="add", call=1),
        Fault(kind=FaultKind.RAISES, group="g", rank=0, method="add", call=2),
        Fault(kind=FaultKind.RAISES, method="add", call=3),
    ]
    cluster = InProcessCluster([2], max_colocated_worker_groups=2, faults=faults)
    with (
        cluster,
        _group(cluster, name_prefix="g") as first,
        _group(cluster, name_prefix="g-2", bundle_indices_list=[(0, [0, 1])]) as second,
    ):
        assert _outcomes(first, 4) == [(), (0,), (0, 1), ()]
        assert _outcomes(second, 4) == [(1,), (), (0, 1), ()]


def test_a_group_of_one_rank_is_called_as_it_is_named() -> None:
    """Although its name looks like that of a rank of another group."""
    fault = Fault(kind=FaultKind.RAISES, group="g-0-1", rank=0, method="add")
    with InProcessCluster([1], faults=[fault]) as cluster:
        group = _group(cluster, name_prefix="g-0-1")
        assert [worker.name for worker in group.plan.workers] == ["g-0-1-0-0"]
        assert _outcomes(group, 2) == [(0,), ()]
        group.shutdown()


def test_faults_that_never_struck_are_told_at_the_end() -> None:
    """By a warning, which pytest shows and can make an error; not on the way of an exception."""
    fault = Fault(kind=FaultKind.DEATH, method="ad")

    def run() -> None:
        with InProcessCluster([2], faults=[fault]) as cluster, _group(cluster) as group:
            group.call("add", 1).by_rank()
            assert cluster.unstruck == [fault]

    with pytest.warns(UnstruckFaultsWarning, match=r"(?s)never struck.*method='ad'"):
        run()
    with pytest.raises(KeyError), InProcessCluster([2], faults=[fault]):
        raise KeyError
    with warnings.catch_warnings(), InProcessCluster([2]):
        warnings.simplefilter("error")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(kind=FaultKind.HANG, group="g", rank=2), "faults[0].rank: there is no rank 2 among"),
        (
            Fault(kind=FaultKind.HANG, group="g", method="ad"),
            "faults[0].method: Worker has no method 'ad'; did you mean 'add'?",
        ),
        (
            Fault(kind=FaultKind.HANG, group="g", method="zzz"),
            "faults[0].method: Worker has no method 'zzz'; name one that it has",
        ),
    ],
)
def test_a_group_without_the_place_of_a_fault_is_refused(fault: Fault, told: str) -> None:
    """When it starts, with nothing left of it; another group is not asked for it."""
    cluster = InProcessCluster([2, 1], faults=[fault])
    with pytest.raises(PlanError) as caught:
        _group(cluster, name_prefix="g", workers_per_node=[2, 0])
    assert told in str(caught.value)
    assert cluster.live == []
    with _group(cluster) as other:
        assert _outcomes(other, 1) == [()]
    cluster.shutdown()


def test_async_classes_are_asked_too() -> None:
    """The constructor is no method to ask for."""
    faults = [
        Fault(kind=FaultKind.HANG, group="g", method="waits"),
        Fault(kind=FaultKind.HANG, group="g", method="__init__"),
    ]
    cluster = InProcessCluster([1], faults=faults[:1])
    builder = RayWorkerBuilder("tests.fault_workers.AsyncWorker")
    with pytest.raises(PlanError, match="AsyncWorker has no method 'waits'; did you mean 'wait'"):
        RayWorkerGroup(cluster, builder, name_prefix="g")
    cluster.shutdown()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: InProcessCluster([2, 1], faults=[Fault(kind=FaultKind.HANG, rank=3)]),
            "faults[0].rank: there is no rank 3 among 3; give 0 to 2, or None for all",
        ),
        (lambda: Fault(kind=FaultKind.HANG, group=None), "group: None is not a name"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_that_no_group_can_have_is_refused(make: Callable[[], object], told: str) -> None:
    """Before anything is pretended."""
    with pytest.raises(PlanError) as caught:
        make()
    assert told in str(caught.value)
