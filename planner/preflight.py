"""Whether the nodes are as the plan needs them: facts of the hosts in, a table of verdicts out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import frozen

from planner.findings import Finding, Findings

__all__ = [
    "GpuLook",
    "HostLook",
    "ModuleLook",
    "PreflightReport",
    "PreflightRow",
    "State",
    "WantedHost",
    "exclude_remedy",
    "judge_hosts",
    "lost_bundles",
    "verdict_on",
]

GIB = 1024**3


class State(Enum):
    """What a check came to."""

    GOOD = "good"
    NOTE = "note"
    FAILED = "failed"


@frozen(kw_only=True)
class ModuleLook:
    """Where the module of the worker's class is on a node, found without importing it.

    Attributes:
        depth: How many parts of the class's name are modules that were found.
        origin: The file or folder of the last one.
        version: The version of the distribution with the name of the first part; may be empty.
    """

    depth: int
    origin: str
    version: str


@frozen(kw_only=True)
class GpuLook:
    """What NVML says of one GPU; None for what it does not say."""

    index: int
    found: bool
    kind: str | None = None
    uuid: str | None = None
    total: int | None = None
    free: int | None = None
    numa_node: int | None = None


@frozen(kw_only=True)
class HostLook:
    """What one host saw on its node.

    Attributes:
        rank: Its rank.
        node_id: Its node.
        address: Its node's address.
        python: Python's version.
        ray: Ray's version.
        interpreter: The interpreter's path.
        module: The worker's module; None when nobody asked.
        gpus: Its GPUs; None where there is no NVIDIA driver.
        addresses: Interface and address of all its node has.
    """

    rank: int
    node_id: str
    address: str
    python: str
    ray: str
    interpreter: str = ""
    module: ModuleLook | None = None
    gpus: tuple[GpuLook, ...] | None = None
    addresses: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class WantedHost:
    """What every host must be like.

    Attributes:
        worker_class: The full name of the class it shall import.
        python: The driver's Python version; the first two numbers must be equal.
        ray: The driver's Ray version.
        exclusive_gpus: Whether the GPUs are this group's alone.
        free_gpu_memory: Bytes that must be free on every GPU; 0 for no matter.
    """

    worker_class: str
    python: str
    ray: str
    exclusive_gpus: bool = False
    free_gpu_memory: int = 0


@frozen(kw_only=True)
class PreflightRow:
    """One verdict, for all ranks of a node alike.

    Attributes:
        node: The node's address.
        node_id: The node's id.
        ranks: Whom it concerns.
        check: What was looked at.
        state: What it came to.
        found: What was found.
        remedy: What would work; empty when it is good.
    """

    node: str
    node_id: str
    ranks: tuple[int, ...]
    check: str
    state: State
    found: str
    remedy: str = ""


@frozen(kw_only=True)
class PreflightReport:
    """All verdicts, by node in rank order."""

    rows: tuple[PreflightRow, ...] = ()

    @property
    def failed(self) -> tuple[PreflightRow, ...]:
        """What must be mended before the group can start."""
        return tuple(row for row in self.rows if row.state is State.FAILED)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The failed rows as findings."""
        return tuple(
            Finding(f"node {row.node}, {_ranks(row.ranks)}, {row.check}", row.found, row.remedy)
            for row in self.failed
        )

    @property
    def nodes_to_exclude(self) -> tuple[str, ...]:
        """The ids of the nodes on which something failed, in rank order."""
        return tuple(dict.fromkeys(row.node_id for row in self.failed))

    def __add__(self, other: "PreflightReport") -> "PreflightReport":
        return PreflightReport(rows=(*self.rows, *other.rows))

    def text(self) -> str:
        """The table, one line for each verdict."""
        header = ("node", "ranks", "check", "verdict", "found")
        lines = [header] + [
            (row.node, _ranks(row.ranks), row.check, row.state.value, row.found)
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(line, (*widths, 0), strict=True)
            ).rstrip()
            for line in lines
        )


def judge_hosts(
    looks: Sequence[HostLook], wanted: WantedHost, beside: Sequence[HostLook] = ()
) -> PreflightReport:
    """The verdicts on interpreter, versions, class and GPUs of every node.

    Args:
        looks: What the hosts saw, in rank order.
        wanted: What they must be like.
        beside: What the hosts of ranks that go on saw when they were started. Nothing is said of
            them; the others must have the same class, and other GPUs.
    """
    rows: list[PreflightRow] = []
    by_node: dict[str, list[HostLook]] = {}
    for look in looks:
        by_node.setdefault(look.node_id, []).append(look)
    usual = _usual_module(beside) or _usual_module(looks)
    for same in by_node.values():
        rows.append(_python_row(same, wanted))
        rows.append(_ray_row(same, wanted))
        rows.extend(_class_rows(same, wanted, usual))
        rows.extend(_gpu_rows(same, wanted, beside))
    return PreflightReport(rows=tuple(rows))


def verdict_on(
    same: Sequence[HostLook], check: str, state: State, found: str, remedy: str = ""
) -> PreflightRow:
    """One verdict on hosts of one node; a failed one without a remedy gets the usual one."""
    first = same[0]
    return PreflightRow(
        node=first.address,
        node_id=first.node_id,
        ranks=tuple(look.rank for look in same),
        check=check,
        state=state,
        found=found,
        remedy=remedy or ("" if state is not State.FAILED else exclude_remedy(first.node_id)),
    )


def exclude_remedy(node_id: str) -> str:
    """What works when a node is not as it must be."""
    return f"mend the node, or plan again with exclude_nodes=[{node_id!r}] on the cluster"


