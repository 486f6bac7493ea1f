"""Which placement groups a program needs, with which bundles on which nodes, and what fits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from attrs import evolve, frozen

from planner.amounts import GPU_UNIT, Amounts
from planner.assignment import Units, assign
from planner.findings import Finding, PlanError, ResourceInsufficientError
from planner.inventory import BundleFacts, Inventory
from planner.pools import Pool, PoolMember, pools_of
from planner.requests import GroupRequest, Strategy, virtual_cluster_request
from planner.verdicts import Fits, FitsWhenFree, NeverFits, Verdict

__all__ = [
    "Fits",
    "FitsWhenFree",
    "GroupRequest",
    "NeverFits",
    "PlacementGroupPlan",
    "Pool",
    "PoolMember",
    "ReservationPlan",
    "Strategy",
    "Verdict",
    "plan_reservation",
    "predicted_bundles",
    "virtual_cluster_request",
]

_Place = tuple[int, int, Verdict]
"""Placement group, bundle, and why it is told."""


@frozen(kw_only=True)
class PlacementGroupPlan:
    """One placement group.

    Attributes:
        pool: The pool it belongs to.
        index: Its number in the pool, from 0.
        strategy: How its bundles lie on nodes.
        needs: What each of its bundles needs; they are all alike.
        selector: Label to expression for every bundle.
        verdicts: For each bundle, by its index, where it goes or why it cannot.
    """

    pool: str
    index: int
    strategy: Strategy
    needs: Amounts
    selector: tuple[tuple[str, str], ...]
    verdicts: tuple[Verdict, ...]

    @property
    def name(self) -> str:
        """A name for it that no other placement group of the plan has."""
        return f"{self.pool}/{self.index}"


@frozen(kw_only=True)
class ReservationPlan:
    """The placement groups of some worker groups on a cluster.

    Attributes:
        pools: Who shares which bundles, with proven shares; ``units`` are the bundles of each
            placement group.
        placement_groups: By pool, then by number.
        node_names: Node id and what a reader knows the node by, sorted by id, of those that
            lack something: the address, followed by the id where nodes share an address.
    """

    pools: tuple[Pool, ...]
    placement_groups: tuple[PlacementGroupPlan, ...]
    node_names: tuple[tuple[str, str], ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every bundle fits now."""
        return all(isinstance(each, Fits) for each in self._verdicts())

    @property
    def possible(self) -> bool:
        """Whether every bundle fits at least once what is busy becomes free."""
        return not any(isinstance(each, NeverFits) for each in self._verdicts())

    def _verdicts(self) -> Iterator[Verdict]:
        return (verdict for group in self.placement_groups for verdict in group.verdicts)

    def processes(self) -> tuple[tuple[str, int], ...]:
        """Node id and how many worker processes are planned on it, sorted by node id."""
        counts: Counter[str] = Counter()
        members = {pool.name: pool.members for pool in self.pools}
        for group in self.placement_groups:
            for bundle, verdict in enumerate(group.verdicts):
                if not isinstance(verdict, NeverFits):
                    counts[verdict.node_id] += sum(
                        member.colocated
                        for member in members[group.pool]
                        if bundle < member.bundles[group.index]
                    )
        return tuple(sorted((node_id, count) for node_id, count in counts.items() if count))

    def findings(self, *, now: bool = False) -> tuple[Finding, ...]:
        """What does not fit: one finding for all bundles of a pool that lack the same.

        Args:
            now: Whether bundles that only have to wait count too.
        """
        return tuple(finding for pool in self.pools for finding in self._of_pool(pool, now=now))

    def _of_pool(self, pool: Pool, *, now: bool) -> Iterator[Finding]:
        same: dict[tuple[str, ...], list[_Place]] = {}
        held: Counter[tuple[int, str]] = Counter()
        asked = 0
        for group in (each for each in self.placement_groups if each.pool == pool.name):
            asked += len(group.verdicts)
            for bundle, verdict in enumerate(group.verdicts):
                lacks = verdict.lacks
                if lacks and (now or isinstance(verdict, NeverFits)):
                    same.setdefault(lacks, []).append((group.index, bundle, verdict))
                if not isinstance(verdict, NeverFits):
                    held[group.index, verdict.node_id] += 1
        for places in same.values():
            yield _finding(pool, places, held, asked, dict(self.node_names))

    def check(self, *, now: bool = False) -> None:
        """Do nothing when the plan is possible.

        Args:
            now: Whether it must fit at once, with what is free.

        Raises:
            ResourceInsufficientError: Bundles cannot be placed; it names all of them, and also
                those that only have to wait.
        """
        if self.possible and not (now and not self.fits):
            return
        raise ResourceInsufficientError("reservation", self.findings(now=True))


def _finding(
    pool: Pool,
    places: Sequence[_Place],
    held: Counter[tuple[int, str]],
    asked: int,
    names: Mapping[str, str],
) -> Finding:
    index, bundle, verdict = places[0]
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    which = f"(placement_groups[{index}].bundles[{bundle}]{more})"
    rules = f" with {_rules(pool)}" if pool.selector else ""
    bundles = f"{asked} bundle{'s'[: asked > 1]} of {pool.needs}{rules}"
    if isinstance(verdict, FitsWhenFree):
        text = verdict.text(names.get(verdict.node_id, verdict.node_id))
        first = f"the first: {text}" if more else text
        problem = f"{len(places)} of {bundles} must wait, {first} {which}"
        return Finding(pool.name, problem, "wait, or end what holds it")
    fit = sum(held.values())
    result = f"{fit or 'none'} {'fits' if fit < 2 else 'fit'}"
    closest = verdict.closest if isinstance(verdict, NeverFits) else None
    text = (
        "" if isinstance(verdict, Fits) else verdict.text(names.get(closest or "", closest or ""))
    )
    problem = f"{bundles} asked for, {result}: {text} {which}"
    return Finding(pool.name, problem, _remedy(pool, verdict, held))


