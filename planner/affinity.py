"""Which cores and which memory each rank of a node is bound to, close to its GPU.

A core and its second hardware thread usually have numbers in two runs of equal length, such as
0-55 and 112-167. Each run is cut alike, so that both threads of a core go to the same rank.
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from planner.host_facts import HostFacts
from planner.nodes import NumaNode

__all__ = ["Affinity", "bind_node", "plan_affinity"]


@frozen(kw_only=True)
class Affinity:
    """What one process is bound to.

    Attributes:
        cores: Ids of the cores that it may run on, sorted.
        numa_node: The NUMA node of its cores; None when they are not of one.
        binds_memory: Whether its memory is preferred from ``numa_node``.
    """

    cores: tuple[int, ...]
    numa_node: int | None
    binds_memory: bool


def plan_affinity(
    facts: Mapping[int, HostFacts], on_node: Mapping[str, Sequence[int]]
) -> tuple[dict[int, Affinity], tuple[str, ...]]:
    """The binding of each rank, and what a reader should know.

    Ranks of a node share no core as long as there are enough.

    Args:
        facts: Where each rank is.
        on_node: The ranks of each node, in local-rank order.
    """
    bound: dict[int, Affinity] = {}
    told: dict[str, list[str]] = {}
    for ranks in on_node.values():
        first = facts[ranks[0]]
        homes = [facts[rank].gpu_numa[0] if facts[rank].gpu_numa else None for rank in ranks]
        made, note = bind_node(first.numa, homes)
        bound.update({rank: each for rank, each in zip(ranks, made, strict=True) if each})
        if note:
            told.setdefault(note, []).append(first.address)
    notes = tuple(f"NUMA binding: {note} ({_some(nodes)})" for note, nodes in told.items())
    return bound, notes


def bind_node(
    numa: Sequence[NumaNode], homes: Sequence[int | None]
) -> tuple[list[Affinity | None], str]:
    """The binding of each local rank of one node, and what is special about it.

    Args:
        numa: The NUMA nodes, with the cores that may be used.
        homes: Per local rank the NUMA node of its GPU; None when it has none, or it is not known.
    """
    usable = [each for each in numa if each.cores]
    if not usable:
        return [None] * len(homes), "the cores of the node are not known, nothing is bound"
    known = {each.index: each for each in usable}
    placed = [
        home if home in known else usable[place * len(usable) // len(homes)].index
        for place, home in enumerate(homes)
    ]
    members: dict[int, list[int]] = {}
    for place, home in enumerate(placed):
        if home is not None:
            members.setdefault(home, []).append(place)
    bound: list[Affinity | None] = [None] * len(homes)
    notes: list[str] = []
    for home, places in sorted(members.items()):
        parts, shared = _split(known[home].cores, len(places))
        if shared:
            notes.append(f"{len(places)} ranks share the {len(known[home].cores)} cores")
        for place, cores in zip(places, parts, strict=True):
            bound[place] = Affinity(cores=cores, numa_node=home, binds_memory=len(usable) > 1)
    if len(usable) == 1:
        notes.insert(0, "there is one NUMA node, so cores are divided and memory is left alone")
    return bound, ", ".join(dict.fromkeys(notes))


def _split(cores: Sequence[int], parts: int) -> tuple[list[tuple[int, ...]], bool]:
    """The cores cut into equal parts; all of them for everyone when there are too few."""
    if len(cores) < parts:
        return [tuple(cores)] * parts, True
    runs = _runs(cores)
    if min(map(len, runs)) < parts:
        runs = [list(cores)]
    cut: list[list[int]] = [[] for _ in range(parts)]
    for run in runs:
        for part in range(parts):
            cut[part].extend(run[part * len(run) // parts : (part + 1) * len(run) // parts])
    return [tuple(sorted(each)) for each in cut], False


def _runs(cores: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return runs


def _some(addresses: Sequence[str]) -> str:
    shown = ", ".join(addresses[:3])
    return f"{shown} and {len(addresses) - 3} more" if len(addresses) > 3 else shown
