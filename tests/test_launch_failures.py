"""A launch that fails: one error with names, everything ended, names and bundles free again."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.util import list_named_actors, placement_group_table

from planner.findings import PlanError, ResourceInsufficientError
from planner.mesh import NamedSharding
from runtime import (
    DeadlineError,
    ExecutionError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
from tests.workers import NotPicklable

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

FAILING = "tests.workers.FailsToStart"
MESH = NamedSharding([[0, 1]], ["data_parallel", "tensor_parallel"])


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Two bundles with a whole GPU each, so that every launch needs what the last one had."""
    with RayVirtualCluster([2], name="failures") as cluster:
        cluster.get_placement_groups()
        yield cluster


Start = Callable[..., RayWorkerGroup]


@pytest.fixture
def start(places: RayVirtualCluster) -> Iterator[Start]:
    """Start a group; afterwards another one of the same name must fit at once."""

    def start_one(worker_class: str, *args: object, **options: Any) -> RayWorkerGroup:
        return RayWorkerGroup(
            places, RayWorkerBuilder(worker_class, *args), name_prefix="fragile", **options
        )

    yield start_one
    assert [name for name in list_named_actors() if name.startswith("fragile")] == []
    with start_one(FAILING) as again:
        assert ray.get(again.run_all_workers_single_data("fine")) == ["fine"] * 2
    assert [name for name in list_named_actors() if name.startswith("fragile")] == []


def test_a_constructor_that_raises_on_one_rank(start: Start, places: RayVirtualCluster) -> None:
    """The caller sees its own exception type, with rank, coordinates, node, GPU and pid."""
    with pytest.raises(LookupError, match="no weights for rank 1") as caught:
        start(FAILING, "raise", (1,), sharding_annotations=MESH)
    error = caught.value
    assert isinstance(error, WorkerGroupError)
    assert isinstance(error, ExecutionError)
    assert type(error.__cause__) is LookupError or isinstance(error.__cause__, LookupError)
    text = str(error)
    address = places.bundle_facts[1].address
    assert "worker group 'fragile', start of tests.workers.FailsToStart: 1 of 2 ranks" in text
    assert f"first rank 1 (data_parallel=0, tensor_parallel=1) on node {address}, GPU " in text
    assert ", pid " in text
    assert error.report.failed == (1,)
    assert sorted(error.report.finished + error.report.running) == [0]


def test_equal_failures_of_all_ranks_are_told_once(start: Start) -> None:
    """With every rank."""
    with pytest.raises(WorkerGroupError) as caught:
        start("tests.workers.Plain", 1, 2, 3, 4)
    assert caught.value.report.failed == (0, 1)
    assert "ranks 0-1: TypeError: " in str(caught.value)
    assert "positional arguments" in str(caught.value)


def test_an_exception_that_cannot_be_unpickled(start: Start) -> None:
    """Its text arrives all the same."""
    with pytest.raises(WorkerGroupError, match="1: no luck"):
        start(FAILING, "oddly", (1,))


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_process_that_dies_in_its_constructor(start: Start, how: str) -> None:
    """Caught as Ray's own error; the rank is named, and the others are ended."""
    with pytest.raises(RayActorError) as caught:
        start(FAILING, how, (0,))
    assert isinstance(caught.value, WorkerGroupError)
    assert "first rank 0 on node" in str(caught.value)
    assert caught.value.report.failed == (0,)


def test_a_deadline_names_who_has_not_started(start: Start) -> None:
    """And ends the constructor that hangs."""
    began = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        start(FAILING, "hang", (1,), start_timeout=4.0)
    assert isinstance(caught.value, TimeoutError)
    assert "1 of 2 ranks did not answer" in str(caught.value)
    assert "no answer yet: rank 1" in str(caught.value)
    assert "waiting for rank 1 on node" in str(caught.value)
    assert caught.value.report.finished == (0,)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_package.Class", "no module of 'no_such_package.Class' can be imported"),
        ("tests.workers.NoSuchClass", "module 'tests.workers' has no class 'NoSuchClass'"),
        ("tests.workers.Recordr", "no class 'Recordr'; did you mean 'Recorder'"),
        ("tests.worker.Recorder", "no class 'worker.Recorder'; did you mean 'workers'"),
        ("testz.workers.Recorder", "did you mean 'test.+; put the folder that holds 'testz' into"),
        ("tests.no_such_module.Class", "module 'tests' has no class 'no_such_module.Class'"),
        ("tests.workers.undecorated_behaviour", "is a function, not a class"),
    ],
)
def test_a_class_that_is_not_there(start: Start, name: str, text: str) -> None:
    """Caught as what importing it raised; nothing was started for it."""
    with pytest.raises(ExecutionError, match=text) as caught:
        start(name)
    assert isinstance(caught.value, ImportError | TypeError)
    assert isinstance(caught.value.__cause__, ImportError | TypeError)
    address = ray.util.get_node_ip_address()
    subject = f"worker group 'fragile': importing {name} on node {address} failed: "
    assert str(caught.value).startswith(subject)


