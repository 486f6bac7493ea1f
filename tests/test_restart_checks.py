"""Hosts that start again: checked as at the launch, before they become workers."""

import platform
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from attrs import evolve

from planner.acknowledgement import Acknowledgement, judge_class_again
from planner.failure_policy import Domain, FailurePolicy
from planner.launch import identity_of, plan_launch
from planner.preflight import GpuLook, HostLook, ModuleLook, WantedHost, judge_hosts
from planner.recovery import RestartedRank
from planner.restart import doors_of, plan_restart, restarted_spec
from runtime import PreflightError, RayWorkerBuilder, RayWorkerGroup, in_process_hosts
from runtime.testing import Fault, FaultKind, InProcessCluster
from tests.strategies import host_facts, spec_of

SPEC = spec_of([2, 2], bundle_indices_list=[(0, [0]), (0, [1]), (1, [0]), (1, [1])])
FACTS = host_facts([2, 2])
PLAN = plan_launch(SPEC, FACTS, meeting_address="192.168.0.1")


def seen_by(rank: int, node: int, **more: Any) -> HostLook:
    """What the host of a rank saw."""
    given: dict[str, Any] = {
        "python": "3.11.9",
        "ray": "2.60.0",
        "module": ModuleLook(depth=2, origin="/lib/package.py", version="1.0"),
        "addresses": (("eth0", f"10.1.0.{node + 1}"),),
    }
    return HostLook(
        rank=rank, node_id=f"node{node}", address=f"10.0.0.{node + 1}", **{**given, **more}
    )


def test_where_those_that_start_knock() -> None:
    """On rank 0's old node where the others have met it; on another wherever it can be reached."""
    looks = {0: seen_by(0, 0), 2: seen_by(2, 1)}
    assert doors_of(PLAN, looks, [2]) == ("192.168.0.1",)
    away = {0: seen_by(0, 8), 2: seen_by(2, 1)}
    assert doors_of(PLAN, away, [2]) == ("10.0.0.9", "10.1.0.9")


def test_a_new_rank_zero_is_met_where_it_was_reached() -> None:
    """On a new node; on its old one the address stays."""
    moved = tuple(
        RestartedRank(rank=rank, name=f"g-0-{rank}.g1", placement_group=0, bundle=rank)
        for rank in (0, 1)
    )
    away = [evolve(FACTS[rank], node_id="n9", address="10.0.0.9") for rank in (0, 1)]
    facts = [*away, *FACTS[2:]]
    made = plan_restart(PLAN, restarted_spec(SPEC, moved), facts, moved, "10.1.0.9")
    assert made.rendezvous.address == "10.1.0.9"
    made = plan_restart(PLAN, restarted_spec(SPEC, moved[:1]), FACTS, moved[:1], "10.1.0.9")
    assert made.rendezvous.address == "192.168.0.1"


def test_hosts_that_start_again_must_be_like_those_that_go_on() -> None:
    """The same version of the class, though those that start are more; no GPU of theirs."""
    wanted = WantedHost(worker_class="package.Worker", python="3.11.7", ray="2.60.0")
    newer = ModuleLook(depth=2, origin="/lib/package.py", version="2.0")
    held = GpuLook(index=0, found=True, uuid="GPU-a")
    beside = [seen_by(0, 0, gpus=(held,))]
    fresh = [
        seen_by(1, 0, gpus=(evolve(held, index=3),)),
        seen_by(2, 1, module=newer),
        seen_by(3, 1, module=newer),
    ]
    found = judge_hosts(fresh, wanted, beside)
    assert [(row.ranks, row.check, row.found) for row in found.failed] == [
        ((1,), "GPU", "GPU 3 (GPU-a) is that of rank 0 too"),
        ((2, 3), "class", "package 2.0, others have 1.0"),
    ]
    assert {rank for row in found.rows for rank in row.ranks} == {1, 2, 3}
    alone = judge_hosts(fresh, wanted)
    assert [row.ranks for row in alone.failed] == [(1,)]


def test_a_class_that_has_changed_since_the_start() -> None:
    """Ranks that start again with other methods than the group calls are refused."""
    said = Acknowledgement(digest="a", configures=False)
    who = {rank: identity_of(PLAN, rank) for rank in range(4)}
    assert judge_class_again(PLAN, said, {1: said, 2: said}, who) == ()
    changed = {1: said, 2: evolve(said, digest="b"), 3: evolve(said, configures=True)}
    (found,) = judge_class_again(PLAN, said, changed, who)
    assert str(found).startswith(
        "package.Worker: it has other methods on rank 2 on node 10.0.0.2, GPU 0 and 1 more ranks "
        "than when the group was started: "
    )


# The same, carried out.

