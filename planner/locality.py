"""Axes that must stay together: on one node, or in one NVLink domain."""

from collections.abc import Mapping
from enum import Enum
from math import gcd, prod

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.findings import Finding, Findings
from planner.mesh import NamedSharding, unknown_axis

__all__ = ["Locality", "check_locality", "nearest_layout"]


class Locality(Enum):
    """How close the ranks along an axis must be to each other."""

    SAME_NODE = "same_node"
    SAME_DOMAIN = "same_domain"
    ANYWHERE = "anywhere"


@frozen
class _Places:
    """The node, or the domain, of each rank as a number in order of lowest rank, and the names."""

    what: str
    numbers: tuple[int, ...]
    names: tuple[str, ...]


@frozen
class _Where:
    """The places of the ranks, in layout order."""

    nodes: _Places
    domains: _Places

    def places(self, locality: Locality) -> _Places:
        return self.nodes if locality is Locality.SAME_NODE else self.domains


def check_locality(
    mesh: NamedSharding,
    localities: Mapping[str, Locality],
    node_of_rank: Mapping[int, str],
    domain_of_rank: Mapping[int, str | None] | None = None,
) -> tuple[Finding, ...]:
    """What breaks the stated localities, one finding per axis; empty when all hold.

    Every group of ranks along an axis (all other coordinates equal) must share a node or a
    domain. A finding names the first group that does not, where it is cut, how many more there
    are, and the nearest layout that works.

    Args:
        mesh: The arrangement of the ranks.
        localities: Axis name to locality; an axis left out may be anywhere.
        node_of_rank: Rank to node id.
        domain_of_rank: Rank to NVLink domain; a node in no domain is one of its own.

    Raises:
        PlanError: An axis is unknown, or the node of a rank is.
    """
    where = _located(mesh, localities, node_of_rank, domain_of_rank)
    cuts: list[tuple[str, str]] = []
    for name in (name for name in mesh.names if name in localities):
        if localities[name] is not Locality.ANYWHERE:
            problem = _cut(mesh, name, where.places(localities[name]))
            cuts.extend([(name, problem)] if problem else [])
    if not cuts:
        return ()
    remedy = _remedy(mesh, localities, where)
    return tuple(Finding(f"localities.{name}", problem, remedy) for name, problem in cuts)


def nearest_layout(
    mesh: NamedSharding,
    localities: Mapping[str, Locality],
    node_of_rank: Mapping[int, str],
    domain_of_rank: Mapping[int, str | None] | None = None,
) -> NamedSharding | None:
    """The same axes and ranks, arranged so that the localities hold; None when nothing can.

    Ranks stay where they are; nodes and domains keep the order of their first rank.

    Raises:
        PlanError: An axis is unknown, or the node of a rank is.
    """
    where = _located(mesh, localities, node_of_rank, domain_of_rank)
    return _rearranged(mesh, localities, where)


def _located(
    mesh: NamedSharding,
    localities: Mapping[str, Locality],
    node_of_rank: Mapping[int, str],
    domain_of_rank: Mapping[int, str | None] | None,
) -> _Where:
    findings = Findings("locality")
    for name in localities:
        if name not in mesh.names:
            finding = unknown_axis("localities", name, mesh.names)
            findings.add(finding.path, finding.problem, finding.remedy)
    lost = [rank for rank in mesh.ranks if rank not in node_of_rank]
    if lost:
        problem = f"it does not say where rank {lost[0]} is"
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        findings.add("node_of_rank", problem + more, "give the node of every rank in the mesh")
    findings.check()
    nodes = {rank: node_of_rank[rank] for rank in mesh.ranks}
    given = {} if domain_of_rank is None else domain_of_rank
    home: dict[str, str | None] = {}
    for rank in sorted(nodes):
        home.setdefault(nodes[rank], given.get(rank))
    domains = {
        rank: f"{node} (in no domain)" if (domain := home[node]) is None else domain
        for rank, node in nodes.items()
    }
    return _Where(_places("node", mesh, nodes), _places("domain", mesh, domains))


def _places(what: str, mesh: NamedSharding, name_of_rank: Mapping[int, str]) -> _Places:
    numbers: dict[str, int] = {}
    for rank in sorted(name_of_rank):
        numbers.setdefault(name_of_rank[rank], len(numbers))
    return _Places(what, tuple(numbers[name_of_rank[rank]] for rank in mesh.ranks), tuple(numbers))


