"""Random programs with random faults, in process: no hang, nothing lost or done twice."""

# An oracle beside the program knows which fault struck which rank. Faults come within 0.2 s and
# the grace of an error is longer, so an error can be compared with them exactly.

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.recovery import Domain, FailurePolicy
from runtime import MultiWorkerFuture, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.testing import FaultKind, FaultRates, InProcessCluster

PROGRAMS = int(os.environ.get("RANKPLAN_RANDOM_PROGRAMS", "100"))
DEADLINE = 100.0
FAILING = {FaultKind.DEATH, FaultKind.LOST_RESULT, FaultKind.RAISES}
BUILDER = RayWorkerBuilder("tests.fault_workers.Worker")

rates = st.builds(
    FaultRates,
    death=st.sampled_from([0.0, 0.02, 0.2]),
    hang=st.sampled_from([0.0, 0.02, 0.1]),
    slow=st.sampled_from([0.0, 0.3]),
    lost=st.sampled_from([0.0, 0.05]),
    raises=st.sampled_from([0.0, 0.05, 0.2]),
    slow_seconds=st.just(0.2),
)
steps = st.lists(st.sampled_from(["all", "one", "stream", "kill", "stop"]), max_size=12)


class Program:
    """Runs steps on a group and checks everything that it is told."""

    def __init__(self, cluster: InProcessCluster, policy: FailurePolicy) -> None:
        self.cluster, self.policy = cluster, policy
        self.group: RayWorkerGroup | None = None
        self.acknowledged: dict[int, list[int]] = {}
        self.sent = 0

    def started(self) -> RayWorkerGroup | None:
        """The group; a new one when there is none and its start succeeds."""
        if self.group is None:
            before = len(self.cluster.struck)
            try:
                self.group = RayWorkerGroup(
                    self.cluster, BUILDER, failure_policy=self.policy, start_timeout=DEADLINE
                )
            except WorkerGroupError as error:
                self.compare(error, before, set(range(4)))
                assert self.cluster.live == []
            else:
                self.acknowledged = {rank: [] for rank in range(4)}
        return self.group

    def compare(self, error: WorkerGroupError, before: int, called: set[int]) -> None:
        """The error names exactly the ranks that failed, and those that hang."""
        struck = self.cluster.struck[before:]
        failed = {rank for rank, _, fault in struck if fault.kind in FAILING}
        hanging = {rank for rank, _, fault in struck if fault.kind is FaultKind.HANG}
        report = error.report
        assert set(report.failed) == failed
        assert set(report.running) == hanging
        assert set(report.finished) == called - failed - hanging

    def call(self, step: str) -> None:
        """One call, its results checked one by one, or its error."""
        group = self.started()
        if group is None:
            return
        self.sent += 1
        before, token = len(self.cluster.struck), self.sent
        ranks = [token % 4] if step == "one" else list(range(4))
        method = "count" if step == "stream" else "add"
        arguments: dict[str, Any] = {"upto": 3} if step == "stream" else {"value": token}
        futures = (
            [group.run_single_worker_single_data(method, ranks[0], **arguments)]
            if step == "one"
            else group.run_all_workers_single_data(method, **arguments)
        )
        future = MultiWorkerFuture(futures, None, ranks, method)
        began = self.cluster.now
        try:
            results = future.get_results(group, timeout=DEADLINE)
        except WorkerGroupError as error:
            assert self.cluster.now - began <= DEADLINE + 1.0
            if step != "stream":
                self.compare(error, before, set(ranks))
            self.mend(group, error)
        else:
            if step == "stream":
                assert results == [rank * 100 + number for rank in ranks for number in range(3)]
            else:
                assert [rank for rank, _ in results] == ranks
                for rank in ranks:
                    self.acknowledged[rank].append(token)

    def strike(self, step: str) -> None:
        """Kill or freeze a rank between calls; status sees it, recovery mends it."""
        group = self.started()
        if group is None:
            return
        rank = self.sent % 4
        if step == "kill":
            self.cluster.kill_worker(group, rank)
        else:
            self.cluster.stop_worker(group, rank)
        assert [r for r, there in group.ping().items() if not there] == [rank]
        self.recover(group)

    def mend(self, group: RayWorkerGroup, error: WorkerGroupError) -> None:
        """End what hangs, and recover."""
        group.abort(list(error.report.running))
        self.recover(group)

    def recover(self, group: RayWorkerGroup) -> None:
        """Make the group whole; when that fails too, give it up."""
        try:
            plan = group.recover(start_timeout=DEADLINE)
        except WorkerGroupError:
            assert group.end().is_clean
            assert self.cluster.live == []
            self.group = None
        else:
            self.acknowledged |= {rank: [] for rank in plan.end}

    def finish(self) -> None:
        """What was acknowledged has happened, once each; nothing is left alive."""
        if self.group is not None:
            for rank, acknowledged in self.acknowledged.items():
                seen = self.cluster.state_of(self.group, rank).log()
                assert len(set(seen)) == len(seen)
                assert set(acknowledged) <= set(seen)
            assert self.group.end().is_clean
        assert self.cluster.live == []


@settings(max_examples=PROGRAMS)
@given(
    seed=st.integers(0, 2**32),
    rates=rates,
    program=steps,
    domain=st.sampled_from([Domain.RANK, Domain.GROUP]),
)
def test_random_programs(seed: int, rates: FaultRates, program: list[str], domain: Domain) -> None:
    """Whatever strikes, every wait ends, every result is right, every error is exact."""
    policy = FailurePolicy(domain=domain, budget=1000, first_pause=0.0)
    with InProcessCluster([2, 2], seed=seed, rates=rates) as cluster:
        run = Program(cluster, policy)
        for step in program:
            if step in {"kill", "stop"}:
                run.strike(step)
            else:
                run.call(step)
        run.finish()
