"""The one end of a group: its session, threads, signals, and what interrupts it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from planner.failure_policy import Domain, FailurePolicy
from planner.findings import PlanError
from planner.teardown import INTERRUPTED, TeardownReport
from runtime import ExecutionError, RayWorkerBuilder, RayWorkerGroup, teardown
from runtime import group as group_module
from runtime.admission import Admission
from runtime.in_process_backend import World
from runtime.lane import Lane
from runtime.testing import InProcessCluster
from tests.ending_workers import STEPS


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """One node with three bundles; nothing may be alive at the end of a test."""
    STEPS.clear()
    with InProcessCluster([3]) as made:
        yield made
        assert made.live == []


def _group(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(cluster, RayWorkerBuilder("tests.ending_workers.Cleaner"), **more)


def _once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, before: Any) -> None:
    """Have something done before the next call of a function, and only then."""
    real, left = getattr(owner, name), [before]

    def called(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()(*args)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_group_whose_session_is_over_is_left_alone(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, started or ended, and the report says so, every time."""
    group = _group(cluster)
    wishes: list[Callable[[], object]] = [
        lambda: group.call("note"),
        lambda: group.run_all_workers_single_data("note"),
        group.workers[0].note.remote,
        group.status,
        group.ping,
        group.stacks,
        group.abort,
        group.recover,
        group.plan_recovery,
        lambda: group.resize([0]),
    ]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(World, "session", "another")
        for wish in wishes:
            with pytest.raises(PlanError, match="the Ray session in which its workers ran is over"):
                wish()
        with pytest.raises(PlanError, match="timeout: 'x' is not a time"):
            group.end(timeout="x")  # type: ignore[arg-type]
        report = group.end("close", timeout=3.0)
        assert group.end() is report
        with pytest.raises(PlanError, match="it has ended"):
            group.status()
        with pytest.raises(PlanError, match="session in which its workers ran is over; start a"):
            group.workers[0].note.remote()
    assert report == TeardownReport(
        group="Cleaner",
        not_asked=((0, "out of reach"), (1, "out of reach"), (2, "out of reach")),
        processes_unseen=(0, 1, 2),
        bundles_unseen=((0, 0), (0, 1), (0, 2)),
        session_is_over=True,
    )
    assert (report.is_clean, report.went_well) == (False, False)
    assert cluster.live == ["Cleaner-0-0", "Cleaner-0-1", "Cleaner-0-2"]
    assert STEPS == []
    with _group(cluster, name_prefix="next") as other:
        assert other.world_size == 3
    cluster.shutdown()


