"""What a ``RayVirtualCluster`` reserves, from its arguments."""

from collections.abc import Sequence

from attrs import evolve, frozen

from planner.bundle_resources import BundleResources, checked_resources
from planner.findings import Findings
from planner.leftovers import name_in_run
from planner.node_choice import (
    DOMAIN_LABEL,
    NODE_ID_LABEL,
    NodeChoice,
    RayFeatures,
    checked_choice,
)
from planner.requests import GroupRequest, Strategy, virtual_cluster_request
from planner.reservation import NeverFits, PlacementGroupPlan, ReservationPlan
from planner.slots import whole
from planner.times import seconds_of

__all__ = [
    "BundleRequest",
    "ClusterSpec",
    "TRIES_VARIABLE",
    "checked_tries",
    "plan_bundles",
    "plan_cluster",
]


@frozen(kw_only=True)
class ClusterSpec:
    """A reservation as it was asked for.

    Attributes:
        bundle_counts: How many bundles each node gives.
        use_gpus: Whether a bundle holds a GPU.
        max_colocated_worker_groups: How many groups may share the bundles; a bundle has that
            many CPUs, unless ``resources`` says otherwise.
        num_gpus_per_node: How many GPUs a node has, for workers that ask.
        name: First part of the placement groups' names.
        strategy: Ray's strategy for a unified placement group.
        nodes: Which nodes may be used.
        resources: What each bundle holds beside its GPU.
    """

    bundle_counts: tuple[int, ...]
    use_gpus: bool
    max_colocated_worker_groups: int
    num_gpus_per_node: int
    name: str
    strategy: Strategy
    nodes: NodeChoice = NodeChoice()
    resources: BundleResources = BundleResources()

    @property
    def pool(self) -> str:
        """What the reservation planner calls it."""
        return self.name or "cluster"


EVERY_FEATURE = RayFeatures()
"""A Ray that can be told everything."""

Selector = tuple[tuple[str, str], ...]
"""Label and expression, by label."""


@frozen(kw_only=True)
class BundleRequest:
    """One placement group to ask Ray for.

    Attributes:
        name: Its name.
        strategy: Ray's strategy.
        bundles: The resources of each bundle, as pairs of name and amount.
        selectors: The node labels that each bundle asks for; empty for none.
        domain: The label of which all bundles must share a value; None for none.
        prefers: The node that Ray shall try first; None leaves it to Ray.
    """

    name: str
    strategy: Strategy
    bundles: tuple[tuple[tuple[str, float], ...], ...]
    selectors: tuple[Selector, ...] = ()
    domain: str | None = None
    prefers: str | None = None

    @property
    def named_nodes(self) -> frozenset[str]:
        """The nodes that bundles name; when one of them goes, the request can't be met."""
        return frozenset(
            value
            for selector in self.selectors
            for label, value in selector
            if label == NODE_ID_LABEL and not value.startswith(("!", "in("))
        )


def plan_cluster(
    *,
    bundle_ct_per_node_list: object,
    use_gpus: object = True,
    max_colocated_worker_groups: object = 1,
    num_gpus_per_node: object = 8,
    name: object = "",
    strategy: object = "SPREAD",
    segment_size: object = None,
    topology: object = None,
    node_selector: object = None,
    exclude_nodes: object = None,
    ready_timeout: object = 1.0,
    bundle_resources: object = None,
) -> ClusterSpec:
    """Check the arguments of a ``RayVirtualCluster``.

    Raises:
        PlanError: Some argument is wrong; every finding is in the error.
    """
    findings = Findings(f"virtual cluster {name!r}" if name else "virtual cluster")
    counts = _counts(bundle_ct_per_node_list, findings)
    colocated = _at_least_one("max_colocated_worker_groups", max_colocated_worker_groups, findings)
    per_node = _at_least_one("num_gpus_per_node", num_gpus_per_node, findings)
    if not isinstance(use_gpus, bool):
        findings.add("use_gpus", f"{use_gpus!r} is not a truth value", "give True or False")
    if not isinstance(name, str):
        findings.add("name", f"{name!r} is not a string", "give a string")
    known = checked_strategy("placement_group_strategy", strategy, findings)
    nodes = checked_choice(segment_size, topology, node_selector, exclude_nodes, findings)
    if not seconds_of(ready_timeout):
        problem = f"{ready_timeout!r} is not a time"
        findings.add("ready_timeout", problem, "give seconds, more than 0")
    resources = checked_resources(
        bundle_resources, use_gpus=use_gpus is not False, findings=findings
    )
    findings.check()
    return ClusterSpec(
        bundle_counts=counts,
        use_gpus=bool(use_gpus),
        max_colocated_worker_groups=colocated,
        num_gpus_per_node=per_node,
        name=str(name),
        strategy=known,
        nodes=nodes,
        resources=resources,
    )


TRIES_VARIABLE = "NRL_VIRTUAL_CLUSTER_MAX_RETRIES"
"""The driver's variable that says how often a cluster is looked at before it is refused."""


def checked_tries(given: str, subject: str) -> int:
    """How often to look at a cluster that does not have what is asked for.

    Raises:
        PlanError: The variable does not hold a number of 1 or more.
    """
    if not (given.isascii() and given.isdigit() and int(given)):
        Findings(subject).fail(
            TRIES_VARIABLE, f"{given!r} is not a number of tries", "set it to 1 or more"
        )
    return int(given)


