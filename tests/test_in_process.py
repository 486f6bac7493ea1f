"""The in-process backend: the same groups over plain objects, on virtual time."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

from planner import NamedSharding
from planner.actor_names import group_of
from planner.findings import PlanError
from planner.liveness import WorkerState
from planner.recovery import Domain, FailurePolicy, Survivors
from runtime import MultiWorkerFuture, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime import cluster as cluster_module
from runtime import group as group_module
from runtime.errors import DeadlineError, ExecutionError
from runtime.health import InconsistentGroupError
from runtime.in_flight import InFlight, TooManyCallsError
from runtime.recovering import RecoveryError
from runtime.testing import Fault, FaultKind, FaultRates, InProcessCluster, NothingWillHappenError

WORKER = "tests.fault_workers.Worker"


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each; nothing may be alive at the end of a test."""
    with InProcessCluster([2, 2]) as made:
        yield made
        assert made.live == []


def _group(cluster: InProcessCluster, name: str = WORKER, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, RayWorkerBuilder(name), **more)


def _all(group: RayWorkerGroup, method: str, **arguments: Any) -> list[object]:
    return group.backend.get(group.run_all_workers_single_data(method, **arguments), 60.0)


def _failed(group: RayWorkerGroup, method: str, **arguments: Any) -> WorkerGroupError:
    futures = group.run_all_workers_single_data(method, **arguments)
    with pytest.raises(WorkerGroupError) as caught:
        MultiWorkerFuture(futures, method_name=method).get_results(group, timeout=1000.0)
    return caught.value


def test_workers_see_their_own_environment(cluster: InProcessCluster) -> None:
    """Each rank reads its own variables; this process's environment is not touched."""
    before = dict(os.environ)
    with _group(cluster, env_vars={"COLOUR": "blue"}) as group:
        assert _all(group, "environment", name="RANK") == ["0", "1", "2", "3"]
        assert _all(group, "environment", name="COLOUR") == ["blue"] * 4
        assert _all(group, "environment", name="CUDA_VISIBLE_DEVICES") == ["0", "1", "0", "1"]
    assert dict(os.environ) == before


def test_results_are_copies(cluster: InProcessCluster) -> None:
    """What a worker gets and gives is serialised: changing it changes nothing elsewhere."""
    with _group(cluster) as group:
        value = [1]
        future = group.run_single_worker_single_data("echo", 0, value=value)
        value.append(2)
        first, second = (group.backend.get([future], 1.0)[0] for _ in range(2))
        assert first == [1]
        assert first is not second


def test_sleeping_costs_virtual_time_only(cluster: InProcessCluster) -> None:
    """Ranks sleep at the same time, and an hour is over at once."""
    with _group(cluster) as group:
        assert _all(group, "sleep", seconds=50.0) == [0, 1, 2, 3]
        assert 50 <= cluster.now < 51


def test_a_deadline_names_who_is_late(cluster: InProcessCluster) -> None:
    """The error of a call that takes too long says who has answered."""
    axes = NamedSharding([0, 1, 2, 3], ["data_parallel"])
    with _group(cluster, sharding_annotations=axes) as group:
        future = group.run_all_workers_sharded_data(
            "sleep", in_sharded_axes=["data_parallel"], seconds=[1, 99, 1, 99]
        )
        with pytest.raises(DeadlineError, match=r"ranks 1, 3, after 10\.0 s") as caught:
            future.get_results(group, timeout=10.0)
        assert caught.value.report.running == (1, 3)


def test_calls_of_an_async_class_run_together(cluster: InProcessCluster) -> None:
    """One call waits for another of the same worker."""
    with _group(cluster, "tests.fault_workers.AsyncWorker") as group:
        waiting = group.run_all_workers_single_data("wait")
        assert group.backend.wait(waiting, 4, 5.0)[0] == []
        group.run_all_workers_single_data("release")
        assert group.backend.get(waiting, 5.0) == ["0", "1", "2", "3"]


def test_streams_of_async_classes_pass_virtual_time(cluster: InProcessCluster) -> None:
    """Values come as they are made."""
    with _group(cluster, "tests.fault_workers.AsyncWorker") as group:
        stream = group.run_single_worker_single_data("stream", 1, upto=3)
        values = [group.backend.get([item], None)[0] for item in stream]
        assert values == [100, 101, 102]
        assert 3 <= cluster.now < 4


