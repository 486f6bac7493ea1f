"""Which variable makes which accelerator visible, as a table.

Source: ``ray._private.accelerators`` of Ray 2.60. A new accelerator is one more row.
"""

from enum import Enum
from functools import lru_cache

from attrs import frozen

__all__ = ["ACCELERATORS", "Accelerator", "GpuVisibility", "accelerator_of"]


class GpuVisibility(Enum):
    """Which of its node's GPUs a worker's process sees.

    ``isolated``: its own only, as device 0; ``LOCAL_RANK`` is 0. What one-GPU inference engines
    expect, and what Ray does by itself.
    ``shared``: those of all the group's workers on the node, in local-rank order; ``LOCAL_RANK``
    picks one. What NCCL is fastest with, above all on NVSwitch machines.
    ``unmasked``: all of the node's; nothing is set, ``LOCAL_RANK`` is its GPU's index on the node.
    """

    ISOLATED = "isolated"
    SHARED = "shared"
    UNMASKED = "unmasked"


@frozen(kw_only=True)
class Accelerator:
    """One family of accelerators.

    Attributes:
        name: The vendor's name for it.
        resource: The Ray resource that counts it.
        visible: The variable that lists the visible devices.
        opt_out: The variable that stops Ray from setting ``visible``.
    """

    name: str
    resource: str
    visible: str
    opt_out: str


ACCELERATORS: tuple[Accelerator, ...] = tuple(
    Accelerator(
        name=name, resource=resource, visible=visible, opt_out=f"RAY_EXPERIMENTAL_NOSET_{noset}"
    )
    for name, resource, visible, noset in (
        ("NVIDIA GPU", "GPU", "CUDA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
        ("AMD GPU", "GPU", "HIP_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        ("Intel GPU", "GPU", "ZE_AFFINITY_MASK", "ZE_AFFINITY_MASK"),
        ("Ascend NPU", "NPU", "ASCEND_RT_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"),
        ("Gaudi HPU", "HPU", "HABANA_VISIBLE_MODULES", "HABANA_VISIBLE_MODULES"),
        ("AWS Neuron", "neuron_cores", "NEURON_RT_VISIBLE_CORES", "NEURON_RT_VISIBLE_CORES"),
        ("Google TPU", "TPU", "TPU_VISIBLE_CHIPS", "TPU_VISIBLE_CHIPS"),
        ("Rebellions NPU", "RBLN", "RBLN_DEVICES", "RBLN_DEVICES"),
        ("Furiosa NPU", "FURIOSA", "FURIOSA_DEVICES", "FURIOSA_DEVICES"),
        ("Mobilint NPU", "MBLT", "QBRUNTIME_VISIBLE_DEVICES", "MBLT_RT_VISIBLE_DEVICES"),
        ("Tenstorrent NPU", "TTNPU", "TT_VISIBLE_DEVICES", "TT_VISIBLE_DEVICES"),
    )
)
"""Every family that Ray schedules; for a resource with several, the first is assumed."""


@lru_cache(maxsize=256)
def accelerator_of(resource: str, variables: tuple[str, ...] = ()) -> Accelerator:
    """The family that a resource counts; ``variables`` are those that Ray has set on the node."""
    rows = [row for row in ACCELERATORS if row.resource == resource]
    return next((row for row in rows if row.visible in variables), (rows or [ACCELERATORS[0]])[0])