def test_a_module_that_fails_to_import(start: Start, tmp_path: Path) -> None:
    """The user's own exception, not a guess about the name."""
    (tmp_path / "broken_worker.py").write_text("raise ZeroDivisionError('at import')\n")
    with pytest.raises(ZeroDivisionError, match="at import"):
        start("broken_worker.Class", env_vars={"PYTHONPATH": str(tmp_path)})


def test_a_constructor_argument_that_cannot_be_sent(start: Start) -> None:
    """Found before anything starts, with its place."""
    with pytest.raises(PlanError) as caught:
        start(FAILING, NotPicklable())
    assert "args[0]: a value of type NotPicklable can't be serialised" in str(caught.value)
    assert "this object stays where it is" in str(caught.value)


def test_a_configure_worker_that_raises(start: Start, tmp_path: Path) -> None:
    """The user's own exception, with the group, the node and what it was asked."""
    text = (
        "class Stubborn:\n"
        "    @staticmethod\n"
        "    def configure_worker(num_gpus, bundle_indices):\n"
        "        raise KeyError('no model')\n"
    )
    (tmp_path / "stubborn.py").write_text(text, encoding="utf-8")
    with pytest.raises(KeyError) as caught:
        start("stubborn.Stubborn", env_vars={"PYTHONPATH": str(tmp_path)})
    address = ray.util.get_node_ip_address()
    assert str(caught.value) == (
        "worker group 'fragile': asking configure_worker of stubborn.Stubborn on node "
        f"{address} failed: KeyError: 'no model'; raised by "
        "configure_worker(num_gpus=1.0, bundle_indices=(0, [0]))"
    )
    assert isinstance(caught.value.__cause__, KeyError)


def test_options_that_do_not_fit_the_bundle(cluster_of_nodes: "Cluster") -> None:
    """Ray would refuse the actor, or let it wait for ever; nothing is started."""
    options: dict[str, Any] = {"num_cpus": 2, "resources": {"nic": 1}}
    with RayVirtualCluster([1], use_gpus=False, name="small") as cluster:
        (group,) = cluster.get_placement_groups()
        with pytest.raises(PlanError) as caught:
            RayWorkerBuilder("tests.workers.Recorder")(group, 0, 0, **options)
    assert [each.path for each in caught.value.findings] == [
        "options.num_cpus",
        "options.resources['nic']",
    ]
    assert "each worker asks for 2 of CPU, and bundle 0 of placement group 0 holds 1" in str(
        caught.value
    )


def test_crooked_answers_of_configure_worker(start: Start) -> None:
    """Every problem of every worker, before any host starts."""
    with pytest.raises(PlanError) as caught:
        start("tests.workers.Crooked")
    text = str(caught.value)
    assert text.startswith("configure_worker of tests.workers.Crooked: 8 problems")
    for place in ("fragile-0-0", "fragile-0-1"):
        assert f"{place}.resources['num_gpus']: 2 is not a share of one bundle's GPU" in text
        assert f"{place}.env_vars['RANK']: this variable is part of the rank contract" in text
        assert f"{place}.env_vars['COUNT']: the value is of type int" in text
        assert f"{place}.init_kwargs: it is of type list; return a mapping" in text


