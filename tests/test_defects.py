"""The defects that are not carried over, by their numbers in the reference's description.

One test each: pure where the decision is pure, on Ray where only a process can show it.
"""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError
from ray.util import list_named_actors

from planner.dispatch import plan_sharded, slices_of
from planner.environment import EnvironmentSources
from planner.findings import PlanError
from planner.launch import HostFacts, environment_of, plan_launch
from planner.mesh import NamedSharding
from runtime import (
    DeadlineError,
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
from tests.strategies import fresh, launched, spec_of
from tests.workers import CountedPickle

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

AXES = ["data_parallel", "tensor_parallel"]
RECORDER = RayWorkerBuilder("tests.workers.Recorder")


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Two bundles without GPUs."""
    with RayVirtualCluster([2], use_gpus=False, name="defects") as cluster:
        cluster.get_placement_groups()
        yield cluster


@pytest.fixture(scope="module")
def group(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Two replicas of one rank each, started first, without axes."""
    with RayWorkerGroup(places, RECORDER, name_prefix="bare", env_vars={"ONLY": "here"}) as made:
        yield made


@pytest.fixture(scope="module")
def replicas(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Two ranks that hold the same."""
    mesh = NamedSharding([[0, 1]], AXES)
    with RayWorkerGroup(places, RECORDER, sharding_annotations=mesh) as made:
        yield made


def told(environment: object, name: str) -> str | None:
    """One variable of a planned environment."""
    assert isinstance(environment, tuple)
    return {each.name: each.value for each in environment}.get(name)


def test_defect_01_environments_are_not_shared_between_groups(
    group: RayWorkerGroup, replicas: RayWorkerGroup
) -> None:
    """The next group starts from the driver's environment; secrets stay with the driver."""
    first, second = (
        ray.get(each.run_single_worker_single_data("environment", 0)) for each in (group, replicas)
    )
    assert (first.get("ONLY"), second.get("ONLY")) == ("here", None)
    assert "ONLY" not in os.environ
    # The nodes have it from the shell that started them.
    assert first.get("RANKPLAN_TEST_PLAIN") == "of-the-node"
    assert "RANKPLAN_TEST_API_TOKEN" not in first.keys() | second.keys()
    assert "SLURM_JOB_ID" not in first.keys() | second.keys()
    driver = {"HF_TOKEN": "hush", "PLAIN": "1"}
    plan = launched([1], sources=EnvironmentSources(driver=driver))
    assert told(environment_of(plan, 0), "PLAIN") == "1"
    assert told(environment_of(plan, 0), "HF_TOKEN") is None
    assert "hush" not in repr(plan)


def unified(homes: list[int], **arguments: Any) -> Any:
    """A launch in one placement group whose bundles landed on these nodes."""
    seen = [homes[:index].count(home) for index, home in enumerate(homes)]
    facts = [
        HostFacts(node_id=f"n{home}", address=f"10.0.0.{home}", gpus=(str(gpu),))
        for home, gpu in zip(homes, seen, strict=True)
    ]
    return plan_launch(spec_of([len(homes)], **arguments), facts)


def test_defect_02_local_and_node_ranks_follow_the_nodes() -> None:
    """In a unified placement group over two nodes; visibility is a stated mode."""
    plan = unified([1] * 8 + [2] * 8, gpu_visibility="shared")
    environments = [environment_of(plan, rank) for rank in range(16)]
    assert [told(each, "LOCAL_RANK") for each in environments] == [str(i) for i in range(8)] * 2
    assert [told(each, "NODE_RANK") for each in environments] == ["0"] * 8 + ["1"] * 8
    assert {told(each, "LOCAL_WORLD_SIZE") for each in environments} == {"8"}
    assert told(environments[9], "CUDA_VISIBLE_DEVICES") == "0,1,2,3,4,5,6,7"
    isolated = environment_of(unified([1] * 8), 5)
    assert told(isolated, "CUDA_VISIBLE_DEVICES") == "5"
    assert told(isolated, "LOCAL_RANK") == "0"


def test_defect_03_ranks_are_contiguous_by_node_whatever_ray_did() -> None:
    """Bundles come back scattered; on a live cluster see tests/test_scattered_bundles.py."""
    plan = unified([1, 2, 2, 1, 2, 1, 1, 2])
    nodes = [worker.node_id for worker in plan.workers]
    assert sum(1 for one, two in pairwise(nodes) if one != two) == 1


def test_defect_04_no_shard_is_dropped_and_no_call_half_sent(group: RayWorkerGroup) -> None:
    """Too many, too few, a wrong count: refused before the first rank is called."""
    plan = plan_sharded(NamedSharding(range(4), ["dp"]), ["dp"], None, None, fresh())
    for count in (8, 3):
        findings = fresh()
        slices_of(plan, "data", [0] * count, findings)
        (found,) = findings.found
        assert found.problem == f"{count} slices for 4"
    ray.get(group.run_all_workers_single_data("told"))
    for data in ([1], [1, 2, 3]):
        with pytest.raises(PlanError, match="slices for 2"):
            group.run_all_workers_multiple_data("tell", data=data)
    assert ray.get(group.run_all_workers_single_data("told")) == [[], []]


def test_defect_05_calls_without_axes_need_no_axes(group: RayWorkerGroup) -> None:
    """Nor does a graceful shutdown; that is shown with defect 6."""
    assert ray.get(group.run_all_workers_single_data("rank")) == [0, 1]
    given = group.run_all_workers_multiple_data("tell", data=["a", "b"])
    assert [value for _, value, _ in ray.get(given)] == ["a", "b"]


def test_defect_06_names_are_free_after_every_kind_of_end(
    cluster_of_nodes: "Cluster", tmp_path: Path
) -> None:
    """A graceful shutdown with a dead worker, and a launch that fails half way."""
    with RayVirtualCluster([2], use_gpus=False, name="sixth") as cluster:
        group = RayWorkerGroup(
            cluster, RECORDER, name_prefix="sixth", env_vars={"MARKS": str(tmp_path)}
        )
        with pytest.raises(RayActorError, match="sixth"):
            ray.get(group.run_single_worker_single_data("exit_on", 1, rank=1))
        assert group.shutdown(cleanup_method="leave_mark") is False
        assert [path.name for path in tmp_path.iterdir()] == ["0"]
        failing = RayWorkerBuilder("tests.workers.FailsToStart", "raise", (1,))
        for _ in range(2):
            with pytest.raises(LookupError):
                RayWorkerGroup(cluster, failing, name_prefix="sixth")
            assert [name for name in list_named_actors() if name.startswith("sixth")] == []


def test_defect_07_streams_return_once_and_run_together(
    replicas: RayWorkerGroup, tmp_path: Path
) -> None:
    """Replicas give no duplicates; no stream waits for another's end."""
    options: dict[str, Any] = {"replicate_on_axes": AXES, "output_is_replicated": AXES[1:]}
    future = replicas.run_all_workers_sharded_data("count", common_kwargs={"number": 3}, **options)
    assert replicas.get_all_worker_results(future) == [(0, 0), (0, 1), (0, 2)]
    meeting = replicas.run_all_workers_sharded_data(
        "meet",
        replicate_on_axes=AXES,
        common_kwargs={"folder": str(tmp_path), "parties": 2, "steps": 2},
    )
    assert replicas.get_all_worker_results(meeting) == [0, 1, 0, 1]


def test_defect_08_results_that_do_not_return_are_not_sent(replicas: RayWorkerGroup) -> None:
    """The called worker that does not return answers with nothing, not with its block."""
    future = replicas.run_all_workers_sharded_data(
        "block",
        replicate_on_axes=AXES,
        output_is_replicated=AXES,
        common_kwargs={"size": 1_000_000},
    )
    assert future.called_workers == [0, 1]
    assert [len(value) for value in replicas.get_all_worker_results(future)] == [1_000_000]
    assert ray.get(future.futures[1]) is None


def test_defect_09_each_distinct_value_is_serialised_once(group: RayWorkerGroup) -> None:
    """Common arguments and slices alike."""
    common, one, two = CountedPickle(), CountedPickle(), CountedPickle()
    ray.get(
        group.run_all_workers_multiple_data(
            "tell", data=[one, two], common_kwargs={"common": common}
        )
    )
    assert [each.times for each in (common, one, two)] == [1, 1, 1]
    ray.get(group.run_all_workers_single_data("told"))


def test_defect_10_one_actor_per_rank_and_no_runtime_environment(group: RayWorkerGroup) -> None:
    """No helper creates the workers: the group's actors are all there is of it."""
    mine = [name for name in list_named_actors() if name.startswith("bare")]
    assert sorted(mine) == ["bare-0-0", "bare-0-1"]
    assert not group.plan.runtime_env
    assert len({identity.pid for identity in group.identities.values()}) == 2


def test_defect_11_planning_a_call_does_not_search_the_layout_per_rank() -> None:
    """A call over 20,000 ranks takes a handful of array operations, not rank times rank."""
    mesh = NamedSharding(np.arange(20_000).reshape(10, 100, 20), ["pp", "dp", "tp"])
    asked: list[int] = []

    class Counted(NamedSharding):
        def get_worker_coords(self, worker_id: int) -> dict[str, int]:
            asked.append(worker_id)
            return super().get_worker_coords(worker_id)

    counted = Counted(mesh.layout, mesh.names)
    plan = plan_sharded(counted, ["dp"], ["tp"], None, fresh())
    assert asked == []
    assert len(plan.ranks) == 2_000
    assert mesh.get_worker_coords(19_999) == {"pp": 9, "dp": 99, "tp": 19}


def test_defect_12_the_port_of_rank_0_is_held_by_rank_0(group: RayWorkerGroup) -> None:
    """From its choice on, without listening there. Issue B has more on ports."""
    port = group.plan.rendezvous.port
    assert port is not None
    pid = group.identities[0].pid
    holder = socket.socket()
    with holder, pytest.raises(OSError, match="in use"):
        # Without SO_REUSEADDR, as anybody who does not know better.
        holder.bind(("", port))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen()
    assert pid is not None
    environments = ray.get(group.run_all_workers_single_data("environment"))
    assert {each["MASTER_PORT"] for each in environments} == {str(port)}


def test_defect_13_virtual_env_is_a_folder(group: RayWorkerGroup) -> None:
    """Not an executable. See issue B for environments that are built."""
    environment = ray.get(group.run_single_worker_single_data("environment", 0))
    assert Path(environment["VIRTUAL_ENV"]).is_dir()
    assert environment["UV_PROJECT_ENVIRONMENT"] == environment["VIRTUAL_ENV"]


def test_defect_14_waits_have_deadlines_and_name_ranks(group: RayWorkerGroup) -> None:
    """A deadline that passes says who has answered and who has not."""
    future = MultiWorkerFuture(group.run_all_workers_single_data("pause", seconds=1.0, rank=1))
    with pytest.raises(DeadlineError) as caught:
        future.get_results(group, timeout=0.3)
    assert caught.value.report.running == (1,)
    assert caught.value.report.finished == (0,)
    assert future.get_results(group) == [0, 1]


def test_defect_15_names_do_not_start_with_a_dash_or_collide(
    group: RayWorkerGroup, places: RayVirtualCluster
) -> None:
    """An empty prefix takes the class's name; a taken prefix is refused by the plan."""
    assert spec_of([1], name_prefix="").name == "Worker"
    with pytest.raises(PlanError, match="names are taken by live actors, 'bare-0-0' first"):
        RayWorkerGroup(places, RECORDER, name_prefix="bare")


def test_defect_16_tied_groups_and_axes_cannot_disagree() -> None:
    """About who leads the data-parallel shards."""
    tied = [(0, [0, 1]), (0, [2, 3])]
    mesh = NamedSharding([[0, 2], [1, 3]], AXES)
    with pytest.raises(PlanError, match="make each tied group one data-parallel shard"):
        launched([4], bundle_indices_list=tied, mesh=mesh)


def test_defect_17_a_group_is_up_when_every_constructor_has_returned(
    cluster_of_nodes: "Cluster", tmp_path: Path
) -> None:
    """A constructor's own exception is what the caller sees, with its rank."""
    with RayVirtualCluster([2], use_gpus=False, name="up") as cluster:
        builder = RayWorkerBuilder("tests.workers.FailsToStart", marks=str(tmp_path))
        with RayWorkerGroup(cluster, builder):
            assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
        bad = RayWorkerBuilder("tests.workers.FailsToStart", "raise", (1,))
        with pytest.raises(LookupError, match="no weights for rank 1") as caught:
            RayWorkerGroup(cluster, bad)
        assert isinstance(caught.value, WorkerGroupError)
        assert caught.value.report.failed == (1,)


def test_defect_18_results_follow_the_shards() -> None:
    """A permuted layout does not swap slices."""
    plan = plan_sharded(NamedSharding([[2, 3], [0, 1]], AXES), AXES[:1], AXES[1:], None, fresh())
    assert plan.returns == (2, 3, 0, 1)
    assert dict(zip(plan.ranks, plan.slices, strict=True)) == {0: 1, 1: 1, 2: 0, 3: 0}


def test_defect_19_mappings_are_no_lists_and_references_travel(group: RayWorkerGroup) -> None:
    """The keys of a mapping are never data; a reference is resolved in every kind of call."""
    with pytest.raises(PlanError, match="its keys are not slices"):
        group.run_all_workers_multiple_data("tell", data={"a": 1})  # type: ignore[arg-type]
    ref = ray.put("value")
    calls = [
        *group.run_all_workers_single_data("tell", data=ref),
        *group.run_all_workers_multiple_data("tell", data=[ref, ref]),
        group.run_single_worker_single_data("tell", 0, data=ref),
    ]
    assert {value for _, value, _ in ray.get(calls)} == {"value"}
    ray.get(group.run_all_workers_single_data("told"))


@pytest.mark.parametrize("where", ["in_sharded_axes", "replicate_on_axes", "output_is_replicated"])
def test_defect_20_misspelt_axes_are_refused(replicas: RayWorkerGroup, where: str) -> None:
    """Wherever they stand, with the axes that there are."""
    expected = r"\[0\]: unknown axis 'tensor_paralel'; the axes are data_parallel, tensor_parallel"
    options: dict[str, Any] = {where: ["tensor_paralel"]}
    with pytest.raises(PlanError, match=where + expected):
        replicas.run_all_workers_sharded_data("rank", **options)
    with pytest.raises(PlanError, match="run_rank_0_only_axes" + expected):
        replicas.run_all_workers_single_data("rank", run_rank_0_only_axes=["tensor_paralel"])


def test_defect_21_a_ranks_environment_does_not_grow_with_the_group() -> None:
    """No addresses or ports of the others. Extra ports are issue B's."""
    small, large = launched([2]), launched([512])
    sizes = [
        sum(len(each.name) + len(each.value or "") for each in environment_of(plan, 1))
        for plan in (small, large)
    ]
    assert sizes[1] - sizes[0] < 20


def test_defect_22_dp_size_is_the_axis(replicas: RayWorkerGroup) -> None:
    """One shard of two ranks, not two tied groups."""
    assert replicas.dp_size == 1
    assert replicas.dp_leader_worker_indices == [0]
    assert launched([4], mesh=NamedSharding([[0, 1], [2, 3]], AXES)).leaders == (0, 2)


def test_defect_23_groups_are_started_from_several_threads(cluster_of_nodes: "Cluster") -> None:
    """Both come up, each with its own name and variables. Joint failure is issue D's."""
    with RayVirtualCluster([1, 1], use_gpus=False, name="both") as cluster:

        def start(number: int) -> RayWorkerGroup:
            return RayWorkerGroup(
                cluster,
                RECORDER,
                workers_per_node=[1 - number, number],
                env_vars={"NUMBER": str(number)},
            )

        with ThreadPoolExecutor(2) as pool:
            policy, rollout = pool.map(start, range(2))
        with policy, rollout:
            assert policy.name != rollout.name
            found = [
                ray.get(each.run_single_worker_single_data("environment_at_import", 0))["NUMBER"]
                for each in (policy, rollout)
            ]
            assert found == ["0", "1"]


def test_defect_24_a_wrapped_method_keeps_its_arguments(group: RayWorkerGroup) -> None:
    """Behind a decorator without ``functools.wraps``, by position and by keyword."""
    handle = group.workers[1]
    assert ray.get(handle.wrapped.remote("first", key=2)) == (1, ("first",), {"key": 2})
    by_name = group.run_single_worker_single_data("wrapped", 1, data="d")
    assert ray.get(by_name) == (1, (), {"data": "d"})


def test_every_defect_has_a_test() -> None:
    """Twenty-four numbers, each once."""
    numbers = sorted(int(name[12:14]) for name in globals() if name.startswith("test_defect_"))
    assert numbers == list(range(1, 25))