def _python_row(same: Sequence[HostLook], wanted: WantedHost) -> PreflightRow:
    first = same[0]
    found = f"{first.python} at {first.interpreter}"
    if first.python.split(".")[:2] == wanted.python.split(".")[:2]:
        return verdict_on(same, "python", State.GOOD, found)
    found += f", but the driver runs {wanted.python}: Ray can't serve both"
    return verdict_on(
        same, "python", State.FAILED, found, "use the same Python version on both sides"
    )


def _ray_row(same: Sequence[HostLook], wanted: WantedHost) -> PreflightRow:
    version = same[0].ray
    if version == wanted.ray:
        return verdict_on(same, "ray", State.GOOD, version)
    found = f"{version}, but the driver has {wanted.ray}"
    return verdict_on(same, "ray", State.FAILED, found, f"install ray=={wanted.ray} on the node")


def _usual_module(looks: Sequence[HostLook]) -> ModuleLook | None:
    """What most of the hosts that found the most of the class's name have."""
    modules = [look.module for look in looks if look.module is not None]
    deepest = max((module.depth for module in modules), default=0)
    versions = Counter(module.version for module in modules if module.depth == deepest)
    if not versions:
        return None
    version = min(versions, key=lambda each: (-versions[each], each))
    return next(m for m in modules if m.depth == deepest and m.version == version)


def _class_rows(
    same: Sequence[HostLook], wanted: WantedHost, usual: ModuleLook | None
) -> list[PreflightRow]:
    module = same[0].module
    if module is None or usual is None:
        return []
    parts = wanted.worker_class.split(".")
    if module.depth == 0 or module.depth < usual.depth:
        missing = ".".join(parts[: module.depth + 1])
        found = f"there is no module {missing!r} for {wanted.worker_class}"
        if usual.depth > module.depth:
            found += f"; other nodes have {usual.origin}"
        remedy = (
            f"install it there, or plan again with exclude_nodes=[{same[0].node_id!r}] on the "
            "cluster"
            if usual.depth > module.depth
            else "check the class's full name and the group's PYTHONPATH, or register its "
            "Python environment"
        )
        return [verdict_on(same, "class", State.FAILED, found, remedy)]
    if module.version != usual.version:
        found = f"{parts[0]} {module.version or 'without a version'}, others have {usual.version}"
        remedy = f"install the same version of {parts[0]} on every node"
        return [verdict_on(same, "class", State.FAILED, found, remedy)]
    version = f" ({module.version})" if module.version else ""
    return [verdict_on(same, "class", State.GOOD, f"{module.origin}{version}")]


def _gpu_rows(
    same: Sequence[HostLook], wanted: WantedHost, beside: Sequence[HostLook]
) -> list[PreflightRow]:
    rows: list[PreflightRow] = []
    holders = {gpu.uuid: look for look in beside for gpu in look.gpus or () if gpu.uuid is not None}
    blind = [look for look in same if look.gpus is None]
    if wanted.free_gpu_memory and blind:
        found = "no NVIDIA driver is there to say how much memory is free"
        rows.append(verdict_on(blind, "GPU", State.NOTE, found))
    for look in same:
        for gpu in look.gpus or ():
            rows.append(_gpu_row(look, gpu, wanted))
            first = holders.setdefault(gpu.uuid or f"{look.rank}/{gpu.index}", look)
            if first is not look:
                found = f"GPU {gpu.index} ({gpu.uuid}) is that of rank {first.rank} too"
                remedy = "give each rank of the group a GPU of its own"
                rows.append(verdict_on([look], "GPU", State.FAILED, found, remedy))
    return rows


def _gpu_row(look: HostLook, gpu: GpuLook, wanted: WantedHost) -> PreflightRow:
    if not gpu.found:
        found = f"Ray gave GPU {gpu.index}, and the driver of the node does not know it"
        return verdict_on([look], "GPU", State.FAILED, found)
    parts = [f"GPU {gpu.index}", *([gpu.kind] if gpu.kind else []), *([gpu.uuid or ""])]
    state = State.GOOD
    if gpu.total and gpu.free is not None:
        parts.append(f"{gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB free")
        if gpu.free < wanted.free_gpu_memory:
            parts.append(f"{wanted.free_gpu_memory / GIB:.1f} GiB are wanted")
            remedy = f"end what holds it, or {exclude_remedy(look.node_id)}"
            return verdict_on([look], "GPU", State.FAILED, ", ".join(filter(None, parts)), remedy)
        if wanted.exclusive_gpus and gpu.free < gpu.total * 9 // 10:
            state = State.NOTE
            parts.append("another process holds memory of it")
    return verdict_on([look], "GPU", state, ", ".join(part for part in parts if part))


def lost_bundles(counts: Sequence[int], landed: Mapping[int, Sequence[str]]) -> tuple[Finding, ...]:
    """What has left the cluster since the bundles were reserved; empty when nothing has.

    Args:
        counts: How many bundles each placement group has.
        landed: For each placement group the addresses of its bundles' nodes; empty for a node
            that has left the cluster.
    """
    findings = Findings("reservation")
    for group, count in enumerate(counts):
        alive = sum(1 for address in landed.get(group, ()) if address)
        if alive < count:
            findings.add(
                f"placement_groups[{group}]",
                f"{count - alive} of its {count} bundles are on a node that has left the cluster",
                "call shutdown() on the cluster and start again: it reserves on the nodes left",
            )
    return findings.found


def _ranks(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}-{ranks[-1]}"
    return "ranks " + ", ".join(map(str, ranks))
