"""What worker groups ask of a cluster: bundles, what each needs, and who shares them."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from planner.amounts import BUILT_IN, CPU_UNIT, GPU_UNIT, Amounts, amount_pairs
from planner.findings import Findings
from planner.label_selectors import parse_rule
from planner.nodes import NODE_CLASS_LABEL

__all__ = [
    "GroupRequest",
    "Strategy",
    "check_request",
    "virtual_cluster_request",
]


class Strategy(Enum):
    """How the bundles of one placement group lie on nodes, as Ray defines it."""

    PACK = "PACK"
    SPREAD = "SPREAD"
    STRICT_PACK = "STRICT_PACK"
    STRICT_SPREAD = "STRICT_SPREAD"


def _pairs(labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    return tuple(sorted((name, value) for name, value in pairs))


@frozen(kw_only=True)
class GroupRequest:
    """What one worker group needs.

    Attributes:
        name: The group.
        bundles_per_node: How many bundles each node has, one entry per node. Each entry of 1 or
            more becomes a placement group on a single node; two may land on one node when it has
            room. With ``unified`` they all form one placement group.
        workers: Instead of ``bundles_per_node``: how many bundles in all, on as few nodes as can
            hold them.
        unified: One placement group over all nodes.
        strategy: How the bundles of a unified placement group lie; others are ``STRICT_PACK``.
        gpus_per_bundle: Whole GPUs of each bundle.
        milli_cpus_per_bundle: CPUs of each bundle in thousandths; the group's worker process.
        memory_per_bundle: Bytes of main memory of each bundle.
        custom_per_bundle: Custom resources of each bundle in thousandths; a mapping is accepted.
        pool: Groups with the same pool share its bundles; each adds its CPUs, memory and custom
            resources to every bundle, the GPUs are shared. None keeps the group on its own.
        colocated: How many workers this request stands for in each bundle.
        gpu_share: The share of each GPU that one worker gets, in ten-thousandths; None takes an
            equal part of what the others in the pool leave.
        labels: Which nodes: label to expression (``v``, ``!v``, ``in(a, b)``, ``!in(a, b)``).
        node_class: Only nodes of this class.
        exclusive: Only nodes that no other pool uses.
        segment_size: Nodes of whole NVLink segments, one entry of ``bundles_per_node`` each.
        beside: What processes outside the bundles need on every node the group uses.
        apart: Whether placement groups lie on nodes of their own where there are enough.
    """

    name: str
    bundles_per_node: tuple[int, ...] = field(default=(), converter=tuple[int, ...])
    workers: int | None = None
    unified: bool = False
    strategy: Strategy = Strategy.PACK
    gpus_per_bundle: int = 1
    milli_cpus_per_bundle: int = CPU_UNIT
    memory_per_bundle: int = 0
    custom_per_bundle: tuple[tuple[str, int], ...] = field(default=(), converter=amount_pairs)
    pool: str | None = None
    colocated: int = 1
    gpu_share: int | None = None
    labels: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs)
    node_class: str | None = None
    exclusive: bool = False
    segment_size: int | None = None
    beside: Amounts = Amounts()
    apart: bool = False

    @property
    def selector(self) -> tuple[tuple[str, str], ...]:
        """The label expressions, the node class among them."""
        chosen = () if self.node_class is None else ((NODE_CLASS_LABEL, self.node_class),)
        return tuple(sorted((*self.labels, *chosen)))


def virtual_cluster_request(
    bundle_ct_per_node_list: Sequence[int],
    *,
    use_gpus: bool = True,
    max_colocated_worker_groups: int = 1,
    placement_group_strategy: str = "SPREAD",
    unified: bool = False,
    name: str = "cluster",
) -> GroupRequest:
    """The request of a ``RayVirtualCluster``: each bundle has one CPU per colocated group.

    Raises:
        PlanError: The strategy is none of Ray's.
    """
    strategies = [each.value for each in Strategy]
    if placement_group_strategy not in strategies:
        problem = f"{placement_group_strategy!r} is no strategy"
        remedy = f"give one of {', '.join(strategies)}"
        Findings("virtual cluster").fail("placement_group_strategy", problem, remedy)
    return GroupRequest(
        name=name,
        bundles_per_node=tuple(bundle_ct_per_node_list),
        unified=unified,
        strategy=Strategy(placement_group_strategy),
        gpus_per_bundle=1 if use_gpus else 0,
        milli_cpus_per_bundle=max_colocated_worker_groups * CPU_UNIT,
        colocated=max_colocated_worker_groups,
    )


def check_request(request: GroupRequest, path: str, findings: Findings) -> None:
    """Record everything that is impossible about a request by itself."""
    if not request.name.strip():
        findings.add(f"{path}.name", "it is empty", "name the group")
    _check_bundles(request, path, findings)
    _check_needs(request, path, findings)


def _check_bundles(request: GroupRequest, path: str, findings: Findings) -> None:
    counts = request.bundles_per_node
    for index, count in enumerate(counts):
        if count < 0:
            at = f"{path}.bundles_per_node[{index}]"
            findings.add(at, f"{count} is negative", "give 0 or more")
    if request.workers is not None and counts:
        findings.add(f"{path}.workers", "bundles_per_node is given too", "give one of the two")
    elif request.workers is not None and request.workers < 1:
        findings.add(f"{path}.workers", f"{request.workers} workers", "ask for at least one")
    elif request.workers is None and not any(count > 0 for count in counts):
        findings.add(f"{path}.bundles_per_node", "there is no bundle", "ask for at least one")
    size = request.segment_size
    if size is None:
        return
    nodes = sum(1 for count in counts if count > 0)
    if request.unified and request.strategy in {Strategy.STRICT_PACK, Strategy.STRICT_SPREAD}:
        problem = f"{request.strategy.value} says how bundles lie on nodes, and so do segments"
        findings.add(f"{path}.strategy", problem, "use PACK or SPREAD with segments")
    if size < 1:
        findings.add(f"{path}.segment_size", f"{size} nodes are no segment", "give 1 or more")
    elif request.workers is not None:
        remedy = "give bundles_per_node, one entry per node"
        findings.add(f"{path}.segment_size", "segments are of nodes", remedy)
    elif nodes % size:
        problem = f"{nodes} nodes are not divisible into segments of {size}"
        fewer, more = nodes // size * size, (nodes // size + 1) * size
        remedy = f"give {fewer} or {more} nodes" if fewer else f"give {more} nodes"
        findings.add(f"{path}.segment_size", problem, remedy)


def _check_needs(request: GroupRequest, path: str, findings: Findings) -> None:
    for name, amount in (
        ("gpus_per_bundle", request.gpus_per_bundle),
        ("milli_cpus_per_bundle", request.milli_cpus_per_bundle),
        ("memory_per_bundle", request.memory_per_bundle),
    ):
        if amount < 0:
            findings.add(f"{path}.{name}", f"{amount} is negative", "give 0 or more")
    custom = [name for name, _ in request.custom_per_bundle]
    for name, amount in request.custom_per_bundle:
        if amount < 0 or not name or name in BUILT_IN or custom.count(name) > 1:
            problem = f"{amount} of {name!r} cannot be asked for"
            remedy = "name each custom resource once, with an amount of 0 or more"
            findings.add(f"{path}.custom_per_bundle.{name}", problem, remedy)
    if request.colocated < 1:
        findings.add(f"{path}.colocated", f"{request.colocated} workers", "give 1 or more")
    share = request.gpu_share
    if share is not None and not 0 <= share <= GPU_UNIT:
        remedy = f"give 0 to {GPU_UNIT} ten-thousandths"
        findings.add(f"{path}.gpu_share", f"{share} is no share of a GPU", remedy)
    for label, expression in request.labels:
        if parse_rule(label, expression) is None:
            problem = f"{expression!r} is no label expression"
            findings.add(f"{path}.labels.{label}", problem, "write v, !v, in(a, b) or !in(a, b)")
    if request.node_class is not None and parse_rule("class", request.node_class) is None:
        findings.add(f"{path}.node_class", f"{request.node_class!r} is no class", "name a class")