def checked_strategy(path: str, strategy: object, findings: Findings) -> Strategy:
    """The strategy, if it is one that Ray knows; otherwise a finding."""
    for known in Strategy:
        if strategy is known or strategy == known.value:
            return known
    names = ", ".join(each.value for each in Strategy)
    findings.add(path, f"{strategy!r} is not a strategy", f"use one of {names}")
    return Strategy.PACK


def reservation_request(spec: ClusterSpec, *, unified: bool, strategy: Strategy) -> GroupRequest:
    """The cluster as the reservation planner takes it, to see whether and where it fits."""
    request = virtual_cluster_request(
        spec.bundle_counts,
        use_gpus=spec.use_gpus,
        max_colocated_worker_groups=spec.max_colocated_worker_groups,
        placement_group_strategy=strategy.value,
        unified=unified,
        name=spec.pool,
    )
    own = spec.resources
    cpus = request.milli_cpus_per_bundle if own.milli_cpus is None else own.milli_cpus
    return evolve(
        request,
        segment_size=spec.nodes.segment_size,
        labels=spec.nodes.selector,
        apart=True,
        milli_cpus_per_bundle=cpus,
        memory_per_bundle=own.memory,
        custom_per_bundle=own.custom,
    )


def plan_bundles(
    spec: ClusterSpec,
    *,
    unified: bool,
    strategy: Strategy | None,
    run: str,
    plan: ReservationPlan | None = None,
    features: RayFeatures = EVERY_FEATURE,
) -> tuple[BundleRequest, ...]:
    """The placement groups of a cluster.

    Per node, bundles never leave one machine (STRICT_PACK): a node's placement group that is
    spread over two would break every assumption its workers make. Unified, the strategy is the
    caller's, else the cluster's.

    Bundles name the very nodes that were planned when segments, or a topology given by hand,
    make a difference; otherwise a node's placement group prefers the one that was planned, and
    Ray may choose another that may be used. A single segment that lies where Ray's own label
    says is left to Ray's topology strategy.

    Args:
        spec: The cluster; the nodes it excludes are named by their ids (``named_by_id``).
        unified: One placement group over all nodes.
        strategy: Overrides the cluster's strategy for a unified placement group.
        run: Told apart from others of the same name by this, also in placement groups' names.
        plan: Where the bundles were planned; None leaves that to Ray.
        features: What the installed Ray can be told.
    """
    bundle = spec.resources.bundle(spec.max_colocated_worker_groups, use_gpus=spec.use_gpus)
    counts = [count for count in spec.bundle_counts if count]
    if unified:
        groups = [("unified", sum(counts))]
    else:
        nodes = [node for node, count in enumerate(spec.bundle_counts) if count]
        groups = [(f"node{node}", spec.bundle_counts[node]) for node in nodes]
    one_domain = unified and _is_one_segment(spec) and features.topology_strategy
    planned = _planned(plan, spec.pool, len(groups))
    return tuple(
        BundleRequest(
            name=name_in_run(spec.pool, part, run),
            strategy=(strategy or spec.strategy) if unified else Strategy.STRICT_PACK,
            bundles=(bundle,) * count,
            selectors=_selectors(
                spec.nodes, count, each, features, named=spec.nodes.names_nodes and not one_domain
            ),
            domain=DOMAIN_LABEL if one_domain else None,
            prefers=None if unified else _first_node(each),
        )
        for (part, count), each in zip(groups, planned, strict=True)
    )


def _is_one_segment(spec: ClusterSpec) -> bool:
    nodes = sum(1 for count in spec.bundle_counts if count)
    return spec.nodes.topology is None and spec.nodes.segment_size == nodes


def _planned(
    plan: ReservationPlan | None, pool: str, count: int
) -> Sequence[PlacementGroupPlan | None]:
    if plan is None:
        return [None] * count
    return [each for each in plan.placement_groups if each.pool == pool]


def _first_node(planned: PlacementGroupPlan | None) -> str | None:
    verdict = planned.verdicts[0] if planned is not None else None
    return None if verdict is None or isinstance(verdict, NeverFits) else verdict.node_id


def _selectors(
    choice: NodeChoice,
    count: int,
    planned: PlacementGroupPlan | None,
    features: RayFeatures,
    *,
    named: bool,
) -> tuple[Selector, ...]:
    if not features.label_selectors:
        return ()
    if named and planned is not None:
        return tuple(
            ((NODE_ID_LABEL, verdict.node_id),)
            for verdict in planned.verdicts
            if not isinstance(verdict, NeverFits)
        )
    rules = dict(choice.selector)
    if choice.excluded and NODE_ID_LABEL not in rules:
        rules[NODE_ID_LABEL] = f"!in({','.join(choice.excluded)})"
    selector = tuple(sorted(rules.items()))
    return (selector,) * count if selector else ()


def _counts(given: object, findings: Findings) -> tuple[int, ...]:
    path = "bundle_ct_per_node_list"
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        findings.add(
            path, f"{given!r} is not a list of counts", "give one count per node, as [8, 8]"
        )
        return ()
    counts: list[int] = []
    for index, asked in enumerate(given):
        count = whole(asked)
        if count is None:
            findings.add(
                f"{path}[{index}]", f"{asked!r} is not a number of bundles", "give 0 or more"
            )
        else:
            counts.append(count)
    if counts and not any(counts):
        findings.add(path, "no node gives a bundle", "give at least one bundle")
    return tuple(counts)


def _at_least_one(path: str, given: object, findings: Findings) -> int:
    number = whole(given)
    if not number:
        findings.add(path, f"{given!r} is not a number of 1 or more", "give 1 or more")
        return 1
    return number