def test_the_same_seed_gives_the_same_run() -> None:
    """Order and times depend on the seed only."""

    def run(seed: int) -> tuple[list[object], float]:
        with InProcessCluster([3], seed=seed) as cluster, _group(cluster) as group:
            futures = group.run_all_workers_single_data("sleep", seconds=0.0)
            ready, _ = group.backend.wait(futures, 1, None)
            return group.backend.get(ready, None), cluster.now

    assert run(7) == run(7)
    assert len({run(seed)[1] for seed in range(5)}) == 5


def test_a_constructor_that_raises_is_the_callers_error(cluster: InProcessCluster) -> None:
    """Its own type is caught, and nothing is left."""
    with pytest.raises(KeyError, match="rank 2 is picky") as caught:
        RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Picky", 2))
    assert isinstance(caught.value, WorkerGroupError)
    assert caught.value.report.failed == (2,)


@pytest.mark.parametrize("name", ["no_such_package.Class", "tests.workers.NoSuchClass"])
def test_a_class_that_is_not_there_is_told_with_the_group(
    cluster: InProcessCluster, name: str
) -> None:
    """As on Ray: caught as what importing it raised, with the group and the class."""
    with pytest.raises(ImportError) as caught:
        RayWorkerGroup(cluster, RayWorkerBuilder(name), name_prefix="fragile")
    assert isinstance(caught.value, ExecutionError)
    told = f"worker group 'fragile': importing {name} in this process failed: ImportError: "
    assert str(caught.value).startswith(told)
    assert cluster.live == []


def test_a_constructor_that_hangs_meets_the_deadline(cluster: InProcessCluster) -> None:
    """The error names it, and nothing is left."""
    builder = RayWorkerBuilder("tests.fault_workers.Picky", 1, how="hang")
    with pytest.raises(DeadlineError) as caught:
        RayWorkerGroup(cluster, builder, start_timeout=20)
    assert caught.value.report.running == (1,)


def test_a_dead_rank_is_named_with_its_signal(cluster: InProcessCluster) -> None:
    """Cause, rank and survivors are in one error; the group refuses calls and says why."""
    with _group(cluster) as group:
        error = _failed(group, "die", ranks=[1], others=1e6)
        assert error.report.dead == (1,)
        assert error.report.running == (0, 2, 3)
        death = error.report.causes[0][0].death
        assert death is not None
        assert death.signal == "SIGKILL"
        with pytest.raises(InconsistentGroupError, match=r"ranks 0-3.*recover\(\) or end\(\)"):
            _all(group, "pid")


def test_equal_failures_fold(cluster: InProcessCluster) -> None:
    """One cause, all its ranks; the first in time leads."""
    with _group(cluster) as group:
        error = _failed(group, "fail", ranks=[0, 3], after=2.0)
        assert isinstance(error, ValueError)
        assert [ranks for _, ranks in error.report.causes] == [(0, 3)]
        assert error.report.running == ()
        assert _all(group, "total") == [0, 0, 0, 0]


def test_a_group_is_consistent_again_once_its_survivors_return(cluster: InProcessCluster) -> None:
    """Ranks that were only slow do not need a recovery."""
    with _group(cluster) as group:
        error = _failed(group, "fail", ranks=[0], others=100.0)
        assert error.report.running == (1, 2, 3)
        with pytest.raises(InconsistentGroupError):
            _all(group, "pid")
        cluster.pause(200)
        assert group.broken == ()
        assert _all(group, "total") == [0, 0, 0, 0]


def test_survivors_are_aborted_when_the_policy_says_so(cluster: InProcessCluster) -> None:
    """Ranks that hang in the failed call are ended at once."""
    policy = FailurePolicy(survivors=Survivors.ABORT, stacks=True)
    with _group(cluster, failure_policy=policy) as group:
        error = _failed(group, "fail", ranks=[0], others=1e6)
        states = [each.state for each in group.status()]
        assert states == [WorkerState.IDLE, *[WorkerState.DEAD] * 3]
        assert any("in fail" in note for note in error.__notes__)


