"""Random programs with random faults, in process: no hang, nothing lost or done twice."""

# An oracle beside the program knows which fault struck which rank: see tests/program_calls.py.

import os
import warnings
from collections.abc import Collection, Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.failure_policy import Domain, FailurePolicy, Survivors, fate_of
from planner.outcomes import FailureReport
from planner.recovery import RecoveryPlan
from runtime import RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.testing import (
    Fault,
    FaultKind,
    FaultRates,
    InProcessCluster,
    UnstruckFaultsWarning,
)
from tests.program_calls import DEADLINE, HOW, End, Oracle, Started, start_call

PROGRAMS = int(os.environ.get("RANKPLAN_RANDOM_PROGRAMS", "100"))
TIED = [(0, [0, 1]), (1, [0, 1])]
ENGINES = {0: (0, 1), 1: (2, 3)}
SPARE_NODES = 3
CLASSES = ("Counter", "AsyncCounter")

rates = st.builds(
    FaultRates,
    death=st.sampled_from([0.0, 0.02, 0.2]),
    hang=st.sampled_from([0.0, 0.02, 0.1]),
    slow=st.sampled_from([0.0, 0.3]),
    lost=st.sampled_from([0.0, 0.05]),
    raises=st.sampled_from([0.0, 0.05, 0.2]),
    slow_seconds=st.just(0.1),
)
chosen = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from(FaultKind),
        group=st.sampled_from(["", *CLASSES, "Counter-2"]),
        rank=st.sampled_from([None, 0, 1, 3]),
        method=st.sampled_from([None, "__init__", "add", "echo", "count", "close"]),
        call=st.sampled_from([1, 2, 3]),
        seconds=st.sampled_from([0.0, 0.1]),
    ),
    max_size=3,
)
several = st.lists(
    st.sampled_from(HOW), min_size=1, max_size=3, unique_by=lambda how: how.partition(" ")[0]
)
OTHERS = ("kill", "stop", "node", "resize", "recover")
steps = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(several, st.sampled_from(OTHERS))), max_size=12
)


