"""What a cluster has, as a value: written by hand, made from a ready shape, or observed.

Plain data looks like this (a TOML or JSON reader returns it; reading files is not done here)::

    [[nodes]]
    count = 16                     # sixteen of these; ids, addresses and ranks count upwards
    node_id = "gpu-0"
    address = "10.0.0.1"
    cpus = 128
    memory = "2TiB"
    gpus = { kind = "H100", count = 8, memory = "80GiB" }
    labels = { zone = "a" }
    nvlink_domain = "rack-0"
    topology_rank = 0
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property

from attrs import evolve, field, frozen

from planner.amounts import CPU_UNIT, GPU_UNIT, Amounts
from planner.findings import Finding, Findings, PlanError
from planner.inventory_data import node_to_data, nodes_from_table
from planner.nodes import Gpu, Node, NumaNode, nodes_in_order
from planner.tables import Table, describe

__all__ = [
    "CPU_UNIT",
    "GPU_UNIT",
    "Amounts",
    "BundleFacts",
    "Gpu",
    "Inventory",
    "Node",
    "NumaNode",
    "inventory_from_data",
    "inventory_to_data",
]


@frozen
class BundleFacts:
    """Where one bundle landed, predicted or observed.

    Attributes:
        placement_group: Which placement group of the cluster, counted from 0.
        bundle: The bundle's index in its placement group.
        node_id: The node it is on.
        address: The address of that node.
        gpus: The ids of its GPUs on that node; empty for a bundle without a GPU.
        resources: What it holds, as pairs of name and amount; empty when it is not known.
    """

    placement_group: int
    bundle: int
    node_id: str
    address: str
    gpus: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()


def _distinct_in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    given = tuple(nodes)
    findings = Findings("inventory")
    _check_distinct([(f"nodes[{index}]", node) for index, node in enumerate(given)], findings)
    findings.check()
    return nodes_in_order(given)


@frozen
class Inventory:
    """The nodes of a cluster.

    The order in which the nodes are given does not matter: they are kept by NVLink domain,
    topology rank, address as numbers, and node id, so equal clusters are equal values.

    Attributes:
        nodes: The nodes, in that order.

    Raises:
        PlanError: Two nodes have the same id, or two GPUs the same UUID.
    """

    nodes: tuple[Node, ...] = field(converter=_distinct_in_order)

    @cached_property
    def _by_id(self) -> dict[str, Node]:
        return {node.node_id: node for node in self.nodes}

    def node(self, node_id: str) -> Node:
        """The node of that id.

        Raises:
            PlanError: There is none.
        """
        if node_id not in self._by_id:
            raise PlanError("inventory", [self._unknown("node_id", node_id)])
        return self._by_id[node_id]

    @property
    def total(self) -> Amounts:
        """Everything all nodes have."""
        return _sum(node.total for node in self.nodes)

    @property
    def free_now(self) -> Amounts:
        """Everything that is free now."""
        return _sum(node.free_now for node in self.nodes)

    @property
    def gpu_count(self) -> int:
        """How many GPUs there are."""
        return sum(len(node.gpus) for node in self.nodes)

    @property
    def topology(self) -> dict[str, tuple[str, int]]:
        """Node id to (NVLink domain, topology rank), for the nodes of which both are known."""
        return {
            node.node_id: (node.nvlink_domain, node.topology_rank)
            for node in self.nodes
            if node.nvlink_domain is not None and node.topology_rank is not None
        }

    def without(self, node_ids: Iterable[str]) -> "Inventory":
        """The cluster without some nodes, to plan again around them.

        Raises:
            PlanError: A node is not there.
        """
        gone = tuple(node_ids)
        findings = Findings("inventory")
        for index, node_id in enumerate(gone):
            if node_id not in self._by_id:
                unknown = self._unknown(f"node_ids[{index}]", node_id)
                findings.add(unknown.path, unknown.problem, unknown.remedy)
        findings.check()
        return Inventory(node for node in self.nodes if node.node_id not in gone)

    def all_free(self) -> "Inventory":
        """The same cluster with nothing running on it: what could ever fit."""
        return Inventory(evolve(node, free=None) for node in self.nodes)

    def __add__(self, other: "Inventory") -> "Inventory":
        return Inventory((*self.nodes, *other.nodes))

    def _unknown(self, path: str, node_id: str) -> Finding:
        near = get_close_matches(node_id, list(self._by_id), n=3)
        shown = near or [node.node_id for node in self.nodes[:3]]
        there = f"there are {len(self.nodes)} nodes, such as {', '.join(shown)}"
        remedy = there if shown else "the inventory has no nodes"
        return Finding(path, f"there is no node {node_id!r}", remedy)


def _sum(parts: Iterable[Amounts]) -> Amounts:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return Amounts(
        milli_cpus=total.pop("CPU", 0),
        memory=total.pop("memory", 0),
        gpu_share=total.pop("GPU", 0),
        custom=total,
    )


def _check_distinct(nodes: Iterable[tuple[str, Node]], findings: Findings) -> None:
    seen: dict[str, str] = {}
    uuids: dict[str, str] = {}
    for path, node in nodes:
        first = seen.setdefault(node.node_id, path)
        if first != path:
            problem = f"the id {node.node_id!r} is that of {first}"
            findings.add(f"{path}.node_id", problem, "give each node its own id")
        for index, gpu in enumerate(node.gpus):
            place = f"{path}.gpus[{index}]"
            if gpu.uuid is not None and uuids.setdefault(gpu.uuid, place) != place:
                problem = f"{gpu.uuid!r} is that of {uuids[gpu.uuid]}"
                findings.add(f"{place}.uuid", problem, "give each GPU its own UUID")


def inventory_from_data(data: object) -> Inventory:
    """The inventory that plain nested data describes.

    Args:
        data: A table whose ``nodes`` is a list of tables. Each has ``cpus``, ``memory``,
            ``gpus`` (tables of ``kind``, ``memory``, ``index``, ``uuid``, ``numa_node``, and
            ``count`` for several alike), ``custom``, ``labels``, ``class`` (a shorthand for the
            node-group label), ``nvlink_domain``, ``topology_rank``, ``numa`` (tables of
            ``cores`` such as ``"0-31,64-95"`` and ``memory``), ``free``, ``is_head``,
            ``node_id``, ``address``; all may be left out. ``count`` makes several nodes: ids,
            addresses and topology ranks count upwards. Sizes are bytes or texts as ``"80GiB"``.

    Raises:
        PlanError: Something is wrong; the error names every place, such as
            ``nodes[3].gpus[1].memory``.
    """
    findings = Findings("inventory")
    if not isinstance(data, Mapping):
        findings.fail("data", f"{describe(data)} is not a table", "give a table with 'nodes'")
    top = Table(data, "", findings)
    if data.get("nodes") is None:
        top.wrong("nodes", "it is missing", "give a list of tables, one for each kind of node")
    found: list[tuple[str, Node]] = []
    for table in top.tables("nodes"):
        nodes = nodes_from_table(table, len(found), findings)
        found.extend((table.path, node) for node in nodes)
    top.finish()
    _check_distinct(_numbered(found), findings)
    findings.check()
    return Inventory(node for _, node in found)


def _numbered(found: Iterable[tuple[str, Node]]) -> list[tuple[str, Node]]:
    # Nodes of one table with a count share its path; the position tells them apart.
    counts: dict[str, int] = {}
    numbered: list[tuple[str, Node]] = []
    for path, node in found:
        position = counts[path] = counts.get(path, -1) + 1
        numbered.append((f"{path}#{position}" if position else path, node))
    return numbered


def inventory_to_data(inventory: Inventory) -> dict[str, object]:
    """Plain nested data from which ``inventory_from_data`` makes an equal inventory."""
    return {"nodes": [node_to_data(node) for node in inventory.nodes]}
