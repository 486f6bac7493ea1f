"""What an end proves about bundles: the same on Ray and in process."""

import logging
from typing import TYPE_CHECKING, Any

import pytest
from ray.util.placement_group import placement_group_table, remove_placement_group

from planner.group import HostRequest
from planner.options import JsonObject
from planner.recovery import Domain, FailurePolicy
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup, reserving
from runtime.backend import Cluster as Reservation
from runtime.in_process_backend import World
from runtime.testing import InProcessCluster

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

WORKER = RayWorkerBuilder("tests.fault_workers.Worker")


def _holds(cluster: Reservation, expected: dict[tuple[int, int], int]) -> bool:
    """Whether the bundles come to hold so much; Ray tells it a little late."""
    backend, groups = cluster.backend, cluster.get_placement_groups()
    ends = backend.now() + 20
    while (held := backend.held(groups)) != expected and backend.now() < ends:
        backend.pause(0.02)
    return held == expected


def _program(cluster: Reservation) -> dict[str, Any]:
    """Two groups that share two bundles, and an actor of which no claim tells."""
    seen: dict[str, Any] = {}
    policy = RayWorkerGroup(cluster, WORKER, name_prefix="policy")
    rollout = RayWorkerGroup(cluster, WORKER, name_prefix="rollout")
    stranger = cluster.backend.start_host(
        HostRequest(
            name="stranger",
            placement_group=0,
            bundle=1,
            gpu_share=0,
            runtime_env=JsonObject(),
            options=JsonObject(),
            asynchronous=False,
        ),
        cluster.get_placement_groups()[0],
    )
    seen["all"] = _holds(cluster, {(0, 0): 2, (0, 1): 3})
    for name, group in (("policy", policy), ("rollout", rollout)):
        report = group.end()
        seen[name] = (report.bundles_held, report.bundles_unseen, report.is_clean)
    seen["rest"] = _holds(cluster, {(0, 0): 0, (0, 1): 1})
    cluster.backend.kill(stranger)
    seen["none"] = _holds(cluster, {(0, 0): 0, (0, 1): 0})
    with RayWorkerGroup(cluster, WORKER) as group:
        report = group.end()
    seen["after"] = (report.bundles_held, report.bundles_unseen, report.is_clean)
    return seen


@pytest.fixture(scope="module")
def in_process() -> dict[str, Any]:
    """What the program sees in process."""
    with InProcessCluster([2], use_gpus=False, max_colocated_worker_groups=2) as cluster:
        return _program(cluster)


def test_what_is_held_and_what_is_free(in_process: dict[str, Any]) -> None:
    """While two groups share a bundle, nobody can tell whose the stranger is; then it is held."""
    assert in_process == {
        "all": True,
        "policy": ((), (), True),
        "rollout": (((0, 1),), (), False),
        "rest": True,
        "none": True,
        "after": ((), (), True),
    }


def test_ray_agrees(cluster_of_nodes: "Cluster", in_process: dict[str, Any]) -> None:
    """Counted there by what every bundle has of a resource of its own."""
    with RayVirtualCluster([2], use_gpus=False, max_colocated_worker_groups=2) as cluster:
        assert _program(cluster) == in_process


def test_bundles_of_a_lost_node_are_unseen() -> None:
    """Nobody says that they are free; with a spare node they are, there."""
    for spares, unseen in ((0, ((1, 0), (1, 1))), (1, ())):
        with InProcessCluster([2, 2], spare_nodes=spares) as cluster:
            group = RayWorkerGroup(cluster, WORKER)
            cluster.kill_node(1)
            report = group.end()
            assert (report.bundles_held, report.bundles_unseen) == ((), unseen)


def test_an_end_waits_for_nothing_where_all_is_free() -> None:
    """Virtual time stands still while it looks."""
    with InProcessCluster([2]) as cluster:
        group = RayWorkerGroup(cluster, WORKER)
        begun = cluster.now
        assert group.end().is_clean
        assert cluster.now == begun


def test_a_recovery_does_not_look_at_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it starts there waits for them by itself."""

    def looked(world: World, groups: object) -> dict[tuple[int, int], int]:
        raise AssertionError("it looked")

    policy = FailurePolicy(domain=Domain.RANK)
    with (
        InProcessCluster([2]) as cluster,
        RayWorkerGroup(cluster, WORKER, failure_policy=policy) as group,
    ):
        cluster.kill_worker(group, 1)
        with monkeypatch.context() as patched:
            patched.setattr(World, "held", looked)
            assert group.recover().end == (1,)


def test_a_cluster_says_whether_its_placement_groups_are_gone(
    cluster_of_nodes: "Cluster", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are when ``shutdown`` returns; what stays is told, and not waited for without end."""
    cluster = RayVirtualCluster([1, 1], use_gpus=False, name="train")
    groups = cluster.get_placement_groups()
    assert cluster.shutdown() is True
    assert [placement_group_table(each)["state"] for each in groups] == ["REMOVED", "REMOVED"]
    groups = cluster.get_placement_groups()
    monkeypatch.setattr(reserving, "remove_placement_group", lambda _: None)
    monkeypatch.setattr(reserving, "REMOVED_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING, "rankplan"):
        assert cluster.shutdown() is False
    assert "'train': 2 placement groups still there after 0 s" in caplog.text
    for each in groups:
        remove_placement_group(each)
