"""Port ranges that nobody else uses, planned per node, group and engine.

A port found by asking the kernel for a free one may be gone when it is used, and the kernel's
ephemeral range and Ray's worker range are handed out to anyone. So ranges are planned: disjoint
on each node, and outside what is reserved.
"""

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from planner.findings import Findings, PlanError, ResourceInsufficientError
from planner.nodes import NaturalKey, natural_key

__all__ = [
    "KERNEL_EPHEMERAL",
    "RAY_WORKERS",
    "PortRange",
    "PortRequest",
    "ReservedPorts",
    "plan_ports",
]


@frozen
class ReservedPorts:
    """Ports that someone else hands out.

    Attributes:
        name: Who, for messages.
        first: The lowest port.
        last: The highest port; it belongs to the range.
    """

    name: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.name} {self.first}-{self.last}"


KERNEL_EPHEMERAL = ReservedPorts("the kernel's ephemeral ports", 32_768, 60_999)
"""Linux's default ``net.ipv4.ip_local_port_range``; some machines begin it as low as 9,000."""

RAY_WORKERS = ReservedPorts("Ray's worker ports", 10_002, 19_999)
"""Ray's default ``--min-worker-port`` and ``--max-worker-port``."""


@frozen(kw_only=True)
class PortRequest:
    """How many ports one engine needs on one node.

    Attributes:
        node_id: The node.
        group: The worker group.
        engine: Which engine or worker of the group; unique with node and group.
        count: How many ports in a row.
        first: The lowest port, when it must be a certain one; None lets the plan choose.
    """

    node_id: str
    group: str
    engine: int
    count: int = 1
    first: int | None = None


@frozen(kw_only=True)
class PortRange:
    """The ports one engine has on one node.

    Attributes:
        node_id: The node.
        group: The worker group.
        engine: Which engine of the group.
        first: The lowest port.
        count: How many ports in a row.
    """

    node_id: str
    group: str
    engine: int
    first: int
    count: int

    @property
    def last(self) -> int:
        """The highest port."""
        return self.first + self.count - 1

    @property
    def ports(self) -> range:
        """All ports."""
        return range(self.first, self.first + self.count)


_Indexed = tuple[int, PortRequest]
_Gaps = list[tuple[int, int]]


def plan_ports(
    requests: Iterable[PortRequest],
    reserved_ranges: Sequence[ReservedPorts] = (KERNEL_EPHEMERAL, RAY_WORKERS),
    floor: int = 20_000,
    ceiling: int = 65_535,
) -> tuple[PortRange, ...]:
    """A range for every request, disjoint on each node; by node, group and engine.

    Ranges with a fixed first port come first; the others take the lowest ports left, in the
    order of group and engine, so the order of the requests does not matter.

    Args:
        requests: What is needed.
        reserved_ranges: Ports of others; the same on every node.
        floor: The lowest port to plan.
        ceiling: The highest port to plan.

    Raises:
        PlanError: A number is impossible, a request occurs twice, or a fixed range overlaps
            another or a reserved one.
        ResourceInsufficientError: A node has too few ports left. All findings are in one error.
    """
    findings = Findings("ports")
    _check_bounds(reserved_ranges, floor, ceiling, findings)
    by_node: dict[str, list[_Indexed]] = {}
    for index, request in _checked(requests, findings):
        by_node.setdefault(request.node_id, []).append((index, request))
    findings.check()
    ranges: list[PortRange] = []
    exhausted = Findings("ports")
    for node_id in sorted(by_node, key=lambda node: (natural_key(node), node)):
        gaps = _gaps(reserved_ranges, floor, ceiling)
        fixed = [each for each in by_node[node_id] if each[1].first is not None]
        loose = [each for each in by_node[node_id] if each[1].first is None]
        found = list(_place_fixed(fixed, reserved_ranges, (floor, ceiling), gaps, findings))
        found.extend(_place_loose(loose, gaps, exhausted))
        ranges.extend(sorted(found, key=_place))
    if findings:
        findings.include(PlanError("ports", exhausted.found))
    findings.check()
    exhausted.check(ResourceInsufficientError)
    return tuple(ranges)


def _check_bounds(
    reserved: Sequence[ReservedPorts], floor: int, ceiling: int, findings: Findings
) -> None:
    if not 1 <= floor <= ceiling <= 65_535:
        findings.add("floor", f"{floor} to {ceiling} are no ports", "give 1 to 65535, in order")
    for index, each in enumerate(reserved):
        if not 0 <= each.first <= each.last <= 65_535:
            remedy = "give the lowest and the highest port, 0 to 65535"
            findings.add(f"reserved_ranges[{index}]", f"{each} is no range", remedy)


