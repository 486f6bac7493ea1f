"""Verdicts on nodes before any constructor runs, and where ranks meet."""

import pytest
from attrs import evolve

from planner.meeting import choose_meeting_address, judge_reach, meeting_candidates
from planner.preflight import (
    GpuLook,
    HostLook,
    ModuleLook,
    PreflightReport,
    State,
    WantedHost,
    judge_hosts,
    lost_bundles,
)
from planner.show import preflight_table

GIB = 1024**3
WANTED = WantedHost(worker_class="my.workers.Worker", python="3.11.7", ray="2.60.0")
MODULE = ModuleLook(depth=2, origin="/lib/my/workers.py", version="1.0")


def _host(
    rank: int,
    node: int = 0,
    *,
    python: str = "3.11.9",
    ray: str = "2.60.0",
    module: ModuleLook = MODULE,
    gpus: tuple[GpuLook, ...] | None = None,
    addresses: tuple[tuple[str, str], ...] = (),
    address: str = "",
) -> HostLook:
    return HostLook(
        rank=rank,
        node_id=f"n{node}",
        address=address or f"10.0.0.{node + 1}",
        python=python,
        ray=ray,
        interpreter="/bin/python",
        module=module,
        gpus=gpus,
        addresses=addresses,
    )


def _failed(report: PreflightReport) -> list[tuple[str, tuple[int, ...], str]]:
    return [(row.node, row.ranks, row.check) for row in report.failed]


def test_good_nodes_have_good_verdicts() -> None:
    """One row for each check and node; a patch level of Python does not matter."""
    report = judge_hosts([_host(0), _host(1), _host(2, node=1)], WANTED)
    assert report.failed == ()
    assert [(row.node, row.ranks, row.check) for row in report.rows] == [
        ("10.0.0.1", (0, 1), "python"),
        ("10.0.0.1", (0, 1), "ray"),
        ("10.0.0.1", (0, 1), "class"),
        ("10.0.0.2", (2,), "python"),
        ("10.0.0.2", (2,), "ray"),
        ("10.0.0.2", (2,), "class"),
    ]


def test_all_problems_are_found_at_once() -> None:
    """Wrong Python, wrong Ray, no module and another version are four rows of one table."""
    looks = [
        _host(0),
        _host(1, node=1, python="3.12.1"),
        _host(2, node=2, ray="2.49.0"),
        _host(3, node=3, module=ModuleLook(depth=0, origin="", version="")),
        _host(4, node=4, module=evolve(MODULE, version="0.9")),
    ]
    report = judge_hosts(looks, WANTED)
    assert _failed(report) == [
        ("10.0.0.2", (1,), "python"),
        ("10.0.0.3", (2,), "ray"),
        ("10.0.0.4", (3,), "class"),
        ("10.0.0.5", (4,), "class"),
    ]
    assert report.nodes_to_exclude == ("n1", "n2", "n3", "n4")


def test_module_missing_on_one_node_says_where_it_is() -> None:
    """The finding names the node, what is missing, and where others have it."""
    looks = [_host(0), _host(1, node=1, module=ModuleLook(depth=1, origin="/my", version="1.0"))]
    [finding] = judge_hosts(looks, WANTED).findings
    assert finding.path == "node 10.0.0.2, rank 1, class"
    assert "no module 'my.workers'" in finding.problem
    assert "/lib/my/workers.py" in finding.problem
    assert "exclude_nodes=['n1']" in finding.remedy


def test_class_that_is_nowhere_is_not_the_nodes_fault() -> None:
    """When no node has it, the remedy is about the name, not about nodes."""
    nowhere = ModuleLook(depth=0, origin="", version="")
    [finding] = judge_hosts([_host(0, module=nowhere)], WANTED).findings
    assert "no module 'my'" in finding.problem
    assert "exclude" not in finding.remedy


def test_class_in_a_class_is_no_problem() -> None:
    """A name that has more parts than modules may be a class in a class."""
    inner = evolve(WANTED, worker_class="my.workers.Outer.Inner")
    assert judge_hosts([_host(0), _host(1, node=1)], inner).failed == ()


@pytest.mark.parametrize(
    ("gpu", "exclusive", "state", "told"),
    [
        (GpuLook(index=3, found=True, total=80 * GIB, free=79 * GIB), True, State.GOOD, "79.0 of"),
        (GpuLook(index=3, found=True, total=80 * GIB, free=9 * GIB), True, State.NOTE, "another"),
        (GpuLook(index=3, found=True, total=80 * GIB, free=9 * GIB), False, State.GOOD, "9.0 of"),
        (GpuLook(index=3, found=False), True, State.FAILED, "does not know"),
    ],
)
def test_gpu_verdicts(gpu: GpuLook, exclusive: bool, state: State, told: str) -> None:
    """A GPU must be there; memory that others hold is told when it should be this group's."""
    report = judge_hosts([_host(0, gpus=(gpu,))], evolve(WANTED, exclusive_gpus=exclusive))
    [row] = [row for row in report.rows if row.check == "GPU"]
    assert row.state is state
    assert told in row.found


