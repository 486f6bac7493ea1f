"""Looking at, mending and ending a group, where something goes wrong on the way."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from planner.failure_policy import Domain, FailurePolicy, Survivors
from planner.findings import PlanError
from planner.liveness import WorkerState
from planner.recovery import RecoveryPlan
from runtime import (
    RayWorkerBuilder,
    RayWorkerGroup,
    RecoveryError,
    WorkerGroupError,
    care,
    recovering,
)
from runtime.health import InconsistentGroupError
from runtime.testing import InProcessCluster

RANKS = FailurePolicy(domain=Domain.RANK, first_pause=0.0, budget=9)


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each; nothing may be alive at the end of a test."""
    with InProcessCluster([2, 2]) as made:
        yield made
        assert made.live == []


def _group(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"), **more)


def _companions(cluster: InProcessCluster) -> list[str]:
    return [name for name in cluster.backend.names() if ".companion-" in name]


def test_an_ended_group_is_not_mended(cluster: InProcessCluster) -> None:
    """Nothing is started for it any more, not even to look at it."""
    group = _group(cluster)
    group.end()
    wishes: list[Callable[[], object]] = [
        group.recover,
        group.plan_recovery,
        group.status,
        group.ping,
        group.stacks,
        group.abort,
        lambda: group.resize([0]),
    ]
    for wish in wishes:
        with pytest.raises(PlanError, match="it has ended; start a new group"):
            wish()
    assert cluster.live == []


def test_a_time_that_is_none_ends_nothing(cluster: InProcessCluster) -> None:
    """The group takes calls as before."""
    with _group(cluster) as group:
        for wrong in (-1, "x"):
            with pytest.raises(PlanError, match=r"timeout: .* is not a time"):
                group.end(timeout=wrong)  # type: ignore[arg-type]
            with pytest.raises(PlanError, match=r"timeout: .* is not a time"):
                group.status(timeout=wrong)  # type: ignore[arg-type]
        assert group.backend.get(group.run_all_workers_single_data("total"), 9.0) == [0] * 4


def test_ranks_that_are_none_are_named(cluster: InProcessCluster) -> None:
    """All of them, and nobody is killed."""
    with _group(cluster) as group:
        with pytest.raises(PlanError, match=r"(?s)ranks\[0\]: 99 .*ranks\[2\]: 'x' is not a rank"):
            group.abort([99, 1, "x"])  # type: ignore[list-item]
        with pytest.raises(PlanError, match="7 is no list of ranks"):
            group.stacks(7)  # type: ignore[arg-type]
        assert group.ping() == dict.fromkeys(range(4), True)


def test_ranks_that_were_not_restored_stay_broken(cluster: InProcessCluster) -> None:
    """The next recovery starts them again, and restores them."""
    restored: list[RecoveryPlan] = []

    def fails(_: Any, __: RecoveryPlan) -> None:
        raise OSError("no checkpoint")

    with _group(cluster, failure_policy=RANKS) as group:
        cluster.kill_worker(group, 1)
        with pytest.raises(OSError, match="no checkpoint"):
            group.recover(fails)
        with pytest.raises(InconsistentGroupError, match=r"rank 1: .*restore\(\) did not finish"):
            group.run_all_workers_single_data("total")
        again = group.recover(lambda _, plan: restored.append(plan))
        assert (again.end, restored) == ((1,), [again])
        assert group.recover().end == ()


def test_a_dead_companion_is_no_dead_worker(cluster: InProcessCluster) -> None:
    """Another one takes its place, and nobody is ended."""
    with _group(cluster, failure_policy=RANKS) as group:
        assert {each.state for each in group.status()} == {WorkerState.IDLE}
        for name in _companions(cluster):
            cluster.backend.processes[name].die("it was killed")
        assert {each.state for each in group.status()} == {WorkerState.IDLE}
        for name in _companions(cluster):
            cluster.backend.processes[name].die("it was killed")
        assert group.recover().end == ()


def test_the_grace_of_the_policy_is_that_of_every_wait(cluster: InProcessCluster) -> None:
    """After a recovery too, whose ranks have a roster of their own."""
    with _group(cluster) as group:
        assert group.identities.grace == 0.5
    policy = FailurePolicy(domain=Domain.RANK, grace=7.0)
    with _group(cluster, failure_policy=policy) as group:
        before = cluster.now
        with pytest.raises(WorkerGroupError) as caught:
            group.call("fail", ranks=[1], others=5.0).by_rank()
        assert caught.value.report.finished == (0, 2, 3)
        assert 5 <= cluster.now - before < 6
        cluster.kill_worker(group, 2)
        group.recover()
        assert group.identities.grace == 7.0


def test_what_could_not_be_ended_is_told(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is the error all the same, and the ranks take no calls until recovered."""
    policy = FailurePolicy(survivors=Survivors.ABORT)
    with _group(cluster, failure_policy=policy) as group:

        def fails(*_: object) -> None:
            raise ConnectionError("nobody answers")

        with monkeypatch.context() as broken:
            broken.setattr(group._lane, "kill", fails)
            with pytest.raises(WorkerGroupError, match="bad batch") as raised:
                group.call("fail", ranks=[1], others=600.0).by_rank()
        assert raised.value.__notes__ == [
            ("the failure policy could not end ranks 0, 2-3: ConnectionError: nobody answers")
        ]
        assert group.broken == (0, 2, 3)
        group.recover()
        with monkeypatch.context() as deaf:
            deaf.setattr(group._lane, "kill", lambda _: [2])
            with pytest.raises(WorkerGroupError) as raised:
                group.call("fail", ranks=[1], others=600.0).by_rank()
        assert raised.value.__notes__ == [
            "ended by the failure policy: rank 2",
            "not found to be ended by the failure policy: ranks 0, 3",
        ]


def test_only_a_recovery_waits_for_the_bundles_of_a_lost_node(cluster: InProcessCluster) -> None:
    """A plan says at once that they are missing; the wait is part of the time that is given."""
    with _group(cluster, failure_policy=RANKS) as group:
        cluster.kill_node(1)
        began = cluster.now
        assert not group.plan_recovery().is_possible
        assert cluster.now - began < 1
        for timeout, waited in ((4.0, 4), (None, 30)):
            began = cluster.now
            with pytest.raises(RecoveryError):
                group.recover(timeout=timeout)
            assert round(cluster.now - began) == waited


def test_a_limit_that_no_call_of_all_could_keep_is_refused_at_once(
    cluster: InProcessCluster,
) -> None:
    """With what else is wrong, before anything is reserved or started."""
    with pytest.raises(PlanError) as raised:
        _group(cluster, max_calls_in_flight=3, gpu_visibility="mine")
    assert str(raised.value.findings[0]) == (
        "max_calls_in_flight: 3 calls may be under way, and a call of all 4 workers makes 4; give "
        "4 or more"
    )
    assert len(raised.value.findings) == 2
    assert cluster._groups is None
    with _group(cluster, max_calls_in_flight=4) as group:
        assert group.backend.get(group.run_all_workers_single_data("total"), 9.0) == [0] * 4


def test_one_recovery_at_a_time(cluster: InProcessCluster) -> None:
    """The second finds nothing left to mend."""
    plans: list[RecoveryPlan] = []
    with _group(cluster, failure_policy=RANKS) as group:
        cluster.kill_worker(group, 1)
        threads = [threading.Thread(target=lambda: plans.append(group.recover())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(plan.end for plan in plans) == [(), (), (1,)]


def test_what_a_failed_change_of_size_gave_up_stays_given_up(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery does not bring it back; the rest goes on."""

    def fails(*_: object) -> None:
        raise ConnectionError("nothing can be started")

    with _group(cluster, failure_policy=RANKS) as group:
        group.resize([0, 2, 3])
        with monkeypatch.context() as broken:
            broken.setattr("runtime.care.start_again", fails)
            with pytest.raises(ConnectionError):
                group.resize([0, 1, 3])
        totals = group.run_all_workers_single_data("total")
        assert group.backend.get(totals, 9.0) == [0, 0]
        assert group.recover().start == ()
        assert [each.rank for each in group.resize([0, 1, 2, 3]).start] == [1, 2]


def test_what_an_old_future_tells_breaks_nothing(cluster: InProcessCluster) -> None:
    """The rank that it tells of was started again, or given up, since."""
    with _group(cluster, failure_policy=RANKS) as group:
        first, second = group.call("sleep", seconds=9.0), group.call("sleep", seconds=9.0)
        cluster.kill_worker(group, 1)
        with pytest.raises(WorkerGroupError):
            first.by_rank()
        assert group.recover().end == (1,)
        with pytest.raises(WorkerGroupError):
            second.by_rank()
        assert group.broken == ()
        third = group.call("sleep", seconds=9.0)
        group.resize([0, 1, 3])
        with pytest.raises(WorkerGroupError):
            third.by_rank()
        assert group.broken == ()


def test_a_recovery_leaves_alone_who_was_given_up(cluster: InProcessCluster) -> None:
    """They come back when they are asked to, once."""
    policy = FailurePolicy(domain=Domain.GROUP, first_pause=0.0)
    with _group(cluster, failure_policy=policy) as group:
        group.resize([0, 1])
        cluster.kill_worker(group, 0)
        plan = group.recover()
        assert (plan.end, plan.keep) == ((0, 1), ())
        assert len(cluster.live) == 2 + len(_companions(cluster))
        assert [each.rank for each in group.resize([0, 1, 2, 3]).start] == [2, 3]
        assert len(cluster.live) == 4 + len(_companions(cluster))


def test_a_group_that_ends_while_it_is_mended_stays_ended(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was started for it is ended."""
    group = _group(cluster, failure_policy=RANKS)
    cluster.kill_worker(group, 1)

    def slow(*args: Any) -> Any:
        started = recovering.start_again(*args)
        group.shutdown(force=True)
        return started

    monkeypatch.setattr(care, "start_again", slow)
    with pytest.raises(PlanError, match="it has ended"):
        group.recover()
    assert cluster.live == []


def test_a_time_to_start_that_is_none_ends_nobody(cluster: InProcessCluster) -> None:
    """The budget is not touched either."""
    with _group(cluster, failure_policy=RANKS) as group:
        cluster.kill_worker(group, 1)
        with pytest.raises(PlanError, match="start_timeout: 'x' is not a time"):
            group.recover(start_timeout="x")  # type: ignore[arg-type]
        with pytest.raises(PlanError, match="start_timeout: 0 is not a time"):
            group.resize([0], start_timeout=0)
        assert group.recover().pause == 0.0


def test_stacks_that_cannot_be_had_hide_no_failure(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are a note on it."""
    policy = FailurePolicy(stacks=True)
    with _group(cluster, failure_policy=policy) as group:

        def fails(*_: object) -> None:
            raise ConnectionError("nobody answers")

        monkeypatch.setattr(group._lane, "stacks", fails)
        with pytest.raises(WorkerGroupError, match="bad batch") as raised:
            group.call("fail", ranks=[1], others=600.0).by_rank()
        assert raised.value.__notes__ == ["no stacks: ConnectionError: nobody answers"]
        assert group.broken == (0, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"domain": "x"}, "'x' is not a Domain; use one of Domain.RANK, "),
        ({"survivors": "abort"}, "'abort' is not a Survivors"),
        ({"stacks": 1}, "1 is not a truth value"),
        ({"budget": "3"}, "'3' is not a number of recoveries"),
        ({"budget": -1}, "-1 is not a number of recoveries"),
        ({"first_pause": -1}, "first_pause: -1 is not a time"),
        ({"longest_pause": float("nan")}, "longest_pause: nan is not a time"),
        ({"grace": None}, "grace: None is not a time"),
        ({"grace": True}, "grace: True is not a time"),
        ({"grace": float("inf")}, "grace: inf holds every error back"),
    ],
)
def test_a_policy_that_cannot_be(arguments: dict[str, Any], told: str) -> None:
    """It is refused when it is made, not when something breaks."""
    with pytest.raises(PlanError) as raised:
        FailurePolicy(**arguments)
    assert told in str(raised.value)
