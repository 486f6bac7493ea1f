"""Which nodes a reservation may use, in which order, and how Ray is told.

Where Ray takes label selectors, each bundle names its node or the labels it wants. Where it does
not, Ray places as it likes, and what came back is checked.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from planner.findings import Finding, Findings
from planner.inventory import BundleFacts, Inventory
from planner.label_selectors import LabelRule, matches, parse_rule
from planner.nodes import Node, topology_key

__all__ = [
    "DOMAIN_LABEL",
    "NODE_ID_LABEL",
    "NodeChoice",
    "RayFeatures",
    "check_landed",
    "checked_choice",
    "chosen_nodes",
    "hardware_order",
    "named_by_id",
    "places_of",
    "remaining_nodes",
    "why_no_node",
]

NODE_ID_LABEL = "ray.io/node-id"
"""The label in which Ray keeps a node's id."""

DOMAIN_LABEL = "ray.io/gpu-domain"
"""The label in which Ray keeps a node's NVLink domain."""


@frozen(kw_only=True)
class RayFeatures:
    """What the installed Ray can be told about placement.

    Attributes:
        label_selectors: Whether each bundle may name the labels of its node (Ray 2.50 and later).
        topology_strategy: Whether a placement group may be kept in one NVLink domain (Ray 2.56
            and later; the arguments of its function tell).
    """

    label_selectors: bool = True
    topology_strategy: bool = True


@frozen(kw_only=True)
class NodeChoice:
    """Which nodes a reservation may use.

    Attributes:
        segment_size: Nodes in a segment of one NVLink domain; None when that does not matter.
        selector: Label and expression that every node must obey, by label.
        topology: Node id, NVLink domain and topology rank, as the caller gave them: only these
            nodes are used. None takes what the cluster's labels say, and every node.
        excluded: Node ids or addresses that are not used.
    """

    segment_size: int | None = None
    selector: tuple[tuple[str, str], ...] = ()
    topology: tuple[tuple[str, str, int], ...] | None = None
    excluded: tuple[str, ...] = ()

    @property
    def names_nodes(self) -> bool:
        """Whether bundles must lie on the very nodes that were planned."""
        return self.segment_size is not None or self.topology is not None


def checked_choice(
    segment_size: object,
    topology: object,
    node_selector: object,
    exclude_nodes: object,
    findings: Findings,
) -> NodeChoice:
    """The choice, if it is well-formed; otherwise findings."""
    size: int | None = None
    if segment_size is not None:
        if isinstance(segment_size, int) and not isinstance(segment_size, bool):
            size = segment_size
        if size is None or size < 1:
            problem = f"{segment_size!r} is not a number of nodes"
            findings.add("segment_size", problem, "give 1 or more, or leave it out")
            size = None
    return NodeChoice(
        segment_size=size,
        selector=_selector(node_selector, findings),
        topology=_topology(topology, findings),
        excluded=_excluded(exclude_nodes, findings),
    )