def _along(mesh: NamedSharding, name: str, values: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """One row per group of ranks along the axis."""
    shaped = np.array(values, dtype=np.int64).reshape(mesh.sizes)
    size = mesh.get_axis_size(name)
    return np.moveaxis(shaped, mesh.get_axis_index(name), -1).reshape(-1, size)


def _cut(mesh: NamedSharding, name: str, places: _Places) -> str | None:
    rows = _along(mesh, name, places.numbers)
    bad = np.flatnonzero((rows != rows[:, :1]).any(axis=1))
    if not bad.size:
        return None
    group = _along(mesh, name, mesh.ranks)[bad[0]].tolist()
    row = rows[bad[0]].tolist()
    at = next(index for index, place in enumerate(row) if place != row[0])
    before, after = (places.names[row[at - 1]], places.names[row[at]])
    coords = mesh.get_worker_coords(group[0])
    others = ", ".join(f"{axis}={coord}" for axis, coord in coords.items() if axis != name)
    more = f"; {bad.size - 1} more groups are cut too" if bad.size > 1 else ""
    return (
        f"the ranks {_listed(group)} along {name}{f' at {others}' if others else ''} must share a "
        f"{places.what}, but they are cut between rank {group[at - 1]} ({before}) and rank "
        f"{group[at]} ({after}){more}"
    )


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown}, ... ({len(numbers)} in all)" if len(numbers) > 8 else shown


def _remedy(mesh: NamedSharding, localities: Mapping[str, Locality], where: _Where) -> str:
    layout = _rearranged(mesh, localities, where)
    if layout is None:
        return _sizes_that_work(mesh, localities, where)
    if layout.size <= 64:
        return f"this layout of the same axes works: {layout.layout.tolist()}"
    inner = _names(mesh, localities, Locality.SAME_NODE)
    middle = _names(mesh, localities, Locality.SAME_DOMAIN)
    order = ", then ".join(" x ".join(names) for names in (inner, middle) if names)
    return (
        f"count the ranks node by node with {order} varying fastest; nearest_layout() gives "
        f"that layout"
    )


def _names(
    mesh: NamedSharding, localities: Mapping[str, Locality], locality: Locality
) -> list[str]:
    return [name for name in mesh.names if localities.get(name, Locality.ANYWHERE) is locality]


def _sizes_that_work(mesh: NamedSharding, localities: Mapping[str, Locality], where: _Where) -> str:
    step = 1
    names: list[str] = []
    for locality, places in (
        (Locality.SAME_NODE, where.nodes),
        (Locality.SAME_DOMAIN, where.domains),
    ):
        names += _names(mesh, localities, locality)
        size = prod(mesh.get_axis_size(name) for name in names)
        held = np.bincount(np.array(places.numbers)).tolist()
        common = gcd(*held)
        if common % size:
            best = max((m for m in range(step, size, step) if common % m == 0), default=None)
            least, most = min(held), max(held)
            span = f"{least}" if least == most else f"{least} to {most}"
            nearest = "" if best is None else f", such as {best}"
            return (
                f"no layout works: {' x '.join(names)} is {size}, and the {places.what}s hold "
                f"{span} ranks; choose a product that divides {common}{nearest}"
            )
        step = size
    return "no layout works: choose smaller axes"


def _rearranged(
    mesh: NamedSharding, localities: Mapping[str, Locality], where: _Where
) -> NamedSharding | None:
    inner = _names(mesh, localities, Locality.SAME_NODE)
    middle = _names(mesh, localities, Locality.SAME_DOMAIN)
    per_node = prod(mesh.get_axis_size(name) for name in inner)
    per_domain = per_node * prod(mesh.get_axis_size(name) for name in middle)
    if any(count % per_node for count in np.bincount(np.array(where.nodes.numbers)).tolist()):
        return None
    if middle and any(
        count % per_domain for count in np.bincount(np.array(where.domains.numbers)).tolist()
    ):
        return None
    placed = zip(where.domains.numbers, where.nodes.numbers, mesh.ranks, strict=True)
    ranks = [rank for _, _, rank in sorted(placed)]
    order = [*_names(mesh, localities, Locality.ANYWHERE), *middle, *inner]
    shaped = np.array(ranks, dtype=np.int64).reshape([mesh.get_axis_size(name) for name in order])
    return NamedSharding(shaped.transpose([order.index(name) for name in mesh.names]), mesh.names)
