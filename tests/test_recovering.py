"""Recoveries carried out in process: what they wait for, whom they let in, and what counts."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

from planner.failure_policy import Domain, FailurePolicy
from planner.findings import PlanError
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


def test_a_restore_that_takes_something_else_ends_nobody(cluster: InProcessCluster) -> None:
    """It is called with the group and the plan; what tells nothing of itself is taken."""
    with _group(cluster) as group:
        cluster.kill_worker(group, 1)
        before = cluster.live
        with pytest.raises(PlanError, match="restore: it can't take the group and the plan"):
            group.recover(lambda: None)  # type: ignore[arg-type, misc]
        assert cluster.live == before
        assert group.recover(print).end == (0, 1, 2, 3)


def test_ranks_that_were_aborted_are_dead_at_once(cluster: InProcessCluster) -> None:
    """The next call is refused before it leaves, with that reason."""
    policy = FailurePolicy(domain=Domain.RANK)
    with _group(cluster, failure_policy=policy) as group:
        assert group.abort([1]) == [1]
        assert group.broken == (1,)
        with pytest.raises(InconsistentGroupError, match="rank 1: ended by abort"):
            group.run_all_workers_single_data("total")
        assert group.recover().end == (1,)
        group.resize([0, 1, 2])
        with pytest.raises(PlanError, match=r"ranks\[1\]: rank 3 was given up by resize\(\)"):
            group.abort([0, 3])
        assert group.call("total").by_rank() == {0: 0, 1: 0, 2: 0}


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


def test_a_time_to_look_that_is_none_is_refused(cluster: InProcessCluster) -> None:
    """By the plan as by the recovery, and by a group that has ended."""
    with _group(cluster, failure_policy=RANKS) as group:
        for way in (group.plan_recovery, group.recover):
            with pytest.raises(PlanError, match="'Worker': timeout: 'x' is not a time"):
                way(timeout="x")  # type: ignore[arg-type]
        assert group.plan_recovery(timeout=0).start == ()
    with pytest.raises(PlanError, match="it has ended"):
        group.plan_recovery()
