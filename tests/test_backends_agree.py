"""The same program on Ray and in process: the same results, errors, refusals and recoveries."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from planner import NamedSharding
from planner.findings import PlanError
from planner.recovery import Domain, FailurePolicy
from runtime import (
    CallFuture,
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
    wait_all,
)
from runtime.backend import Cluster as Reservation
from runtime.errors import DeadlineError
from runtime.health import InconsistentGroupError
from runtime.testing import InProcessCluster

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

WORKER = RayWorkerBuilder("tests.fault_workers.Worker", start=1)
AXES = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])
Seen = dict[str, Any]


def _program(cluster: Reservation) -> Seen:
    """Calls, streams, failures, a death, a recovery and the end; what the caller sees of each."""
    seen: Seen = {}
    policy = FailurePolicy(domain=Domain.TIED_GROUP)
    with RayWorkerGroup(
        cluster,
        WORKER,
        sharding_annotations=AXES,
        bundle_indices_list=[(0, [0, 1]), (1, [0, 1])],
        failure_policy=policy,
        env_vars={"COLOUR": "blue"},
    ) as group:
        get = group.backend.get
        seen["plan"] = [
            (w.rank, w.local_rank, w.node_rank, w.tied_group, w.data_parallel_shard)
            for w in group.plan.workers
        ]
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "COLOUR"):
            futures = group.run_all_workers_single_data("environment", name=name)
            seen[name] = get(futures, 60.0)
        seen["sharded"] = _sharded(group, "add", value=[10, 20]).get_results(group)
        seen["stream"] = _sharded(group, "count", upto=[2, 3]).get_results(group)
        handles = group.workers
        seen["handle"] = get([handles[2].total.remote()], 60.0)
        seen["reference"] = get([handles[0].echo.remote(handles[1].total.remote())], 60.0)
        seen["same"] = get([handles[0].echo.remote(handles[1])], 60.0)[0] == handles[1]
        seen["refused"] = _error(lambda: group.run_all_workers_single_data("nothing"))
        failing = _sharded(group, "fail", ranks=[[1], []])
        seen["failed"] = _error(lambda: failing.get_results(group))
        failing_call = group.call("fail", ranks=[1])
        seen["awaited"] = _error(lambda: asyncio.run(_of(failing_call)))
        seen["standings"] = [each.standing.value for each in failing_call.outcomes().values()]
        large = group.call("echo", bytes(300_000))
        seen["waited"] = _error(lambda: wait_all(large, group.call("fail", ranks=[2])))
        seen["large"] = [len(each) for each in large.by_rank().values()]
        for size in (3, 300_000):
            echoes = group.run_all_workers_single_data("echo", value=bytes(size))
            looked = group.backend.look(group.backend.wait(echoes, 4, 60.0)[0])
            seen[f"looked at {size}"] = (len(looked.values), len(looked.errors))
        late = _sharded(group, "sleep", seconds=[0.0, 2.0])
        seen["late"] = _error(lambda: late.get_results(group, timeout=0.5))
        late.get_results(group)
        dying = _sharded(group, "die", ranks=[[], [3]])
        seen["dead"] = _error(lambda: dying.get_results(group))
        seen["guarded"] = _error(lambda: group.run_single_worker_single_data("pid", 2))
        seen["free"] = get([group.run_single_worker_single_data("total", 0)], 60.0)
        plan = group.recover()
        seen["recovered"] = (plan.keep, plan.end, plan.generation)
        seen["after"] = get(group.run_all_workers_single_data("total"), 60.0)
        seen["pinged"] = group.ping()
        report = group.end("close")
        seen["ended"] = (report.cleaned, report.is_clean, report.went_well, group.shutdown())
        seen["over"] = _error(lambda: group.run_all_workers_single_data("pid"))
    picky = RayWorkerBuilder("tests.fault_workers.Picky", 1)
    seen["constructor"] = _error(lambda: RayWorkerGroup(cluster, picky))
    return seen


async def _of(future: CallFuture[Any]) -> object:
    return await future


def _sharded(group: RayWorkerGroup, method: str, **arguments: Any) -> MultiWorkerFuture:
    return group.run_all_workers_sharded_data(
        method,
        in_sharded_axes=["data_parallel"],
        replicate_on_axes=["tensor_parallel"],
        **arguments,
    )


def _error(act: Callable[[], object]) -> object:
    """What went wrong, without what differs between two runs: pids, addresses, times."""
    try:
        return act()
    except WorkerGroupError as error:
        report = error.report
        deaths = {failure.death.signal for failure, _ in report.causes if failure.death}
        types = (isinstance(error, DeadlineError), isinstance(error, ValueError | KeyError))
        return (types, report.failed, report.finished, report.running, report.dead, deaths)
    except InconsistentGroupError as error:
        return ("refused", error.ranks)
    except PlanError as error:
        return [(finding.path, finding.problem) for finding in error.findings]


@pytest.fixture(scope="module")
def in_process() -> Iterator[Seen]:
    """What the program sees in process."""
    with InProcessCluster([2, 2], use_gpus=False, seed=11) as cluster:
        seen = _program(cluster)
        assert cluster.live == []
        yield seen


def test_what_the_program_sees(in_process: Seen) -> None:
    """The main points, spelled out: both backends must not be wrong in the same way."""
    assert in_process["RANK"] == ["0", "1", "2", "3"]
    assert in_process["sharded"] == [(0, 11), (1, 11), (2, 21), (3, 21)]
    assert in_process["stream"] == [0, 1, 100, 101, 200, 201, 202, 300, 301, 302]
    assert in_process["failed"] == ((False, True), (1,), (0, 2, 3), (), (), set())
    assert in_process["awaited"] == in_process["failed"]
    assert in_process["standings"] == ["returned", "failed", "returned", "returned"]
    assert in_process["waited"] == ((False, True), (2,), (0, 1, 3), (), (), set())
    assert in_process["large"] == [300_000] * 4
    assert in_process["looked at 3"] == (4, 0)
    assert in_process["looked at 300000"] == (0, 0)
    assert in_process["late"] == ((True, False), (), (0, 1), (2, 3), (), set())
    assert in_process["dead"] == ((False, False), (3,), (0, 1, 2), (), (3,), {"SIGKILL"})
    assert in_process["guarded"] == ("refused", (3,))
    assert in_process["recovered"] == ((0, 1), (2, 3), 1)
    assert in_process["after"] == [11, 11, 1, 1]
    assert in_process["ended"] == ((0, 1, 2, 3), True, True, True)


def test_ray_agrees(cluster_of_nodes: "Cluster", in_process: Seen) -> None:
    """Every single thing that the program sees is the same on Ray."""
    with RayVirtualCluster([2, 2], use_gpus=False) as cluster:
        assert _program(cluster) == in_process