def test_status_is_answered_while_ranks_are_busy_stopped_or_dead(cluster: InProcessCluster) -> None:
    """Every rank has a state, its method and its time."""
    with _group(cluster) as group:
        group.run_single_worker_single_data("sleep", 1, seconds=1000)
        group.run_single_worker_single_data("sleep", 3, seconds=1000)
        cluster.pause(10)
        cluster.stop_worker(group, 3)
        cluster.kill_worker(group, 0)
        statuses = group.status()
        assert [each.state.value for each in statuses] == ["dead", "running", "idle", "stopped"]
        assert statuses[1].method == "sleep"
        assert 10 <= statuses[1].seconds < 11
        assert group.ping() == {0: False, 1: True, 2: True, 3: False}
        assert group.stacks([1]) == {1: "in sleep"}
        assert group.abort([3]) == [3]


def test_a_training_group_restarts_as_a_whole(cluster: InProcessCluster) -> None:
    """Everybody is started again, under new names, and the restore hook is called."""
    with _group(cluster) as group:
        old = [worker.name for worker in group.plan.workers]
        assert len(_all(group, "add", value=5)) == 4
        _failed(group, "die", ranks=[2])
        told: list[tuple[int, ...]] = []
        plan = group.recover(lambda _, done: told.append(done.end))
        assert plan.end == (0, 1, 2, 3)
        assert told == [(0, 1, 2, 3)]
        assert _all(group, "total") == [0, 0, 0, 0]
        assert [worker.name for worker in group.plan.workers] == [f"{name}.g1" for name in old]
        assert group.recover().end == ()


def test_a_rollout_group_loses_one_engine_and_gets_it_back(cluster: InProcessCluster) -> None:
    """The other engine goes on, during the loss too, and keeps what it knows."""
    with _group(
        cluster,
        bundle_indices_list=[(0, [0, 1]), (1, [0, 1])],
        failure_policy=FailurePolicy(domain=Domain.TIED_GROUP),
    ) as group:
        _all(group, "add", value=5)
        cluster.kill_worker(group, 3)
        busy = group.run_single_worker_single_data("sleep", 0, seconds=5)
        plan = group.recover()
        assert (plan.keep, plan.end) == ((0, 1), (2, 3))
        assert group.backend.get([busy], 10.0) == [0]
        assert _all(group, "total") == [5, 5, 0, 0]
        assert [each.node_id for each in group.plan.workers] == ["node-0"] * 2 + ["node-1"] * 2


def test_a_lost_node_is_replaced_by_a_spare_one() -> None:
    """Its ranks come up on the spare node, in the same order."""
    with InProcessCluster([2, 2], spare_nodes=1) as cluster:
        policy = FailurePolicy(domain=Domain.RANK)
        with _group(cluster, failure_policy=policy) as group:
            cluster.kill_node(1)
            plan = group.recover()
            assert plan.end == (2, 3)
            assert {each.moved_from for each in plan.start} == {"node-1"}
            assert [each.node_id for each in group.plan.workers][2:] == ["node-2", "node-2"]
            assert _all(group, "total") == [0, 0, 0, 0]


def test_a_lost_node_without_a_spare_is_said_to_be_missing(cluster: InProcessCluster) -> None:
    """Nothing is changed, and the error says what is missing."""
    with _group(cluster, failure_policy=FailurePolicy(domain=Domain.RANK)) as group:
        cluster.kill_node(1)
        with pytest.raises(RecoveryError, match=r"2 bundles for ranks 2-3: node 10\.0\.0\.1"):
            group.recover()
        assert group.backend.get([group.run_single_worker_single_data("pid", 0)], 1.0)


def test_the_budget_of_recoveries_ends(cluster: InProcessCluster) -> None:
    """One more than allowed is refused; pauses grow before it."""
    policy = FailurePolicy(budget=2, first_pause=3.0)
    with _group(cluster, failure_policy=policy) as group:
        cluster.kill_worker(group, 0)
        assert group.recover().pause == 0.0
        cluster.kill_worker(group, 0)
        assert group.recover().pause == 3.0
        cluster.kill_worker(group, 0)
        with pytest.raises(RecoveryError, match="budget of 2 recoveries is spent"):
            group.recover()


def test_a_rollout_group_shrinks_and_grows(cluster: InProcessCluster) -> None:
    """Engines that were given up refuse calls, and come back in their place."""
    policy = FailurePolicy(domain=Domain.RANK)
    with _group(cluster, failure_policy=policy) as group:
        _all(group, "add", value=5)
        assert group.resize([0, 1]).end == (2, 3)
        with pytest.raises(InconsistentGroupError, match="rank 3: they were given up"):
            group.run_single_worker_single_data("pid", 3)
        assert len(cluster.live) == 2
        assert _all(group, "total") == [5, 5]
        group.backend.get(group.run_all_workers_multiple_data("add", value=[1, 2]), 1.0)
        assert [each.rank for each in group.resize([0, 1, 2, 3]).start] == [2, 3]
        assert _all(group, "total") == [6, 7, 0, 0]
        with pytest.raises(PlanError, match="none would be left"):
            group.resize([])