class Ward:
    """A group of a program, and everything that is known about it."""

    def __init__(self, cluster: InProcessCluster, class_name: str, policy: FailurePolicy) -> None:
        self.cluster, self.class_name, self.policy = cluster, class_name, policy
        self.group: RayWorkerGroup | None = None
        self.acknowledged: dict[int, list[int]] = {}
        self.sent = 0

    @property
    def ranks(self) -> tuple[int, ...]:
        """Those that serve."""
        return tuple(sorted(self.acknowledged))

    def started(self) -> RayWorkerGroup | None:
        """The group; a new one when there is none and its start succeeds."""
        if self.group is None:
            before = set(self.cluster.live)
            taken = any(name.startswith(f"{self.class_name}-grp") for name in before)
            oracle = self.oracle(f"{self.class_name}-2" if taken else self.class_name)
            try:
                self.group = RayWorkerGroup(
                    self.cluster,
                    RayWorkerBuilder(f"tests.program_workers.{self.class_name}"),
                    bundle_indices_list=TIED,
                    failure_policy=self.policy,
                    start_timeout=DEADLINE,
                )
            except WorkerGroupError as error:
                self.compare(error.report, oracle.ends("__init__", range(4)))
                assert set(self.cluster.live) == before
            else:
                assert self.group.name == oracle.group
                names = {worker.name for worker in self.group.plan.workers}
                assert before.isdisjoint(names)
                assert set(self.cluster.live) >= before | names
                self.acknowledged = {rank: [] for rank in range(4)}
        return self.group

    def oracle(self, name: str) -> Oracle:
        """What strikes from now on."""
        is_concurrent = self.class_name == "AsyncCounter"
        return Oracle.now(self.cluster, name, is_concurrent=is_concurrent)

    def compare(
        self, report: FailureReport, ends: dict[int, End], dead: Collection[int] = ()
    ) -> None:
        """The error names exactly the ranks that failed, those that hang, and those that are dead.

        Where ranks hang and none has failed, it is because others died with which they share their
        fate: all those. Else such ranks are told that had died when others were still waited for.

        Args:
            report: The error's.
            ends: How the call ended on each rank that was called.
            dead: Ranks that died in other calls.
        """
        asides = {r for cause, ranks in report.causes if cause.aside is not None for r in ranks}
        own = set(report.failed) - asides
        is_end = {end: {rank for rank, each in ends.items() if each is end} for end in End}
        failed = is_end[End.FAILS] | is_end[End.DIES]
        assert failed <= own <= failed | is_end[End.EITHER]
        assert set(report.running) == is_end[End.HANGS]
        assert set(report.finished) | asides >= set(ends) - own - is_end[End.HANGS]
        assert set(report.finished) <= set(ends) - own - is_end[End.HANGS]
        assert is_end[End.DIES] <= set(report.dead)
        beside = set(dead) - is_end[End.DIES]
        assert asides <= beside & self.fate(ends)
        assert own or asides == beside & self.fate(is_end[End.HANGS])

    def call(self, hows: Sequence[str]) -> None:
        """Some calls at once, their results checked one by one, or their errors."""
        group = self.started()
        if group is None:
            return
        oracle = self.oracle(group.name)
        calls: list[Started] = []
        for how in hows:
            self.sent += 1
            calls.append(start_call(group, how, self.sent, self.ranks))
        aborted: set[int] = set()
        has_failed = False
        for place, call in enumerate(calls):
            began = self.cluster.now
            try:
                results = call.wait()
            except WorkerGroupError as error:
                assert self.cluster.now - began <= DEADLINE + 1.0
                ends = oracle.ends_of(calls, place, aborted)
                hanging = [rank for rank, end in ends.items() if end is End.HANGS]
                self.compare(error.report, ends, oracle.of_kind(FaultKind.DEATH) | aborted)
                has_failed = True
                if self.policy.survivors is Survivors.ABORT:
                    aborted |= self.fate(error.report.failed).intersection(hanging)
            else:
                ends = oracle.ends_of(calls, place, aborted)
                assert set(ends.values()) <= {End.RETURNS, End.EITHER}
                call.check(results)
                if call.method == "add":
                    for rank in call.ranks:
                        self.acknowledged[rank].append(call.token)
        hanging_ranks = oracle.of_kind(FaultKind.HANG)
        gone = hanging_ranks | oracle.of_kind(FaultKind.DEATH) | aborted
        assert has_failed or not gone
        if has_failed:
            group.abort(sorted(hanging_ranks))
            self.recover(gone)

    def fate(self, ranks: Iterable[int]) -> set[int]:
        """The ranks that share the fate of some, themselves included; none before the start."""
        if self.group is None:
            return set()
        return set(fate_of(self.group.plan, ranks, self.policy.domain)).intersection(self.ranks)

    def recover(self, gone: Collection[int]) -> None:
        """Make the group whole; when that fails too, give it up.

        Exactly those are ended that share the fate of ranks that are gone, and the hook is called
        once, if there are any.
        """
        group = self.group
        assert group is not None
        told: list[tuple[int, ...]] = []

        def restore(group: RayWorkerGroup, plan: RecoveryPlan) -> None:
            told.append(plan.end)
            oracle = self.oracle(group.name)
            try:
                results = group.call("echo", 7).by_rank(DEADLINE)
            except WorkerGroupError as error:
                self.compare(error.report, oracle.ends("echo", self.ranks))
                raise
            assert results == dict.fromkeys(self.ranks, 7)

        try:
            plan = group.recover(restore, start_timeout=DEADLINE)
        except WorkerGroupError:
            self.end()
        else:
            assert set(plan.end) == self.fate(gone)
            assert told == ([plan.end] if plan.end else [])
            assert group.broken == ()
            self.acknowledged |= {rank: [] for rank in plan.end}

    def resize(self) -> None:
        """Give engines up, and take them back."""
        group = self.started()
        if group is None:
            return
        self.sent += 1
        engines = ([0], [1], [0, 1])[self.sent % 3]
        serving = {rank for engine in engines for rank in ENGINES[engine]}
        fresh = serving.difference(self.ranks)
        oracle = self.oracle(group.name)
        try:
            plan = group.resize(engines, start_timeout=DEADLINE)
        except WorkerGroupError as error:
            self.compare(error.report, oracle.ends("__init__", sorted(fresh)))
            self.end()
        else:
            assert set(plan.end) == set(self.ranks) - serving
            assert {each.rank for each in plan.start} == fresh
            self.acknowledged = {rank: self.acknowledged.get(rank, []) for rank in sorted(serving)}
            assert group.broken == ()

    def strike(self, step: str) -> None:
        """Kill or freeze a rank: status sees it, recovery mends it."""
        group = self.started()
        if group is None:
            return
        rank = self.ranks[self.sent % len(self.ranks)]
        if step == "kill":
            self.cluster.kill_worker(group, rank)
        elif step == "stop":
            self.cluster.stop_worker(group, rank)
        self.mend({rank} if step != "recover" else set())

    def mend(self, struck: set[int]) -> None:
        """See what was struck between calls, and recover."""
        group = self.group
        if group is not None:
            there = group.ping()
            assert {rank for rank in self.ranks if not there[rank]} == struck
            self.recover(struck)

    def end(self) -> None:
        """Give the group up."""
        if self.group is not None:
            assert self.group.end().is_clean
            assert {each.name for each in self.group.plan.workers}.isdisjoint(self.cluster.live)
            self.group = None

    def finish(self) -> None:
        """What was acknowledged has happened, once each; who cleans up is exactly told."""
        group = self.group
        if group is None:
            return
        for rank, acknowledged in self.acknowledged.items():
            seen = self.cluster.state_of(group, rank).log()
            assert len(set(seen)) == len(seen)
            assert set(acknowledged) <= set(seen)
        oracle = self.oracle(group.name)
        report = group.end("close")
        ends = oracle.ends("close", self.ranks)
        cleaned = {rank for rank, end in ends.items() if end is End.RETURNS}
        assert set(report.cleaned) == cleaned
        assert set(report.late) == {rank for rank, end in ends.items() if end is End.HANGS}
        assert {rank for rank, _ in report.failed} == set(ends) - cleaned - set(report.late)
        assert report.not_asked == ()
        assert report.is_clean
        self.end()


