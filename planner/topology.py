"""Nodes and bundles in the order of the hardware, and whole NVLink segments of nodes."""

from collections.abc import Iterable, Mapping
from itertools import chain

from planner.findings import Finding, Findings, ResourceInsufficientError
from planner.inventory import BundleFacts
from planner.locality import Locality, check_locality, nearest_layout
from planner.nodes import NaturalKey, natural_key, topology_key
from planner.whole_numbers import whole_number

__all__ = [
    "Locality",
    "check_locality",
    "nearest_layout",
    "select_segment_nodes",
    "sort_bundles",
    "whole_segments",
]


def select_segment_nodes(
    topology: Mapping[str, tuple[str, int]], segment_size: int, num_nodes: int
) -> tuple[list[str], list[str]]:
    """The first nodes that form whole segments, and all the others, both in topology order.

    A segment is ``segment_size`` nodes of one NVLink domain. Domains come by their smallest
    topology rank, nodes in a domain by theirs; nodes of a domain that are left over when it is
    cut into segments are among the others.

    Args:
        topology: Node id to (NVLink domain, rank in the topology).
        segment_size: Nodes in a segment.
        num_nodes: How many nodes are wanted.

    Raises:
        PlanError: (a ``ValueError``) ``num_nodes`` is not a whole number of segments, or an
            argument is of the wrong type.
        ResourceInsufficientError: There are too few whole segments.
    """
    _check_topology(topology)
    _check_counts(segment_size, num_nodes)
    domains = _domains(topology)
    usable = _whole_segments(domains, segment_size)
    if num_nodes > len(usable):
        raise ResourceInsufficientError(
            "segments", [_too_few(domains, segment_size, num_nodes, len(usable))]
        )
    selected = usable[:num_nodes]
    taken = set(selected)
    remaining = [node_id for node_id in chain(*domains.values()) if node_id not in taken]
    return selected, remaining


def whole_segments(topology: Mapping[str, tuple[str, int]], segment_size: int) -> list[str]:
    """Every node that is part of a whole segment, in topology order.

    Args:
        topology: Node id to (NVLink domain, rank in the topology).
        segment_size: Nodes in a segment.

    Raises:
        PlanError: The segment size is below 1.
    """
    _check_counts(segment_size, 0)
    return _whole_segments(_domains(topology), segment_size)


def _domains(topology: Mapping[str, tuple[str, int]]) -> dict[str, list[str]]:
    return _by_domain(sorted(topology, key=topology_key(topology, {})), topology)


def _check_topology(topology: object) -> None:
    findings = Findings("segments")
    remedy = "give node ids with (NVLink domain, topology rank)"
    if not isinstance(topology, Mapping):
        findings.fail("topology", f"a value of type {type(topology).__name__}", remedy)
    for node_id, place in topology.items():
        pair = isinstance(place, list | tuple) and len(place) == 2
        if not pair or not isinstance(place[0], str) or whole_number(place[1]) is None:
            findings.add(f"topology[{node_id!r}]", f"{place!r} is no place", remedy)
    findings.check()


def _check_counts(segment_size: int, num_nodes: int) -> None:
    findings = Findings("segments")
    numbers: dict[str, object] = {"segment_size": segment_size, "num_nodes": num_nodes}
    for name, number in numbers.items():
        if whole_number(number) is None:
            findings.add(name, f"{number!r} is not a number of nodes", "give a whole number")
    findings.check()
    if segment_size < 1:
        findings.add("segment_size", f"{segment_size} nodes are no segment", "give 1 or more")
    if num_nodes < 0:
        findings.add("num_nodes", f"{num_nodes} is negative", "give 0 or more")
    elif segment_size > 0 and num_nodes % segment_size:
        below = num_nodes // segment_size * segment_size
        nearest = [str(count) for count in (below, below + segment_size) if count]
        problem = f"{num_nodes} nodes are not divisible into segments of {segment_size}"
        findings.add("num_nodes", problem, f"give {' or '.join(nearest)}")
    findings.check()


def _by_domain(
    node_ids: Iterable[str], topology: Mapping[str, tuple[str | None, int | None]]
) -> dict[str, list[str]]:
    domains: dict[str, list[str]] = {}
    for node_id in node_ids:
        domain, _ = topology.get(node_id, (None, None))
        if domain is not None:
            domains.setdefault(domain, []).append(node_id)
    return domains


