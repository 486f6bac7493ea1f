"""The machines of a cluster as values, and the one order in which they are counted."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from attrs import field, frozen

from planner.amounts import GPU_UNIT, Amounts, amount_pairs, amount_text
from planner.findings import Findings, PlanError

__all__ = [
    "NODE_CLASS_LABEL",
    "Gpu",
    "NaturalKey",
    "Node",
    "NumaNode",
    "OrderKey",
    "address_key",
    "natural_key",
    "nodes_in_order",
    "topology_key",
]

NODE_CLASS_LABEL = "ray.io/node-group"
"""The label that says of what class a node is; Ray's autoscaler sets it."""

NaturalKey = tuple[tuple[int, int, str], ...]
AddressKey = tuple[int, int, NaturalKey]
OrderKey = tuple[bool, int, NaturalKey, bool, int, AddressKey, NaturalKey]


@frozen(kw_only=True)
class Gpu:
    """One GPU of a node.

    Attributes:
        kind: What it is, such as ``H100``.
        memory: Its memory in bytes; None when it is not known.
        index: Its id on the node, as the driver counts.
        uuid: Its own id, when it is known.
        numa_node: The NUMA node it hangs on, when it is known.
    """

    kind: str
    memory: int | None = None
    index: int = 0
    uuid: str | None = None
    numa_node: int | None = None


@frozen(kw_only=True)
class NumaNode:
    """Cores and memory that are close to each other.

    Attributes:
        index: Its number on the node.
        cores: The ids of its cores, sorted.
        memory: Its memory in bytes; None when it is not known.
    """

    index: int
    cores: tuple[int, ...]
    memory: int | None = None


