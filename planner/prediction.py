"""A dry run: the complete launch plan of every group, from an inventory and without Ray.

The plan is made by the same functions that make it of what was observed (``plan_group``,
``plan_launch``), so the two can be compared field by field (``planner.difference``). What only a
launch can know stays open: the rendezvous port, and what ``configure_worker`` answers unless it
is given.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from planner.configured import with_overrides
from planner.findings import Findings, PlanError, ResourceInsufficientError
from planner.gpu_ledger import GpuLedger, bundle_shares, held_amounts
from planner.group import FULL_GPU, GroupArguments, GroupSpec, gpu_share_of, plan_group
from planner.group_places import PlaceArguments
from planner.host_facts import HostFacts
from planner.inventory import BundleFacts, Inventory, Node
from planner.launch import LaunchPlan, plan_launch
from planner.node_choice import chosen_nodes, hardware_order, places_of, why_no_node
from planner.option_fit import check_options_fit
from planner.ports import PortRange
from planner.requests import GroupRequest, Strategy
from planner.reservation import ReservationPlan, plan_reservation, predicted_bundles
from planner.topology import sort_bundles
from planner.virtual_cluster import ClusterSpec, reservation_request

__all__ = [
    "ClusterIntent",
    "Prediction",
    "port_ranges",
    "predict_bundle_order",
    "predict_launch",
    "predict_launches",
    "predicted_facts",
]


@frozen(kw_only=True)
class ClusterIntent:
    """A ``RayVirtualCluster`` and the groups that will share its bundles.

    Attributes:
        spec: The cluster, made by ``plan_cluster``.
        groups: Its groups, in the order in which they will start. Their bundle counts and GPU
            shares are filled in here.
        unified: Whether its bundles are in one placement group.
        strategy: Overrides the cluster's strategy for a unified placement group.
        answers: By the index of a group, what ``configure_worker`` will answer for each slot.
    """

    spec: ClusterSpec
    groups: tuple[GroupArguments, ...] = field(converter=tuple[GroupArguments, ...])
    unified: bool = False
    strategy: Strategy | None = None
    answers: Mapping[int, Sequence[object]] = field(factory=dict)


@frozen(kw_only=True)
class Prediction:
    """What will be reserved and launched.

    Attributes:
        reservation: Where the bundles of all clusters go.
        launches: One plan for each group, cluster by cluster.
    """

    reservation: ReservationPlan
    launches: tuple[LaunchPlan, ...]


def predict_launch(
    spec: ClusterSpec,
    group: GroupArguments,
    inventory: Inventory,
    *,
    unified: bool = False,
    answers: Sequence[object] = (),
) -> LaunchPlan:
    """The launch plan of one group on a cluster of its own.

    Args:
        spec: The cluster, made by ``plan_cluster``.
        group: The group.
        inventory: The nodes.
        unified: Whether the bundles are in one placement group.
        answers: What ``configure_worker`` will answer for each slot, where it is known.

    Raises:
        PlanError: The group can't be launched there; every reason is in the error.
    """
    intent = ClusterIntent(
        spec=spec, groups=(group,), unified=unified, answers={0: answers} if answers else {}
    )
    _check_types([intent], inventory, alone=True)
    return predict_launches([intent], inventory).launches[0]


def predict_launches(clusters: Sequence[ClusterIntent], inventory: Inventory) -> Prediction:
    """The launch plans of several groups on one or several clusters.

    Args:
        clusters: The clusters, in the order in which they will be reserved.
        inventory: The nodes that all share.

    Raises:
        PlanError: Something can't be launched; every reason is in the error.
    """
    _check_types(clusters, inventory)
    named = _distinct(clusters)
    nodes = _with_topology(named, inventory)
    requests = [_request(each, index) for index, each in enumerate(named)]
    marked = _marked(named, nodes)
    _check_usable(named, nodes)
    reservation = plan_reservation(requests, marked)
    reservation.check()
    launches: list[LaunchPlan] = []
    findings = Findings("prediction")
    for intent in named:
        facts = _bundles(intent, reservation, marked)
        try:
            launches.extend(_groups(intent, facts, marked, launches))
        except PlanError as error:
            findings.include(error, f"cluster {intent.spec.pool!r}" if len(named) > 1 else "")
    findings.check()
    return Prediction(reservation=reservation, launches=tuple(launches))


def predict_bundle_order(spec: ClusterSpec, inventory: Inventory) -> tuple[int, ...]:
    """The bundles of a unified placement group in the order of the hardware.

    Raises:
        PlanError: They do not fit.
    """
    intent = ClusterIntent(spec=spec, groups=(), unified=True)
    nodes = _with_topology([intent], inventory)
    reservation = plan_reservation([_request(intent, 0)], _marked([intent], nodes))
    facts = _bundles(intent, reservation, nodes)
    return tuple(each.bundle for each in sort_bundles(facts, _topology(nodes)))


def port_ranges(plan: LaunchPlan) -> tuple[PortRange, ...]:
    """The ports that a group's workers hold, each range once; ``node_id`` is the address."""
    seen: dict[tuple[str, int, int], int] = {}
    for worker in plan.workers:
        if worker.ports is not None:
            seen.setdefault((worker.address, *worker.ports), worker.rank)
    return tuple(
        PortRange(node_id=node, group=plan.group, engine=rank, first=first, count=last - first + 1)
        for (node, first, last), rank in seen.items()
    )


