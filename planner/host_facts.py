"""What one host process says about where it is, observed or predicted."""

from attrs import frozen

from planner.nodes import NumaNode
from planner.ports import ReservedPorts

__all__ = ["HostFacts"]


@frozen(kw_only=True)
class HostFacts:
    """Where one host landed; observed, or predicted from an inventory.

    Attributes:
        node_id: Its node.
        address: The address under which other nodes reach it.
        gpus: Ids of the GPUs that it was given, as Ray counts them on its node.
        accelerator: The Ray resource they are counted by.
        pid: Its process; None when predicted.
        port: A port that it holds; None when predicted.
        uuids: Hardware ids of its GPUs, where it can tell.
        visible_variables: Device variables that Ray has set for it.
        numa: The NUMA nodes of its machine, with the cores that it may use; empty when nobody
            asked.
        gpu_numa: The NUMA node of each of its GPUs; None for one that is not known.
        reserved_ports: Ports of its machine that others hand out or hold.
    """

    node_id: str
    address: str
    gpus: tuple[str, ...] = ()
    accelerator: str = "GPU"
    pid: int | None = None
    port: int | None = None
    uuids: tuple[str, ...] = ()
    visible_variables: tuple[str, ...] = ()
    numa: tuple[NumaNode, ...] = ()
    gpu_numa: tuple[int | None, ...] = ()
    reserved_ports: tuple[ReservedPorts, ...] = ()