def _label_pairs(
    labels: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    return tuple(sorted((name, value) for name, value in pairs))


def _gpus_by_index(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    return tuple(sorted(gpus, key=lambda gpu: gpu.index))


@frozen(kw_only=True)
class Node:
    """One machine of the cluster.

    Attributes:
        node_id: Its id in the cluster; unique.
        address: The address or host name at which the others reach it. Several nodes may share
            one (a test cluster on one machine).
        milli_cpus: Its CPUs in thousandths, so that sums are exact.
        memory: The main memory that can be reserved, in bytes.
        gpus: Its GPUs by index.
        custom: Custom resources in thousandths, as pairs sorted by name; a mapping is accepted.
        labels: Labels, as pairs sorted by name; a mapping is accepted.
        nvlink_domain: The NVLink domain (rack) it is part of; None when it is on its own.
        topology_rank: Its place in the network's order; None when it is not known.
        numa: Its NUMA nodes.
        free: What of all this is free now; None when it is not known, which counts as all free.
        is_head: Whether it is the cluster's head node.

    Raises:
        PlanError: A value cannot be; the error names each.
    """

    node_id: str
    address: str
    milli_cpus: int = 0
    memory: int = 0
    gpus: tuple[Gpu, ...] = field(default=(), converter=_gpus_by_index)
    custom: tuple[tuple[str, int], ...] = field(default=(), converter=amount_pairs)
    labels: tuple[tuple[str, str], ...] = field(default=(), converter=_label_pairs)
    nvlink_domain: str | None = None
    topology_rank: int | None = None
    numa: tuple[NumaNode, ...] = ()
    free: Amounts | None = None
    is_head: bool = False

    def __attrs_post_init__(self) -> None:
        findings = Findings(f"node {self.node_id!r}")
        _check_identity(self, findings)
        _check_gpus(self, findings)
        _check_numa(self, findings)
        _check_amounts(self, findings)
        findings.check()

    @property
    def total(self) -> Amounts:
        """Everything the node has."""
        return Amounts(
            milli_cpus=self.milli_cpus,
            memory=self.memory,
            gpu_share=len(self.gpus) * GPU_UNIT,
            custom=self.custom,
        )

    @property
    def free_now(self) -> Amounts:
        """What is free now; everything, when that is not known."""
        return self.total if self.free is None else self.free

    @property
    def node_class(self) -> str | None:
        """The class of the node, from its label; None without one."""
        return dict(self.labels).get(NODE_CLASS_LABEL)


def _check_identity(node: Node, findings: Findings) -> None:
    for path, text in (("node_id", node.node_id), ("address", node.address)):
        if not text.strip():
            findings.add(path, f"{text!r} names nothing", "give a text that is not empty")
    if node.nvlink_domain is not None and not node.nvlink_domain.strip():
        findings.add("nvlink_domain", "it is empty", "name the domain, or leave it out")
    if node.topology_rank is not None and node.topology_rank < 0:
        findings.add("topology_rank", f"{node.topology_rank} is negative", "count from 0")
    names = [name for name, _ in node.labels]
    for name in sorted({name for name in names if names.count(name) > 1}):
        findings.add(f"labels.{name}", "the label occurs twice", "give each label one value")


def _check_gpus(node: Node, findings: Findings) -> None:
    indices = [gpu.index for gpu in node.gpus]
    numa = [each.index for each in node.numa]
    for position, gpu in enumerate(node.gpus):
        path = f"gpus[{position}]"
        if not gpu.kind.strip():
            findings.add(f"{path}.kind", "it is empty", "name the kind of GPU, such as H100")
        if gpu.memory is not None and gpu.memory <= 0:
            findings.add(f"{path}.memory", f"{gpu.memory} bytes", "give 1 or more, or leave it out")
        if gpu.index < 0:
            findings.add(f"{path}.index", f"{gpu.index} is negative", "count from 0")
        if gpu.index in indices[:position]:
            findings.add(f"{path}.index", f"{gpu.index} occurs twice", "give each GPU its own")
        if gpu.numa_node is not None and node.numa and gpu.numa_node not in numa:
            remedy = f"the node has {', '.join(map(str, numa))}"
            findings.add(f"{path}.numa_node", f"there is no NUMA node {gpu.numa_node}", remedy)


def _check_numa(node: Node, findings: Findings) -> None:
    indices: set[int] = set()
    cores: set[int] = set()
    for position, each in enumerate(node.numa):
        path = f"numa[{position}]"
        if each.index in indices or each.index < 0:
            findings.add(f"{path}.index", f"{each.index} is negative or used", "count from 0")
        taken = sorted(cores.intersection(each.cores))
        if taken or min(each.cores, default=0) < 0:
            problem = f"core {taken[0]} is in two NUMA nodes" if taken else "a core is negative"
            findings.add(f"{path}.cores", problem, "give each core of 0 or more once")
        if each.memory is not None and each.memory < 0:
            findings.add(f"{path}.memory", f"{each.memory} is negative", "give 0 or more")
        indices.add(each.index)
        cores.update(each.cores)


def _check_amounts(node: Node, findings: Findings) -> None:
    try:
        total = node.total
    except PlanError as error:
        findings.include(error)
        return
    for resource, amount in node.free.items() if node.free is not None else ():
        if amount > total.of(resource):
            has = amount_text(resource, total.of(resource))
            problem = f"{amount_text(resource, amount)} free, but the node has {has}"
            findings.add("free", problem, "give at most what the node has")


@lru_cache(maxsize=4096)
def natural_key(text: str) -> NaturalKey:
    """A sort key under which numbers inside a text count as numbers: ``n2`` before ``n10``."""
    parts = re.split(r"([0-9]+)", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)


def address_key(address: str) -> AddressKey:
    """A sort key that orders addresses as numbers: IPv4, then IPv6, then host names."""
    bare, _, scope = address.strip("[]").partition("%")
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError:
        return (2, 0, natural_key(address))
    return (0 if parsed.version == 4 else 1, int(parsed), natural_key(scope))


def topology_key(
    topology: Mapping[str, tuple[str | None, int | None]], addresses: Mapping[str, str]
) -> Callable[[str], OrderKey]:
    """The sort key of a node id: NVLink domain, topology rank, address, node id.

    Domains follow their smallest topology rank, then their name. A node in no domain stands on
    its own at its rank, and what is not known comes last.

    Args:
        topology: Node id to (NVLink domain, topology rank); a node may be left out.
        addresses: Node id to address; a node left out is ordered by its id.
    """
    smallest: dict[str, int] = {}
    for domain, rank in topology.values():
        if domain is not None and rank is not None:
            smallest[domain] = min(rank, smallest.get(domain, rank))

    def key(node_id: str) -> OrderKey:
        domain, rank = topology.get(node_id, (None, None))
        block = rank if domain is None else smallest.get(domain)
        name = natural_key(domain) if domain is not None else ((2, 0, ""),)
        address = address_key(addresses[node_id]) if node_id in addresses else (3, 0, ())
        place = (block is None, block or 0, name, rank is None, rank or 0)
        return (*place, address, natural_key(node_id))

    return key


def nodes_in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes by NVLink domain, topology rank, address as numbers, and node id."""
    given = tuple(nodes)
    topology = {node.node_id: (node.nvlink_domain, node.topology_rank) for node in given}
    key = topology_key(topology, {node.node_id: node.address for node in given})
    return tuple(sorted(given, key=lambda node: key(node.node_id)))
