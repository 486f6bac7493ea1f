"""Where every worker of a group is and what it is told: the launch as a plan."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

from attrs import frozen

from planner.accelerators import GpuVisibility, accelerator_of
from planner.affinity import Affinity, plan_affinity
from planner.environment import EnvVar, Origin, overlay
from planner.findings import CoordinateError, Finding, Findings
from planner.group import GroupSpec, WorkerOverrides
from planner.host_facts import HostFacts
from planner.inventory import BundleFacts
from planner.launch_places import (
    Seat,
    check_places,
    domains_of,
    nodes_used,
    plan_rank_ports,
    topology_of,
)
from planner.launch_plan import LaunchPlan, Rendezvous, WorkerPlan
from planner.outcomes import RankIdentity
from planner.profiling import profiler_of
from planner.slots import Slot
from planner.topology import sort_bundles
from planner.whole_numbers import whole_number

__all__ = [
    "HostFacts",
    "LaunchPlan",
    "Rendezvous",
    "WorkerPlan",
    "environment_of",
    "identity_of",
    "plan_launch",
    "slot_order",
]

DATA_PARALLEL = "data_parallel"


def plan_launch(
    spec: GroupSpec, facts: Sequence[HostFacts], meeting_address: str | None = None
) -> LaunchPlan:
    """Give every host its rank, and every rank what it is told.

    Ranks keep the caller's order where the caller chose one; otherwise they follow the hardware:
    placement groups per node in their order, then nodes (NVLink domain, topology rank, address),
    then GPU ids.

    Args:
        spec: The group.
        facts: Where each host landed, in slot order.
        meeting_address: The address of rank 0 that the other nodes reach; None for its node's.

    Raises:
        PlanError: What landed contradicts what the plan needs: a GPU used twice in the group, a
            missing GPU, an axis that is cut and must not be, too few ports, or tied groups that
            disagree with the data-parallel axis.
    """
    findings = Findings(f"worker group {spec.name!r}")
    if len(facts) != len(spec.slots):
        findings.fail(
            "facts",
            f"{len(facts)} hosts reported for {len(spec.slots)} slots",
            "give one report per slot",
        )
    order = slot_order(spec, facts)
    _check_gpus(spec, facts, order, findings)
    leaders, shards = _shards(spec, order, findings)
    ranked = {rank: facts[index] for rank, index in enumerate(order)}
    cuts = check_places(spec.places, spec.mesh, [ranked[rank].node_id for rank in ranked], findings)
    ports: dict[int, tuple[int, int]] = {}
    if spec.places.wants_ports:
        seats = [
            Seat(node_id=facts[index].node_id, tied_group=_tied_group(spec, rank, index))
            for rank, index in enumerate(order)
        ]
        ports = plan_rank_ports(spec.name, spec.places, seats, ranked, findings)
    findings.check()
    bound, told = (
        plan_affinity(ranked, nodes_used(ranked)) if spec.places.numa_binding else ({}, ())
    )
    workers = _workers(spec, facts, order, shards, ports, bound)
    first = facts[order[0]]
    return LaunchPlan(
        group=spec.name,
        worker_class=spec.worker_class,
        interpreter=spec.interpreter,
        gpu_visibility=spec.gpu_visibility,
        asynchronous=spec.asynchronous,
        mesh=spec.mesh,
        leaders=leaders,
        rendezvous=Rendezvous(address=meeting_address or first.address, port=first.port),
        environment=spec.environment,
        runtime_env=spec.runtime_env,
        options=spec.options,
        workers=workers,
        notes=(*spec.notes, *cuts, *told),
        localities=spec.places.localities,
    )


def slot_order(spec: GroupSpec, facts: Sequence[HostFacts]) -> tuple[int, ...]:
    """For each rank, the index of the slot whose host it is."""
    if spec.keeps_order:
        return tuple(range(len(spec.slots)))
    return tuple(_hardware_order(spec.slots, facts, topology_of(spec.places.topology)))


def _tied_group(spec: GroupSpec, rank: int, index: int) -> int:
    return spec.slots[index].tied_group if spec.keeps_order else rank


def _hardware_order(
    slots: Sequence[Slot],
    facts: Sequence[HostFacts],
    topology: Mapping[str, tuple[str | None, int | None]],
) -> list[int]:
    groups: dict[int, list[int]] = {}
    for index, slot in enumerate(slots):
        groups.setdefault(slot.placement_group, []).append(index)
    order: list[int] = []
    for group in sorted(groups):
        index_of = {slots[index].bundle: index for index in groups[group]}
        bundles = (
            BundleFacts(
                placement_group=group,
                bundle=slots[index].bundle,
                node_id=facts[index].node_id,
                address=facts[index].address,
                gpus=facts[index].gpus,
            )
            for index in groups[group]
        )
        order += [index_of[each.bundle] for each in sort_bundles(bundles, topology)]
    return order


def _check_gpus(
    spec: GroupSpec, facts: Sequence[HostFacts], order: Sequence[int], findings: Findings
) -> None:
    first: dict[tuple[str, str], int] = {}
    shared: dict[tuple[str, str], list[int]] = {}
    for rank, index in enumerate(order):
        fact, share = facts[index], _share_of(spec, index)
        if share and not fact.gpus:
            findings.add(
                f"rank {rank}",
                f"its host on node {fact.address} was promised {share / 10_000:g} of a GPU and "
                "sees none",
                "check the GPUs of this node; exclude it if they are gone",
            )
        for gpu in fact.gpus:
            holder = first.setdefault((fact.node_id, gpu), rank)
            if holder != rank:
                shared.setdefault((fact.node_id, gpu), [holder]).append(rank)
    for (node_id, gpu), ranks in sorted(shared.items()):
        findings.add(
            f"GPU {gpu} of node {facts[order[ranks[0]]].address}",
            f"ranks {', '.join(map(str, ranks))} of one group hold it (node {node_id})",
            "give each rank of a group a GPU of its own: one worker per bundle",
        )


def _shards(
    spec: GroupSpec, order: Sequence[int], findings: Findings
) -> tuple[tuple[int, ...], Sequence[int]]:
    slots = [spec.slots[index] for index in order]
    tied_leaders = tuple(rank for rank, slot in enumerate(slots) if slot.is_leader)
    if spec.mesh is None or DATA_PARALLEL not in spec.mesh.names:
        if spec.keeps_order:
            return tied_leaders, [slot.tied_group for slot in slots]
        return tied_leaders, range(len(slots))
    layout = spec.mesh.layout
    axis = spec.mesh.get_axis_index(DATA_PARALLEL)
    size = spec.mesh.sizes[axis]
    by_shard = layout.swapaxes(0, axis).reshape(size, -1)
    lead = layout[tuple(slice(None) if a == axis else 0 for a in range(layout.ndim))]
    leaders = tuple(lead.tolist())
    shards = [0] * len(slots)
    for shard, ranks in enumerate(by_shard.tolist()):
        for rank in ranks:
            shards[rank] = shard
    tied = any(len(slot.tied_bundles) > 1 for slot in slots)
    if tied and sorted(leaders) != sorted(tied_leaders):
        findings.add(
            "sharding_annotations",
            f"its axis 'data_parallel' has {size} shards led by ranks {_few(leaders)}, but "
            f"bundle_indices_list has {len(tied_leaders)} tied groups led by {_few(tied_leaders)}",
            "make each tied group one data-parallel shard, leader at coordinate 0",
        )
    return leaders, shards


def _few(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return f"{shown}, ..." if len(ranks) > 8 else shown


def _share_of(spec: GroupSpec, index: int) -> int:
    asked = spec.overrides[index].gpu_share if spec.overrides else None
    return spec.gpu_share if asked is None else asked


def _workers(
    spec: GroupSpec,
    facts: Sequence[HostFacts],
    order: Sequence[int],
    shards: Sequence[int],
    ports: Mapping[int, tuple[int, int]],
    bound: Mapping[int, Affinity],
) -> tuple[WorkerPlan, ...]:
    nodes = _nodes(spec, facts, order)
    switched_on = _switched_on(spec.environment.variables)
    seated: Counter[str] = Counter()
    workers: list[WorkerPlan] = []
    for rank, index in enumerate(order):
        slot, fact = spec.slots[index], facts[index]
        name = slot.name(spec.name)
        override = spec.overrides[index] if spec.overrides else None
        accelerator = accelerator_of(fact.accelerator, fact.visible_variables)
        node, place = nodes[fact.node_id], seated[fact.node_id]
        seated[fact.node_id] = place + 1
        visible, local_rank = _devices(
            _visibility(spec, override, accelerator.opt_out, switched_on),
            fact.gpus,
            node.gpus,
            place,
        )
        workers.append(
            WorkerPlan(
                rank=rank,
                name=name,
                tied_group=_tied_group(spec, rank, index),
                member=slot.member,
                data_parallel_shard=shards[rank],
                node=slot.node,
                placement_group=slot.placement_group,
                bundle=slot.bundle,
                tied_bundles=slot.tied_bundles if slot.is_leader else None,
                gpu_share=_share_of(spec, index),
                node_id=fact.node_id,
                node_rank=node.rank,
                node_local_rank=place,
                local_world_size=node.ranks,
                local_rank=local_rank,
                address=fact.address,
                gpus=fact.gpus,
                visible=visible,
                device_variable=accelerator.visible,
                overrides=override,
                domain=node.domain,
                ports=ports.get(rank),
                affinity=bound.get(rank),
                profiler=profiler_of(spec.places.profiles, name),
                uuids=fact.uuids,
            )
        )
    return tuple(workers)


@frozen(kw_only=True)
class _UsedNode:
    rank: int
    ranks: int
    gpus: tuple[str, ...]
    domain: str | None


def _nodes(
    spec: GroupSpec, facts: Sequence[HostFacts], order: Sequence[int]
) -> dict[str, _UsedNode]:
    """The nodes of the group, in the order in which ranks come to them."""
    domains = domains_of(spec.places.topology)
    gpus: dict[str, list[str]] = {}
    ranks: Counter[str] = Counter()
    for fact in (facts[index] for index in order):
        gpus.setdefault(fact.node_id, []).extend(fact.gpus)
        ranks[fact.node_id] += 1
    return {
        node_id: _UsedNode(
            rank=place,
            ranks=ranks[node_id],
            gpus=tuple(dict.fromkeys(held)),
            domain=domains.get(node_id),
        )
        for place, (node_id, held) in enumerate(gpus.items())
    }


def _visibility(
    spec: GroupSpec, override: WorkerOverrides | None, opt_out: str, switched_on: Container[str]
) -> GpuVisibility:
    own = _switched_on(override.environment) if override else frozenset[str]()
    if opt_out in switched_on or opt_out in own:
        return GpuVisibility.UNMASKED
    return spec.gpu_visibility


def _switched_on(variables: Iterable[EnvVar]) -> frozenset[str]:
    no = {None, "", "0", "false", "False"}
    return frozenset(each.name for each in variables if each.value not in no)


def _devices(
    mode: GpuVisibility, own: tuple[str, ...], on_node: tuple[str, ...], node_local_rank: int
) -> tuple[tuple[str, ...] | None, int]:
    if not own:
        return None, node_local_rank
    if mode is GpuVisibility.UNMASKED:
        # Device 0 may be another group's: the process sees every GPU of the node, so its own has
        # the index that Ray counts it by.
        return None, int(own[0]) if own[0].isdecimal() else node_local_rank
    if mode is GpuVisibility.SHARED:
        return on_node, on_node.index(own[0])
    return own, 0


def environment_of(plan: LaunchPlan, rank: int) -> tuple[EnvVar, ...]:
    """Everything that a rank's environment is given, sorted by name, each with its origin.

    Raises:
        CoordinateError: (an ``IndexError``) The plan has no such rank.
    """
    worker = _worker_of(plan, rank)
    defaults: tuple[EnvVar, ...] = ()
    if worker.local_world_size > 1:
        # Otherwise every rank starts one thread per core of the node (torchrun does the same).
        defaults = (EnvVar(name="OMP_NUM_THREADS", value="1", origin=Origin.DEFAULT),)
    extra = worker.overrides.environment if worker.overrides else ()
    told = tuple(
        EnvVar(name=name, value=value, origin=Origin.RANK)
        for name, value in _contract(plan, worker).items()
    )
    return overlay(defaults, plan.environment.variables, extra, told)


def _worker_of(plan: LaunchPlan, rank: int) -> WorkerPlan:
    number = whole_number(rank)
    if number is None or not 0 <= number < plan.world_size:
        finding = Finding(
            "rank", f"{rank!r} is not one of its ranks", f"give 0 to {plan.world_size - 1}"
        )
        raise CoordinateError(f"worker group {plan.group!r}", [finding])
    return plan.workers[number]


def _contract(plan: LaunchPlan, worker: WorkerPlan) -> Mapping[str, str]:
    told = {
        "RANK": str(worker.rank),
        "WORLD_SIZE": str(plan.world_size),
        "LOCAL_RANK": str(worker.local_rank),
        "LOCAL_WORLD_SIZE": str(worker.local_world_size),
        "GROUP_RANK": str(worker.node_rank),
        "GROUP_WORLD_SIZE": str(plan.node_count),
        "NODE_RANK": str(worker.node_rank),
        "ROLE_RANK": str(worker.rank),
        "ROLE_WORLD_SIZE": str(plan.world_size),
        "ROLE_NAME": plan.group,
        "MASTER_ADDR": plan.rendezvous.address,
        "RANKPLAN_NODE_LOCAL_RANK": str(worker.node_local_rank),
    }
    if plan.rendezvous.port is not None:
        told["MASTER_PORT"] = str(plan.rendezvous.port)
    if worker.ports is not None:
        told["RANKPLAN_PORTS"] = f"{worker.ports[0]}-{worker.ports[1]}"
    if worker.visible is not None:
        told[worker.device_variable] = ",".join(worker.visible)
    return told


def identity_of(plan: LaunchPlan, rank: int, pid: int | None = None) -> RankIdentity:
    """Who a rank is, for messages.

    Raises:
        CoordinateError: (an ``IndexError``) The plan has no such rank.
    """
    worker = _worker_of(plan, rank)
    coordinates = plan.mesh.get_worker_coords(rank).items() if plan.mesh else ()
    return RankIdentity(
        rank=rank,
        coordinates=tuple(coordinates),
        node=worker.address,
        gpus=worker.gpus,
        pid=pid,
    )
