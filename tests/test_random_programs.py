"""Random programs with random faults, in process: no hang, nothing lost or done twice."""

# An oracle beside the program knows which fault struck which rank. Faults come within 0.2 s and
# the grace of an error is longer, so an error can be compared with them exactly.

import contextlib
import os
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.outcomes import FailureReport
from planner.recovery import Domain, FailurePolicy, Survivors, domain_of
from runtime import MultiWorkerFuture, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.errors import DeadlineError
from runtime.testing import FaultKind, FaultRates, InProcessCluster

PROGRAMS = int(os.environ.get("RANKPLAN_RANDOM_PROGRAMS", "100"))
DEADLINE = 100.0
FAILING = {FaultKind.DEATH, FaultKind.LOST_RESULT, FaultKind.RAISES}
BUILDER = RayWorkerBuilder("tests.fault_workers.Worker")
TIED = [(0, [0, 1]), (1, [0, 1])]
SPARE_NODES = 3

rates = st.builds(
    FaultRates,
    death=st.sampled_from([0.0, 0.02, 0.2]),
    hang=st.sampled_from([0.0, 0.02, 0.1]),
    slow=st.sampled_from([0.0, 0.3]),
    lost=st.sampled_from([0.0, 0.05]),
    raises=st.sampled_from([0.0, 0.05, 0.2]),
    slow_seconds=st.just(0.2),
)
STRIKES = ("kill", "stop", "node")
CALLS = ("all", "one", "call", "stream", "call a stream")
steps = st.lists(st.sampled_from([*CALLS, *STRIKES]), max_size=12)


