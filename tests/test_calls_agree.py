"""``group.call`` and recovery on Ray and in process: the same results, errors and recoveries."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from planner import NamedSharding
from planner.recovery import Domain, FailurePolicy, RecoveryPlan, Survivors
from runtime import (
    InconsistentGroupError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
    wait_all,
)
from runtime.backend import Cluster as Reservation
from runtime.testing import InProcessCluster
from tests.agreeing_workers import Agreeing
from tests.exception_workers import CodedError

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

WORKER = RayWorkerBuilder("tests.agreeing_workers.Agreeing")
FOUR = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])
TWO = NamedSharding([0, 1], ["data_parallel"])
RAISED = ("coded", "strict", "frozen", "guarded", "own", "file", "group", "away", "value", "mute")
THROWN = ("cancelled", "generator", "base")
Seen = dict[str, Any]


def _program(cluster: Reservation) -> Seen:
    """Calls by declared roles, failures of every kind, an abort, a recovery, a change of size."""
    seen: Seen = {}
    policy = FailurePolicy(
        domain=Domain.TIED_GROUP, survivors=Survivors.ABORT, budget=9, first_pause=0.0
    )
    with RayWorkerGroup(
        cluster,
        WORKER,
        sharding_annotations=FOUR,
        bundle_indices_list=[(0, [0, 1]), (1, [0, 1])],
        failure_policy=policy,
    ) as group:
        seen |= _calls(group)
        for how in (*RAISED, *THROWN):
            failing = group.call(Agreeing.train, [1, 2], how=how)
            seen[how] = _error(failing.result)
        large = group.call(Agreeing.train, [1], how="attributes", others=0.1)
        seen["large"] = _error(lambda: wait_all(large, group.call(Agreeing.highest)))
        seen["stream"] = group.call(Agreeing.stream, 3).by_rank()
        seen["stream fails"] = _streamed(group)
        for how in THROWN:
            thrown = group.call(Agreeing.stream, 3, [2], how)
            seen[f"stream of {how}"] = _error(thrown.by_rank)[0]
            group.recover()
        seen["interrupted"] = _error(group.call(Agreeing.interrupt).result)[1:]
        seen |= _recovered(group)
        seen["ended"] = group.end().is_clean
    constructor = RayWorkerBuilder("tests.exception_workers.Raising", "coded")
    seen["constructor"] = _error(lambda: RayWorkerGroup(cluster, constructor))
    return seen


def _calls(group: RayWorkerGroup) -> Seen:
    rows = list(range(7))
    held = group.call(Agreeing.scale, rows).held()
    return {
        "scaled": group.call(Agreeing.scale, rows, scale=3).result(),
        "slices": group.call(Agreeing.seen, rows).per_shard(),
        "total": group.call(Agreeing.total, rows).result(),
        "highest": group.call(Agreeing.highest).result(),
        "held": group.call(Agreeing.total, held.as_argument()).result(),
        "fetched": held.fetch(),
    }


def _streamed(group: RayWorkerGroup) -> object:
    """What came from the rank that fails, and its error; the others' values come in any order."""
    stream = group.call(Agreeing.stream, 3, [2], "coded")
    with pytest.raises(CodedError) as caught:
        stream.by_rank()
    error: Any = caught.value
    whole = {rank: [rank * 10 + number for number in range(3)] for rank in range(4)}
    assert all(whole[rank][: len(came)] == came for rank, came in stream.collected.items())
    # Who was still in it, the policy may have ended.
    group.recover()
    return stream.collected[2], error.report.failed, error.code, str(error.__cause__)


def _recovered(group: RayWorkerGroup) -> Seen:
    """Two deaths, whose survivors are aborted; a restore; a smaller group, and a whole one."""
    seen: Seen = {}
    restored: list[tuple[int, ...]] = []

    def restore(again: RayWorkerGroup, plan: RecoveryPlan) -> None:
        restored.append(plan.end)
        # Those that went on are asked too: all shall be at the same step.
        again.call(Agreeing.restore, 100).by_rank()

    for how in ("kill", "exit"):
        dying = group.call(Agreeing.train, [2], how=how, others=3.0)
        seen[f"dead by {how}"] = _error(lambda dying=dying: dying.result(60))  # type: ignore[misc]
        seen[f"broken by {how}"] = group.broken
        seen[f"refused after {how}"] = _error(lambda: group.call(Agreeing.highest))
        plan = group.recover(restore)
        seen[f"recovered from {how}"] = (plan.keep, plan.end, group.broken)
        group.abort([0, 1])
        seen[f"aborted after {how}"] = group.recover(restore).end
    seen["restored"] = restored
    seen["steps"] = group.call(Agreeing.train).by_rank()
    seen["smaller"] = group.resize([0]).end
    seen["highest that serves"] = group.call(Agreeing.highest).result()
    seen["scaled by those that serve"] = group.call(Agreeing.scale, [1, 2, 3]).result()
    view = group.using(timed=True)
    seen["scaled in a view"] = view.call(Agreeing.scale, [1, 2, 3]).result()
    seen["given up"] = _error(lambda: group.run_single_worker_single_data("highest", 3))
    seen["whole"] = [each.rank for each in group.resize([0, 1]).start]
    seen["steps after"] = group.call(Agreeing.train).by_rank()
    return seen


