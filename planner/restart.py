"""Ranks that start again: with what, where they must come back, and the plan with them in it."""

from collections.abc import Collection, Mapping, Sequence

from attrs import evolve

from planner.actor_names import base_name
from planner.findings import Findings, PlanError
from planner.group import GroupSpec, HostRequest, plan_hosts
from planner.host_facts import HostFacts
from planner.inventory import BundleFacts
from planner.launch import LaunchPlan, Rendezvous, WorkerPlan, plan_launch
from planner.meeting import meeting_candidates
from planner.preflight import HostLook
from planner.recovery import RestartedRank
from planner.slots import regroup

__all__ = [
    "bundles_on",
    "doors_of",
    "in_rank_order",
    "moved_bundles",
    "plan_restart",
    "restart_hosts",
    "restarted_spec",
    "with_first_names",
]


def bundles_on(
    plan: LaunchPlan, nodes: Collection[str], absent: Collection[int] = ()
) -> tuple[tuple[int, int], ...]:
    """Placement group and bundle of the ranks on some nodes, sorted.

    Those of ranks that were given up (``absent``) are kept for their return.
    """
    return tuple(
        sorted(
            {
                (worker.placement_group, worker.bundle)
                for worker in plan.workers
                if worker.node_id in nodes and worker.rank not in absent
            }
        )
    )


def moved_bundles(
    bundles: Sequence[tuple[int, int]],
    lost: Collection[str],
    landed: Sequence[BundleFacts],
    live: Collection[str],
) -> tuple[tuple[int, int, str], ...]:
    """Those bundles of lost nodes that the cluster has given to a living node by now.

    Args:
        bundles: Placement group and bundle, in the order in which they are wanted.
        lost: Nodes that are lost.
        landed: Where the bundles of the cluster are.
        live: Nodes that are there.

    Returns:
        Placement group, bundle and node.
    """
    nodes = {(each.placement_group, each.bundle): each.node_id for each in landed}
    found = [(group, bundle, nodes.get((group, bundle), "")) for group, bundle in bundles]
    return tuple(each for each in found if each[2] in live and each[2] not in lost)


def in_rank_order(spec: GroupSpec, order: Sequence[int]) -> GroupSpec:
    """A group whose slots are its ranks, so that whoever starts again gets its old rank.

    Args:
        spec: The group as it was asked for.
        order: For each rank the index of its slot.
    """
    slots = tuple(spec.slots[index] for index in order)
    return evolve(
        spec,
        slots=slots if spec.keeps_order else regroup(slots),
        overrides=tuple(spec.overrides[index] for index in order) if spec.overrides else (),
        keeps_order=True,
    )


def restarted_spec(spec: GroupSpec, restarted: Sequence[RestartedRank]) -> GroupSpec:
    """A group in rank order, with the ranks that start again in their new bundles."""
    slots = list(spec.slots)
    for each in restarted:
        slots[each.rank] = evolve(
            slots[each.rank], placement_group=each.placement_group, bundle=each.bundle
        )
    return evolve(spec, slots=tuple(slots))


def restart_hosts(
    spec: GroupSpec, restarted: Sequence[RestartedRank]
) -> tuple[tuple[int, HostRequest], ...]:
    """The hosts to start, each with its rank: as at the launch, under their new names."""
    requests = plan_hosts(spec)
    return tuple(
        (
            each.rank,
            evolve(
                requests[each.rank],
                name=each.name,
                placement_group=each.placement_group,
                bundle=each.bundle,
            ),
        )
        for each in restarted
    )


def plan_restart(
    old: LaunchPlan,
    spec: GroupSpec,
    facts: Sequence[HostFacts],
    restarted: Sequence[RestartedRank],
    meeting_address: str | None = None,
) -> LaunchPlan:
    """The group with some ranks started again, made as at the launch.

    Those that go on keep what they were told: their environment can't be changed any more. A rank
    that starts again on its old machine keeps its ports, which are free again.

    Args:
        old: The group before.
        spec: ``restarted_spec`` of the group.
        facts: Where each host is, in rank order; of those that start again, where it landed now.
        restarted: Who starts again, and where.
        meeting_address: The address of a new rank 0 that the others which start have reached;
            None when nobody tried.

    Raises:
        PlanError: A rank came back elsewhere than it should, or what landed contradicts what the
            group needs.
    """
    findings = Findings(f"worker group {old.group!r}, restart")
    for each in restarted:
        _check_return(old.workers[each.rank], each, facts[each.rank], findings)
    try:
        planned = plan_launch(spec, facts, meeting_address)
    except PlanError as error:
        findings.include(error)
        raise PlanError(findings.subject, findings.found) from error
    findings.check()
    names = {each.rank: each.name for each in restarted}
    workers = tuple(
        _returned(kept, new, names[new.rank]) if new.rank in names else kept
        for new, kept in zip(planned.workers, old.workers, strict=True)
    )
    meeting = _meeting(old, planned) if 0 in names else old.rendezvous
    return evolve(old, workers=workers, rendezvous=meeting)


def _check_return(
    old: WorkerPlan, restarted: RestartedRank, found: HostFacts, findings: Findings
) -> None:
    remedy = "look at the node and its bundles, then call recover() again, or end the group"
    if restarted.node_id is not None and found.node_id != restarted.node_id:
        findings.add(
            f"rank {old.rank}",
            f"it was to start again in bundle {restarted.bundle} of placement group "
            f"{restarted.placement_group} on node {restarted.node_id}, and it is on node "
            f"{found.address} ({found.node_id})",
            remedy,
        )
    elif found.node_id == old.node_id and found.gpus != old.gpus:
        findings.add(
            f"rank {old.rank}",
            f"it was to start again with {_gpus(old.gpus)} of node {found.address}, and it has "
            f"{_gpus(found.gpus)}",
            remedy,
        )


def _gpus(gpus: Sequence[str]) -> str:
    return f"GPU {', '.join(gpus)}" if gpus else "no GPU"


def _returned(old: WorkerPlan, new: WorkerPlan, name: str) -> WorkerPlan:
    return evolve(new, name=name, ports=old.ports if old.address == new.address else new.ports)


def _meeting(old: LaunchPlan, planned: LaunchPlan) -> Rendezvous:
    """Where a new rank 0 is met: on its old node at the address that the others have reached."""
    if old.workers[0].node_id != planned.workers[0].node_id:
        return planned.rendezvous
    return evolve(planned.rendezvous, address=old.rendezvous.address)


def doors_of(
    old: LaunchPlan, looks: Mapping[int, HostLook], visitors: Sequence[int]
) -> tuple[str, ...]:
    """At which addresses of a new rank 0 those that start with it knock; the likeliest first.

    Ranks that go on are not asked, so on its old node the address stays that which they reached.

    Args:
        old: The group before.
        looks: What the ranks that start have seen; rank 0 is among them.
        visitors: Those of them that knock.
    """
    if looks[0].node_id == old.workers[0].node_id:
        return (old.rendezvous.address,)
    return meeting_candidates(looks[0], [looks[rank] for rank in visitors])


def with_first_names(plan: LaunchPlan) -> LaunchPlan:
    """The plan without generations in its names, as it is compared with a prediction."""
    return evolve(
        plan, workers=tuple(evolve(each, name=base_name(each.name)) for each in plan.workers)
    )