def test_leaving_a_group_whose_session_is_over_is_no_error(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``shutdown`` is true: nobody was to clean up, and Ray ends the ranks."""
    with _group(cluster) as group, monkeypatch.context() as elsewhere:
        elsewhere.setattr(World, "session", "")
        with pytest.raises(PlanError, match=r"is over; call ray\.init\(\) or init_ray\(\), then"):
            group.call("note")
        assert group.shutdown(force=True) is True
        assert group.shutdown("close") is True
    cluster.shutdown()


def test_no_companion_is_started_for_an_ended_group(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever still asks for its workers learns nothing."""
    group = _group(cluster)
    monkeypatch.setattr(World, "start_companion", None)
    _once(monkeypatch, World, "live_nodes", lambda *_: group.end())
    with pytest.raises(PlanError, match="it has ended"):
        group.status()
    assert group._lane.remains([0]) == {}
    group._lane.warm()
    assert {each.state.value for each in group._lane.status()} == {"out of reach"}


def test_a_companion_that_is_being_started_is_ended_and_counted(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start goes on when the group has ended; who waits for it is told of the end."""
    group = _group(cluster)
    _once(monkeypatch, World, "start_companion", lambda *_: group.end())
    with pytest.raises(PlanError, match="it has ended"):
        group.status()
    assert cluster.live == []
    held = _group(cluster, name_prefix="held")
    held.status()
    kill = World.kill

    def spares_companions(world: World, actor: Any) -> None:
        if "companion" not in actor.process.name:
            kill(world, actor)

    with monkeypatch.context() as deaf:
        deaf.setattr(World, "kill", spares_companions)
        report = held.end()
    assert report.names_held == ("held.companion-0",)
    cluster.shutdown()


def test_a_companion_that_cannot_be_started_is_told_with_its_group_and_node(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error of this library, and that of its cause; the group goes on."""

    def fails(*_: object) -> None:
        raise ConnectionError("nobody answers")

    with _group(cluster) as group:
        with monkeypatch.context() as broken:
            broken.setattr(World, "start_companion", fails)
            with pytest.raises(ExecutionError) as caught:
                group.status()
        assert isinstance(caught.value, ConnectionError)
        assert str(caught.value) == (
            "worker group 'Cleaner': starting 'Cleaner.companion-0', the process that looks at its "
            "workers on node 10.0.0.0, failed: ConnectionError: nobody answers"
        )
        assert {each.state.value for each in group.status()} == {"idle"}


def test_the_next_group_has_names_of_its_own_after_a_recovery(cluster: InProcessCluster) -> None:
    """Its workers are called otherwise now, but the name is theirs."""
    with InProcessCluster([2], max_colocated_worker_groups=3) as shared:
        policy = FailurePolicy(first_pause=0.0)
        first = _group(shared, failure_policy=policy)
        first.abort([0])
        first.recover()
        second = _group(shared, failure_policy=policy)
        assert (first.name, second.name) == ("Cleaner", "Cleaner-2")
        second.abort([1])
        assert len(second.recover().start) == 2
        with pytest.raises(PlanError, match="'Cleaner-0-0.g1' first"):  # noqa: RUF043
            _group(shared, name_prefix="Cleaner")


def test_groups_of_one_name_in_other_bundles_look_at_their_own_workers(
    cluster: InProcessCluster,
) -> None:
    """Their companions are called otherwise."""
    pair = [
        _group(cluster, name_prefix="same", bundle_indices_list=[(0, [bundle])])
        for bundle in (0, 1)
    ]
    for group in pair:
        assert {each.state.value for each in group.status()} == {"idle"}
    assert [name for name in cluster.live if "companion" in name] == [
        "same.companion-0",
        "same.companion-1",
    ]
    for group in pair:
        assert group.end().is_clean


def test_a_name_that_another_group_has_by_now_is_not_held() -> None:
    """The rank that had it was dead before the end."""
    with InProcessCluster([1], max_colocated_worker_groups=2) as shared:
        first = _group(shared, name_prefix="same")
        shared.kill_worker(first, 0)
        second = _group(shared, name_prefix="same")
        report = first.end()
        assert (report.names_held, report.is_clean) == ((), True)
        assert shared.live == ["same-0-0"]
        assert second.end().is_clean


def _ended_by_threads(first: Callable[[], object], *others: Callable[[], object]) -> list[Any]:
    results: list[Any] = [None] * (1 + len(others))

    def run(place: int, wish: Callable[[], object]) -> None:
        results[place] = wish()

    threads = [
        threading.Thread(target=run, args=(place, wish))
        for place, wish in enumerate((first, *others))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class _Told:
    """A lock that tells when somebody finds it taken."""

    def __init__(self, contended: threading.Event) -> None:
        self._lock, self._contended = threading.RLock(), contended

    def acquire(self, blocking: bool = True) -> bool:
        """Take it."""
        if self._lock.acquire(blocking=False):
            return True
        self._contended.set()
        return blocking and self._lock.acquire()

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_who_ends_a_group_that_is_being_ended_waits_for_its_report(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one teardown, and the report of its clean-up is everybody's."""
    group = _group(cluster)
    inside, contended = threading.Event(), threading.Event()
    monkeypatch.setattr(group._ending, "_one", _Told(contended))

    def wait(*_: object) -> None:
        inside.set()
        assert contended.wait(60)

    _once(monkeypatch, teardown, "answered_of", wait)

    def later() -> object:
        assert inside.wait(60)
        return group.end()

    first, second = _ended_by_threads(lambda: group.end("close"), later)
    assert first is second
    assert first.cleaned == (0, 1, 2)
    assert sorted(STEPS) == [(0, "closed"), (1, "closed"), (2, "closed")]


def test_who_forces_the_end_cuts_the_wait_of_others_short(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks are ended at once; whoever waited for their clean-up reports that."""
    group = _group(cluster)
    inside = threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        for _try in range(10_000):
            if cluster.live == []:
                return
            threading.Event().wait(0.001)

    _once(monkeypatch, teardown, "answered_of", wait)

    def forced() -> object:
        assert inside.wait(60)
        return group.shutdown(force=True)

    report, ended_well = _ended_by_threads(lambda: group.end("close", timeout=None), forced)
    assert [rank for rank, _ in report.failed] == [0, 1, 2]
    assert (ended_well, STEPS) == (False, [])


def test_the_handler_of_a_signal_may_end_what_its_thread_is_ending(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for itself, and nobody is asked twice."""
    group = _group(cluster)
    told: list[TeardownReport] = []

    def handler(*_: object) -> None:
        told.append(group.end("close"))
        assert cluster.live == []

    _once(monkeypatch, teardown, "answered_of", handler)
    report = group.end("close")
    assert told[0].failed == tuple((rank, INTERRUPTED) for rank in range(3))
    assert told[0].ended == report.ended == (0, 1, 2)
    assert [rank for rank, _ in report.failed] == [0, 1, 2]
    assert STEPS == []
    assert group.end() is report


def test_ranks_are_ended_whatever_interrupts_the_look_at_them(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the interrupt is raised; their share is given back only then."""
    group = _group(cluster)
    group.status()
    held: list[object] = []
    _once(monkeypatch, Lane, "status", _interrupt)
    _once(
        monkeypatch, World, "kill", lambda *_: held.append(cluster.workers_beside("somebody else"))
    )
    with pytest.raises(KeyboardInterrupt):
        group.end("close")
    assert held == [{(0, 0): 1, (0, 1): 1, (0, 2): 1}]
    assert cluster.live == []
    assert cluster.workers_beside("somebody else") == {}
    report = group.end("close")
    assert report.failed == tuple((rank, INTERRUPTED) for rank in range(3))
    assert (report.ended, report.is_clean, STEPS) == ((0, 1, 2), True, [])


def test_an_end_that_is_interrupted_before_it_is_planned_ends_the_ranks(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one proves it."""
    group = _group(cluster)
    _once(monkeypatch, Admission, "end", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        group.end("close")
    assert cluster.live == []
    assert group.end().is_clean


def test_a_look_that_fails_keeps_nobody_from_being_asked(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log."""

    def fails(*_: object) -> None:
        raise ConnectionError("nobody answers")

    group = _group(cluster)
    group.status()
    _once(monkeypatch, Lane, "status", fails)
    assert group.end("close").cleaned == (0, 1, 2)
    assert any("ended without a look at them" in each for each in caplog.messages)


def test_who_had_cleaned_up_when_the_end_was_interrupted_is_known(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next end asks nobody again, and gives the whole report."""
    group = _group(cluster)

    def two_answer(backend: World, _: str, asked: dict[int, Any], *__: object) -> None:
        backend.wait(list(asked.values()), 2, None)
        raise KeyboardInterrupt

    _once(monkeypatch, teardown, "answered_of", two_answer)
    with pytest.raises(KeyboardInterrupt):
        group.end("close", timeout=None)
    assert cluster.live == []
    report = group.end("close")
    assert (report.cleaned, report.failed) == ((0, 1), ((2, INTERRUPTED),))
    assert (report.ended, report.late, report.is_clean) == ((0, 1, 2), (), True)
    assert sorted(STEPS) == [(0, "closed"), (1, "closed"), (2, "closed")]
    assert group.end() is report


@pytest.mark.parametrize("cleanup", [None, "close"])
def test_interrupts_in_a_row_leave_nobody_alive(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch, cleanup: str | None
) -> None:
    """One while ranks are ended, one while they are proved to be gone; the next end finishes."""
    group = _group(cluster)
    group.status()
    _once(monkeypatch, World, "kill", _interrupt)
    _once(monkeypatch, World, "names", _interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            group.end(cleanup)
        assert cluster.backend.processes == {}
    with pytest.raises(PlanError, match="it has ended"):
        group.call("note")
    report = group.end("close")
    assert group.end() is report
    if cleanup is None:
        assert report.not_asked == ((0, "dead"), (1, "dead"), (2, "dead"))
    else:
        assert report.cleaned == (0, 1, 2)
    assert (report.ended, report.failed, report.is_clean) == ((0, 1, 2), (), True)


def test_one_rank_that_cannot_be_killed_does_not_keep_the_others(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the report."""
    group = _group(cluster)
    kill = World.kill

    def refuses(world: World, actor: Any) -> None:
        if actor.process.rank == 1:
            raise ConnectionError("nobody answers")
        kill(world, actor)

    with monkeypatch.context() as broken:
        broken.setattr(World, "kill", refuses)
        report = group.end()
    assert (report.names_held, report.processes_left) == (("Cleaner-0-1",), (1,))
    assert cluster.live == ["Cleaner-0-1"]
    cluster.shutdown()


def test_an_end_that_was_interrupted_is_finished_with_the_program(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or when nobody holds the group any more."""
    group = _group(cluster)
    _once(monkeypatch, World, "names", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        group.end()
    assert group in group_module._live
    group_module._shutdown_all()
    assert group._ending.report is not None
    assert group not in group_module._live


def test_what_cleans_up_by_yielding_runs_to_its_end(cluster: InProcessCluster) -> None:
    """Nobody takes its values."""
    report = _group(cluster).end("close_in_steps")
    assert report.cleaned == (0, 1, 2)
    assert sorted(STEPS) == sorted(
        (rank, step) for rank in range(3) for step in ("flushed", "left", "closed")
    )


def test_end_and_shutdown_refuse_the_same(cluster: InProcessCluster) -> None:
    """All of it at once, before anything is ended."""
    with _group(cluster) as group:
        for way in (group.end, group.shutdown):
            with pytest.raises(PlanError) as caught:
                way("close_with", timeout=-1.0)
            assert [each.path for each in caught.value.findings] == [
                "timeout",
                "close_with(reason)",
            ]
            with pytest.raises(PlanError, match="has no method 'clos'; did you mean 'close'"):
                way("clos")
        group.call("note").by_rank()


def test_ranks_that_a_recovery_starts_when_the_group_ends_are_ended(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever comes first: they are adopted and ended, or refused."""
    policy = FailurePolicy(domain=Domain.RANK, first_pause=0.0)
    group = _group(cluster, failure_policy=policy)
    cluster.kill_worker(group, 1)
    _once(monkeypatch, RayWorkerGroup, "_adopt", lambda *_: group.end())
    with pytest.raises(PlanError, match="it has ended"):
        group.recover()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Lane, "status"),
        (teardown, "answered_of"),
        (World, "held"),
        (World, "kill"),
        (World, "names"),
        (World, "is_gone"),
    ],
)
@pytest.mark.parametrize("raises", [False, True])
def test_an_end_inside_another_has_the_last_word(
    cluster: InProcessCluster,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    raises: bool,
) -> None:
    """Whatever the one around it was doing, and whether or not it goes on."""
    group = _group(cluster)
    group.status()
    told: list[TeardownReport] = []

    def handler(*_: object) -> None:
        told.append(group.end())
        if raises:
            raise KeyboardInterrupt

    _once(monkeypatch, owner, name, handler)
    if raises:
        with pytest.raises(KeyboardInterrupt):
            group.end("close")
    else:
        assert group.end("close") is told[0]
    assert group.end() is told[0]
    assert told[0].ended == (0, 1, 2)


def test_who_forces_the_end_is_seen_by_a_clean_up_that_begins_just_then(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After nobody was found at it, and before the turn is taken."""
    group = _group(cluster)
    looked, inside = threading.Event(), threading.Event()
    look = group._ending._is_elsewhere

    def lets_another_begin() -> bool:
        found = look()
        looked.set()
        assert inside.wait(60)
        return found

    monkeypatch.setattr(group._ending, "_is_elsewhere", lets_another_begin)
    _once(monkeypatch, Admission, "end", lambda *_: inside.set())

    def later() -> object:
        assert looked.wait(60)
        return group.end("close", timeout=None)

    ended_well, report = _ended_by_threads(lambda: group.shutdown(force=True), later)
    assert report.failed == tuple((rank, INTERRUPTED) for rank in range(3))
    assert (ended_well, STEPS) == (False, [])
