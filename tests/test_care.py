"""Looking at, mending and ending a group, where something goes wrong on the way."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

from planner.failure_policy import Domain, FailurePolicy, Survivors
from planner.findings import PlanError
from planner.liveness import WorkerState
from planner.recovery import RecoveryPlan
from runtime import (
    DeadlineError,
    NodeLostError,
    RayWorkerBuilder,
    RayWorkerGroup,
    RecoveryError,
    WorkerGroupError,
    care,
    recovering,
)
from runtime.health import InconsistentGroupError
from runtime.testing import InProcessCluster
from tests.exception_workers import GuardedError

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
        raise GuardedError(rank=1)

    with _group(cluster, failure_policy=RANKS) as group:
        cluster.kill_worker(group, 1)
        with pytest.raises(GuardedError):
            group.recover(fails)
        with pytest.raises(InconsistentGroupError, match=r"rank 1: .*restore\(\) did not finish"):
            group.run_all_workers_single_data("total")
        again = group.recover(lambda _, plan: restored.append(plan))
        assert (again.end, restored) == ((1,), [again])
        assert group.recover().end == ()


def test_only_the_restore_hook_calls_ranks_that_are_not_restored(cluster: InProcessCluster) -> None:
    """Others are refused, also in its nested recoveries; so are the handles of those ranks."""
    refused: list[InconsistentGroupError] = []
    steps: list[Any] = []

    with _group(cluster, failure_policy=RANKS) as group:
        calls: list[Callable[[], object]] = [
            lambda: group.call("total"),
            lambda: group.workers[1].add.remote(value=1),
            lambda: group.at(rank=1).call("add", value=1),
        ]

        def other() -> None:
            for call in calls:
                with pytest.raises(InconsistentGroupError, match="being recovered") as caught:
                    call()
                refused.append(caught.value)
            steps.append(group.at(rank=0).call("total").by_rank())

        def restore(again: RayWorkerGroup, _: RecoveryPlan) -> None:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert again.recover().end == ()
            steps.append(again.call("add", value=100).by_rank())
            steps.append(asyncio.run(asyncio.to_thread(again.call("total").by_rank)))

        cluster.kill_worker(group, 1)
        group.recover(restore)
        assert [each.ranks for each in refused] == [(1,)] * 3
        after = dict.fromkeys(range(4), 100)
        assert steps == [{0: 0}, {rank: (rank, 100) for rank in range(4)}, after]
        thread = threading.Thread(target=lambda: steps.append(group.call("total").by_rank()))
        thread.start()
        thread.join()
        assert steps[-1] == after


def test_a_restore_that_is_none_ends_nobody(cluster: InProcessCluster) -> None:
    """All that is wrong is told at once, and the budget is not touched."""
    policy = FailurePolicy(domain=Domain.RANK, budget=1)
    with _group(cluster, failure_policy=policy) as group:
        cluster.kill_worker(group, 1)
        before = cluster.live
        with pytest.raises(PlanError) as caught:
            group.recover(5, timeout=-1, start_timeout=0)  # type: ignore[arg-type]
        assert [str(each) for each in caught.value.findings] == [
            "start_timeout: 0 is not a time; give seconds, more than 0",
            "timeout: -1 is not a time; give seconds, 0 or more, or None",
            "restore: 5 can't be called; give a function of the group and the plan, or None",
        ]
        assert cluster.live == before
        assert group.recover().end == (1,)


def test_a_removed_placement_group_is_missing_at_once(cluster: InProcessCluster) -> None:
    """For a recovery and for a change of size; nothing is changed, and the budget is untouched."""
    policy = FailurePolicy(domain=Domain.RANK, budget=1)
    with _group(cluster, failure_policy=policy) as group:
        group.resize([0, 1, 2])
        cluster.remove_placement_group(1)
        missing = "1 bundle for rank {}: placement group 1 was removed from the cluster: end the "
        assert group.plan_recovery().missing[0].startswith(missing.format(2))
        began, before = cluster.now, cluster.live
        with pytest.raises(RecoveryError, match=missing.format(2)):
            group.recover()
        with pytest.raises(RecoveryError, match=missing.format(3)):
            group.resize([0, 1, 3])
        assert (cluster.live, cluster.now - began < 1) == (before, True)
        # With the other placement group everything still works.
        group.resize([0, 1])
        cluster.kill_worker(group, 0)
        assert group.recover().end == (0,)
    with pytest.raises(NodeLostError, match=r"placement_groups\[1\]: 2 of its 2 bundles"):
        _group(cluster)


def test_a_host_that_has_landed_nowhere_is_told_with_its_bundle(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node is not known yet: the placement group was removed after all had been planned."""
    with _group(cluster, failure_policy=RANKS) as group:
        cluster.remove_placement_group(1)
        monkeypatch.setattr(recovering, "gone_groups", lambda *_: ())
        with pytest.raises(DeadlineError) as caught:
            group.recover(start_timeout=5.0)
        assert "waiting for rank 3 in bundle 1 of placement group 1\n" in f"{caught.value}\n"