def test_a_death_that_nobody_waited_for_is_noticed_by_the_next_call(
    cluster: InProcessCluster,
) -> None:
    """The others would wait in a collective for a rank that never comes."""
    with _group(cluster) as group:
        cluster.kill_worker(group, 2)
        with pytest.raises(InconsistentGroupError, match=r"rank 2: .*Call recover\(\) or end"):
            group.run_all_workers_single_data("pid")
        assert group.broken == (2,)
        group.recover()
        assert len(_all(group, "pid")) == 4


def test_all_that_is_wrong_about_a_call_is_told_at_once(cluster: InProcessCluster) -> None:
    """Name, arguments, axes and slices; nothing is sent."""
    axes = NamedSharding([[0, 1], [2, 3]], ["dp", "tp"])
    with _group(cluster, sharding_annotations=axes) as group:
        with pytest.raises(PlanError) as raised:
            group.run_all_workers_sharded_data(
                "ad",
                3,
                in_sharded_axes=["d"],
                replicate_on_axes=["q"],
                make_dummy_calls_to_free_axes=1,  # type: ignore[arg-type]
                common_kwargs={5: 6},  # type: ignore[dict-item]
                value=[1],
            )
        paths = [each.path for each in raised.value.findings]
        assert paths == [
            "common_kwargs[5]",
            "make_dummy_calls_to_free_axes",
            "args",
            "method_name",
            "in_sharded_axes[0]",
            "replicate_on_axes[0]",
        ]
        with pytest.raises(PlanError, match=r"(?s)'ad'.*value: 1 slices for 4"):
            group.run_all_workers_multiple_data("ad", value=[1])
        with pytest.raises(PlanError, match=r"(?s)'ad'.*worker_idx: 9 is not a rank"):
            group.run_single_worker_single_data("ad", 9)
        assert _all(group, "total") == [0] * 4


def test_the_end_is_reported(cluster: InProcessCluster) -> None:
    """Who cleaned up, who could not be asked, and that nothing is left; twice is once."""
    group = _group(cluster)
    _failed(group, "die", ranks=[1])
    group.status()
    report = group.end("close")
    assert report.cleaned == (0, 2, 3)
    assert report.not_asked == ((1, "dead"),)
    assert report.is_clean
    assert not report.went_well
    assert group.end() is report
    assert group.shutdown()


def test_a_lost_result_is_an_error_and_not_sent_again() -> None:
    """The call has run once; its caller is told that the answer is lost."""
    fault = Fault(kind=FaultKind.LOST_RESULT, rank=1, method="add")
    with InProcessCluster([2], faults=[fault]) as cluster, _group(cluster) as group:
        error = _failed(group, "add", value=5)
        assert error.report.failed == (1,)
        assert _all(group, "total") == [5, 5]


def test_a_stream_whose_answer_is_lost_ends_with_an_error() -> None:
    """Its values have come; that it is over never does."""
    lost = Fault(kind=FaultKind.LOST_RESULT, rank=1, method="count")
    with InProcessCluster([2], faults=[lost]) as cluster, _group(cluster) as group:
        stream = group.call("count", upto=2)
        with pytest.raises(WorkerGroupError) as caught:
            stream.by_rank()
        assert caught.value.report.failed == (1,)
        assert stream.collected[1] == [100, 101]


def test_the_other_streams_of_a_lost_node_are_looked_at() -> None:
    """The error says how each of them ended."""
    with InProcessCluster([2, 2]) as cluster, _group(cluster) as group:
        stream = group.call("drip", upto=9, seconds=10.0)
        cluster.pause(5.0)
        cluster.kill_node(1)
        with pytest.raises(WorkerGroupError) as caught:
            stream.by_rank()
        assert caught.value.report.failed == (2, 3)
        assert caught.value.report.running == (0, 1)
        group.end()


