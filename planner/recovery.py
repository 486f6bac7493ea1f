"""After a failure: whom to keep, end and start again, on which slots, or what is missing."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import field, frozen

from planner.actor_names import next_name
from planner.failure_policy import Domain, FailurePolicy, Survivors, domain_of, fate_of
from planner.findings import Findings
from planner.inventory import BundleFacts
from planner.launch import LaunchPlan
from planner.liveness import WorkerState, WorkerStatus, deaf_ranks
from planner.outcomes import ranks_text

__all__ = [
    "Domain",
    "FailurePolicy",
    "RecoveryFacts",
    "RecoveryPlan",
    "RestartedRank",
    "Survivors",
    "awaited_text",
    "bundles_text",
    "domain_of",
    "failed_ranks",
    "gone_groups",
    "gone_text",
    "lost_nodes",
    "plan_recovery",
    "recovery_text",
    "restarted_rank",
]


@frozen(kw_only=True)
class RecoveryFacts:
    """What is known when a recovery is planned.

    Attributes:
        failed: Ranks that are dead, or in a state that nobody can vouch for.
        lost_nodes: Nodes that are gone; every rank there is dead.
        attempt: How many recoveries there were.
        free_slots: Placement group, bundle and node of bundles that hold no rank of the group,
            best first.
        absent: Ranks that were given up: they are neither ended nor started.
        gone_groups: Placement groups of the group's ranks that the cluster has no more.
    """

    failed: tuple[int, ...] = ()
    lost_nodes: tuple[str, ...] = ()
    attempt: int = 0
    free_slots: tuple[tuple[int, int, str], ...] = ()
    absent: tuple[int, ...] = ()
    gone_groups: tuple[int, ...] = ()


@frozen(kw_only=True)
class RestartedRank:
    """One rank to start again.

    Attributes:
        rank: Which.
        name: Its new name: the old one may not be free yet.
        placement_group: Where; its old place, unless its node is lost.
        bundle: In which bundle.
        moved_from: The node that it leaves, when that one is lost.
        node_id: The node on which it must land; None takes any.
    """

    rank: int
    name: str
    placement_group: int
    bundle: int
    moved_from: str | None = None
    node_id: str | None = None


@frozen(kw_only=True)
class RecoveryPlan:
    """How a group is made whole again.

    Attributes:
        group: Its name.
        generation: The group's generation after the recovery; the first was 0.
        keep: Ranks that go on.
        end: Ranks to end before anything starts: the failed ones and those that share their fate.
        start: Ranks to start.
        pause: Seconds to wait first.
        new_rendezvous: Whether the ranks meet elsewhere than before: rank 0 is started again,
            and its host holds a new port.
        tell: Ranks that are kept and must be told of it, because their environment is stale.
        missing: What is missing for the recovery; empty when it can go ahead.
    """

    group: str
    generation: int
    keep: tuple[int, ...]
    end: tuple[int, ...]
    start: tuple[RestartedRank, ...]
    pause: float
    new_rendezvous: bool
    tell: tuple[int, ...] = ()
    missing: tuple[str, ...] = field(default=())

    @property
    def is_possible(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    def __str__(self) -> str:
        return recovery_text(self)


def failed_ranks(
    statuses: Sequence[WorkerStatus],
    broken: Iterable[int],
    absent: Collection[int],
    on_live_nodes: Collection[int] = (),
) -> tuple[int, ...]:
    """The ranks that a recovery is about, sorted.

    A rank that is out of reach, on a node that is there, has not failed: only the process that
    looks at it does not answer.

    Args:
        statuses: How the ranks were seen.
        broken: Ranks that are known to be dead, or still in a call that failed elsewhere.
        absent: Ranks that were given up: nobody misses them.
        on_live_nodes: Ranks whose node is there and whose actor lives, as far as Ray knows.
    """
    unseen = {each.rank for each in statuses if each.state is WorkerState.OUT_OF_REACH}
    deaf = set(deaf_ranks(statuses)) - unseen.intersection(on_live_nodes)
    return tuple(sorted({*deaf, *broken}.difference(absent)))


def lost_nodes(
    nodes: Mapping[int, str], failed: Iterable[int], live: Collection[str]
) -> tuple[str, ...]:
    """The nodes of failed ranks that are not there any more, sorted."""
    return tuple(sorted({nodes[rank] for rank in failed}.difference(live)))


def gone_groups(plan: LaunchPlan, landed: Iterable[BundleFacts]) -> tuple[int, ...]:
    """The placement groups of a group's ranks of which no bundle is told any more, sorted.

    Bundles whose node is lost are told still: they wait for another node.
    """
    there = {each.placement_group for each in landed}
    return tuple(sorted({worker.placement_group for worker in plan.workers} - there))


def gone_text(placement_group: int, ranks: Sequence[int]) -> str:
    """What is missing for ranks whose placement group was removed."""
    return (
        f"{bundles_text(len(ranks))} for {ranks_text(ranks)}: placement group {placement_group} "
        "was removed from the cluster: end the group, and start one on a cluster that is reserved "
        "again"
    )


def awaited_text(plan: LaunchPlan, bundles: Collection[tuple[int, int]]) -> str:
    """For which bundles of lost nodes a recovery waits, and whose they were."""
    homeless = [
        each for each in plan.workers if (each.placement_group, each.bundle) in frozenset(bundles)
    ]
    nodes = sorted({each.address for each in homeless})
    return (
        f"the cluster to give {bundles_text(len(bundles))} of lost node{'s'[: len(nodes) != 1]} "
        f"{', '.join(nodes)} to others, for {ranks_text([each.rank for each in homeless])}"
    )


def bundles_text(count: int) -> str:
    """So many bundles, for people."""
    return f"{count} bundle{'s'[: count != 1]}"


def plan_recovery(
    plan: LaunchPlan, facts: RecoveryFacts, policy: FailurePolicy, generation: int
) -> RecoveryPlan:
    """Whom to keep, end and start.

    Args:
        plan: The group as it was launched.
        facts: What failed, and what there is to start on.
        policy: What fails together, and how often.
        generation: The generation that the recovery makes; the one before it stays when nothing
            starts.

    Raises:
        PlanError: A failed rank is not in the group.
    """
    findings = Findings(f"worker group {plan.group!r}, recovery")
    for index, rank in enumerate(facts.failed):
        if not 0 <= rank < plan.world_size:
            findings.add(
                f"failed[{index}]", f"{rank!r} is not one of {plan.world_size}", "name ranks"
            )
    findings.check()
    lost = frozenset(facts.lost_nodes)
    gone = {worker.rank for worker in plan.workers if worker.node_id in lost}.union(facts.failed)
    absent = frozenset(facts.absent)
    struck = sorted(fate_of(plan, gone - absent, policy.domain) - absent)
    start, missing = _places(plan, struck, facts, generation)
    if facts.attempt >= policy.budget and struck:
        spent = (
            f"the budget of {policy.budget} recover{'y' if policy.budget == 1 else 'ies'} is "
            "spent: give the group a larger one, as with group.failure_policy = attrs.evolve("
            f"group.failure_policy, budget={facts.attempt + 1}), or start a new group"
        )
        missing = [spent, *missing]
    left_out = absent.union(struck)
    keep = tuple(rank for rank in range(plan.world_size) if rank not in left_out)
    moved = 0 in struck
    return RecoveryPlan(
        group=plan.group,
        generation=generation if struck else generation - 1,
        keep=keep,
        end=tuple(struck),
        start=start,
        pause=policy.pause_before(facts.attempt) if struck else 0.0,
        new_rendezvous=moved,
        tell=keep if moved else (),
        missing=tuple(missing),
    )


def _places(
    plan: LaunchPlan, struck: Sequence[int], facts: RecoveryFacts, generation: int
) -> tuple[tuple[RestartedRank, ...], list[str]]:
    lost = frozenset(facts.lost_nodes)
    free = [slot for slot in facts.free_slots if slot[2] not in lost]
    by_node: dict[str, list[int]] = {}
    by_group: dict[int, list[int]] = {}
    start: list[RestartedRank] = []
    for rank in struck:
        worker = plan.workers[rank]
        if worker.placement_group in facts.gone_groups:
            by_group.setdefault(worker.placement_group, []).append(rank)
            continue
        if worker.node_id in lost:
            by_node.setdefault(worker.node_id, []).append(rank)
            continue
        place = (worker.placement_group, worker.bundle, worker.node_id)
        start.append(restarted_rank(plan, rank, place, generation))
    missing = [gone_text(group, ranks) for group, ranks in sorted(by_group.items())]
    for node_id, ranks in sorted(by_node.items()):
        slots = _together(free, len(ranks))
        if not slots:
            address = plan.workers[ranks[0]].address
            missing.append(
                f"{bundles_text(len(ranks))} for {ranks_text(ranks)}: node {address} is lost, and "
                f"{bundles_text(len(free))} of other nodes {'is' if len(free) == 1 else 'are'} "
                "free: add a node, or end another group"
            )
            continue
        for rank, slot in zip(ranks, slots, strict=True):
            free.remove(slot)
            start.append(restarted_rank(plan, rank, slot, generation, node_id))
    return tuple(sorted(start, key=lambda each: each.rank)), missing


def _together(free: Sequence[tuple[int, int, str]], count: int) -> list[tuple[int, int, str]]:
    """Slots for the ranks of one lost node: on one other node if any has enough."""
    nodes: dict[str, list[tuple[int, int, str]]] = {}
    for slot in free:
        nodes.setdefault(slot[2], []).append(slot)
    for slots in nodes.values():
        if len(slots) >= count:
            return slots[:count]
    return list(free[:count]) if len(free) >= count else []


def restarted_rank(
    plan: LaunchPlan,
    rank: int,
    place: tuple[int, int, str | None],
    generation: int,
    moved_from: str | None = None,
) -> RestartedRank:
    """A rank as it starts again: its place is a placement group, a bundle and a node."""
    return RestartedRank(
        rank=rank,
        name=next_name(plan.workers[rank].name, generation),
        placement_group=place[0],
        bundle=place[1],
        moved_from=moved_from,
        node_id=place[2],
    )


def recovery_text(plan: RecoveryPlan) -> str:
    """The plan for people."""
    lines = [f"worker group {plan.group!r}, generation {plan.generation}"]
    if plan.keep:
        lines.append(f"  keep: {ranks_text(plan.keep)}")
    if plan.end:
        lines.append(f"  end: {ranks_text(plan.end)}")
    lines += [
        f"  start: rank {each.rank} as {each.name!r} in bundle {each.bundle} of placement group "
        f"{each.placement_group}"
        + (f", away from node {each.moved_from}" if each.moved_from else "")
        for each in plan.start
    ]
    if plan.pause:
        lines.append(f"  wait {plan.pause:g} s first")
    if plan.tell:
        lines.append(f"  meet elsewhere: {ranks_text(plan.tell)} must be told")
    lines += [f"  missing: {each}" for each in plan.missing]
    return "\n".join(lines)