def test_too_little_free_memory_of_a_gpu_is_told() -> None:
    """How much is wanted, how much is free, and what would work."""
    gpu = GpuLook(index=3, found=True, total=80 * GIB, free=59 * GIB)
    enough = judge_hosts([_host(0, gpus=(gpu,))], evolve(WANTED, free_gpu_memory=59 * GIB))
    assert enough.failed == ()
    [row] = judge_hosts([_host(0, gpus=(gpu,))], evolve(WANTED, free_gpu_memory=60 * GIB)).failed
    assert row.found == "GPU 3, 59.0 of 80.0 GiB free, 60.0 GiB are wanted"
    assert row.remedy.startswith("end what holds it, or mend the node, or plan again with exclude")


def test_one_gpu_under_two_numbers_is_found() -> None:
    """Two ranks whose GPUs have one UUID are on the same hardware."""
    looks = [
        _host(rank, gpus=(GpuLook(index=rank, found=True, uuid="GPU-1"),)) for rank in range(2)
    ]
    [row] = judge_hosts(looks, WANTED).failed
    assert row.ranks == (1,)
    assert "that of rank 0" in row.found


def test_candidates_begin_with_rays_address() -> None:
    """Ray's address is tried first, then those on interfaces that all have; loopback never."""
    first = _host(
        0,
        addresses=(
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("ib0", "192.168.1.1"),
            ("eth0", "10.0.0.1"),
            ("eth0", "fd00::1"),
            ("eth0", "fe80::1"),
        ),
    )
    other = _host(1, node=1, addresses=(("ib0", "192.168.1.2"), ("eth0", "10.0.0.2")))
    assert meeting_candidates(first, [other]) == (
        "10.0.0.1",
        "192.168.1.1",
        "fd00::1",
        "172.17.0.1",
    )


def test_loopback_address_of_ray_is_replaced() -> None:
    """A node that Ray knows as 127.0.0.1 is met at an address that others can reach."""
    first = _host(0, address="127.0.0.1", addresses=(("eth0", "10.0.0.1"),))
    assert meeting_candidates(first, []) == ("10.0.0.1",)
    alone = _host(0, address="127.0.0.1")
    assert meeting_candidates(alone, []) == ("127.0.0.1",)


def test_address_that_all_reach_is_chosen() -> None:
    """The first candidate that every node reached, not merely the first."""
    reached = {2: ["b", "c"], 4: ["a", "b"]}
    assert choose_meeting_address(("a", "b", "c"), reached) == "b"
    assert choose_meeting_address(("a", "c"), reached) is None


def test_unreachable_rank_0_is_told_for_each_node() -> None:
    """A node that reaches nothing and one that reaches what others do not are both named."""
    looks = {rank: _host(rank, node=rank) for rank in range(3)}
    nothing = judge_reach(looks[0], 29_500, ("a", "b"), {1: [], 2: ["b"]}, looks)
    assert _failed(nothing) == [("10.0.0.2", (1,), "rank 0"), ("10.0.0.3", (2,), "rank 0")]
    assert "at a, b port 29500" in nothing.failed[0].found
    split = judge_reach(looks[0], 29_500, ("a", "b"), {1: ["a"], 2: ["b"]}, looks)
    assert [row.found for row in split.failed] == [
        "it reaches rank 0 only at a, which others do not",
        "it reaches rank 0 only at b, which others do not",
    ]
    good = judge_reach(looks[0], 29_500, ("a", "b"), {1: ["a", "b"], 2: ["b"]}, looks)
    assert [row.found for row in good.rows] == ["b port 29500"] * 2


def test_bundles_of_a_lost_node_are_found() -> None:
    """A bundle without a living node is named with how many there should be."""
    assert lost_bundles([2, 1], {0: ["10.0.0.1", "10.0.0.1"], 1: ["10.0.0.2"]}) == ()
    [first, second] = lost_bundles([2, 1], {0: ["10.0.0.1", ""]})
    assert (first.path, second.path) == ("placement_groups[0]", "placement_groups[1]")
    assert first.problem.startswith("1 of its 2 bundles")


def test_table_shows_every_verdict() -> None:
    """The table is one row for each verdict, as plain text and for a console."""
    report = judge_hosts([_host(0), _host(1, node=1, ray="2.0")], WANTED)
    lines = report.text().splitlines()
    assert len(lines) == 1 + len(report.rows)
    assert "failed" in preflight_table(report)
    assert "install ray==2.60.0" in preflight_table(report, width=200)
