"""One node in plain nested data, and back."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby

from attrs import evolve

from planner.amounts import CPU_UNIT, GPU_UNIT, Amounts
from planner.findings import Findings, PlanError
from planner.nodes import NODE_CLASS_LABEL, Gpu, Node, NumaNode
from planner.tables import Table, describe

__all__ = ["node_to_data", "nodes_from_table"]

_CORES = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_MOST = 100_000
_MOST_GPUS = 1_024


def nodes_from_table(table: Table, position: int, findings: Findings) -> list[Node]:
    """The nodes that one table describes; none when something in it is wrong.

    Args:
        table: The table of a node.
        position: How many nodes came before; it names a node without an id.
        findings: Takes what is wrong.
    """
    before = len(findings.found)
    count = _count(table)
    build = _read_node(table, position)
    table.finish()
    if len(findings.found) > before:
        return []
    try:
        first = build()
    except PlanError as error:
        findings.include(error, table.path)
        return []
    return [_numbered(first, step) for step in range(count)]


def _count(table: Table) -> int:
    count = table.whole("count", smallest=1)
    if count is not None and count > _MOST:
        table.wrong("count", f"{count} is too many", f"give at most {_MOST}")
        return 1
    return 1 if count is None else count


def _read_node(table: Table, position: int) -> Callable[[], Node]:
    # Everything is read before the node is made: only what reads well is worth checking whole.
    node_id = table.text("node_id") or f"node-{position}"
    gpus, custom = _gpus(table), table.amounts("custom")
    total = Amounts(
        milli_cpus=table.amount("cpus") or 0,
        memory=table.size("memory") or 0,
        gpu_share=len(gpus) * GPU_UNIT,
        custom=custom,
    )
    free = table.table("free")
    return partial(
        Node,
        node_id=node_id,
        address=table.text("address") or node_id,
        milli_cpus=total.milli_cpus,
        memory=total.memory,
        gpus=gpus,
        custom=custom,
        labels=_labels(table),
        nvlink_domain=table.text("nvlink_domain"),
        topology_rank=table.whole("topology_rank"),
        numa=tuple(_numa(each, index) for index, each in enumerate(table.tables("numa"))),
        free=None if free is None else _free(free, total),
        is_head=table.flag("is_head"),
    )


def _labels(table: Table) -> dict[str, str]:
    labels = table.texts("labels")
    node_class = table.text("class")
    if node_class is not None:
        if labels.get(NODE_CLASS_LABEL, node_class) != node_class:
            problem = f"the label {NODE_CLASS_LABEL} says {labels[NODE_CLASS_LABEL]!r}"
            table.wrong("class", problem, "give one of the two")
        labels[NODE_CLASS_LABEL] = node_class
    return labels


def _gpus(table: Table) -> tuple[Gpu, ...]:
    gpus: list[Gpu] = []
    for each in table.tables("gpus"):
        more = _gpu_run(each, len(gpus))
        taken = sorted({gpu.index for gpu in gpus} & {gpu.index for gpu in more})
        if taken:
            each.wrong("index", f"GPU {taken[0]} is there already", "give each GPU its own index")
        gpus.extend(more)
    return tuple(gpus)


def _gpu_run(table: Table, position: int) -> list[Gpu]:
    kind = table.text("kind", required=True) or "unknown"
    memory, uuid, numa_node = table.size("memory"), table.text("uuid"), table.whole("numa_node")
    index, count = table.whole("index"), table.whole("count")
    table.finish()
    if memory == 0:
        table.wrong("memory", "it is 0 bytes", "give its size, or leave it out")
    count = 1 if count is None else count
    if count > _MOST_GPUS:
        table.wrong("count", f"{count} GPUs on one node", f"give at most {_MOST_GPUS}")
    if uuid is not None and count > 1:
        table.wrong("uuid", f"one UUID for {count} GPUs", "write these GPUs one by one")
    first = position if index is None else index
    return [
        Gpu(kind=kind, memory=memory, index=first + step, uuid=uuid, numa_node=numa_node)
        for step in range(min(count, _MOST_GPUS))
    ]


def _numa(table: Table, position: int) -> NumaNode:
    index, memory = table.whole("index"), table.size("memory")
    given = table.value("cores")
    cores = _cores(given)
    if cores is None:
        table.wrong("cores", f"{describe(given)} is not a set of cores", "write it as 0-31,64-95")
    table.finish()
    return NumaNode(index=position if index is None else index, cores=cores or (), memory=memory)


def _cores(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, str):
        return None
    cores: set[int] = set()
    for part in value.split(",") if value.strip() else ():
        match = _CORES.fullmatch(part.strip())
        if match is None or len(part) > 24:
            return None
        first = int(match.group(1))
        last = first if match.group(2) is None else int(match.group(2))
        if not first <= last <= first + 65_535:
            return None
        cores.update(range(first, last + 1))
    return tuple(sorted(cores))


def _free(table: Table, total: Amounts) -> Amounts:
    milli_cpus, memory = table.amount("cpus"), table.size("memory")
    gpu_share, custom = table.amount("gpus", GPU_UNIT), table.amounts("custom")
    table.finish()
    return Amounts(
        milli_cpus=total.milli_cpus if milli_cpus is None else milli_cpus,
        memory=total.memory if memory is None else memory,
        gpu_share=total.gpu_share if gpu_share is None else gpu_share,
        custom={**dict(total.custom), **custom},
    )


def _numbered(first: Node, step: int) -> Node:
    if not step:
        return first
    named = first.address == first.node_id
    node_id = _counted(first.node_id, step)
    rank = None if first.topology_rank is None else first.topology_rank + step
    address = node_id if named else _next_address(first.address, step)
    return evolve(first, node_id=node_id, address=address, topology_rank=rank)


def _counted(name: str, step: int) -> str:
    match = re.fullmatch(r"(.*?)([0-9]{1,12})", name)
    if match is None:
        return f"{name}-{step}"
    digits = match.group(2)
    return f"{match.group(1)}{int(digits) + step:0{len(digits)}d}"


def _next_address(address: str, step: int) -> str:
    try:
        return str(ipaddress.ip_address(address) + step)
    except (ValueError, ipaddress.AddressValueError):
        return _counted(address, step)


def _number(amount: int, unit: int = CPU_UNIT) -> int | float:
    return amount // unit if amount % unit == 0 else amount / unit


def _known(pairs: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in pairs.items() if value is not None}


def _gpu_to_data(gpu: Gpu) -> dict[str, object]:
    identity = {"kind": gpu.kind, "memory": gpu.memory, "index": gpu.index}
    return _known({**identity, "uuid": gpu.uuid, "numa_node": gpu.numa_node})


def _numa_to_data(numa: NumaNode) -> dict[str, object]:
    return _known({"index": numa.index, "cores": _ranges(numa.cores), "memory": numa.memory})


def _free_to_data(free: Amounts, total: Amounts) -> dict[str, object]:
    names = sorted({name for name, _ in (*free.custom, *total.custom)})
    return {
        "cpus": _number(free.milli_cpus),
        "memory": free.memory,
        "gpus": _number(free.gpu_share, GPU_UNIT),
        "custom": {name: _number(free.of(name)) for name in names},
    }


def _ranges(cores: tuple[int, ...]) -> str:
    parts: list[str] = []
    for _, run in groupby(enumerate(sorted(cores)), key=lambda pair: pair[1] - pair[0]):
        members = [core for _, core in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(parts)


def node_to_data(node: Node) -> dict[str, object]:
    """One node as plain data; what is not known or not there is left out."""
    return _known(
        {
            "node_id": node.node_id,
            "address": node.address,
            "cpus": _number(node.milli_cpus),
            "memory": node.memory,
            "gpus": [_gpu_to_data(gpu) for gpu in node.gpus] or None,
            "custom": {name: _number(amount) for name, amount in node.custom} or None,
            "labels": dict(node.labels) or None,
            "nvlink_domain": node.nvlink_domain,
            "topology_rank": node.topology_rank,
            "numa": [_numa_to_data(each) for each in node.numa] or None,
            "free": None if node.free is None else _free_to_data(node.free, node.total),
            "is_head": node.is_head or None,
        }
    )
