"""Every argument of a group and of its calls, given wrongly: exact words, and nothing done."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.util import list_named_actors, placement_group_table

from planner.environment import EnvironmentPolicy
from planner.findings import PlanError
from planner.mesh import NamedSharding
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

BUILDER = RayWorkerBuilder("tests.workers.Recorder")
WRONG_MODE = "gpu_visibility: 'mine' is not a mode; use one of 'isolated', 'shared', 'unmasked'"


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Two nodes with two and one bundles, for two groups."""
    with RayVirtualCluster([2, 1], use_gpus=False, name="wrong") as cluster:
        cluster.get_placement_groups()
        yield cluster


@pytest.fixture(scope="module")
def group(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Two data-parallel workers, one of them on its own tensor-parallel axis."""
    mesh = NamedSharding([[0], [1], [2]], ["dp", "tp"])
    with RayWorkerGroup(places, BUILDER, name_prefix="g", sharding_annotations=mesh) as made:
        yield made


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"workers_per_node": 2},
            (
                "workers_per_node: 2 workers for 1 bundle of placement group 1; ask for 1 at "
                "most, "
                "or reserve more bundles"
            ),
        ),
        (
            {"workers_per_node": [1, 1, 1]},
            (
                "workers_per_node: 3 entries for 2 placement groups; give one number per placement "
                "group"
            ),
        ),
        (
            {"workers_per_node": "all"},
            (
                "workers_per_node: 'all' is of type str; give None (every bundle), a whole "
                "number, or "
                "a list with one per placement group"
            ),
        ),
        (
            {"workers_per_node": [-1, 1]},
            "workers_per_node[0]: -1 is not a number of workers; give 0 or more",
        ),
        (
            {"bundle_indices_list": [(0, [0]), (2, [0])]},
            (
                "bundle_indices_list[1][0]: 2 is not the index of one of 2 placement groups; "
                "give 0 "
                "to 1"
            ),
        ),
        (
            {"bundle_indices_list": [(0, [0, 0])]},
            (
                "bundle_indices_list: bundle 0 of placement group 0 occurs 2 times; give each "
                "bundle "
                "to one worker of the group"
            ),
        ),
        (
            {"bundle_indices_list": []},
            "bundle_indices_list: [] names no tied group; give [(node_idx, [bundle, ...]), ...]",
        ),
        (
            {"bundle_indices_list": [(1, [1])]},
            (
                "bundle_indices_list[0][1]: [1] are not bundles of placement group 1, which has 1; "
                "give 0 to 0"
            ),
        ),
        (
            {"sharding_annotations": {"dp": 3}},
            (
                "sharding_annotations: a value of type dict; give a NamedSharding(layout, "
                "names), or "
                "None"
            ),
        ),
        (
            {"sharding_annotations": NamedSharding([[0, 1]], ["dp", "tp"])},
            (
                "sharding_annotations: its 2 ranks (dp=1 x tp=2) are not the ranks 0 to 2 of the 3 "
                "workers; arrange exactly the ranks 0 to 2, or start 2 workers"
            ),
        ),
        (
            {"env_vars": {"COUNT": 3}},
            (
                "env_vars['COUNT']: the value is of type int; environment values are strings: "
                "convert "
                "it with str()"
            ),
        ),
        (
            {"env_vars": {"LOCAL_RANK": "3"}},
            (
                "env_vars['LOCAL_RANK']: this variable is part of the rank contract, which the "
                "plan "
                "decides; leave it out, or give it in force_env_vars to override the plan"
            ),
        ),
        ({"gpu_visibility": "mine"}, WRONG_MODE),
    ],
)
def test_groups_that_cannot_be(
    places: RayVirtualCluster, arguments: dict[str, Any], expected: str
) -> None:
    """Who, what was given, and what would work; no actor was started, no share taken."""
    before = list_named_actors()
    with pytest.raises(PlanError) as caught:
        RayWorkerGroup(places, BUILDER, name_prefix="wrong", **arguments)
    assert str(caught.value) == f"worker group 'wrong': {expected}"
    assert list_named_actors() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"cluster": None}, "cluster: a value of type NoneType; give a RayVirtualCluster"),
        (
            {"remote_worker_builder": "tests.workers.Recorder"},
            "remote_worker_builder: a value of type str; give a RayWorkerBuilder",
        ),
        ({"env_vars": ["A=1"]}, "env_vars: a value of type list; give a mapping, or None"),
        ({"force_env_vars": "A=1"}, "force_env_vars: a value of type str; give a mapping, or None"),
        (
            {"environment_policy": {"inherit": ()}},
            "environment_policy: a value of type dict; give an EnvironmentPolicy, or None",
        ),
        (
            {"environment_policy": EnvironmentPolicy(inherit="PATH")},  # type: ignore[arg-type]
            (
                "environment_policy.inherit: 'PATH' is not a tuple of patterns; give a tuple, as "
                "in "
                "('NCCL_*',)"
            ),
        ),
        (
            {"asynchronous": "yes"},
            "asynchronous: 'yes' is not a truth value; give None to find out",
        ),
        ({"start_timeout": 0}, "start_timeout: 0 is not a time; give seconds, more than 0"),
        ({"start_timeout": None}, "start_timeout: None is not a time; give seconds, more than 0"),
    ],
)
def test_arguments_of_the_wrong_type(
    places: RayVirtualCluster, arguments: dict[str, Any], expected: str
) -> None:
    """Together with everything else; here nothing else is wrong."""
    with pytest.raises(PlanError) as caught:
        RayWorkerGroup(
            **{
                "cluster": places,
                "remote_worker_builder": BUILDER,
                "name_prefix": "wrong",
                **arguments,
            }
        )
    assert str(caught.value) == f"worker group 'wrong': {expected}"


def test_all_findings_of_a_group_come_at_once(places: RayVirtualCluster) -> None:
    """One attempt is enough to mend everything."""
    before = list_named_actors()
    with pytest.raises(PlanError) as caught:
        RayWorkerGroup(
            places,
            BUILDER,
            workers_per_node=9,
            name_prefix="wrong",
            env_vars={"RANK": "1", "A B": "x"},
            gpu_visibility="mine",
        )
    assert [finding.path for finding in caught.value.findings] == [
        *("workers_per_node", "workers_per_node", "gpu_visibility"),
        *("env_vars['RANK']", "env_vars['A B']"),
    ]
    assert list_named_actors() == before


def test_findings_of_every_stage_come_at_once(places: RayVirtualCluster) -> None:
    """Types, checks, names, numbers and variables: whoever finds it, one error tells it."""
    with pytest.raises(PlanError) as caught:
        RayWorkerGroup(
            places,
            BUILDER,
            99,
            "-x",
            env_vars={"A": 1},  # type: ignore[dict-item]
            start_timeout=-1,
            preflight=3,  # type: ignore[arg-type]
            free_gpu_memory="much",
            max_calls_in_flight=0,
        )
    assert caught.value.subject == "worker group '-x'"
    assert [finding.path for finding in caught.value.findings] == [
        *("start_timeout", "max_calls_in_flight", "preflight", "free_gpu_memory"),
        *("workers_per_node", "workers_per_node", "name_prefix", "env_vars['A']"),
    ]


def test_what_a_wrong_cluster_would_say_is_not_guessed() -> None:
    """Without a cluster nobody knows its bundles; the rest is checked all the same."""
    with pytest.raises(PlanError) as caught:
        RayWorkerGroup(
            "ray://somewhere",  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            workers_per_node=[3, 3],
            env_vars=["A"],  # type: ignore[arg-type]
            force_env_vars={"B": 2},  # type: ignore[dict-item]
            environment_policy="all",  # type: ignore[arg-type]
            gpu_visibility="mine",
        )
    assert caught.value.subject == "worker group"
    assert [finding.path for finding in caught.value.findings] == [
        *("cluster", "remote_worker_builder", "env_vars", "environment_policy"),
        *("gpu_visibility", "force_env_vars['B']"),
    ]


def test_nothing_is_reserved_for_bad_arguments(cluster_of_nodes: "Cluster") -> None:
    """Not on a free cluster, and nobody waits for a busy one only to be told."""
    before = len(placement_group_table())
    with RayVirtualCluster([1, 2], name="lazy") as lazy, pytest.raises(PlanError) as caught:
        RayWorkerGroup(lazy, BUILDER, workers_per_node=[1, 3], env_vars={"A": 1})  # type: ignore[dict-item]
    assert [finding.path for finding in caught.value.findings] == [
        *("workers_per_node[1]", "env_vars['A']"),
    ]
    assert len(placement_group_table()) == before
    with RayVirtualCluster([8, 8, 8], name="holder") as holder:
        holder.get_placement_groups()
        with (
            RayVirtualCluster([1], name="late") as late,
            pytest.raises(PlanError, match="name_prefix: '-bad' cannot be part"),
        ):
            RayWorkerGroup(late, BUILDER, name_prefix="-bad")


def test_how_a_group_is_ended_is_checked_first(places: RayVirtualCluster) -> None:
    """All findings at once, and no worker is ended by what is not a truth value."""
    with RayWorkerGroup(places, BUILDER, 1, "ends") as ends:
        with pytest.raises(PlanError) as caught:
            ends.shutdown(cleanup_method="cleen", timeout=-1, force="no")  # type: ignore[arg-type]
        assert [finding.path for finding in caught.value.findings] == [
            *("timeout", "force", "method_name"),
        ]
        with pytest.raises(PlanError, match="force: 'no' is not a truth value; give True or"):
            ends.shutdown(force="no")  # type: ignore[arg-type]
        assert ray.get(ends.run_all_workers_single_data("rank")) == [0, 1]


Call = Callable[[RayWorkerGroup], object]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda g: g.run_single_worker_single_data("tel", 0),
            "tel(): method_name: tests.workers.Recorder has no method 'tel'; did you mean 'tell'?",
        ),
        (
            lambda g: g.run_all_workers_single_data(["tell"]),
            "['tell'](): method_name: ['tell'] is not a method's name; give a string",
        ),
        (
            lambda g: g.run_single_worker_single_data("tell", 3),
            "tell(): worker_idx: 3 is not a rank; give 0 to 2",
        ),
        (
            lambda g: g.run_single_worker_single_data("tell", True),
            "tell(): worker_idx: True is not a rank; give 0 to 2",
        ),
        (
            lambda g: g.run_single_worker_single_data("tell", [0]),
            "tell(): worker_idx: [0] is not a rank; give 0 to 2",
        ),
        (
            lambda g: g.run_single_worker_single_data("tell", 0, 7),
            (
                "tell(): args: 1 positional argument; name every data argument: method(..., "
                "data=value)"
            ),
        ),
        (
            lambda g: g.run_single_worker_single_data("tell", 0, 7, 8),
            (
                "tell(): args: 2 positional arguments; name every data argument: method(..., "
                "data=value)"
            ),
        ),
        (
            lambda g: g.run_all_workers_multiple_data("tell", [1, 2, 3]),
            (
                "tell(): args: 1 positional argument; name every data argument: method(..., "
                "data=value)"
            ),
        ),
        (
            lambda g: g.run_all_workers_single_data("tell", dta=1),
            (
                "tell(): tell(dta): tell has no such parameter; did you mean 'data'? (its "
                "parameters "
                "are (data=..., common=...))"
            ),
        ),
        (
            lambda g: g.run_all_workers_single_data("size_of"),
            "size_of(): size_of(data): this argument is missing; its parameters are (data)",
        ),
        (
            lambda g: g.run_all_workers_single_data("tell", run_rank_0_only_axes=["pp"]),
            "tell(): run_rank_0_only_axes[0]: unknown axis 'pp'; the axes are dp, tp",
        ),
        (
            lambda g: g.run_all_workers_single_data("tell", run_rank_0_only_axes="tp"),
            "tell(): run_rank_0_only_axes: 'tp' is one string; give a list of axes, such as ['tp']",
        ),
        (
            lambda g: g.run_all_workers_single_data("tell", run_rank_0_only_axes=3),
            "tell(): run_rank_0_only_axes: 3 is not a list of axes; the axes are dp, tp",
        ),
        (
            lambda g: g.run_all_workers_multiple_data("tell"),
            "tell(): kwargs: there is no data argument; give at least one list of values",
        ),
        (
            lambda g: g.run_all_workers_multiple_data("tell", data=[1, 2]),
            "tell(): data: 2 slices for 3; give a list of 3, one per worker called",
        ),
        (
            lambda g: g.run_all_workers_multiple_data("tell", data=ray.put([1, 2, 3])),
            (
                "tell(): data: a value of type ObjectRef, not a list; give a list of 3, one per "
                "worker called"
            ),
        ),
        (
            lambda g: g.run_all_workers_multiple_data("tell", data=[1] * 3, common_kwargs=[1]),
            "tell(): common_kwargs: a value of type list; give a mapping",
        ),
        (
            lambda g: g.run_all_workers_multiple_data(
                "tell", data=[1] * 3, common_kwargs={"data": 1}
            ),
            (
                "tell(): common_kwargs['data']: the same argument is given as data too; give it in "
                "one of the two"
            ),
        ),
        (
            lambda g: g.run_all_workers_multiple_data("tell", data=[1] * 3, common_kwargs={3: 1}),
            (
                "tell(): common_kwargs[3]: this is not the name of an argument; give a mapping "
                "from "
                "the method's parameters to values"
            ),
        ),
        (
            lambda g: g.run_all_workers_sharded_data("tell", in_sharded_axes=["dp"], data=[1] * 4),
            "tell(): data: 4 slices for 3; give a list of 3, one per coordinate of axis 'dp'",
        ),
        (
            lambda g: g.run_all_workers_sharded_data(
                "tell", in_sharded_axes=["dp"], data={"a": 1, "b": 2, "c": 3}
            ),
            (
                "tell(): data: a mapping of type dict: its keys are not slices; give a list of "
                "3, one "
                "per coordinate of axis 'dp'"
            ),
        ),
        (
            lambda g: g.run_all_workers_sharded_data(
                "tell", in_sharded_axes=["dp", "tp"], data=[[1], [1, 2], [3]]
            ),
            "tell(): data[1]: 2 slices for 1; give a list of 1, one per coordinate of axis 'tp'",
        ),
        (
            lambda g: g.run_all_workers_sharded_data(
                "tell", in_sharded_axes=["dp"], replicate_on_axes=["dp"], data=[1] * 3
            ),
            (
                "tell(): replicate_on_axes: axis 'dp' is in in_sharded_axes too; an axis is either "
                "sharded or replicated: name it in one of the two"
            ),
        ),
        (
            lambda g: g.run_all_workers_sharded_data(
                "tell", replicate_on_axes=["dp", "tp"], output_is_replicated=["tensor"]
            ),
            "tell(): output_is_replicated[0]: unknown axis 'tensor'; the axes are dp, tp",
        ),
        (
            lambda g: g.get_dp_leader_worker_idx("0"),
            "dp_shard_idx: '0' of 3 data-parallel shards; give 0 to 2",
        ),
    ],
)
def test_calls_that_cannot_be(group: RayWorkerGroup, call: Call, expected: str) -> None:
    """Who, what was given, and what would work; no worker was called."""
    ray.get(group.run_all_workers_single_data("told"))
    with pytest.raises(PlanError) as caught:
        call(group)
    separator = ": " if expected.startswith("dp_shard") else ", "
    assert str(caught.value) == f"worker group 'g'{separator}{expected}"
    assert ray.get(group.run_all_workers_single_data("told")) == [[], [], []]


def test_a_wrong_call_does_not_spoil_the_next_one(group: RayWorkerGroup) -> None:
    """Also when its key equals that of a right call, as True does 1."""
    assert ray.get(group.run_single_worker_single_data("rank", 1)) == 1
    for wrong in (True, 1.0):
        with pytest.raises(PlanError, match="is not a rank"):
            group.run_single_worker_single_data("rank", wrong)  # type: ignore[arg-type]
    assert ray.get(group.run_single_worker_single_data("rank", 1)) == 1