WATCHED = Fault(kind=FaultKind.SLOW, method="__init__", call=0)


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each; nothing may be alive at the end of a test."""
    with InProcessCluster([2, 2], faults=[WATCHED]) as made:
        yield made
        assert made.live == []


def group_on(cluster: InProcessCluster, **more: Any) -> RayWorkerGroup:
    """A group whose ranks fail one by one."""
    return RayWorkerGroup(
        cluster,
        RayWorkerBuilder("tests.fault_workers.Worker"),
        name_prefix="g",
        failure_policy=FailurePolicy(domain=Domain.RANK, first_pause=0.0),
        **more,
    )


def made_on(cluster: InProcessCluster) -> list[int]:
    """The ranks whose constructors have been called."""
    return sorted(rank for rank, method, _ in cluster.struck if method == "__init__")


class Nodes:
    """Pretended machines: what a host sees on its own, and at which addresses it reaches rank 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.python: dict[str, str] = {}
        self.free: dict[str, int] = {}
        self.cut_off: set[str] = set()
        self.knocks: list[tuple[str, tuple[str, ...]]] = []
        nodes, report = self, in_process_hosts._Told.report

        def looked(body: Any, expected: Any, asked: Any = None) -> dict[str, object]:
            node = body._process.node_id
            look: dict[str, object] = {
                "python": nodes.python.get(node, platform.python_version()),
                "ray": ray.__version__,
                "interpreter": "/bin/python",
                "gpus": {
                    "gpus": [
                        {
                            "index": int(gpu),
                            "found": True,
                            "uuid": f"{node}/{gpu}",
                            "total": 80,
                            "free": nodes.free.get(f"{node}/{gpu}", 80),
                        }
                        for gpu in body._gpus
                    ]
                },
                "addresses": [],
            }
            return {**report(body, expected, asked), "look": look}

        def knock(body: Any, addresses: Any, port: int, seconds: float) -> list[str]:
            del port, seconds
            nodes.knocks.append((body._process.name, tuple(addresses)))
            return [] if body._process.node_id in nodes.cut_off else list(addresses)

        for name, does in (
            ("report", looked),
            ("knock", knock),
            ("open_door", lambda _: None),
            ("close_door", lambda _: None),
        ):
            monkeypatch.setattr(in_process_hosts._PlainBody, name, does, raising=False)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Hosts that see something."""
    return Nodes(monkeypatch)


def test_hosts_that_start_again_are_checked_as_at_the_launch(
    cluster: InProcessCluster, nodes: Nodes
) -> None:
    """All that is wrong is one error, before any constructor runs; nothing of it is left."""
    with group_on(cluster, free_gpu_memory=50) as group:
        cluster.kill_worker(group, 2)
        cluster.kill_worker(group, 3)
        nodes.python["node-1"] = "3.9.1"
        nodes.free |= {"node-1/1": 10, "node-0/0": 10}
        with pytest.raises(PreflightError) as caught:
            group.recover()
        assert [(row.ranks, row.check) for row in caught.value.report.failed] == [
            ((2, 3), "python"),
            ((3,), "GPU"),
        ]
        assert str(caught.value).startswith("preflight of worker group 'g', restart of ranks 2-3:")
        assert made_on(cluster) == [0, 1, 2, 3]
        assert group.broken == (2, 3)
        assert not [name for name in cluster.live if ".g1" in name]
        nodes.python.clear()
        nodes.free.clear()
        assert group.recover().end == (2, 3)
        assert group.backend.get(group.run_all_workers_single_data("total"), 9.0) == [0] * 4


def test_a_new_rank_zero_must_be_reached_by_those_that_start_with_it(
    cluster: InProcessCluster, nodes: Nodes
) -> None:
    """Those that go on are not asked; where rank 0 goes on, nobody knocks."""
    with group_on(cluster) as group:
        assert nodes.knocks == [("g-1-0", ("10.0.0.0",))]
        nodes.knocks.clear()
        cluster.kill_worker(group, 3)
        group.recover()
        cluster.kill_worker(group, 0)
        group.recover()
        assert nodes.knocks == []
        cluster.kill_worker(group, 0)
        cluster.kill_worker(group, 3)
        nodes.cut_off.add("node-1")
        with pytest.raises(PreflightError, match=r"rank 3, rank 0: it can't reach rank 0 on node"):
            group.recover()
        assert nodes.knocks == [("g-1-1.g3", ("10.0.0.0",))]


def test_who_wants_no_checks_gets_none(cluster: InProcessCluster, nodes: Nodes) -> None:
    """As at the launch."""
    with group_on(cluster, preflight=False) as group:
        cluster.kill_worker(group, 2)
        nodes.python["node-1"] = "3.9.1"
        assert group.recover().end == (2,)


def test_variables_that_a_new_node_lacks_are_there_before_python(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hosts start once more with them, as at the launch."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    report, lacking = in_process_hosts._Told.report, set[str]()

    def told(body: Any, expected: Any, asked: Any = None) -> dict[str, object]:
        given = report(body, expected, asked)
        if body._process.name in lacking:
            given["seen"] = dict.fromkeys(expected, "")
        return given

    monkeypatch.setattr(in_process_hosts._PlainBody, "report", told)
    with group_on(cluster) as group:
        spec = group._launched.again.spec
        assert "MALLOC_ARENA_MAX" in spec.environment.expected
        lacking.add("g-1-1.g1")
        cluster.kill_worker(group, 3)
        group.recover()
        given: dict[str, Any] = group._launched.again.spec.runtime_env.value()
        assert given["env_vars"]["MALLOC_ARENA_MAX"] == "2"
        assert group.plan.workers[3].name == "g-1-1.g1"
