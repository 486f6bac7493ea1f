"""Looking at, mending and ending a group, where something goes wrong on the way."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from planner.failure_policy import Domain, FailurePolicy, Survivors
from planner.findings import PlanError
from planner.launch_plan import LaunchPlan
from planner.liveness import WorkerState
from runtime import (
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
from runtime.launching import Launched
from runtime.recovering import start_again
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


def test_ports_of_ranks_that_were_started_too_late_are_given_back(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group was ended meanwhile; the next one gets the same ports."""
    group = _group(cluster, ports_per_worker=4, failure_policy=RANKS)
    ports = [worker.ports for worker in group.plan.workers]
    cluster.kill_worker(group, 1)
    started: list[LaunchPlan] = []

    def late(*arguments: Any) -> Launched:
        made = start_again(*arguments)
        started.append(made.plan)
        group.end()
        return made

    monkeypatch.setattr("runtime.care.start_again", late)
    with pytest.raises(PlanError, match="it has ended"):
        group.recover()
    assert [worker.ports for worker in started[0].workers] == ports
    with _group(cluster, ports_per_worker=4) as after:
        assert [worker.ports for worker in after.plan.workers] == ports
