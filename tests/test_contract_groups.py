"""What every worker of a group gets, seen from inside its process."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.util import list_named_actors

from planner.environment import EnvironmentPolicy, Origin
from planner.launch import environment_of
from planner.mesh import NamedSharding
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup
from tests.workers import Witness

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

MESH = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Two bundles on each of two nodes, for two groups."""
    with RayVirtualCluster([2, 2], max_colocated_worker_groups=2, name="contract") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def policy(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Four workers, started by a driver whose own environment is full of traps."""
    with pytest.MonkeyPatch.context() as driver:
        for name, value in {
            "FROM_DRIVER": "driver",
            "FROM_BOTH": "driver",
            "WITH_DOLLAR": "a$HOME${NOTHING}",
            "SLURM_PROCID": "7",
            "TORCHELASTIC_RUN_ID": "torchrun",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "OMPI_COMM_WORLD_RANK": "7",
            "CUDA_VISIBLE_DEVICES": "5",
            "HIP_VISIBLE_DEVICES": "5",
            "RANK": "77",
            "WORLD_SIZE": "78",
            "MASTER_ADDR": "nowhere",
            "CONTRACT_API_TOKEN": "hush",
            "CONTRACT_GIVEN_TOKEN": "lent",
            "CONTRACT_URL": "https://me:hush@example.org/",
        }.items():
            driver.setenv(name, value)
        group = RayWorkerGroup(
            places,
            RayWorkerBuilder(
                "tests.workers.Recorder",
                Witness(),
                ray.put("fetched"),
                [ray.put("left alone")],
                witness=Witness(),
                weights=ray.put([1, 2]),
            ),
            name_prefix="policy",
            sharding_annotations=MESH,
            env_vars={"FROM_BOTH": "group", "FROM_GROUP": "g", "GROUP_SECRET": "psst", "EMPTY": ""},
            environment_policy=EnvironmentPolicy(credentials=("CONTRACT_GIVEN_*",)),
        )
    with group:
        yield group


def seen(group: RayWorkerGroup, method: str = "environment_at_import") -> list[dict[str, str]]:
    """The environment of every rank, in rank order."""
    found: list[dict[str, str]] = ray.get(group.run_all_workers_single_data(method))
    return found


def test_the_rank_contract_is_there_before_the_class_is_imported(policy: RayWorkerGroup) -> None:
    """Every variable of torchrun's, right for two nodes with two ranks each."""
    environments = seen(policy)
    names = ["RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"]
    names += ["NODE_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "RANKPLAN_NODE_LOCAL_RANK"]
    assert [[each[name] for name in names] for each in environments] == [
        ["0", "0", "2", "0", "2", "0", "0", "4", "policy", "0"],
        ["1", "0", "2", "0", "2", "0", "1", "4", "policy", "1"],
        ["2", "0", "2", "1", "2", "1", "2", "4", "policy", "0"],
        ["3", "0", "2", "1", "2", "1", "3", "4", "policy", "1"],
    ]
    assert {each["WORLD_SIZE"] for each in environments} == {"4"}
    assert {each["TORCH_NCCL_ASYNC_ERROR_HANDLING"] for each in environments} == {"1"}
    assert {each["OMP_NUM_THREADS"] for each in environments} == {"1"}
    assert seen(policy, "environment") == environments


def test_all_ranks_meet_at_the_port_that_rank_0_holds(policy: RayWorkerGroup) -> None:
    """One address, one port, and it is not the driver's."""
    meetings = {(each["MASTER_ADDR"], each["MASTER_PORT"]) for each in seen(policy)}
    assert meetings == {(policy.plan.rendezvous.address, str(policy.plan.rendezvous.port))}
    assert policy.plan.rendezvous.address == policy.plan.workers[0].address


def test_constructor_arguments_are_unpickled_in_the_ranks_environment(
    policy: RayWorkerGroup,
) -> None:
    """An argument that reads RANK while it is unpickled sees its own rank's."""
    found = ray.get(policy.run_all_workers_single_data("witnessed"))
    assert found == [["0", "0"], ["1", "1"], ["2", "2"], ["3", "3"]]


def test_references_among_constructor_arguments_are_resolved_at_the_top_only(
    policy: RayWorkerGroup,
) -> None:
    """As Ray does with an actor's arguments: positional, keyword, but not inside a list."""
    args, kwargs = ray.get(policy.run_single_worker_single_data("made_with", 2))
    assert args[1] == "fetched"
    assert kwargs["weights"] == [1, 2]
    assert ray.get(args[2][0]) == "left alone"


def test_the_drivers_environment_is_handed_on_under_the_groups(policy: RayWorkerGroup) -> None:
    """Precedence, and no value is expanded or lost on its way."""
    for each in seen(policy):
        assert each["FROM_DRIVER"] == "driver"
        assert each["FROM_BOTH"] == "group"
        assert each["FROM_GROUP"] == "g"
        assert each["EMPTY"] == ""
        assert each["WITH_DOLLAR"] == "a$HOME${NOTHING}"


def test_launchers_and_device_lists_of_the_driver_never_arrive(policy: RayWorkerGroup) -> None:
    """A driver under torchrun or Slurm does not make workers hang."""
    for rank, each in enumerate(seen(policy)):
        strangers = [name for name in each if name.startswith(("SLURM_", "TORCHELASTIC_", "OMPI_"))]
        assert strangers == []
        assert "HIP_VISIBLE_DEVICES" not in each
        assert each["CUDA_VISIBLE_DEVICES"] == policy.plan.workers[rank].gpus[0]


def test_credentials_arrive_only_where_they_are_given(policy: RayWorkerGroup) -> None:
    """Withheld by name and by value, handed on when named, and never part of the plan."""
    for each in seen(policy):
        assert "CONTRACT_API_TOKEN" not in each
        assert "CONTRACT_URL" not in each
        assert [each["CONTRACT_GIVEN_TOKEN"], each["GROUP_SECRET"]] == ["lent", "psst"]
    shown = repr(policy.plan)
    assert [secret for secret in ("hush", "lent", "psst") if secret in shown] == []
    withheld = set(policy.plan.environment.withheld)
    assert {"CONTRACT_API_TOKEN", "CONTRACT_URL"} <= withheld
    origins = {each.name: each.origin for each in environment_of(policy.plan, 0)}
    assert origins["FROM_BOTH"] is Origin.GROUP
    assert origins["FROM_DRIVER"] is Origin.DRIVER
    assert origins["RANK"] is Origin.RANK


def test_the_virtual_environment_is_a_folder_with_an_interpreter(policy: RayWorkerGroup) -> None:
    """Not the path of an executable."""
    for each in seen(policy):
        assert each["VIRTUAL_ENV"] == each["UV_PROJECT_ENVIRONMENT"] == sys.prefix
        assert Path(each["VIRTUAL_ENV"], "bin", "python").exists()


def test_workers_sit_where_the_plan_says(policy: RayWorkerGroup) -> None:
    """Node and GPU of every process, as Ray itself counts them."""
    found = ray.get(policy.run_all_workers_single_data("place"))
    assert found == [(worker.node_id, list(worker.gpus)) for worker in policy.plan.workers]
    assert len({node for node, _ in found}) == 2
    assert found[0][0] == found[1][0]


def test_names_and_metadata(policy: RayWorkerGroup) -> None:
    """As the reference tells them; the names are Ray's too."""
    names = ["policy-0-0", "policy-0-1", "policy-1-0", "policy-1-1"]
    assert policy.worker_metadata == [
        {
            "node_idx": rank // 2,
            "local_rank": rank % 2,
            "global_rank": rank,
            "name": names[rank],
            "bundle_indices": (rank // 2, [rank % 2]),
            "dp_shard_idx": rank // 2,
        }
        for rank in range(4)
    ]
    assert set(names) <= set(list_named_actors())
    policy.worker_metadata[0]["name"] = "changed"
    assert policy.worker_metadata[0]["name"] == "policy-0-0"


def test_identities_hold_the_real_processes(policy: RayWorkerGroup) -> None:
    """Messages name processes that exist."""
    pids = ray.get(policy.run_all_workers_single_data("pid"))
    assert [policy.identities[rank].pid for rank in range(4)] == pids
    assert policy.identities[3].coordinates == (("data_parallel", 1), ("tensor_parallel", 1))


def test_data_parallel_leaders_follow_the_axis(policy: RayWorkerGroup) -> None:
    """Two shards of two ranks, whatever the four single tied groups say."""
    assert policy.dp_size == 2
    assert policy.dp_leader_worker_indices == [0, 2]
    assert policy.get_dp_leader_worker_idx(1) == 2
    for wrong in (2, -1):
        with pytest.raises(IndexError) as caught:
            policy.get_dp_leader_worker_idx(wrong)
        assert str(caught.value) == (
            f"worker group 'policy': dp_shard_idx: {wrong} of 2 data-parallel shards; give 0 to 1"
        )


def test_the_driver_is_left_as_it_was(policy: RayWorkerGroup) -> None:
    """Nothing of the group's reaches the driver's own environment."""
    assert policy.world_size == 4
    assert "FROM_GROUP" not in os.environ
    assert "MASTER_PORT" not in os.environ


def test_a_second_group_shares_the_bundles_and_a_third_is_refused(
    policy: RayWorkerGroup, places: RayVirtualCluster
) -> None:
    """Colocation by fractions: the same GPU, other processes, no variable of the first group."""
    builder = RayWorkerBuilder("tests.workers.Recorder")
    rollout = RayWorkerGroup(
        places, builder, name_prefix="rollout", workers_per_node=[0, 2], gpu_visibility="shared"
    )
    with rollout:
        first, second = seen(rollout)
        assert "FROM_GROUP" not in first
        assert {worker.gpu_share for worker in rollout.plan.workers} == {5000}
        assert [w.gpus for w in rollout.plan.workers] == [w.gpus for w in policy.plan.workers[2:]]
        both = ",".join(w.gpus[0] for w in rollout.plan.workers)
        assert first["CUDA_VISIBLE_DEVICES"] == second["CUDA_VISIBLE_DEVICES"] == both
        assert (first["LOCAL_RANK"], second["LOCAL_RANK"]) == ("0", "1")
        assert [each["name"] for each in rollout.worker_metadata] == ["rollout-1-0", "rollout-1-1"]
        with pytest.raises(
            ValueError, match="hold 1 of the GPU of bundle 0 of placement group 1"
        ) as caught:
            RayWorkerGroup(places, builder, name_prefix="third")
        assert "make the cluster with max_colocated_worker_groups=3" in str(caught.value)
        assert [name for name in list_named_actors() if name.startswith("third")] == []


def test_tied_groups_with_configure_worker(cluster_of_nodes: "Cluster") -> None:
    """A tied group over two nodes and one in a single bundle of a unified placement group."""
    with RayVirtualCluster([2, 2], placement_group_strategy="PACK", name="tied") as cluster:
        cluster._init_placement_groups(use_unified_pg=True)
        order = cluster._sorted_bundle_indices or []
        builder = RayWorkerBuilder("tests.workers.Engine", model="m")
        tied = [(0, order[:3]), (1, order[3:])]
        with RayWorkerGroup(
            cluster,
            builder,
            bundle_indices_list=tied,
            name_prefix="engine",
            env_vars={"FROM_GROUP": "group"},
        ) as group:
            found = ray.get(group.run_all_workers_single_data("about"))
            _check_engines(group, found, order)


def _check_engines(group: RayWorkerGroup, found: list[dict[str, Any]], order: list[int]) -> None:
    leader = (0, order[:3])
    environments = [each["environment"] for each in found]
    assert [each["environment_at_import"].get("RANK") for each in found] == ["0", "1", "2", "3"]
    assert [each["BUNDLES"] for each in environments] == [
        str(leader),
        "none",
        "none",
        str((1, order[3:])),
    ]
    assert {each["FROM_GROUP"] for each in environments} == {"configured"}
    assert {each["ASKED_WITH"] for each in environments} == {"1.0"}
    assert found[0]["kwargs"] == {"bundle_indices": leader, "fraction": 1.0}
    assert found[1]["kwargs"] == {"bundle_indices": None, "fraction": 1.0}
    assert {each["model"] for each in found} == {"m"}
    assert [len(each["gpus"]) for each in found] == [0, 0, 0, 1]
    names = ["engine-grp0-0", "engine-grp0-1", "engine-grp0-2", f"engine-1-{order[3]}"]
    assert [each["name"] for each in group.worker_metadata] == names
    told = [each["bundle_indices"] for each in group.worker_metadata]
    assert told == [leader, None, None, (1, order[3:])]
    assert [each["dp_shard_idx"] for each in group.worker_metadata] == [0, 0, 0, 1]
    assert group.dp_size == 2
    assert group.dp_leader_worker_indices == [0, 3]
    assert [each["RANK"] for each in environments] == ["0", "1", "2", "3"]
    nodes = [worker.node_id for worker in group.plan.workers]
    assert len(set(nodes)) == len({each["NODE_RANK"] for each in environments})


def test_configure_worker_in_its_newer_form(cluster_of_nodes: "Cluster") -> None:
    """Four items, None for nothing, told the GPUs per node; what it adds is there at start."""
    with RayVirtualCluster([1], num_gpus_per_node=4, name="newer") as cluster:
        builder = RayWorkerBuilder("tests.workers.NewerEngine", "positional", other=2)
        with RayWorkerGroup(cluster, builder) as group:
            (about,) = ray.get(group.run_all_workers_single_data("about"))
            assert about["environment"]["GPUS_PER_NODE"] == "4"
            assert about["environment"]["BEFORE_PYTHON"] == "4"
            assert about["model"] == "positional"
            assert about["kwargs"] == {"other": 2}
            assert group.name == "NewerEngine"


def test_decorated_classes_and_forced_variables(cluster_of_nodes: "Cluster") -> None:
    """The class's options hold; its variables are the weakest; only force wins over RANK."""
    with RayVirtualCluster([1], use_gpus=False, name="decorated") as cluster:
        builder = RayWorkerBuilder("tests.workers.Decorated", "label", extra=ray.put(3))
        with RayWorkerGroup(
            cluster,
            builder,
            env_vars={"OVER": "2"},
            force_env_vars={"RANK": "11", "FORCED": "yes"},
        ) as group:
            (about,) = ray.get(group.run_all_workers_single_data("about"))
            assert (about["label"], about["extra"]) == ("label", 3)
            assert about["environment_at_import"].get("WORLD_SIZE") == "1"
            environment = about["environment"]
            told = [environment[name] for name in ("FROM_CLASS", "OVER", "RANK", "FORCED")]
            assert told == ["class", "2", "11", "yes"]
            assert environment["WORLD_SIZE"] == "1"
            held = {k: v for k, v in about["resources"].items() if not k.startswith("bundle_group")}
            assert sum(v for k, v in held.items() if k.startswith("CPU")) >= 1.0
            assert not [name for name in held if name.startswith("GPU")]
            assert group.plan.workers[0].visible is None


def test_what_the_driver_cannot_import_is_imported_by_the_workers(
    cluster_of_nodes: "Cluster", tmp_path: Path
) -> None:
    """A class on the workers' search path only, named in the group's PYTHONPATH."""
    code = "class Stranger:\n    def hello(self):\n        return 'hello'\n"
    code += "    @staticmethod\n    def configure_worker(num_gpus, bundle_indices):\n"
    code += "        return {}, {}, {}\n"
    (tmp_path / "only_on_workers.py").write_text(code, encoding="utf-8")
    with (
        RayVirtualCluster([1], use_gpus=False, name="stranger") as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("only_on_workers.Stranger"),
            env_vars={"PYTHONPATH": str(tmp_path)},
        ) as group,
    ):
        assert ray.get(group.workers[0].hello.remote()) == "hello"
        assert "only_on_workers" not in sys.modules
