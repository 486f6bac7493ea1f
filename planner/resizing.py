"""Giving tied groups of a group up and taking them back: who ends, who starts, and where."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from attrs import field, frozen

from planner.findings import Findings
from planner.inventory import BundleFacts
from planner.launch import LaunchPlan
from planner.mesh import NamedSharding
from planner.outcomes import ranks_text
from planner.recovery import (
    RecoveryPlan,
    RestartedRank,
    bundles_text,
    gone_groups,
    gone_text,
    restarted_rank,
)
from planner.whole_numbers import whole_number

__all__ = [
    "ResizeFacts",
    "absent_after",
    "give_back_text",
    "plan_resize",
    "serving_groups",
    "serving_mesh",
    "serving_text",
]


@frozen(kw_only=True)
class ResizeFacts:
    """What is known when a change of size is planned.

    Attributes:
        live: The nodes that are there.
        landed: Where the bundles of the cluster are now: it may have moved those of ranks that
            were given up.
    """

    live: Collection[str]
    landed: Sequence[BundleFacts] = field(factory=tuple)


def plan_resize(
    plan: LaunchPlan,
    tied_groups: object,
    generation: int,
    serving: Mapping[int, bool],
    facts: ResizeFacts,
) -> RecoveryPlan:
    """Give up some tied groups of a rollout group, and take back others, by the same actions.

    Args:
        plan: The group at its full size: every tied group has its slots, used or not.
        tied_groups: The tied groups that shall serve.
        generation: The generation that this makes; the one before it stays when nothing starts.
        serving: Whether each tied group serves now.
        facts: What there is to start on.

    Raises:
        PlanError: There is no such tied group, or none would be left.
    """
    wanted = _chosen(plan, tied_groups)
    leave = [w.rank for w in plan.workers if serving[w.tied_group] and w.tied_group not in wanted]
    come = [w.rank for w in plan.workers if not serving[w.tied_group] and w.tied_group in wanted]
    keep = [w.rank for w in plan.workers if serving[w.tied_group] and w.tied_group in wanted]
    start, missing = _places(plan, come, facts, generation)
    moved = 0 in come
    return RecoveryPlan(
        group=plan.group,
        generation=generation if come else generation - 1,
        keep=tuple(keep),
        end=tuple(leave),
        start=start,
        pause=0.0,
        new_rendezvous=moved,
        tell=tuple(keep) if moved else (),
        missing=missing,
    )


def _chosen(plan: LaunchPlan, tied_groups: object) -> frozenset[int]:
    findings = Findings(f"worker group {plan.group!r}, resize")
    if not isinstance(tied_groups, Iterable) or isinstance(tied_groups, str):
        findings.fail("tied_groups", f"{tied_groups!r} is no list of tied groups", "give a list")
    given = list(tied_groups)
    last = max(worker.tied_group for worker in plan.workers)
    for index, each in enumerate(given):
        number = whole_number(each)
        if number is None or not 0 <= number <= last:
            problem = f"there is no tied group {each!r}"
            findings.add(f"tied_groups[{index}]", problem, f"use 0 to {last}")
    if not given:
        findings.add("tied_groups", "none would be left", "keep one, or end the group")
    findings.check()
    return frozenset(map(int, given))


def _places(
    plan: LaunchPlan, come: Sequence[int], facts: ResizeFacts, generation: int
) -> tuple[tuple[RestartedRank, ...], tuple[str, ...]]:
    """Each rank in its own bundle, wherever that is by now; and whose bundle is nowhere."""
    landed = {(each.placement_group, each.bundle): each.node_id for each in facts.landed}
    start: list[RestartedRank] = []
    homeless: dict[str, list[int]] = {}
    gone = dict[int, list[int]]()
    removed = gone_groups(plan, facts.landed)
    for rank in come:
        worker = plan.workers[rank]
        if worker.placement_group in removed:
            gone.setdefault(worker.placement_group, []).append(rank)
            continue
        node_id = landed.get((worker.placement_group, worker.bundle))
        if node_id is None or node_id not in facts.live:
            homeless.setdefault(worker.address, []).append(rank)
            continue
        place = (worker.placement_group, worker.bundle, node_id)
        left = None if worker.node_id in facts.live else worker.node_id
        start.append(restarted_rank(plan, rank, place, generation, left))
    waiting = (
        f"{bundles_text(len(ranks))} for {ranks_text(ranks)}: node {address} is lost, and the "
        f"cluster has not given {'it' if len(ranks) == 1 else 'them'} to another yet: add a "
        f"node, or leave out {_tied_text(plan, ranks)}"
        for address, ranks in sorted(homeless.items())
    )
    lost = (gone_text(group, ranks) for group, ranks in sorted(gone.items()))
    return tuple(start), (*lost, *waiting)


def _tied_text(plan: LaunchPlan, ranks: Iterable[int]) -> str:
    groups = sorted({plan.workers[rank].tied_group for rank in ranks})
    return f"tied group{'s'[: len(groups) != 1]} {', '.join(map(str, groups))}"


def serving_groups(plan: LaunchPlan, absent: Collection[int]) -> dict[int, bool]:
    """Whether each tied group serves, from the ranks that were given up."""
    serving = {worker.tied_group: True for worker in plan.workers}
    return serving | {plan.workers[rank].tied_group: False for rank in absent}


def absent_after(absent: Collection[int], plan: RecoveryPlan) -> frozenset[int]:
    """The ranks that are given up once a change of size has been carried out."""
    return frozenset({*absent, *plan.end}.difference(each.rank for each in plan.start))


def serving_mesh(mesh: NamedSharding, absent: Collection[int]) -> NamedSharding:
    """The axes over the ranks that serve, for calls on all of them.

    Along each axis the coordinates stay at which any rank serves, in their order. Where some rank
    at those coordinates was given up, the rest has no axes: the mesh stays as it is, and calls
    on all of it are refused.
    """
    if not absent:
        return mesh
    layout = mesh.layout
    serves = ~np.isin(layout, sorted(absent))
    if not serves.any():
        return mesh
    others = [tuple(a for a in range(layout.ndim) if a != axis) for axis in range(layout.ndim)]
    kept = np.ix_(*(np.flatnonzero(serves.any(axis=each)) for each in others))
    return NamedSharding(layout[kept], mesh.names) if serves[kept].all() else mesh


def serving_text(plan: LaunchPlan, absent: Collection[int]) -> str:
    """How the ranks that serve can be called, as part of a sentence; empty where no axis helps."""
    mesh = plan.mesh or NamedSharding(range(plan.world_size), ["rank"])
    for axis, size in mesh.shape.items():
        for coord in range(size):
            if not set(absent).intersection(mesh.get_ranks_by_coord(**{axis: coord})):
                return f", as with group.at({axis}={coord})"
    return ""


def give_back_text(plan: LaunchPlan, absent: Collection[int], wanted: Iterable[int]) -> str:
    """How ranks that were given up are taken back, as part of a sentence."""
    again = {plan.workers[rank].tied_group for rank in wanted}
    serving = {group for group, serves in serving_groups(plan, absent).items() if serves}
    return f"take them back with group.resize({sorted(again | serving)})"