def _rules(pool: Pool) -> str:
    return " and ".join(f"{label}={expression}" for label, expression in pool.selector)


def _remedy(pool: Pool, verdict: Verdict, held: Counter[tuple[int, str]]) -> str:
    placed = sum(held.values())
    largest = max(held.values(), default=0)
    if not placed and isinstance(verdict, NeverFits) and verdict.left < verdict.has:
        return "other groups of the plan take what there is: ask for less in all, or add nodes"
    if not placed and pool.selector:
        return "change the labels, ask for less in each bundle, or add such nodes"
    if not placed:
        return f"ask for less in each bundle{_how(verdict)}, or add nodes that hold one"
    alone = pool.strategy is Strategy.STRICT_PACK and not pool.flexible
    if alone and max(pool.units) > largest:
        return f"at most {largest} of them share a node: ask for that many per node, or fewer"
    return f"ask for at most {placed} bundles in all, or add nodes"


def _how(verdict: Verdict) -> str:
    """How a virtual cluster asks for less of what is missing."""
    match verdict:
        case NeverFits(resource="GPU", has=0):
            return " (use_gpus=False asks for no GPU)"
        case NeverFits(resource="CPU"):
            return " (a lower max_colocated_worker_groups needs fewer CPUs)"
        case _:
            return ""


def plan_reservation(requests: Iterable[GroupRequest], inventory: Inventory) -> ReservationPlan:
    """The placement groups that the requests need, placed on the inventory.

    Each bundle's verdict is its own: the plan of what cannot be is a plan too, and ``check``
    says all that is wrong with it. The bundles of a placement group are alike, which makes
    placing exact for one pool whose placement groups are equal, and for mixed ones as far as a
    bounded search settles them. Several pools are placed one after the other, and again with the
    most demanding first when that leaves something out.

    Args:
        requests: What each worker group asks for.
        inventory: The cluster, predicted or observed.

    Raises:
        PlanError: A request is impossible in itself, or the groups of a pool do not go together.
    """
    pools = pools_of(tuple(requests))
    planned: list[Pool] = []
    groups: list[PlacementGroupPlan] = []
    for pool, units in zip(pools, assign(pools, inventory.nodes), strict=True):
        planned.append(_settled(pool, units))
        groups.extend(
            PlacementGroupPlan(
                pool=pool.name,
                index=index,
                strategy=pool.strategy,
                needs=pool.needs,
                selector=pool.selector,
                verdicts=verdicts,
            )
            for index, verdicts in enumerate(units)
        )
    return ReservationPlan(
        pools=tuple(planned),
        placement_groups=tuple(groups),
        node_names=_node_names(groups, inventory),
    )


def _node_names(
    groups: Sequence[PlacementGroupPlan], inventory: Inventory
) -> tuple[tuple[str, str], ...]:
    told: set[str] = set()
    for verdict in (verdict for group in groups for verdict in group.verdicts):
        if isinstance(verdict, FitsWhenFree):
            told.add(verdict.node_id)
        elif isinstance(verdict, NeverFits) and verdict.closest is not None:
            told.add(verdict.closest)
    if not told:
        return ()
    sharing = Counter(node.address for node in inventory.nodes)
    addresses = {node_id: inventory.node(node_id).address for node_id in sorted(told)}
    return tuple(
        (node_id, address if sharing[address] == 1 else f"{address} ({node_id})")
        for node_id, address in addresses.items()
    )


def _settled(pool: Pool, units: Units) -> Pool:
    """The pool with the placement groups it really got."""
    if not pool.flexible:
        return pool
    sizes = tuple(len(unit) for unit in units)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    members = tuple(
        evolve(
            member,
            bundles=tuple(
                min(max(member.bundles[0] - start, 0), size)
                for start, size in zip(starts, sizes, strict=True)
            ),
        )
        for member in pool.members
    )
    return evolve(pool, units=sizes, members=members)


def predicted_bundles(
    plan: ReservationPlan, inventory: Inventory, name: str
) -> tuple[BundleFacts, ...]:
    """Where the bundles of a group, or of a pool, would land, by placement group and bundle.

    GPUs of a node are given out from the lowest index up, over the whole plan.

    Args:
        plan: The plan.
        inventory: What it was made for.
        name: A group's name, or a pool's.

    Raises:
        PlanError: There is no such group, or a bundle of the plan has no place.
    """
    counts = {pool.name: (pool.name, pool.units) for pool in plan.pools}
    for pool in plan.pools:
        counts.update({each.group: (pool.name, each.bundles) for each in pool.members})
    if name not in counts:
        near = get_close_matches(name, list(counts), n=3) or sorted(counts)
        finding = Finding("name", f"there is no group {name!r}", f"there is {', '.join(near)}")
        raise PlanError("reservation", [finding])
    plan.check()
    pool_name, wanted = counts[name]
    given: Counter[str] = Counter()
    facts: list[BundleFacts] = []
    for group in plan.placement_groups:
        for bundle, verdict in enumerate(group.verdicts):
            if isinstance(verdict, NeverFits):
                continue
            node = inventory.node(verdict.node_id)
            first = given[node.node_id]
            given[node.node_id] += group.needs.gpu_share // GPU_UNIT
            gpus = tuple(str(gpu.index) for gpu in node.gpus[first : given[node.node_id]])
            if group.pool == pool_name and bundle < wanted[group.index]:
                place = (node.node_id, node.address, gpus)
                facts.append(BundleFacts(group.index, bundle, *place))
    return tuple(facts)
