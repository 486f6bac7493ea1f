"""After a failure: whom to keep, end and start again, on which slots, or what is missing."""

# Ranks fail together in domains. What a domain is, the policy says: a rollout group's engines are
# independent of each other (tied group), a training group's ranks are not (group). Everything of a
# struck domain is ended and started again; the rest is kept and goes on serving.

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import assert_never

from attrs import field, frozen

from planner.findings import Findings
from planner.launch import LaunchPlan
from planner.liveness import WorkerState, WorkerStatus, deaf_ranks
from planner.outcomes import ranks_text
from planner.times import seconds_of
from planner.whole_numbers import whole_number

__all__ = [
    "Domain",
    "FailurePolicy",
    "RecoveryFacts",
    "RecoveryPlan",
    "RestartedRank",
    "Survivors",
    "absent_after",
    "base_name",
    "domain_of",
    "failed_ranks",
    "lost_nodes",
    "plan_recovery",
    "plan_resize",
    "recovery_text",
    "serving_groups",
]


class Domain(StrEnum):
    """Which ranks share the fate of one that fails."""

    RANK = "rank"
    TIED_GROUP = "tied group"
    REPLICA = "replica"
    GROUP = "group"


class Survivors(StrEnum):
    """What becomes of ranks that are still in a call in which another failed."""

    LEAVE = "leave"
    ABORT = "abort"


@frozen(kw_only=True)
class FailurePolicy:
    """What a group does when some of its ranks fail.

    Attributes:
        domain: Which ranks share the fate of one that fails.
        survivors: What becomes of ranks of a struck domain that are still in the call.
        stacks: Whether the error shows the stacks of ranks that had not answered.
        budget: How many recoveries the group may have.
        first_pause: Seconds before the second recovery; doubled before each further one.
        longest_pause: Never longer than this.

    Raises:
        PlanError: A value cannot be; the error names each.
    """

    domain: Domain = Domain.GROUP
    survivors: Survivors = Survivors.LEAVE
    stacks: bool = False
    budget: int = 3
    first_pause: float = 1.0
    longest_pause: float = 60.0

    def __attrs_post_init__(self) -> None:
        findings = Findings("FailurePolicy")
        choices: tuple[tuple[str, object, type[Domain | Survivors]], ...] = (
            ("domain", self.domain, Domain),
            ("survivors", self.survivors, Survivors),
        )
        for path, value, kind in choices:
            if not isinstance(value, kind):
                names = ", ".join(f"{kind.__name__}.{each.name}" for each in kind)
                findings.add(path, f"{value!r} is not a {kind.__name__}", f"use one of {names}")
        stacks: object = self.stacks
        if not isinstance(stacks, bool):
            findings.add("stacks", f"{stacks!r} is not a truth value", "give True or False")
        budget = whole_number(self.budget)
        if budget is None or budget < 0:
            problem = f"{self.budget!r} is not a number of recoveries"
            findings.add("budget", problem, "give a whole number, 0 or more")
        pauses: tuple[tuple[str, object], ...] = (
            ("first_pause", self.first_pause),
            ("longest_pause", self.longest_pause),
        )
        for path, pause in pauses:
            if seconds_of(pause) is None:
                findings.add(path, f"{pause!r} is not a time", "give seconds, 0 or more")
        findings.check()

    def pause_before(self, attempt: int) -> float:
        """Seconds to wait before a recovery, counted from 0; the first one does not wait."""
        if attempt <= 0:
            return 0.0
        return min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 60))


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
    """

    failed: tuple[int, ...] = ()
    lost_nodes: tuple[str, ...] = ()
    attempt: int = 0
    free_slots: tuple[tuple[int, int, str], ...] = ()
    absent: tuple[int, ...] = ()


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


def domain_of(plan: LaunchPlan, rank: int, domain: Domain) -> tuple[int, ...]:
    """The ranks that share a rank's fate, itself included, sorted."""
    worker = plan.workers[rank]
    match domain:
        case Domain.RANK:
            return (rank,)
        case Domain.TIED_GROUP:
            alike = [w.rank for w in plan.workers if w.tied_group == worker.tied_group]
        case Domain.REPLICA:
            shard = worker.data_parallel_shard
            alike = [w.rank for w in plan.workers if w.data_parallel_shard == shard]
        case Domain.GROUP:
            alike = [w.rank for w in plan.workers]
        case _:
            assert_never(domain)
    return tuple(sorted(alike))


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


