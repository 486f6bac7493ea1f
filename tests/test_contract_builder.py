"""One worker made from a class's name: where it lands, what it is given, what is refused."""

from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray import PlacementGroupID
from ray.util import list_named_actors
from ray.util.placement_group import PlacementGroup

from planner.findings import PlanError
from runtime import RayVirtualCluster, RayWorkerBuilder, WorkerGroupError, actor_of
from tests import workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def bundles(cluster_of_nodes: "Cluster") -> "Iterator[PlacementGroup]":
    """A placement group of two bundles."""
    with RayVirtualCluster([2], max_colocated_worker_groups=2, name="builder") as cluster:
        yield cluster.get_placement_groups()[0]


def end(worker: Any) -> None:
    """End a worker that no group owns."""
    ray.kill(actor_of(worker))


def test_a_worker_is_live_when_it_is_returned(bundles: "PlacementGroup") -> None:
    """In its bundle, with its share, a world of its own, and the constructor's arguments."""
    builder = RayWorkerBuilder("tests.workers.Recorder", 1, key=ray.put("value"))
    assert builder.ray_actor_class_fqn == "tests.workers.Recorder"
    assert (builder.args, set(builder.kwargs)) == ((1,), {"key"})
    worker = builder(bundles, 1, 0.5)
    try:
        assert ray.get(worker.made_with.remote()) == ((1,), {"key": "value"})
        environment = ray.get(worker.environment_at_import.remote())
        assert [environment[name] for name in ("RANK", "WORLD_SIZE")] == ["0", "1"]
        _, gpus = ray.get(worker.place.remote())
        assert len(gpus) == 1
    finally:
        end(worker)


def test_options_in_their_order(bundles: "PlacementGroup") -> None:
    """The class's own are the lowest; variables of the call go over the class's."""
    builder = RayWorkerBuilder("tests.workers.Decorated", "labelled")
    env_vars = {"OVER": "2", "FROM_CALL": "call"}
    worker = builder(bundles, 0, 0, num_cpus=0, runtime_env={"env_vars": env_vars}, name="made")
    try:
        about = ray.get(worker.about.remote())
        found = [about["environment"][name] for name in ("FROM_CLASS", "OVER", "FROM_CALL")]
        assert found == ["class", "2", "call"]
        assert about["label"] == "labelled"
        assert not [name for name in about["resources"] if name.startswith(("CPU", "GPU"))]
        assert [name for name in list_named_actors() if name.startswith("made")] == ["made"]
    finally:
        end(worker)


def test_configure_worker_is_told_what_the_caller_says(bundles: "PlacementGroup") -> None:
    """The leader's bundles, or None for the others."""
    builder = RayWorkerBuilder("tests.workers.Engine")
    leader = builder(bundles, 0, 0.5, bundle_indices=(3, [0, 1]))
    member = builder(bundles, 1, 0.5)
    try:
        first, second = ray.get([leader.about.remote(), member.about.remote()])
        assert first["kwargs"] == {"bundle_indices": (3, [0, 1]), "fraction": 0.5}
        assert second["kwargs"] == {"bundle_indices": None, "fraction": 0.5}
        assert first["gpus"] == second["gpus"] == []
    finally:
        end(leader)
        end(member)


def test_workers_are_created_without_waiting(bundles: "PlacementGroup") -> None:
    """Several at the same time, under names of their own; failures come with the result."""
    good = RayWorkerBuilder("tests.workers.Recorder")
    bad = RayWorkerBuilder("tests.workers.FailsToStart", "raise", (0,))
    pending = [good.create_worker_async(bundles, bundle, 0.5) for bundle in range(2)]
    failing = bad.create_worker_async(bundles, 0, 0.5)
    workers = [each.result(60) for each in pending]
    try:
        pids = ray.get([worker.pid.remote() for worker in workers])
        assert len(set(pids)) == 2
        with pytest.raises(LookupError, match="no weights for rank 0") as caught:
            failing.result(60)
        assert isinstance(caught.value, WorkerGroupError)
    finally:
        for worker in workers:
            end(worker)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((None, 0, 0.5), "placement_group: a value of type NoneType; give a placement group"),
        (("bundles", 2, 0.5), "[2] are not bundles of placement group 0, which has 2; give 0 to 1"),
        (("bundles", -1, 0.5), "[-1] are not bundles of placement group 0, which has 2; give"),
        (("bundles", "0", 0.5), "['0'] are not bundles of placement group 0, which has 2; give"),
        (("bundles", 0, 1.5), "num_gpus: 1.5 is not a share of one bundle's GPU; give 0 to 1"),
        (("bundles", 0, -0.5), "num_gpus: -0.5 is not a share of one bundle's GPU; give 0 to 1"),
        (("bundles", 0, "1"), "num_gpus: '1' is not a share of one bundle's GPU; give 0 to 1"),
        (
            ("bundles", 0, 0.5, 7),
            "bundle_indices: 7 is not a pair; give (node_idx, [bundle, ...]), or None",
        ),
    ],
)
def test_places_that_cannot_be(
    bundles: "PlacementGroup", arguments: tuple[Any, ...], expected: str
) -> None:
    """Nothing is started."""
    before = list_named_actors()
    builder = RayWorkerBuilder("tests.workers.Recorder")
    place: list[Any] = [bundles if each == "bundles" else each for each in arguments]
    with pytest.raises(PlanError) as caught:
        builder(*place)
    assert expected in str(caught.value)
    assert list_named_actors() == before


