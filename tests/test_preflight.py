"""Verdicts on nodes before any constructor runs, and where ranks meet."""

import platform

import pytest
import ray
from attrs import evolve

from planner.findings import Findings
from planner.group import GroupArguments, plan_group
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
from runtime.preflight import Checked, Checks, PreflightError, checked_checks, preflight
from runtime.ray_backend import RAY

GIB = 1024**3
WANTED = WantedHost(worker_class="my.workers.Worker", python="3.11.7", ray="2.60.0")
MODULE = ModuleLook(depth=2, origin="/lib/my/workers.py", version="1.0")


def _host(
    rank: int,
    node: int = 0,
    *,
    python: str = "3.11.9",
    version: str = "2.60.0",
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
        ray=version,
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
        _host(2, node=2, version="2.49.0"),
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
    report = judge_hosts([_host(0), _host(1, node=1, version="2.0")], WANTED)
    lines = report.text().splitlines()
    assert len(lines) == 1 + len(report.rows)
    assert "failed" in preflight_table(report)
    assert "install ray==2.60.0" in preflight_table(report, width=200)


def test_memory_that_nobody_can_measure_is_told() -> None:
    """Without an NVIDIA driver it is a note, and only when it was asked for."""
    wanted = evolve(WANTED, free_gpu_memory=60 * GIB)
    report = judge_hosts([_host(0), _host(1)], wanted)
    assert report.failed == ()
    [row] = [row for row in report.rows if row.check == "GPU"]
    assert (row.state, row.ranks) == (State.NOTE, (0, 1))
    assert row.found == "no NVIDIA driver is there to say how much memory is free"
    assert [row for row in judge_hosts([_host(0)], WANTED).rows if row.check == "GPU"] == []


@pytest.mark.parametrize(
    ("given", "size"), [(None, 0), (0, 0), (5, 5), ("60GiB", 60 * GIB), ("1 KB", 1_000)]
)
def test_sizes_are_bytes_or_text(given: object, size: int) -> None:
    """Both say the same."""
    findings = Findings("sizes")
    assert checked_checks(None, None, given, findings) == Checks(free_gpu_memory=size)
    assert findings.found == ()


def test_wrong_checks_are_findings() -> None:
    """All of them, and a contradiction too."""
    findings = Findings("checks")
    checked_checks("yes", "plan.json", "lots", findings)
    assert [each.path for each in findings.found] == [
        *("preflight", "expected_plan", "free_gpu_memory"),
    ]
    for wrong in (-1, 1.5, True, "-1", "GiB"):
        findings = Findings("checks")
        checked_checks(None, None, wrong, findings)
        assert [str(each) for each in findings.found] == [
            (
                f"free_gpu_memory: {wrong!r} is not a size in bytes; give a whole number of "
                "bytes, or a text such as '60GiB'"
            )
        ]
    contrary = Findings("checks")
    checked_checks(False, None, "1GiB", contrary)
    assert [str(each) for each in contrary.found] == [
        "free_gpu_memory: preflight=False looks at no GPU; leave one of the two out"
    ]


def test_a_gpu_that_others_fill_stops_the_launch() -> None:
    """What the group asks for is what its hosts are judged by."""
    spec = plan_group(GroupArguments(worker_class="my.Worker", bundle_counts=(1,)))
    gpu = {"index": 3, "found": True, "kind": "H100", "total": 80 * GIB, "free": 20 * GIB}
    look = {
        "python": platform.python_version(),
        "ray": ray.__version__,
        "interpreter": "/bin/python",
        "gpus": {"count": 1, "gpus": [gpu]},
        "addresses": [],
    }
    reports = [{"node_id": "n0", "address": "10.0.0.1", "port": 1, "look": look}]

    def judged(size: int) -> Checked:
        return preflight(RAY, spec, [0], reports, [None], Checks(free_gpu_memory=size), 1.0)

    assert judged(20 * GIB).report.failed == ()
    with pytest.raises(PreflightError, match=r"20.0 of 80.0 GiB free, 60.0 GiB are wanted") as told:
        judged(60 * GIB)
    assert told.value.report.nodes_to_exclude == ("n0",)