def predicted_facts(bundle: BundleFacts, node: Node, *, uses_gpu: bool) -> HostFacts:
    """What a host in a bundle of a node will report."""
    held = bundle.gpus if uses_gpu else ()
    known = {str(gpu.index): gpu for gpu in node.gpus}
    uuids = [known[gpu].uuid for gpu in held if gpu in known]
    return HostFacts(
        node_id=bundle.node_id,
        address=bundle.address,
        gpus=held,
        uuids=tuple(uuid for uuid in uuids if uuid is not None),
        visible_variables=("CUDA_VISIBLE_DEVICES",) if held else (),
        numa=node.numa,
        gpu_numa=tuple(known[gpu].numa_node for gpu in held if gpu in known),
    )


def _check_types(clusters: object, inventory: object, *, alone: bool = False) -> None:
    """Do nothing when everything is of the type that is asked for.

    Args:
        clusters: The clusters.
        inventory: The nodes.
        alone: Whether there is one cluster and one group, given as ``spec`` and ``group``.
    """
    findings = Findings("prediction")
    if isinstance(clusters, Iterable):
        for index, each in enumerate(clusters):
            _check_intent("" if alone else f"clusters[{index}]", each, findings)
    else:
        problem = f"a value of type {type(clusters).__name__}"
        findings.add("clusters", problem, "give a list of ClusterIntent")
    if not isinstance(inventory, Inventory):
        problem = f"a value of type {type(inventory).__name__}"
        findings.add("inventory", problem, "give an Inventory, as read_inventory() makes it")
    findings.check()


def _check_intent(path: str, intent: object, findings: Findings) -> None:
    if not isinstance(intent, ClusterIntent):
        findings.add(path, f"a value of type {type(intent).__name__}", "give a ClusterIntent")
        return
    spec: object = intent.spec
    inside = f"{path}." if path else ""
    if not isinstance(spec, ClusterSpec):
        problem = f"a value of type {type(spec).__name__}"
        findings.add(f"{inside}spec", problem, "give what plan_cluster makes")
    groups: Sequence[object] = intent.groups
    for index, group in enumerate(groups):
        where = f"{path}.groups[{index}]" if path else "group"
        if not isinstance(group, GroupArguments):
            findings.add(where, f"a value of type {type(group).__name__}", "give GroupArguments")
            continue
        places: object = group.places
        if not isinstance(places, PlaceArguments):
            problem = f"a value of type {type(places).__name__}"
            findings.add(f"{where}.places", problem, "give PlaceArguments")


def _distinct(clusters: Sequence[ClusterIntent]) -> list[ClusterIntent]:
    """The clusters with names of their own, as the reservation planner needs them."""
    names: set[str] = set()
    made: list[ClusterIntent] = []
    for index, each in enumerate(clusters):
        name = each.spec.pool if each.spec.pool not in names else f"{each.spec.pool}-{index}"
        names.add(name)
        made.append(evolve(each, spec=evolve(each.spec, name=name)))
    return made


def _with_topology(clusters: Sequence[ClusterIntent], inventory: Inventory) -> Inventory:
    places: dict[str, tuple[str, int]] = {}
    for each in clusters:
        for node_id, domain, rank in each.spec.nodes.topology or ():
            places.setdefault(node_id, (domain, rank))
    if not places:
        return inventory
    return Inventory(
        evolve(node, nvlink_domain=places[node.node_id][0], topology_rank=places[node.node_id][1])
        if node.node_id in places
        else node
        for node in inventory.nodes
    )


def _mark(index: int) -> str:
    return f"rankplan/cluster-{index}"


def _is_restricted(intent: ClusterIntent) -> bool:
    return bool(intent.spec.nodes.excluded) or intent.spec.nodes.topology is not None