def test_options_that_cannot_be(bundles: "PlacementGroup") -> None:
    """All at once."""
    builder = RayWorkerBuilder("tests.workers.Recorder")
    with pytest.raises(PlanError) as caught:
        builder(
            bundles, 0, 0.5, lifetime="detached", nme="x", runtime_env={"env_vars": {"RANK": "1"}}
        )
    assert [finding.path for finding in caught.value.findings] == [
        "env_vars['RANK']",
        "options.lifetime",
        "options.nme",
    ]


@pytest.mark.parametrize("name", ["", "Class", "a.b-c", "a..b", ".a.b", "a.b.", 3, None, "a b.c"])
def test_names_that_are_no_classes(name: Any) -> None:
    """Found when the builder is made."""
    with pytest.raises(PlanError) as caught:
        RayWorkerBuilder(name)
    assert str(caught.value) == (
        f"worker builder: ray_actor_class_fqn: {name!r} is not the full name of a class; give "
        "'package.module.Class'"
    )


def test_a_class_of_the_drivers_script() -> None:
    """Workers could not import it."""
    with pytest.raises(PlanError, match="in the driver's script, which workers cannot import"):
        RayWorkerBuilder("__main__.Worker")


@pytest.mark.parametrize("made", [workers.Recorder, workers.Colocated])
def test_a_class_in_the_place_of_its_name(made: Any) -> None:
    """The error says which name to give, also for a class under ``@ray.remote``."""
    name = "Recorder" if made is workers.Recorder else "Colocated"
    with pytest.raises(PlanError) as caught:
        RayWorkerBuilder(made)
    assert str(caught.value) == (
        f"worker builder: ray_actor_class_fqn: {name} is a class, not the full name of one; give "
        f"'tests.workers.{name}'"
    )


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        (
            {"__module__": "__main__", "__qualname__": "Counter"},
            (
                "move it to a module of its own, because workers import it by its name and cannot "
                "import the driver's script, and give 'that_module.Counter'"
            ),
        ),
        (
            {"__module__": "jobs", "__qualname__": "make.<locals>.Counter"},
            "define it at the top of a module: workers import it by its name",
        ),
        ({"__module__": "jobs", "__qualname__": "Jobs.Counter"}, "give 'jobs.Jobs.Counter'"),
    ],
)
def test_a_class_that_workers_may_not_be_able_to_import(place: Any, remedy: str) -> None:
    """The remedy depends on where the class is."""
    made: Any = type("Counter", (), place)
    with pytest.raises(PlanError) as caught:
        RayWorkerBuilder(made)
    (finding,) = caught.value.findings
    assert finding.remedy == remedy


@pytest.mark.parametrize(("given", "kind"), [(None, "NoneType"), ([("A", "1")], "list")])
def test_variables_that_are_no_mapping_are_refused(given: object, kind: str) -> None:
    """In words, before Ray is asked for anything."""
    builder = RayWorkerBuilder("tests.workers.Recorder")
    with pytest.raises(PlanError) as caught:
        builder(PlacementGroup(PlacementGroupID.nil()), 0, 0.5, runtime_env={"env_vars": given})
    assert [str(finding) for finding in caught.value.findings] == [
        f"runtime_env.env_vars: a value of type {kind}; give a mapping"
    ]