def _whole_segments(domains: Mapping[str, list[str]], segment_size: int) -> list[str]:
    usable: list[str] = []
    for nodes in domains.values():
        usable.extend(nodes[: len(nodes) // segment_size * segment_size])
    return usable


def _too_few(
    domains: Mapping[str, list[str]], segment_size: int, num_nodes: int, usable: int
) -> Finding:
    held = [f"{name} has {len(nodes)}" for name, nodes in domains.items()]
    shown = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    problem = (
        f"{num_nodes} nodes are {num_nodes // segment_size} segments of {segment_size}, but the "
        f"domains hold {usable // segment_size} whole ones ({shown or 'there is no domain'})"
    )
    fitting = [
        size
        for size in range(segment_size - 1, 0, -1)
        if num_nodes % size == 0 and len(_whole_segments(domains, size)) >= num_nodes
    ]
    smaller = f", or segments of {fitting[0]}" if fitting else ""
    return Finding("num_nodes", problem, f"ask for at most {usable} nodes{smaller}")


def sort_bundles(
    facts: Iterable[BundleFacts],
    topology: Mapping[str, tuple[str | None, int | None]] | None = None,
    segment_size: int | None = None,
) -> tuple[BundleFacts, ...]:
    """The bundles in the order in which ranks are counted over them.

    Without a topology by node (address as numbers, then node id) and GPU id (as numbers). With
    one by the smallest topology rank of the NVLink domain, topology rank, node, and GPU id; a
    node that the topology does not name comes after those it does. With a segment size too,
    only nodes in whole segments stay: a domain too small for one is dropped, and so are the
    nodes left over when a domain is cut into segments and those the topology does not name.

    Args:
        facts: Where the bundles landed, in any order.
        topology: Node id to (NVLink domain, rank in the topology); None for what is not known.
        segment_size: Nodes in a segment; only with a topology.

    Raises:
        PlanError: A bundle occurs twice, the segment size is below 1, or it has no topology; or
            ``facts`` are no bundles.
    """
    given = _bundles(facts)
    _check_bundles(given, topology, segment_size)
    addresses = {each.node_id: each.address for each in given}
    if len(addresses) == 1 and segment_size is None:
        return tuple(sorted(given, key=_on_node))
    known = {} if topology is None else topology
    nodes = sorted(addresses, key=topology_key(known, addresses))
    if segment_size is not None:
        nodes = _whole_segments(_by_domain(nodes, known), segment_size)
    position = {node_id: index for index, node_id in enumerate(nodes)}
    kept = (each for each in given if each.node_id in position)
    return tuple(sorted(kept, key=lambda each: (position[each.node_id], *_on_node(each))))


def _on_node(facts: BundleFacts) -> tuple[tuple[NaturalKey, ...], int, int]:
    gpus = tuple(sorted(natural_key(gpu) for gpu in facts.gpus))
    return gpus, facts.placement_group, facts.bundle


def _bundles(facts: object) -> tuple[BundleFacts, ...]:
    findings = Findings("bundles")
    if not isinstance(facts, Iterable):
        problem = f"a value of type {type(facts).__name__}"
        findings.fail("facts", problem, "give the BundleFacts of a cluster")
    bundles: list[BundleFacts] = []
    for index, each in enumerate(facts):
        if isinstance(each, BundleFacts):
            bundles.append(each)
        else:
            problem = f"a value of type {type(each).__name__}"
            findings.add(f"facts[{index}]", problem, "give BundleFacts")
    findings.check()
    return tuple(bundles)


def _check_bundles(
    facts: tuple[BundleFacts, ...],
    topology: Mapping[str, tuple[str | None, int | None]] | None,
    segment_size: int | None,
) -> None:
    findings = Findings("bundles")
    seen: dict[tuple[int, int], int] = {}
    for index, each in enumerate(facts):
        first = seen.setdefault((each.placement_group, each.bundle), index)
        if first != index:
            problem = f"bundle {each.bundle} of placement group {each.placement_group} is also "
            findings.add(f"facts[{index}]", f"{problem}facts[{first}]", "give each bundle once")
    size = 1 if segment_size is None else whole_number(segment_size)
    if size is None or size < 1:
        findings.add("segment_size", f"{segment_size} nodes are no segment", "give 1 or more")
    if segment_size is not None and topology is None:
        findings.add("topology", "it is missing", "a segment size needs the NVLink domains")
    findings.check()