def _checked(requests: Iterable[PortRequest], findings: Findings) -> list[_Indexed]:
    seen: dict[tuple[str, str, int], int] = {}
    checked = list(enumerate(requests))
    for index, request in checked:
        path = f"requests[{index}]"
        if request.count < 1:
            findings.add(f"{path}.count", f"{request.count} ports", "ask for 1 or more")
        key = (request.node_id, request.group, request.engine)
        if seen.setdefault(key, index) != index:
            problem = f"{_who(request)} has requests[{seen[key]}] already"
            findings.add(path, problem, "ask once for all its ports on the node")
    return checked


def _who(request: PortRequest | PortRange) -> str:
    return f"engine {request.engine} of group {request.group!r} on node {request.node_id!r}"


def _place(each: PortRequest | PortRange) -> tuple[NaturalKey, str, int]:
    return natural_key(each.group), each.group, each.engine


def _order(each: _Indexed) -> tuple[NaturalKey, str, int]:
    return _place(each[1])


def _gaps(reserved: Sequence[ReservedPorts], floor: int, ceiling: int) -> _Gaps:
    """What is free between the reserved ranges: (first, one past the last)."""
    gaps: _Gaps = []
    start = floor
    for each in sorted(reserved, key=lambda each: each.first):
        if start < min(each.first, ceiling + 1):
            gaps.append((start, min(each.first, ceiling + 1)))
        start = max(start, each.last + 1)
    if start <= ceiling:
        gaps.append((start, ceiling + 1))
    return gaps


def _range(request: PortRequest, first: int) -> PortRange:
    return PortRange(
        node_id=request.node_id,
        group=request.group,
        engine=request.engine,
        first=first,
        count=request.count,
    )


def _place_fixed(
    requests: Sequence[_Indexed],
    reserved: Sequence[ReservedPorts],
    bounds: tuple[int, int],
    gaps: _Gaps,
    findings: Findings,
) -> Iterator[PortRange]:
    placed: list[PortRange] = []
    for index, request in sorted(requests, key=_order):
        wanted = _range(request, request.first or 0)
        problem = _clash(wanted, placed, reserved, bounds)
        if problem is not None:
            lowest = next((a for a, b in gaps if b - a >= request.count), None)
            remedy = "leave 'first' out" if lowest is None else f"{lowest} would work"
            findings.add(f"requests[{index}].first", problem, remedy)
            continue
        _cut_out(gaps, wanted)
        placed.append(wanted)
        yield wanted


def _clash(
    wanted: PortRange,
    placed: Sequence[PortRange],
    reserved: Sequence[ReservedPorts],
    bounds: tuple[int, int],
) -> str | None:
    span = f"ports {wanted.first}-{wanted.last}"
    if wanted.first < bounds[0] or wanted.last > bounds[1]:
        return f"{span} are not within {bounds[0]}-{bounds[1]}"
    others: tuple[ReservedPorts | PortRange, ...] = (*reserved, *placed)
    for each in others:
        if wanted.first <= each.last and each.first <= wanted.last:
            mine = _who(each) if isinstance(each, PortRange) else each.name
            return f"{span} overlap {each.first}-{each.last} of {mine}"
    return None


def _cut_out(gaps: _Gaps, taken: PortRange) -> None:
    at = next(i for i, (start, end) in enumerate(gaps) if start <= taken.first < end)
    start, end = gaps[at]
    rest = [(start, taken.first), (taken.last + 1, end)]
    gaps[at : at + 1] = [gap for gap in rest if gap[0] < gap[1]]


def _place_loose(
    requests: Sequence[_Indexed], gaps: _Gaps, findings: Findings
) -> Iterator[PortRange]:
    for index, request in sorted(requests, key=_order):
        first = next((a for a, b in gaps if b - a >= request.count), None)
        if first is None:
            longest = max((b - a for a, b in gaps), default=0)
            left = sum(b - a for a, b in gaps)
            problem = (
                f"{_who(request)} needs {request.count} ports in a row, and of those not yet "
                f"planned {left} are left, at most {longest} in a row"
            )
            remedy = "ask for fewer, widen floor and ceiling, or narrow the reserved ranges"
            findings.add(f"requests[{index}].count", problem, remedy)
            continue
        taken = _range(request, first)
        _cut_out(gaps, taken)
        yield taken