def test_resources_that_are_not_there(
    cluster_of_nodes: "Cluster", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said at once, with what is missing where; nothing is reserved."""
    monkeypatch.setenv("NRL_VIRTUAL_CLUSTER_MAX_RETRIES", "1")
    before = len(placement_group_table())
    with RayVirtualCluster([8, 9], name="greedy") as cluster:
        began = time.monotonic()
        with pytest.raises(ResourceInsufficientError, match="GPU"):
            RayWorkerGroup(cluster, RayWorkerBuilder(FAILING))
        assert time.monotonic() - began < 30
    with (
        RayVirtualCluster([40], use_gpus=False, name="cpus") as cpus,
        pytest.raises(ResourceInsufficientError, match="CPU"),
    ):
        cpus.get_placement_groups()
    assert len(placement_group_table()) == before


def test_the_cluster_is_looked_at_again_before_it_is_refused(
    cluster_of_nodes: "Cluster", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as NRL_VIRTUAL_CLUSTER_MAX_RETRIES says, with growing pauses."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setenv("NRL_VIRTUAL_CLUSTER_MAX_RETRIES", "4")
    with (
        RayVirtualCluster([99], name="greedy") as cluster,
        pytest.raises(ResourceInsufficientError),
    ):
        cluster.get_placement_groups()
    assert [pause for pause in pauses if pause >= 1.0] == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("tries", ["0", "-1", "many", ""])
def test_the_number_of_tries_must_be_one(
    cluster_of_nodes: "Cluster", monkeypatch: pytest.MonkeyPatch, tries: str
) -> None:
    """A bad value of the variable is named, not ignored."""
    monkeypatch.setenv("NRL_VIRTUAL_CLUSTER_MAX_RETRIES", tries)
    with (
        RayVirtualCluster([1], name="tries") as cluster,
        pytest.raises(PlanError, match="NRL_VIRTUAL_CLUSTER_MAX_RETRIES") as caught,
    ):
        cluster.get_placement_groups()
    assert f"{tries!r} is not a number of tries" in str(caught.value)


def test_two_groups_start_at_the_same_time(places: RayVirtualCluster) -> None:
    """From two threads, with the same class and no prefix: two names, two sets of workers."""
    with RayVirtualCluster([1, 1], max_colocated_worker_groups=2, name="threads") as cluster:
        builder = RayWorkerBuilder("tests.workers.Recorder")

        def start_one(label: str) -> RayWorkerGroup:
            return RayWorkerGroup(cluster, builder, env_vars={"LABEL": label})

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(start_one, ["first", "second"])
        with first, second:
            assert sorted([first.name, second.name]) == ["Recorder", "Recorder-2"]
            for group, label in ((first, "first"), (second, "second")):
                seen = ray.get(group.run_all_workers_single_data("environment_at_import"))
                assert [each["LABEL"] for each in seen] == [label, label]
                assert [each["ROLE_NAME"] for each in seen] == [group.name] * 2
            pids = [identity.pid for g in (first, second) for identity in g.identities.values()]
            assert len(set(pids)) == 4


def test_of_two_groups_with_one_prefix_the_second_is_refused(places: RayVirtualCluster) -> None:
    """Also when both start at the same time; the first one comes up unharmed."""
    with RayVirtualCluster([1], max_colocated_worker_groups=2, name="twins") as cluster:
        builder = RayWorkerBuilder("tests.workers.Recorder")

        def start_one(_: int) -> RayWorkerGroup | PlanError:
            try:
                return RayWorkerGroup(cluster, builder, name_prefix="twin")
            except PlanError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(start_one, range(2)))
        (refused,) = [each for each in made if isinstance(each, PlanError)]
        (group,) = [each for each in made if isinstance(each, RayWorkerGroup)]
        with group:
            assert str(refused) == (
                "worker group 'twin': name_prefix: 1 of 1 names are taken by live actors, "
                "'twin-0-0' first; end the other group, or use another prefix, such as 'twin-2'"
            )
            with pytest.raises(PlanError, match="'twin-0-0' first"):
                RayWorkerGroup(cluster, builder, name_prefix="twin")
            assert ray.get(group.workers[0].rank.remote()) == 0
        with RayWorkerGroup(cluster, builder, name_prefix="twin") as again:
            assert again.name == "twin"


def test_a_group_that_failed_gives_its_share_back(cluster_of_nodes: "Cluster") -> None:
    """A failed launch does not count against the groups that may share the cluster."""
    with RayVirtualCluster([1], max_colocated_worker_groups=1, name="share") as cluster:
        for _ in range(2):
            with pytest.raises(LookupError):
                RayWorkerGroup(cluster, RayWorkerBuilder(FAILING, "raise", (0,)))
        with RayWorkerGroup(cluster, RayWorkerBuilder(FAILING)) as group:
            assert group.world_size == 1
            with pytest.raises(PlanError, match="holds 1 of the GPU of bundle 0"):
                RayWorkerGroup(cluster, RayWorkerBuilder(FAILING))


def test_a_cluster_that_was_given_back_is_free_again(cluster_of_nodes: "Cluster") -> None:
    """Ray has ended who was on it; the end of that group takes nothing from the next one."""
    builder = RayWorkerBuilder(FAILING)
    with RayVirtualCluster([1], name="again") as cluster:
        first = RayWorkerGroup(cluster, builder, name_prefix="same")
        cluster.shutdown()
        with RayWorkerGroup(cluster, builder, name_prefix="same") as second:
            with pytest.raises(PlanError, match="and 'same' holds 1 of the GPU of bundle 0"):
                RayWorkerGroup(cluster, builder)
            assert ray.get(second.workers[0].fine.remote(), timeout=30) == "fine"
        report = first.end()
        assert (report.ended, report.bundles_unseen, report.went_well) == ((0,), ((0, 0),), True)


def test_graceful_shutdown_cleans_up_and_frees_the_names(
    places: RayVirtualCluster, tmp_path: Path
) -> None:
    """Without axes, with every worker; a second call is True and does nothing."""
    builder = RayWorkerBuilder("tests.workers.Recorder")
    group = RayWorkerGroup(
        places, builder, name_prefix="fragile", env_vars={"MARKS": str(tmp_path)}
    )
    pids = ray.get(group.run_all_workers_single_data("pid"))
    assert group.shutdown(cleanup_method="leave_mark") is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert [name for name in list_named_actors() if name.startswith("fragile")] == []
    assert group.shutdown(cleanup_method="leave_mark") is True
    assert group.shutdown() is True
    _gone(pids)
    with pytest.raises(PlanError, match="it has ended; start a new group"):
        group.run_all_workers_single_data("rank")


def _gone(pids: list[int]) -> None:
    ends = time.monotonic() + 10
    while alive := [pid for pid in pids if Path("/proc", str(pid)).exists()]:
        assert time.monotonic() < ends, f"still there: {alive}"
        time.sleep(0.02)


def test_shutdown_with_a_dead_worker_ends_the_others(
    places: RayVirtualCluster, tmp_path: Path
) -> None:
    """Not everything ended well, so False; the living cleaned up, and all names are free."""
    group = RayWorkerGroup(
        places,
        RayWorkerBuilder("tests.workers.Recorder"),
        name_prefix="fragile",
        env_vars={"MARKS": str(tmp_path)},
    )
    with pytest.raises(RayActorError) as caught:
        ray.get(group.run_single_worker_single_data("exit_on", 0, rank=0))
    assert caught.value is not None
    assert group.shutdown(cleanup_method="leave_mark") is False
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert [name for name in list_named_actors() if name.startswith("fragile")] == []
    assert group.shutdown() is True


def test_shutdown_that_goes_wrong_still_ends_everything(
    places: RayVirtualCluster, tmp_path: Path
) -> None:
    """A clean-up that fails, one that takes too long, bad arguments, and force."""
    builder = RayWorkerBuilder("tests.workers.Recorder")
    group = RayWorkerGroup(
        places, builder, name_prefix="fragile", env_vars={"MARKS": str(tmp_path)}
    )
    with pytest.raises(PlanError, match="has no method 'clean_up_bady'; did you mean 'clean_up_b"):
        group.shutdown(cleanup_method="clean_up_bady")
    with pytest.raises(PlanError, match=r"pause\(seconds\): this argument is missing"):
        group.shutdown(cleanup_method="pause")
    for wrong in (-1, "soon", float("nan")):
        with pytest.raises(PlanError, match=r"timeout: .* is not a time"):
            group.shutdown(cleanup_method="rank", timeout=wrong)  # type: ignore[arg-type]
    assert ray.get(group.run_all_workers_single_data("rank")) == [0, 1]
    assert group.shutdown(cleanup_method="clean_up_badly") is False
    busy = RayWorkerGroup(places, builder, name_prefix="fragile")
    pids = ray.get(busy.run_all_workers_single_data("pid"))
    busy.run_all_workers_single_data("pause", seconds=600.0)
    assert busy.shutdown(cleanup_method="rank", timeout=0.3) is False
    _gone(pids)
    forced = RayWorkerGroup(
        places, builder, name_prefix="fragile", env_vars={"MARKS": str(tmp_path)}
    )
    forced.run_all_workers_single_data("pause", seconds=600.0)
    assert forced.shutdown(cleanup_method="leave_mark", force=True, timeout=None) is True
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_in_a_call_is_named(places: RayVirtualCluster) -> None:
    """The others' answers are counted, and Ray's error is the cause."""
    with RayWorkerGroup(
        places, RayWorkerBuilder("tests.workers.Recorder"), sharding_annotations=MESH
    ) as group:
        future = group.run_all_workers_sharded_data(
            "exit_on",
            replicate_on_axes=["data_parallel", "tensor_parallel"],
            common_kwargs={"rank": 1},
        )
        with pytest.raises(RayActorError) as caught:
            group.get_all_worker_results(future)
        text = str(caught.value)
        assert "first rank 1 (data_parallel=0, tensor_parallel=1) on node" in text
        assert "returned: rank 0" in text
        assert f"pid {group.identities[1].pid}" in text
        assert os.getpid() != group.identities[1].pid
