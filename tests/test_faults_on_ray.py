"""Real processes, really killed: a short run of ``benchmarks/chaos.py`` on the tests' cluster."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from ray.util import remove_placement_group

from benchmarks.chaos import Chaos
from planner.findings import PlanError
from planner.liveness import WorkerState
from planner.recovery import Domain, FailurePolicy
from runtime import (
    MultiWorkerFuture,
    NodeLostError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    RecoveryError,
    WorkerGroupError,
)
from runtime.health import InconsistentGroupError
from runtime.leftovers import leftovers, remove_leftovers
from runtime.ray_backend import RayBackend

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

BUILDER = RayWorkerBuilder("tests.fault_workers.Worker")


@pytest.fixture(scope="module")
def chaos(cluster_of_nodes: "Cluster") -> Iterator[Chaos]:
    """Faults on two nodes of the tests' cluster, which stay."""
    with RayVirtualCluster([2, 2], use_gpus=False, name="faults") as reservation:
        reservation.get_placement_groups()
        made = Chaos(reservation, None, cluster_of_nodes.address)
        yield made
        made.close()


@pytest.mark.parametrize(
    "kind",
    [
        "kill in call",
        "stop in call",
        "kill in stream",
        "stop in shutdown",
        "kill in start",
        "constructor raises",
        "driver interrupted",
    ],
)
def test_a_fault_is_told_and_leaves_nothing(
    chaos: Chaos, cluster_of_nodes: "Cluster", kind: str
) -> None:
    """The error names exactly who was struck, and no process or name is left."""
    try:
        row = chaos.run(kind)
    finally:
        chaos.close()
    assert (row.kind, row.right, row.left) == (kind, True, ())


def test_one_error_tells_why_and_what_was_written(cluster_of_nodes: "Cluster") -> None:
    """Signal, last lines and survivors; then the rank comes back alone and the others go on."""
    policy = FailurePolicy(domain=Domain.RANK)
    with (
        RayVirtualCluster([2], use_gpus=False) as cluster,
        RayWorkerGroup(cluster, BUILDER, failure_policy=policy) as group,
    ):
        group.backend.get(group.run_all_workers_single_data("add", value=7), 30.0)
        futures = group.run_all_workers_single_data("die", ranks=[1], how="SIGSEGV")
        with pytest.raises(WorkerGroupError, match=r"rank 1: .* crashed with SIGSEGV"):
            MultiWorkerFuture(futures).get_results(group, timeout=30.0)
        with pytest.raises(
            InconsistentGroupError, match="rank 1: they are dead, or still in a call"
        ):
            group.run_single_worker_single_data("pid", 1)
        assert group.recover().end == (1,)
        totals = group.backend.get(group.run_all_workers_single_data("total"), 30.0)
        assert totals == [7, 0]


def test_what_a_rank_wrote_is_read_on_its_own_machine(
    cluster_of_nodes: "Cluster", monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process of its node, where the driver can't look at the worker."""
    monkeypatch.setattr(RayBackend, "sees", lambda _, shown: not shown)
    with (
        RayVirtualCluster([2], use_gpus=False) as cluster,
        RayWorkerGroup(cluster, BUILDER) as group,
    ):
        futures = group.run_all_workers_single_data("die", ranks=[1], how="SIGABRT")
        with pytest.raises(WorkerGroupError, match=r"rank 1: .* crashed with SIGABRT") as raised:
            MultiWorkerFuture(futures).get_results(group, timeout=30.0)
        assert "| last words of rank 1" in str(raised.value)


def test_the_lane_answers_while_a_rank_is_stopped(cluster_of_nodes: "Cluster") -> None:
    """State, method and stacks are seen from outside; abort ends what does not hear."""
    with (
        RayVirtualCluster([2], use_gpus=False) as cluster,
        RayWorkerGroup(cluster, BUILDER) as group,
    ):
        group.run_all_workers_single_data("sleep", seconds=60.0)
        while not all(each.method == "sleep" for each in group.status()):
            time.sleep(0.01)
        os.kill(int(group.identities[1].pid or 0), signal.SIGSTOP)
        states = [each.state for each in group.status()]
        assert states == [WorkerState.RUNNING, WorkerState.STOPPED]
        stacks = group.stacks()
        assert "fault_workers.py" in stacks[0]
        assert stacks[1] == "(it is stopped)"
        assert group.abort() == [0, 1]
        assert group.ping() == {0: False, 1: False}


def test_a_removed_placement_group_is_missing_at_once(cluster_of_nodes: "Cluster") -> None:
    """Nobody waits for hosts that Ray never places: by a recovery, a resize or a start."""
    policy = FailurePolicy(domain=Domain.RANK, budget=1)
    with RayVirtualCluster([2], use_gpus=False) as cluster:
        with RayWorkerGroup(cluster, BUILDER, failure_policy=policy) as group:
            group.resize([0])
            assert group.plan_recovery().end == ()
            remove_placement_group(cluster.get_placement_groups()[0])
            while not group.plan_recovery().end:
                time.sleep(0.01)
            wishes: list[Callable[[], object]] = [group.recover, lambda: group.resize([0, 1])]
            for wish in wishes:
                with pytest.raises(RecoveryError, match="placement group 0 was removed"):
                    wish()
        with pytest.raises(NodeLostError, match=r"placement_groups\[0\]: 2 of its 2 bundles"):
            RayWorkerGroup(cluster, BUILDER)


def test_leftovers_of_a_run_are_found_and_removed(cluster_of_nodes: "Cluster") -> None:
    """Only those of the run that is named."""
    with RayVirtualCluster([1, 1], use_gpus=False, name="old") as old:
        old.get_placement_groups()
        with RayVirtualCluster([1], use_gpus=False, name="new") as new:
            new.get_placement_groups()
            runs = {each.placement_group.partition("-")[0]: each.run for each in leftovers()}
            with pytest.raises(PlanError, match="still runs"):
                remove_leftovers([runs["old"]])
            assert len(leftovers(runs["old"])) == 2
            assert len(remove_leftovers([runs["old"]], end_running=True)) == 2
            assert leftovers(runs["old"]) == ()
            assert len(leftovers(runs["new"])) == 1


def test_a_death_that_nobody_waits_for_is_told_to_those_who_wait(
    cluster_of_nodes: "Cluster",
) -> None:
    """By its rank and its cause, while the rank that was called goes on."""
    with (
        RayVirtualCluster([2], use_gpus=False) as cluster,
        RayWorkerGroup(cluster, BUILDER) as group,
    ):
        future = group.call("sleep", 600.0, ranks=[0])
        while future.pending() != (0,):
            time.sleep(0.01)
        os.kill(int(group.identities[1].pid or 0), signal.SIGKILL)
        with pytest.raises(
            WorkerGroupError, match="rank 1, after it had returned: Actor"
        ) as raised:
            future.by_rank()
        report = raised.value.report
        assert (report.dead, report.running, group.broken) == ((1,), (0,), (0, 1))