def test_faults_strike_where_they_are_told() -> None:
    """The third call dies on rank 0; the second is slow on rank 1."""
    faults = [
        Fault(kind=FaultKind.DEATH, rank=0, method="add", call=3),
        Fault(kind=FaultKind.SLOW, rank=1, method="add", call=2, seconds=100),
    ]
    with InProcessCluster([2], faults=faults) as cluster, _group(cluster) as group:
        _all(group, "add", value=1)
        before = cluster.now
        group.backend.get(group.run_all_workers_single_data("add", value=1), None)
        assert 100 <= cluster.now - before < 101
        assert _failed(group, "add", value=1).report.dead == (0,)


def test_random_faults_follow_their_rates() -> None:
    """About one call in four raises."""
    rates = FaultRates(raises=0.25, methods=frozenset({"echo"}))
    with InProcessCluster([1], rates=rates, seed=3) as cluster, _group(cluster) as group:
        futures = [group.run_single_worker_single_data("echo", 0, value=n) for n in range(400)]
        group.backend.wait(futures, 400, None)
        failed = sum(future.error is not None for future in futures)
        assert 70 < failed < 130


def test_a_wait_that_can_never_end_is_an_error(cluster: InProcessCluster) -> None:
    """Nothing is under way, and nobody will do anything: no test hangs."""
    with (
        _group(cluster, "tests.fault_workers.AsyncWorker") as group,
        pytest.raises(NothingWillHappenError, match="give it a deadline"),
    ):
        group.backend.wait([group.run_single_worker_single_data("wait", 0)], 1, None)


def test_calls_in_flight_have_a_limit(cluster: InProcessCluster) -> None:
    """One call too many sends nothing and says so; later there is room again."""
    with _group(cluster, max_calls_in_flight=8) as group:
        _all(group, "total")
        slow = [group.run_all_workers_single_data("sleep", seconds=9.0) for _ in range(2)]
        with pytest.raises(TooManyCallsError, match="8 calls are under way and 4 more"):
            group.run_all_workers_single_data("add", value=1)
        group.backend.get([each for futures in slow for each in futures], None)
        assert _all(group, "total") == [0, 0, 0, 0]


def test_calls_without_returns_do_not_count(cluster: InProcessCluster) -> None:
    """Ray gives None for them; later calls are sent and their limit holds."""
    with _group(cluster) as group:
        calls = InFlight(cluster.backend, "g", 2)
        calls.sent([None])
        calls.sent([[], None])
        assert calls.count == 0
        future = group.run_single_worker_single_data("echo", 0, value=5)
        calls.sent([None, future])
        assert calls.count == 1
        calls.sent([[future]])
        assert MultiWorkerFuture([None, future, [], [future]]).get_results(group) == [
            *(None, 5, None, [5])
        ]


def test_every_stream_that_fails_is_in_the_error(cluster: InProcessCluster) -> None:
    """Those that go on are named as running; the wait does not last until they end."""
    with _group(cluster) as group:
        futures = group.run_all_workers_multiple_data("count", upto=[5] * 4, fail_at=[0, 2, 4, -1])
        with pytest.raises(WorkerGroupError) as caught:
            MultiWorkerFuture(futures, method_name="count").get_results(group)
        assert isinstance(caught.value, ValueError)
        assert caught.value.report.failed == (0, 1, 2)
    with _group(cluster) as group:
        futures = [
            group.run_single_worker_single_data("count", 0, upto=1, fail_at=0),
            group.run_single_worker_single_data("drip", 1, upto=100, seconds=0.1),
        ]
        before = cluster.now
        with pytest.raises(WorkerGroupError) as caught:
            MultiWorkerFuture(futures, method_name="count").get_results(group)
        assert (caught.value.report.failed, caught.value.report.running) == ((0,), (1,))
        assert cluster.now - before < 2


