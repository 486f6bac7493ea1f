"""The parts of a launch that follow from where its ranks are: closeness, ports, cores."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from planner.findings import Findings, PlanError, ResourceInsufficientError
from planner.group_places import Place, PlaceSpec
from planner.host_facts import HostFacts
from planner.locality import Locality, check_locality
from planner.mesh import NamedSharding
from planner.ports import (
    KERNEL_EPHEMERAL,
    RAY_WORKERS,
    PortRange,
    PortRequest,
    ReservedPorts,
    plan_ports,
)

__all__ = ["Seat", "check_places", "domains_of", "nodes_used", "plan_rank_ports", "topology_of"]

USUAL_FLOOR = 20_000
LOWEST_FLOOR = 1_024


@frozen(kw_only=True)
class Seat:
    """Where a rank sits: its node and its tied group."""

    node_id: str
    tied_group: int


def topology_of(places: Sequence[Place]) -> dict[str, tuple[str | None, int | None]]:
    """Node id to (NVLink domain, topology rank), each None where it is not known."""
    return {node_id: (domain, rank) for node_id, domain, rank in places}


def domains_of(places: Sequence[Place]) -> dict[str, str | None]:
    """Node id to NVLink domain."""
    return {node_id: domain for node_id, domain, _ in places}


def check_places(
    spec: PlaceSpec, mesh: NamedSharding | None, node_of_rank: Sequence[str], findings: Findings
) -> tuple[str, ...]:
    """Record every axis that is cut and must not be; tells of a cut that costs speed.

    Args:
        spec: What was asked for.
        mesh: The group's axes.
        node_of_rank: The node of each rank.
        findings: Where problems are recorded.
    """
    if mesh is None:
        return ()
    nodes = dict(enumerate(node_of_rank))
    homes = domains_of(spec.topology)
    domains = {rank: homes.get(node_id) for rank, node_id in nodes.items()}
    wanted = dict(spec.localities)
    for each in check_locality(mesh, wanted, nodes, domains) if wanted else ():
        findings.add(each.path, each.problem, each.remedy)
    axis = "tensor_parallel"
    if axis not in mesh.names or axis in wanted:
        return ()
    cut = check_locality(mesh, {axis: Locality.SAME_NODE}, nodes)
    return tuple(f"{each.problem}: its collectives go over the network" for each in cut)


def nodes_used(facts: Mapping[int, HostFacts]) -> dict[str, list[int]]:
    """The ranks of each node, in rank order."""
    used: dict[str, list[int]] = {}
    for rank, fact in sorted(facts.items(), key=lambda pair: pair[0]):
        used.setdefault(fact.node_id, []).append(rank)
    return used


def plan_rank_ports(
    group: str,
    spec: PlaceSpec,
    seats: Sequence[Seat],
    facts: Mapping[int, HostFacts],
    findings: Findings,
) -> dict[int, tuple[int, int]]:
    """The first and last port of each rank; empty when nobody asked.

    Workers of one tied group share the range of their node when the range is per engine. Ports
    belong to an address: nodes that share one (a test cluster on one machine) share its ports.
    """
    if not spec.wants_ports:
        return {}
    ports: dict[int, tuple[int, int]] = {}
    machines: dict[str, list[int]] = {}
    for rank, fact in facts.items():
        machines.setdefault(fact.address, []).append(rank)
    for address, ranks in machines.items():
        keys = {rank: seats[rank].tied_group if spec.ports_per_engine else rank for rank in ranks}
        requests = [
            PortRequest(
                node_id=address,
                group=group,
                engine=key,
                count=spec.ports_per_engine or spec.ports_per_worker,
            )
            for key in dict.fromkeys(keys.values())
        ]
        try:
            ranges = _on_node(requests, _reserved(facts[ranks[0]], spec.ports_taken))
        except PlanError as error:
            first = error.findings[0]
            path = "ports_per_engine" if spec.ports_per_engine else "ports_per_worker"
            findings.add(path, f"node {address}: {first.problem}", first.remedy)
            continue
        held = {each.engine: (each.first, each.last) for each in ranges}
        ports.update({rank: held[key] for rank, key in keys.items()})
    return ports


def _on_node(
    requests: Sequence[PortRequest], reserved: Sequence[ReservedPorts]
) -> tuple[PortRange, ...]:
    try:
        return plan_ports(requests, reserved, floor=USUAL_FLOOR)
    except ResourceInsufficientError:
        # Some machines begin the kernel's range at 9,000: what is left lies below it.
        return plan_ports(requests, reserved, floor=LOWEST_FLOOR)


def _reserved(fact: HostFacts, taken: Sequence[PortRange]) -> tuple[ReservedPorts, ...]:
    others = tuple(
        ReservedPorts(f"the ports of group {each.group!r}", each.first, each.last)
        for each in taken
        if each.node_id == fact.address
    )
    return (*(fact.reserved_ports or (KERNEL_EPHEMERAL, RAY_WORKERS)), *others)