class Program:
    """Runs steps on a group and checks everything that it is told."""

    def __init__(self, cluster: InProcessCluster, policy: FailurePolicy) -> None:
        self.cluster, self.policy = cluster, policy
        self.group: RayWorkerGroup | None = None
        self.acknowledged: dict[int, list[int]] = {}
        self.sent = 0
        self.nodes, self.spare = [0, 1], 2

    def started(self) -> RayWorkerGroup | None:
        """The group; a new one when there is none and its start succeeds."""
        if self.group is None:
            before = len(self.cluster.struck)
            try:
                self.group = RayWorkerGroup(
                    self.cluster,
                    BUILDER,
                    bundle_indices_list=TIED,
                    failure_policy=self.policy,
                    start_timeout=DEADLINE,
                )
            except WorkerGroupError as error:
                self.compare(error, before, set(range(4)))
                assert self.cluster.live == []
            else:
                self.acknowledged = {rank: [] for rank in range(4)}
        return self.group

    def struck(self, before: int) -> tuple[set[int], set[int], set[int]]:
        """The ranks that failed, those that hang, and those whose process is gone."""
        struck = [(rank, fault.kind) for rank, _, fault in self.cluster.struck[before:]]
        return (
            {rank for rank, kind in struck if kind in FAILING},
            {rank for rank, kind in struck if kind is FaultKind.HANG},
            {rank for rank, kind in struck if kind is FaultKind.DEATH},
        )

    def compare(self, error: WorkerGroupError, before: int, called: set[int]) -> None:
        """The error names exactly the ranks that failed, and those that hang."""
        failed, hanging, dead = self.struck(before)
        report = error.report
        assert set(report.failed) == failed
        assert set(report.running) == hanging
        assert set(report.finished) == called - failed - hanging
        assert set(report.dead) == dead

    def call(self, step: str) -> None:
        """One call, its results checked one by one, or its error."""
        group = self.started()
        if group is None:
            return
        self.sent += 1
        before, token = len(self.cluster.struck), self.sent
        ranks = [token % 4] if step == "one" else list(range(4))
        began = self.cluster.now
        try:
            match step:
                case "stream":
                    futures = group.run_all_workers_single_data("count", upto=3)
                    future = MultiWorkerFuture(futures, None, ranks, "count")
                    results = future.get_results(group, timeout=DEADLINE)
                    assert results == [rank * 100 + number for rank in ranks for number in range(3)]
                    return
                case "call":
                    answers = group.call("add", value=token).by_rank(DEADLINE)
                    assert list(answers) == ranks
                    results = list(answers.values())
                case "one":
                    reference = group.run_single_worker_single_data("add", ranks[0], value=token)
                    future = MultiWorkerFuture([reference], None, ranks)
                    results = future.get_results(group, timeout=DEADLINE)
                case _:
                    futures = group.run_all_workers_single_data("add", value=token)
                    future = MultiWorkerFuture(futures, None, ranks)
                    results = future.get_results(group, timeout=DEADLINE)
        except WorkerGroupError as error:
            assert self.cluster.now - began <= DEADLINE + 1.0
            self.compare(error, before, set(ranks))
            self.mend(group, before, error.report)
        else:
            assert [rank for rank, _ in results] == ranks
            for rank in ranks:
                self.acknowledged[rank].append(token)

    def stream(self) -> None:
        """A stream, whose first failure is raised at once: what it names has happened."""
        group = self.started()
        if group is None:
            return
        self.sent += 1
        before = len(self.cluster.struck)
        stream = group.using(timeout=DEADLINE).call("count", upto=3)
        whole = {rank: [rank * 100 + number for number in range(3)] for rank in range(4)}
        try:
            assert stream.by_rank() == whole
        except WorkerGroupError as error:
            # What strikes later, after the first failure, happens within this time.
            self.cluster.pause(1.0)
            failed, hanging, _ = self.struck(before)
            report = error.report
            assert set(report.failed) <= failed
            assert report.failed or hanging
            assert hanging <= set(report.running)
            assert {*report.failed, *report.running, *report.finished} == set(range(4))
            for rank, came in stream.collected.items():
                assert came == whole[rank][: len(came)]
            # The ranks that hang do not hear of it.
            with contextlib.suppress(DeadlineError):
                stream.close()
            self.mend(group, before, error.report)

    def strike(self, step: str) -> None:
        """Kill or freeze a rank, or lose a node: status sees it, recovery mends it."""
        group = self.started()
        if group is None:
            return
        rank = self.sent % 4
        struck = {rank}
        if step == "kill":
            self.cluster.kill_worker(group, rank)
        elif step == "stop":
            self.cluster.stop_worker(group, rank)
        elif self.spare < 2 + SPARE_NODES:
            home = rank // 2
            self.cluster.kill_node(self.nodes[home])
            self.nodes[home], self.spare = self.spare, self.spare + 1
            struck = {2 * home, 2 * home + 1}
        else:
            return
        assert {r for r, there in group.ping().items() if not there} == struck
        self.recover(group, struck)

    def mend(self, group: RayWorkerGroup, before: int, report: FailureReport) -> None:
        """End what hangs, and recover."""
        _, hanging, dead = self.struck(before)
        group.abort(sorted(hanging))
        gone = hanging | dead
        if self.policy.survivors is Survivors.ABORT:
            gone |= self.domain(group, report.failed).intersection(report.running)
        self.recover(group, gone)

    def domain(self, group: RayWorkerGroup, ranks: Iterable[int]) -> set[int]:
        """The ranks that share the fate of some."""
        domain = self.policy.domain
        return {each for rank in ranks for each in domain_of(group.plan, rank, domain)}

    def recover(self, group: RayWorkerGroup, gone: set[int]) -> None:
        """Make the group whole; when that fails too, give it up.

        Exactly those are ended that share the fate of ranks that are gone.
        """
        try:
            plan = group.recover(start_timeout=DEADLINE)
        except WorkerGroupError:
            assert group.end().is_clean
            assert self.cluster.live == []
            self.group = None
        else:
            assert set(plan.end) == self.domain(group, gone)
            assert group.broken == ()
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
    domain=st.sampled_from(Domain),
    survivors=st.sampled_from(Survivors),
)
def test_random_programs(
    seed: int, rates: FaultRates, program: list[str], domain: Domain, survivors: Survivors
) -> None:
    """Whatever strikes, every wait ends, every result is right, every error is exact."""
    policy = FailurePolicy(domain=domain, survivors=survivors, budget=1000, first_pause=0.0)
    cluster = InProcessCluster([2, 2], seed=seed, rates=rates, spare_nodes=SPARE_NODES)
    with cluster:
        run = Program(cluster, policy)
        for step in program:
            if step in STRIKES:
                run.strike(step)
            elif step == "call a stream":
                run.stream()
            else:
                run.call(step)
        run.finish()