def test_the_budget_can_be_raised(cluster: InProcessCluster) -> None:
    """With the rest of the policy, which counts from then on."""
    with _group(cluster, failure_policy=FailurePolicy(domain=Domain.RANK, budget=0)) as group:
        cluster.kill_worker(group, 1)
        with pytest.raises(RecoveryError, match=r"budget of 0 recoveries is spent: .*budget=1\)"):
            group.recover()
        with pytest.raises(PlanError, match="failure_policy: a value of type int; give a Fail"):
            group.failure_policy = 5  # type: ignore[assignment]
        group.failure_policy = evolve(group.failure_policy, budget=1, grace=7.0)
        assert group.failure_policy == FailurePolicy(domain=Domain.RANK, budget=1, grace=7.0)
        assert group.recover().end == (1,)
        before = cluster.now
        with pytest.raises(WorkerGroupError):
            group.call("fail", ranks=[1], others=5.0).by_rank()
        assert 5 <= cluster.now - before < 6
        cluster.kill_worker(group, 1)
        with pytest.raises(RecoveryError, match="budget of 1 recovery is spent"):
            group.recover()


def test_a_recovery_that_ended_nothing_does_not_count(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was interrupted in its pause; one that failed after that counts."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def fails(*_: object) -> None:
        raise ConnectionError("nothing can be started")

    policy = FailurePolicy(domain=Domain.RANK, first_pause=8.0, budget=3)
    with _group(cluster, failure_policy=policy) as group:
        cluster.kill_worker(group, 1)
        group.recover()
        cluster.kill_worker(group, 1)
        with monkeypatch.context() as patch:
            patch.setattr(type(cluster.backend), "pause", interrupted)
            with pytest.raises(KeyboardInterrupt):
                group.recover()
        assert group.plan_recovery().pause == 8.0
        with monkeypatch.context() as patch:
            patch.setattr(care, "start_again", fails)
            with pytest.raises(ConnectionError):
                group.recover()
        assert group.plan_recovery().pause == 16.0
        assert group.recover().end == (1,)


def test_the_waits_of_a_recovery_are_told(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """When they begin, and once a minute."""
    caplog.set_level(logging.INFO, "rankplan")
    policy = FailurePolicy(domain=Domain.RANK, first_pause=150.0, longest_pause=150.0, budget=9)
    with _group(cluster, failure_policy=policy) as group:
        for _ in range(2):
            cluster.kill_worker(group, 1)
            group.recover()
        assert [each for each in caplog.messages if "recover" in each] == [
            "worker group 'Worker' recovers, generation 1",
            "worker group 'Worker' recovers, generation 2, after a pause of 150 s",
            "worker group 'Worker': its recovery pauses first: 60 of 150 s are over",
            "worker group 'Worker': its recovery pauses first: 120 of 150 s are over",
        ]
        caplog.clear()
        cluster.kill_node(1)
        began = cluster.now
        with pytest.raises(RecoveryError):
            group.recover(timeout=130.0)
        assert round(cluster.now - began) == 130
        bundles = "the cluster to give 2 bundles of lost node 10.0.0.1 to others, for ranks 2-3"
        assert [each for each in caplog.messages if "bundle" in each] == [
            f"worker group 'Worker': its recovery waits up to 130.0 s for {bundles}",
            f"worker group 'Worker': its recovery still waits for {bundles}, after 60 s",
            f"worker group 'Worker': its recovery still waits for {bundles}, after 120 s",
        ]


def test_bundles_that_come_late_are_waited_for() -> None:
    """As long as was said, though that is more than without a word."""
    late = InProcessCluster([1, 1], spare_nodes=1)
    with late as cluster, _group(cluster, failure_policy=RANKS) as group:
        spares, cluster._spares = cluster._spares, []
        cluster.kill_node(1)
        world = cluster.backend
        world.nodes.add(f"node-{spares[0]}")
        world.after(100.0, lambda: world.moved.update({1: spares[0]}))
        with pytest.raises(RecoveryError):
            group.recover()
        assert group.recover(timeout=300.0).start[0].moved_from == "node-1"
        assert 99 < cluster.now < 102


def test_stacks_leave_nobody_out(cluster: InProcessCluster) -> None:
    """Those that could not be had say why."""
    with _group(cluster) as group:
        group.status()
        cluster.kill_node(1)
        assert group.stacks([3, 0]) == {3: "(its node is lost)", 0: "in nothing"}
        for name in _companions(cluster):
            cluster.backend.processes[name].stop()
        assert group.stacks([1], timeout=2.0) == {1: "(its node did not answer in 2 s)"}
        assert group.stacks([1], timeout=0) == {1: "(its node did not answer in 0 s)"}
        for name in _companions(cluster):
            cluster.backend.processes[name].go()


@pytest.mark.parametrize("said_its_time", [False, True])
def test_an_abort_that_comes_too_late_ends_nobody(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch, said_its_time: bool
) -> None:
    """Whoever asked was told that it was not done; a companion may stop at any time."""
    with _group(cluster) as group:
        group.status()
        companions = [cluster.backend.processes[name] for name in _companions(cluster)]
        ask = group._lane._ask

        def stops(method: str, *more: Any) -> Any:
            found = ask(method, *more) if said_its_time else None
            for process in companions:
                process.stop()
            return found if said_its_time and method == "clock" else ask(method, *more)

        with monkeypatch.context() as patch:
            patch.setattr(group._lane, "_ask", stops)
            assert group.abort([1], timeout=2.0) == []
        for process in companions:
            process.go()
        cluster.pause(5.0)
        assert group.ping() == dict.fromkeys(range(4), True)
        assert group.abort([1], timeout=2.0) == [1]


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
