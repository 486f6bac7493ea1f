"""Ready-made inventories, so that a plan for 1,000 nodes is one line.

Shapes can be added: ``h100_nodes(16) + cpu_nodes(4)``. The figures are those of common machines
and are meant for planning; a real cluster is observed.
"""

import ipaddress

from planner.findings import Finding, PlanError
from planner.inventory import CPU_UNIT, Gpu, Inventory, Node, NumaNode
from planner.whole_numbers import whole_number

__all__ = ["cpu_nodes", "gb200_racks", "h100_nodes", "laptop"]

_GIB = 1024**3
_RACK_NODES = 18


def h100_nodes(count: int, first: int = 0) -> Inventory:
    """Nodes with 8 x H100 (80 GiB), 224 CPUs in two NUMA nodes, and 2 TiB of memory.

    Args:
        count: How many nodes.
        first: The number of the first one, to add to nodes that are already there.

    Raises:
        PlanError: ``count`` or ``first`` is negative, or no whole number.
    """
    _check(count=count, first=first)
    numa = _numa_nodes(((0, 56, 112, 168), (56, 112, 168, 224)), 1024 * _GIB)
    gpus = _gpus("H100", 80 * _GIB, 8, per_numa=4)
    return Inventory(
        Node(
            node_id=f"h100-{index}",
            address=_address("10.16.0.1", index),
            milli_cpus=224 * CPU_UNIT,
            memory=2048 * _GIB,
            gpus=gpus,
            numa=numa,
        )
        for index in range(first, first + count)
    )


def gb200_racks(racks: int, first: int = 0) -> Inventory:
    """NVL72 racks: 18 nodes with 4 x GB200 (186 GiB) each, one NVLink domain to a rack.

    Args:
        racks: How many racks.
        first: The number of the first one, to add to racks that are already there.

    Raises:
        PlanError: ``racks`` or ``first`` is negative, or no whole number.
    """
    _check(racks=racks, first=first)
    numa = _numa_nodes(((0, 72), (72, 144)), 480 * _GIB)
    gpus = _gpus("GB200", 186 * _GIB, 4, per_numa=2)
    return Inventory(
        Node(
            node_id=f"rack-{index // _RACK_NODES}-node-{index % _RACK_NODES}",
            address=_address("10.32.0.1", index),
            milli_cpus=144 * CPU_UNIT,
            memory=960 * _GIB,
            gpus=gpus,
            nvlink_domain=f"rack-{index // _RACK_NODES}",
            topology_rank=index,
            numa=numa,
        )
        for index in range(first * _RACK_NODES, (first + racks) * _RACK_NODES)
    )


def cpu_nodes(count: int, cpus: int = 64, memory: int = 256 * _GIB, first: int = 0) -> Inventory:
    """Nodes without a GPU.

    Args:
        count: How many nodes.
        cpus: Whole CPUs of each.
        memory: Bytes of memory of each.
        first: The number of the first one, to add to nodes that are already there.

    Raises:
        PlanError: A number is negative, or no whole number.
    """
    _check(count=count, cpus=cpus, memory=memory, first=first)
    return Inventory(
        Node(
            node_id=f"cpu-{index}",
            address=_address("10.48.0.1", index),
            milli_cpus=cpus * CPU_UNIT,
            memory=memory,
        )
        for index in range(first, first + count)
    )


def laptop(cpus: int = 8, memory: int = 16 * _GIB, gpus: int = 0) -> Inventory:
    """One machine that is its own cluster; without a GPU unless some are asked for.

    Raises:
        PlanError: A number is negative, or no whole number.
    """
    _check(cpus=cpus, memory=memory, gpus=gpus)
    node = Node(
        node_id="laptop",
        address="127.0.0.1",
        milli_cpus=cpus * CPU_UNIT,
        memory=memory,
        gpus=tuple(Gpu(kind="GPU", index=index) for index in range(gpus)),
        is_head=True,
    )
    return Inventory([node])


def _check(**numbers: object) -> None:
    wrong: list[Finding] = []
    for name, number in numbers.items():
        whole = whole_number(number)
        if whole is None:
            wrong.append(Finding(name, f"{number!r} is not a whole number", "give 0 or more"))
        elif whole < 0:
            wrong.append(Finding(name, f"{whole} is negative", "give 0 or more"))
    if wrong:
        raise PlanError("shape", wrong)


def _address(base: str, index: int) -> str:
    return str(ipaddress.IPv4Address(base) + index)


def _gpus(kind: str, memory: int, count: int, per_numa: int) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(kind=kind, memory=memory, index=index, numa_node=index // per_numa)
        for index in range(count)
    )


def _numa_nodes(bounds: tuple[tuple[int, ...], ...], memory: int) -> tuple[NumaNode, ...]:
    # Bounds come in pairs: the cores of a NUMA node, and their second threads.
    return tuple(
        NumaNode(
            index=index,
            cores=tuple(
                core
                for start, end in zip(each[::2], each[1::2], strict=True)
                for core in range(start, end)
            ),
            memory=memory,
        )
        for index, each in enumerate(bounds)
    )