def test_waiting_for_streams_says_for_whom(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute, as for other calls."""
    with _group(cluster) as group:
        futures = group.run_all_workers_single_data("drip", upto=1, seconds=150.0)
        assert MultiWorkerFuture(futures, method_name="drip").get_results(group) == [0] * 4
    saying = "drip(): still waiting for values of ranks 0-3"
    told = [each for each in caplog.messages if saying in each]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"failure_policy": "abort"}, "failure_policy: a value of type str; give a FailurePolicy"),
        ({"max_calls_in_flight": 0}, "max_calls_in_flight: 0 is not a number of calls; give a"),
        ({"max_calls_in_flight": None}, "max_calls_in_flight: None is not a number of calls"),
        ({"max_calls_in_flight": 2.5}, "max_calls_in_flight: 2.5 is not a number of calls"),
    ],
)
def test_arguments_about_failures_are_checked(
    cluster: InProcessCluster, arguments: dict[str, Any], expected: str
) -> None:
    """Before anything is started."""
    with pytest.raises(PlanError) as caught:
        _group(cluster, **arguments)
    assert [str(each)[: len(expected)] for each in caught.value.findings] == [expected]


def test_dummy_calls_are_asked_for_by_a_truth_value(cluster: InProcessCluster) -> None:
    """Any other value would be taken for True."""
    axes: Any = {"in_sharded_axes": ["dp"], "make_dummy_calls_to_free_axes": "no"}
    mesh = NamedSharding([0, 1, 2, 3], ["dp"])
    with (
        _group(cluster, sharding_annotations=mesh) as group,
        pytest.raises(PlanError, match="make_dummy_calls_to_free_axes: 'no' is not a truth value"),
    ):
        group.run_all_workers_sharded_data("echo", **axes, value=[1, 2, 3, 4])


def test_one_group_that_cannot_be_ended_does_not_keep_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the program ends, all are ended; what failed is logged."""

    class Ordered(list[RayWorkerGroup]):
        discard = list.remove

    def refuse(**_: object) -> bool:
        raise RuntimeError("no")

    both = InProcessCluster([2], max_colocated_worker_groups=2)
    with both as cluster, _group(cluster) as bad, _group(cluster) as good:
        with monkeypatch.context() as patch:
            patch.setattr(bad, "shutdown", refuse)
            patch.setattr(group_module, "_live", Ordered([bad, good]))
            group_module._shutdown_all()
        assert len(cluster.live) == 2
        assert any("ending it with the program failed" in each for each in caplog.messages)


def test_one_cluster_that_cannot_be_removed_does_not_keep_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the program ends, all are removed; what failed is logged."""
    removed = []

    class Removable:
        def __init__(self, *, good: bool) -> None:
            self.good = good

        def shutdown(self) -> None:
            if not self.good:
                raise RuntimeError("no")
            removed.append(self)

    clusters = [Removable(good=False), Removable(good=True)]
    monkeypatch.setattr(cluster_module, "_live", clusters)
    cluster_module._shutdown_all()
    assert removed == clusters[1:]
    assert any("removing it failed" in each for each in caplog.messages)


def test_a_group_that_nobody_holds_is_ended_at_once(cluster: InProcessCluster) -> None:
    """Without waiting for the garbage collector, which may come late."""
    gc.disable()
    try:
        group = _group(cluster)
        _all(group, "total")
        assert len(cluster.live) == 4
        del group
        assert cluster.live == []
    finally:
        gc.enable()


def test_ranks_of_a_lost_node_are_out_of_reach(cluster: InProcessCluster) -> None:
    """Without a wait, also when nobody has been asked there before."""
    with _group(cluster) as group:
        cluster.kill_node(1)
        states = [each.state.value for each in group.status()]
        assert states == ["idle", "idle", "out of reach", "out of reach"]


def test_ranks_that_were_given_up_are_not_asked_to_clean_up(cluster: InProcessCluster) -> None:
    """They had their end; nobody misses what they would have done."""
    with _group(cluster, failure_policy=FailurePolicy(domain=Domain.RANK)) as group:
        group.resize([0, 1])
        cluster.kill_worker(group, 1)
        group.status()
        report = group.end("close")
        assert (report.cleaned, report.failed) == ((0,), ())
        assert report.not_asked == ((1, "dead"),)
        assert report.is_clean
    with _group(cluster, failure_policy=FailurePolicy(domain=Domain.RANK)) as group:
        group.resize([0, 1])
        assert group.shutdown("close")


def test_processes_know_their_groups_by_the_names_of_the_plan(cluster: InProcessCluster) -> None:
    """Those started again, and those that look at workers, too; a name of no group is its own."""
    with _group(cluster, failure_policy=FailurePolicy(first_pause=0.0)) as group:
        group.abort([1])
        group.recover()
        processes = cluster.backend.processes.values()
        assert any(".companion-" in process.name for process in processes)
        assert {process.group for process in processes} == {"Worker"}
    assert [group_of(name) for name in ("a-1-2-0-1.g3", "a-grp0-1", "solo")] == [
        "a-1-2",
        "a",
        "solo",
    ]