def _error(act: Callable[[], object]) -> Any:
    """What went wrong, without what differs between two runs: pids, addresses, times."""
    try:
        return act()
    except WorkerGroupError as error:
        report = error.report
        carried = {
            name: getattr(error, name, None)
            for name in ("code", "text", "errno", "filename", "rank", "page")
        }
        deaths = [
            (failure.death.signal, failure.death.exit_code)
            for failure, _ in report.causes
            if failure.death
        ]
        causes = sorted((ranks, failure.message[:100]) for failure, ranks in report.causes)
        kinds = sorted(
            base.__qualname__
            for base in type(error).__mro__
            if not base.__name__.startswith(("WorkerGroup", "ActorDied", "ProcessDied", "Ray"))
        )
        told = ("dead", deaths) if deaths else (causes, kinds, carried)
        return told, report.finished, report.running, report.dead
    except InconsistentGroupError as error:
        return "refused", error.ranks


@pytest.fixture(scope="module")
def in_process() -> Iterator[Seen]:
    """What the program sees in process."""
    with InProcessCluster([2, 2], use_gpus=False, seed=5) as cluster:
        seen = _program(cluster)
        assert cluster.live == []
        yield seen


def test_what_the_program_sees(in_process: Seen) -> None:
    """The main points, spelled out: both backends must not be wrong in the same way."""
    assert in_process["scaled"] == [3 * row for row in range(7)]
    assert in_process["slices"] == [(0, [0, 1, 2, 3]), (2, [4, 5, 6])]
    assert (in_process["total"], in_process["held"]) == (21, 42)
    (causes, kinds, carried), finished, running, dead = in_process["coded"]
    assert causes == [((1, 2), "7: busy")]
    assert "CodedError" in kinds
    assert (carried["code"], carried["text"]) == (7, "busy")
    assert (finished, running, dead) == ((0, 3), (), ())
    # Each of them arrives by its own name, and is caught as the group's error only.
    assert in_process["mute"][0][0][0][1].startswith("tests.exception_workers.MuteError: (its mes")
    for how, kind in zip(THROWN, ("CancelledError", "GeneratorExit", "BaseExc"), strict=True):
        (causes, kinds, _), finished, running, dead = in_process[how]
        assert (kinds[-1], finished, running, dead) == ("object", (0, 3), (), ()), kind
        assert [ranks for ranks, _ in causes] == [(1, 2)]
        assert [ranks for ranks, _ in in_process[f"stream of {how}"][0]] == [(2,)]
    assert in_process["stream fails"] == ([20, 21, 22], (2,), 7, "7: busy")
    assert in_process["dead by kill"] == (("dead", [("SIGKILL", None)]), (), (0, 1, 3), (2,))
    assert in_process["dead by exit"] == (("dead", [("", 4)]), (), (0, 1, 3), (2,))
    assert in_process["broken by kill"] == (2, 3)
    assert in_process["recovered from kill"] == ((0, 1), (2, 3), ())
    assert in_process["restored"] == [(2, 3), (0, 1)] * 2
    assert in_process["steps"] == dict.fromkeys(range(4), 101)
    assert (in_process["smaller"], in_process["whole"]) == ((2, 3), [2, 3])
    assert in_process["steps after"] == {0: 102, 1: 102, 2: 1, 3: 1}
    assert in_process["constructor"][0][0] == [((1, 3), "7: busy")]
    assert in_process["interrupted"] == ((), (), ())
    assert in_process["ended"]


def test_ray_agrees(cluster_of_nodes: "Cluster", in_process: Seen) -> None:
    """Every single thing that the program sees is the same on Ray."""
    with RayVirtualCluster([2, 2], use_gpus=False) as cluster:
        assert _program(cluster) == in_process