def _selector(given: object, findings: Findings) -> tuple[tuple[str, str], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        problem = f"a value of type {type(given).__name__}"
        findings.add("node_selector", problem, "give labels and expressions, as {'rack': 'r1'}")
        return ()
    pairs: list[tuple[str, str]] = []
    for label, expression in given.items():
        if not isinstance(expression, str) or parse_rule(str(label), expression) is None:
            problem = f"{expression!r} is no label expression"
            remedy = "write v, !v, in(a, b) or !in(a, b)"
            findings.add(f"node_selector[{label!r}]", problem, remedy)
        else:
            pairs.append((str(label), expression))
    return tuple(sorted(pairs))


def _topology(given: object, findings: Findings) -> tuple[tuple[str, str, int], ...] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        problem = f"a value of type {type(given).__name__}"
        remedy = "give node ids with (NVLink domain, topology rank), or None for the labels'"
        findings.add("topology", problem, remedy)
        return None
    places: list[tuple[str, str, int]] = []
    for node_id, place in given.items():
        good = isinstance(place, list | tuple) and len(place) == 2
        domain, rank = place if good else (None, None)
        if not isinstance(domain, str) or not isinstance(rank, int) or isinstance(rank, bool):
            problem = f"{place!r} is no place"
            findings.add(f"topology[{node_id!r}]", problem, "give (NVLink domain, topology rank)")
        else:
            places.append((str(node_id), domain, rank))
    return tuple(sorted(places))


def _excluded(given: object, findings: Findings) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        problem = f"{given!r} is not a list of nodes"
        findings.add("exclude_nodes", problem, "give node ids or addresses, as ['10.0.0.3']")
        return ()
    names = list(given)
    wrong = [each for each in names if not isinstance(each, str) or not each]
    if wrong:
        findings.add("exclude_nodes", f"{wrong[0]!r} names no node", "give ids or addresses")
    return tuple(sorted({each for each in names if isinstance(each, str) and each}))


def chosen_nodes(choice: NodeChoice, inventory: Inventory) -> Inventory:
    """The nodes that may be used, each at its place in the network.

    A name in ``excluded`` that the cluster does not have is no error: the node may be gone.
    """
    rules = [parse_rule(label, expression) for label, expression in choice.selector]
    kept = _able(choice, inventory, [rule for rule in rules if rule is not None])
    if choice.topology is None:
        return Inventory(kept)
    places = {node_id: (domain, rank) for node_id, domain, rank in choice.topology}
    return Inventory(
        evolve(node, nvlink_domain=places[node.node_id][0], topology_rank=places[node.node_id][1])
        for node in kept
        if node.node_id in places
    )


def why_no_node(choice: NodeChoice, inventory: Inventory) -> Finding | None:
    """The rule after which no node is left; None when some may be used."""
    nodes = list(inventory.nodes)
    if not nodes:
        return Finding("nodes", "the cluster has no node", "add nodes")
    named = set(choice.excluded)
    kept = [node for node in nodes if not named & {node.node_id, node.address}]
    if not kept:
        problem = f"it leaves out {_all_of(nodes)}: {_some_of(choice.excluded)}"
        return Finding("exclude_nodes", problem, "name fewer of them, or add nodes")
    nodes = kept
    for label, expression in choice.selector:
        rule = parse_rule(label, expression)
        kept = [] if rule is None else _matching(nodes, [rule])
        if not kept:
            held = {dict(_labels(node)).get(label) for node in nodes}
            values = sorted(value for value in held if value is not None)
            has = f"it is {_some_of(values)} there" if values else "they do not have the label"
            problem = f"{_none_of(nodes, inventory)} has {label}={expression}: {has}"
            return Finding("node_selector", problem, "change the rule, or add such nodes")
        nodes = kept
    given = {node_id for node_id, _, _ in choice.topology or ()}
    if choice.topology is not None and not any(node.node_id in given for node in nodes):
        ids = _some_of([node.node_id for node in nodes])
        problem = f"{_none_of(nodes, inventory)} is in it: it names {_some_of(sorted(given))}"
        return Finding("topology", problem, f"name nodes by their ids, which are {ids}")
    return None


def _all_of(nodes: Sequence[Node]) -> str:
    return "the only node" if len(nodes) == 1 else f"all {len(nodes)} nodes"


def _none_of(nodes: Sequence[Node], inventory: Inventory) -> str:
    left = "" if len(nodes) == len(inventory.nodes) else " that the rules before it leave"
    return f"none of the {len(nodes)} node{'s'[: len(nodes) > 1]}{left}"


def _some_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "none"


def named_by_id(choice: NodeChoice, inventory: Inventory) -> NodeChoice:
    """The same choice, the nodes it excludes named by the ids they have in the cluster."""
    excluded = [
        node.node_id
        for node in inventory.nodes
        if node.node_id in choice.excluded or node.address in choice.excluded
    ]
    return evolve(choice, excluded=tuple(sorted(excluded)))


def _able(choice: NodeChoice, inventory: Inventory, rules: Sequence[LabelRule]) -> list[Node]:
    named = set(choice.excluded)
    kept = [node for node in inventory.nodes if not named & {node.node_id, node.address}]
    return _matching(kept, rules)


def _matching(nodes: Iterable[Node], rules: Sequence[LabelRule]) -> list[Node]:
    return [node for node in nodes if matches(rules, _labels(node))]


def _labels(node: Node) -> tuple[tuple[str, str], ...]:
    return (*node.labels, (NODE_ID_LABEL, node.node_id))


def places_of(inventory: Inventory) -> tuple[tuple[str, str | None, int | None], ...]:
    """Node id, NVLink domain and topology rank of every node of which one of the two is known."""
    return tuple(
        (node.node_id, node.nvlink_domain, node.topology_rank)
        for node in inventory.nodes
        if node.nvlink_domain is not None or node.topology_rank is not None
    )


def hardware_order(facts: Sequence[BundleFacts], inventory: Inventory) -> tuple[int, ...]:
    """The placement groups in the order in which their ranks should be counted.

    Placement groups with as many bundles as each other change places so that they follow the
    hardware; one of another size keeps its place, which the caller chose.

    Args:
        facts: Where the bundles landed, each placement group on one node.
        inventory: The nodes.
    """
    sizes: dict[int, int] = {}
    nodes: dict[int, str] = {}
    addresses: dict[str, str] = {}
    for each in facts:
        sizes[each.placement_group] = sizes.get(each.placement_group, 0) + 1
        nodes.setdefault(each.placement_group, each.node_id)
        addresses[each.node_id] = each.address
    topology = {node_id: (domain, rank) for node_id, domain, rank in places_of(inventory)}
    key = topology_key(topology, addresses)
    order = sorted(sizes)
    for size in set(sizes.values()):
        alike = [group for group in sorted(sizes) if sizes[group] == size]
        sorted_alike = sorted(alike, key=lambda group: (key(nodes[group]), group))
        for at, group in zip([order.index(group) for group in alike], sorted_alike, strict=True):
            order[at] = group
    return tuple(order)


def remaining_nodes(inventory: Inventory, used: Iterable[str]) -> dict[str, tuple[str, int]]:
    """What the next reservation may have: node id to (NVLink domain, topology rank).

    A node of which the domain is not known is a domain of its own; one of which the rank is not
    known has its place in the inventory.

    Args:
        inventory: The nodes that could be used, in hardware order.
        used: Those that are.
    """
    taken = set(used)
    return {
        node.node_id: (
            node.nvlink_domain or node.node_id,
            position if node.topology_rank is None else node.topology_rank,
        )
        for position, node in enumerate(inventory.nodes)
        if node.node_id not in taken
    }


def check_landed(
    choice: NodeChoice, facts: Sequence[BundleFacts], inventory: Inventory, findings: Findings
) -> None:
    """Record every bundle that is where it may not be, and every segment that is broken.

    Args:
        choice: Which nodes may be used.
        facts: Where the bundles landed.
        inventory: The nodes that may be used.
        findings: Where problems are recorded.
    """
    domains = {node.node_id: node.nvlink_domain for node in inventory.nodes}
    counts: dict[str | None, set[str]] = {}
    for each in facts:
        path = f"placement_groups[{each.placement_group}].bundles[{each.bundle}]"
        if each.node_id not in domains:
            findings.add(
                path,
                f"it landed on node {each.address or each.node_id!r}, which may not be used",
                "use a Ray that takes label selectors, or keep other work off the chosen nodes",
            )
        counts.setdefault(domains.get(each.node_id), set()).add(each.node_id)
    size = choice.segment_size
    if size is None or findings:
        return
    for domain, nodes in sorted(counts.items(), key=lambda pair: str(pair[0])):
        if domain is None or len(nodes) % size:
            findings.add(
                "segment_size",
                f"{len(nodes)} nodes landed in NVLink domain {domain!r}: no whole segments of "
                f"{size}",
                "use a Ray that takes label selectors, or keep other work off the chosen nodes",
            )
