"""Port ranges that nobody else uses."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError, ResourceInsufficientError
from planner.ports import (
    KERNEL_EPHEMERAL,
    RAY_WORKERS,
    PortRange,
    PortRequest,
    ReservedPorts,
    plan_ports,
)


def ask(
    engine: int, count: int = 1, node: str = "a", group: str = "g", first: int | None = None
) -> PortRequest:
    """A request."""
    return PortRequest(node_id=node, group=group, engine=engine, count=count, first=first)


def firsts(ranges: tuple[PortRange, ...]) -> list[tuple[str, str, int, int, int]]:
    """The ranges as plain tuples."""
    return [(each.node_id, each.group, each.engine, each.first, each.last) for each in ranges]


def test_ranges_follow_each_other_on_a_node() -> None:
    """By group and engine, lowest first; each node starts anew."""
    plan = plan_ports(
        [ask(10, 5), ask(9, 10), ask(0, 2, group="f"), ask(0, 3, node="a10"), ask(0, 3, node="a9")]
    )
    assert firsts(plan) == [
        ("a", "f", 0, 20_000, 20_001),
        ("a", "g", 9, 20_002, 20_011),
        ("a", "g", 10, 20_012, 20_016),
        ("a9", "g", 0, 20_000, 20_002),
        ("a10", "g", 0, 20_000, 20_002),
    ]
    assert list(plan[0].ports) == [20_000, 20_001]


def test_reserved_ranges_are_stepped_over() -> None:
    """What does not fit before a reserved range goes behind it; small ones still fill the gap."""
    plan = plan_ports([ask(0, 12_000), ask(1, 4_000), ask(2, 768)])
    assert firsts(plan) == [
        ("a", "g", 0, 20_000, 31_999),
        ("a", "g", 1, 61_000, 64_999),
        ("a", "g", 2, 32_000, 32_767),
    ]
    low = plan_ports([ask(0)], (ReservedPorts("x", 9_000, 65_535), RAY_WORKERS), floor=8_999)
    assert low[0].first == 8_999


def test_fixed_ranges_keep_their_ports() -> None:
    """A fixed first port is kept and the others go around it."""
    plan = plan_ports([ask(0, 3), ask(1, 2, first=20_001)])
    assert firsts(plan) == [("a", "g", 0, 20_003, 20_005), ("a", "g", 1, 20_001, 20_002)]


def test_overlaps_and_exhaustion_are_all_found() -> None:
    """Overlap with a reserved or another range, out of bounds, too many: one error."""
    requests = [
        ask(0, 2, first=20_000),
        ask(1, 2, first=20_001),
        ask(2, 2, first=32_767),
        ask(3, first=80),
        ask(4, 20_000),
    ]
    with pytest.raises(PlanError) as caught:
        plan_ports(requests)
    assert [str(each) for each in caught.value.findings] == [
        (
            "requests[1].first: ports 20001-20002 overlap 20000-20001 of engine 0 of group 'g' on "
            "node 'a'; 20002 would work"
        ),
        (
            "requests[2].first: ports 32767-32768 overlap 32768-60999 of the kernel's ephemeral "
            "ports; 20002 would work"
        ),
        "requests[3].first: ports 80-80 are not within 20000-65535; 20002 would work",
        (
            "requests[4].count: engine 4 of group 'g' on node 'a' needs 20000 ports in a row, and "
            "of those not yet planned 17302 are left, at most 12766 in a row; ask for fewer, widen "
            "floor and ceiling, or narrow the reserved ranges"
        ),
    ]
    with pytest.raises(ResourceInsufficientError):
        plan_ports([ask(0, 20_000)])


def test_impossible_requests_are_refused_together() -> None:
    """Numbers that are no ports, no count, and a request given twice."""
    with pytest.raises(PlanError) as caught:
        plan_ports([ask(0, 0), ask(0, 1)], (ReservedPorts("x", 9, 3),), floor=9, ceiling=70_000)
    assert [each.path for each in caught.value.findings] == [
        "floor",
        "reserved_ranges[0]",
        "requests[0].count",
        "requests[1]",
    ]


request_lists = st.lists(
    st.builds(
        ask,
        st.integers(0, 5),
        st.integers(0, 60) | st.integers(1, 3),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["g", "h"]),
        st.none() | st.integers(90, 230),
    ),
    max_size=6,
)
reserved_lists = st.lists(
    st.tuples(st.integers(90, 220), st.integers(0, 30)).map(
        lambda pair: ReservedPorts("x", pair[0], sum(pair))
    ),
    max_size=3,
)


@given(request_lists, reserved_lists, st.randoms(use_true_random=False))
def test_planned_ranges_are_disjoint_and_unreserved(
    requests: list[PortRequest], reserved: list[ReservedPorts], random: Random
) -> None:
    """No port twice on a node, none reserved, none out of bounds, in whatever order asked."""
    shuffled = list(requests)
    random.shuffle(shuffled)
    try:
        plan = plan_ports(requests, reserved, floor=100, ceiling=200)
    except PlanError as error:
        with pytest.raises(type(error)):
            plan_ports(shuffled, reserved, floor=100, ceiling=200)
        return
    assert plan_ports(shuffled, reserved, floor=100, ceiling=200) == plan
    assert len(plan) == len(requests)
    ports = [(each.node_id, port) for each in plan for port in each.ports]
    assert len(ports) == len(set(ports))
    taken = {port for each in reserved for port in range(each.first, each.last + 1)}
    assert all(100 <= port <= 200 and port not in taken for _, port in ports)
    wanted = {(each.node_id, each.group, each.engine): each for each in requests}
    for each in plan:
        request = wanted[each.node_id, each.group, each.engine]
        assert (each.count, each.first) == (request.count, request.first or each.first)


def test_the_default_ranges_are_those_of_linux_and_ray() -> None:
    """Planned ports keep clear of both."""
    ports = {port for each in plan_ports([ask(0, 12_768), ask(1, 4_536)]) for port in each.ports}
    for each in (KERNEL_EPHEMERAL, RAY_WORKERS):
        assert ports.isdisjoint(range(each.first, each.last + 1))