class Program:
    """Two groups on one cluster, and what strikes both."""

    def __init__(self, cluster: InProcessCluster, wards: tuple[Ward, Ward]) -> None:
        self.cluster, self.wards = cluster, wards
        self.nodes, self.spare = [0, 1], 2

    def step(self, which: int, step: str | list[str]) -> None:
        """Do something with one of the groups, or to both."""
        ward = self.wards[which]
        if isinstance(step, list):
            ward.call(step)
        elif step == "node":
            self.lose_node(which)
        elif step == "resize":
            ward.resize()
        else:
            ward.strike(step)

    def lose_node(self, home: int) -> None:
        """Lose a node, with what both groups have there."""
        if self.spare < 2 + SPARE_NODES:
            self.cluster.kill_node(self.nodes[home])
            self.nodes[home], self.spare = self.spare, self.spare + 1
            for ward in self.wards:
                ward.mend(set(ENGINES[home]).intersection(ward.ranks))

    def finish(self) -> None:
        """Nothing is left alive."""
        for ward in self.wards:
            ward.finish()
        assert self.cluster.live == []


@settings(max_examples=PROGRAMS)
@given(
    seed=st.integers(0, 2**32),
    rates=rates,
    faults=chosen,
    classes=st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)),
    program=steps,
    domain=st.sampled_from(Domain),
    survivors=st.sampled_from(Survivors),
)
def test_random_programs(
    seed: int,
    rates: FaultRates,
    faults: list[Fault],
    classes: tuple[str, str],
    program: list[tuple[int, str | list[str]]],
    domain: Domain,
    survivors: Survivors,
) -> None:
    """Whatever strikes, every wait ends, every result is right, every error is exact."""
    policy = FailurePolicy(domain=domain, survivors=survivors, budget=1000, first_pause=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstruckFaultsWarning)
        cluster = InProcessCluster(
            [2, 2],
            max_colocated_worker_groups=2,
            seed=seed,
            rates=rates,
            faults=faults,
            spare_nodes=SPARE_NODES,
        )
        with cluster:
            first, second = (Ward(cluster, name, policy) for name in classes)
            run = Program(cluster, (first, second))
            for which, step in program:
                run.step(which, step)
            run.finish()