def _request(intent: ClusterIntent, index: int) -> GroupRequest:
    request = reservation_request(
        intent.spec, unified=intent.unified, strategy=intent.strategy or intent.spec.strategy
    )
    if not _is_restricted(intent):
        return request
    return evolve(request, labels=(*request.labels, (_mark(index), "yes")))


def _marked(clusters: Sequence[ClusterIntent], inventory: Inventory) -> Inventory:
    """The nodes with a label for each cluster that may use only some of them."""
    marks: dict[str, list[tuple[str, str]]] = {}
    for index, each in enumerate(clusters):
        if _is_restricted(each):
            for node in chosen_nodes(each.spec.nodes, inventory).nodes:
                marks.setdefault(node.node_id, []).append((_mark(index), "yes"))
    if not marks:
        return inventory
    return Inventory(
        evolve(node, labels=(*node.labels, *marks.get(node.node_id, ())))
        for node in inventory.nodes
    )


def _check_usable(clusters: Sequence[ClusterIntent], inventory: Inventory) -> None:
    """Do nothing when every cluster may use some node."""
    findings = Findings("reservation")
    for each in clusters:
        found = why_no_node(each.spec.nodes, inventory)
        if found is not None:
            path = f"cluster {each.spec.pool!r}.{found.path}" if len(clusters) > 1 else found.path
            findings.add(path, found.problem, found.remedy)
    findings.check(ResourceInsufficientError)


def _topology(inventory: Inventory) -> dict[str, tuple[str | None, int | None]]:
    return {node_id: (domain, rank) for node_id, domain, rank in places_of(inventory)}


def _bundles(
    intent: ClusterIntent, reservation: ReservationPlan, inventory: Inventory
) -> tuple[BundleFacts, ...]:
    facts = predicted_bundles(reservation, inventory, intent.spec.pool)
    if intent.unified:
        return facts
    position = {group: at for at, group in enumerate(hardware_order(facts, inventory))}
    moved = [evolve(each, placement_group=position[each.placement_group]) for each in facts]
    return tuple(sorted(moved, key=lambda each: (each.placement_group, each.bundle)))


def _check_answers(answers: object, spec: GroupSpec) -> None:
    workers = len(spec.slots)
    given = f"a value of type {type(answers).__name__}"
    count = -1
    if isinstance(answers, Sequence) and not isinstance(answers, str):
        count = len(answers)
        given = f"{count} answers"
    if count != workers:
        Findings(f"worker group {spec.name!r}").fail(
            "answers",
            f"{given} for {workers} workers",
            "give a list with what configure_worker answers for each worker",
        )


def _groups(
    intent: ClusterIntent,
    facts: Sequence[BundleFacts],
    inventory: Inventory,
    before: Sequence[LaunchPlan],
) -> list[LaunchPlan]:
    made: list[LaunchPlan] = []
    topology = places_of(inventory)
    colocated = intent.spec.max_colocated_worker_groups
    share = gpu_share_of(use_gpus=intent.spec.use_gpus, colocated=colocated)
    budget = FULL_GPU if intent.spec.use_gpus else 0
    holds = intent.spec.resources.bundle(colocated, use_gpus=intent.spec.use_gpus)
    ledger = GpuLedger(colocated=colocated, budget=budget, others=held_amounts(holds))
    bundles = {(each.placement_group, each.bundle): each for each in facts}
    counts: dict[int, int] = {}
    for each in facts:
        counts[each.placement_group] = counts.get(each.placement_group, 0) + 1
    for index, given in enumerate(intent.groups):
        others = (*before, *made)
        spec = plan_group(
            evolve(
                given,
                bundle_counts=tuple(counts[group] for group in sorted(counts)),
                gpu_share=share,
                names_taken=frozenset(w.name for plan in others for w in plan.workers),
                places=evolve(
                    given.places,
                    topology=topology,
                    ports_taken=tuple(held for plan in others for held in port_ranges(plan)),
                ),
            )
        )
        check_options_fit(spec, dict.fromkeys(bundles, holds))
        answers = intent.answers.get(index, ())
        if answers:
            _check_answers(answers, spec)
            spec = with_overrides(spec, answers)
        ledger = ledger.with_group(spec.name, bundle_shares(spec))
        hosts: list[HostFacts] = []
        for at, slot in enumerate(spec.slots):
            bundle = bundles[slot.placement_group, slot.bundle]
            asked = spec.overrides[at].gpu_share if spec.overrides else None
            uses_gpu = bool(share if asked is None else asked)
            hosts.append(predicted_facts(bundle, inventory.node(bundle.node_id), uses_gpu=uses_gpu))
        made.append(plan_launch(spec, hosts))
    return made