def plan_recovery(
    plan: LaunchPlan, facts: RecoveryFacts, policy: FailurePolicy, generation: int
) -> RecoveryPlan:
    """Whom to keep, end and start.

    Args:
        plan: The group as it was launched.
        facts: What failed, and what there is to start on.
        policy: What fails together, and how often.
        generation: The generation that the recovery makes.

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
    domains = {domain_of(plan, rank, policy.domain) for rank in gone - absent}
    struck = sorted({rank for domain in domains for rank in domain} - absent)
    start, missing = _places(plan, struck, facts, generation)
    if facts.attempt >= policy.budget and struck:
        spent = (
            f"the budget of {policy.budget} recoveries is spent: raise "
            "FailurePolicy.budget, or start a new group"
        )
        missing = [spent, *missing]
    left_out = absent.union(struck)
    keep = tuple(rank for rank in range(plan.world_size) if rank not in left_out)
    moved = 0 in struck
    return RecoveryPlan(
        group=plan.group,
        generation=generation,
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
    start: list[RestartedRank] = []
    missing: list[str] = []
    for rank in struck:
        worker = plan.workers[rank]
        if worker.node_id in lost:
            by_node.setdefault(worker.node_id, []).append(rank)
            continue
        place = (worker.placement_group, worker.bundle, worker.node_id)
        start.append(_restarted(plan, rank, place, generation))
    for node_id, ranks in sorted(by_node.items()):
        slots = _together(free, len(ranks))
        if not slots:
            address = plan.workers[ranks[0]].address
            missing.append(
                f"{len(ranks)} bundles for {ranks_text(ranks)}: node {address} is lost, and "
                f"{len(free)} bundles of other nodes are free: add a node, or end another group"
            )
            continue
        for rank, slot in zip(ranks, slots, strict=True):
            free.remove(slot)
            start.append(_restarted(plan, rank, slot, generation, node_id))
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


def _restarted(
    plan: LaunchPlan,
    rank: int,
    place: tuple[int, int, str | None],
    generation: int,
    moved_from: str | None = None,
) -> RestartedRank:
    return RestartedRank(
        rank=rank,
        name=f"{base_name(plan.workers[rank].name)}.g{generation}",
        placement_group=place[0],
        bundle=place[1],
        moved_from=moved_from,
        node_id=place[2],
    )


def base_name(name: str) -> str:
    """A worker's name without its generation."""
    head, mark, tail = name.rpartition(".g")
    return head if mark and tail.isdigit() else name


def plan_resize(
    plan: LaunchPlan, tied_groups: Iterable[int], generation: int, serving: Mapping[int, bool]
) -> RecoveryPlan:
    """Give up some tied groups of a rollout group, and take back others, by the same actions.

    Args:
        plan: The group at its full size: every tied group has its slots, used or not.
        tied_groups: The tied groups that shall serve.
        generation: The generation that this makes.
        serving: Whether each tied group serves now.

    Raises:
        PlanError: There is no such tied group, or none would be left.
    """
    findings = Findings(f"worker group {plan.group!r}, resize")
    wanted = set(tied_groups)
    known = {worker.tied_group for worker in plan.workers}
    for each in sorted(wanted - known):
        findings.add("tied_groups", f"there is no tied group {each}", f"use 0 to {len(known) - 1}")
    if not wanted:
        findings.add("tied_groups", "none would be left", "keep one, or end the group")
    findings.check()
    leave = [w.rank for w in plan.workers if serving[w.tied_group] and w.tied_group not in wanted]
    come = [w for w in plan.workers if not serving[w.tied_group] and w.tied_group in wanted]
    keep = [w.rank for w in plan.workers if serving[w.tied_group] and w.tied_group in wanted]
    moved = any(worker.rank == 0 for worker in come)
    return RecoveryPlan(
        group=plan.group,
        generation=generation,
        keep=tuple(keep),
        end=tuple(leave),
        # The cluster may have moved the bundle of a rank that was given up.
        start=tuple(
            _restarted(plan, w.rank, (w.placement_group, w.bundle, None), generation) for w in come
        ),
        pause=0.0,
        new_rendezvous=moved,
        tell=tuple(keep) if moved else (),
    )


def serving_groups(plan: LaunchPlan, absent: Collection[int]) -> dict[int, bool]:
    """Whether each tied group serves, from the ranks that were given up."""
    serving = {worker.tied_group: True for worker in plan.workers}
    return serving | {plan.workers[rank].tied_group: False for rank in absent}


def absent_after(absent: Collection[int], plan: RecoveryPlan) -> frozenset[int]:
    """The ranks that are given up once a change of size has been carried out."""
    return frozenset({*absent, *plan.end}.difference(each.rank for each in plan.start))


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
