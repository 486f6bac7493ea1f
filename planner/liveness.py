"""How the workers of a group are: one state each, from what was seen from outside."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum

from attrs import frozen

from planner.findings import Findings
from planner.launch import LaunchPlan
from planner.outcomes import RankIdentity
from planner.whole_numbers import whole_number

__all__ = [
    "DEAF",
    "WorkerSeen",
    "WorkerState",
    "WorkerStatus",
    "chosen_ranks",
    "deaf_ranks",
    "known_states",
    "plan_statuses",
    "responding",
    "stack_texts",
    "status_text",
]


class WorkerState(StrEnum):
    """What a worker's process is doing."""

    IDLE = "idle"
    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"
    OUT_OF_REACH = "out of reach"


DEAF = frozenset({WorkerState.DEAD, WorkerState.STOPPED, WorkerState.OUT_OF_REACH})
"""The states of a process that takes no call: nobody asks it, and a recovery replaces it."""


@frozen(kw_only=True)
class WorkerSeen:
    """What was seen of a process from outside.

    Attributes:
        state: The kernel's state letter; empty when the process is gone.
        running: How many calls it runs.
        method: The one that began last.
        seconds: How long ago that was, or how long it has been idle.
    """

    state: str
    running: int = 0
    method: str = ""
    seconds: float = 0.0


@frozen(kw_only=True)
class WorkerStatus:
    """How one worker is.

    Attributes:
        identity: Who it is.
        state: What its process is doing; a stopped process may be in the middle of a call.
        method: The call that it is in; empty when it is in none.
        running: How many calls it runs.
        seconds: For how long it has been in that call, or idle.
    """

    identity: RankIdentity
    state: WorkerState
    method: str = ""
    running: int = 0
    seconds: float = 0.0

    @property
    def rank(self) -> int:
        """Its rank."""
        return self.identity.rank

    @property
    def is_alive(self) -> bool:
        """Whether its process exists."""
        return self.state not in {WorkerState.DEAD, WorkerState.OUT_OF_REACH}

    def __str__(self) -> str:
        doing = f" in {self.method}()" if self.method else ""
        more = f" and {self.running - 1} more calls" if self.running > 1 else ""
        timed = f", {self.seconds:.1f} s" if self.is_alive else ""
        return f"{self.identity}: {self.state.value}{doing}{more}{timed}"


def plan_statuses(
    identities: Sequence[RankIdentity], seen: Mapping[int, WorkerSeen]
) -> tuple[WorkerStatus, ...]:
    """One status per rank; a rank of which nothing was seen is out of reach."""
    return tuple(_status(identity, seen.get(identity.rank)) for identity in identities)


def _status(identity: RankIdentity, seen: WorkerSeen | None) -> WorkerStatus:
    if seen is None:
        return WorkerStatus(identity=identity, state=WorkerState.OUT_OF_REACH)
    if not seen.state:
        return WorkerStatus(identity=identity, state=WorkerState.DEAD)
    state = WorkerState.RUNNING if seen.running else WorkerState.IDLE
    return WorkerStatus(
        identity=identity,
        state=WorkerState.STOPPED if seen.state == "T" else state,
        method=seen.method,
        running=seen.running,
        seconds=seen.seconds,
    )


def responding(statuses: Sequence[WorkerStatus]) -> dict[int, bool]:
    """Per rank, whether its process is there and not stopped."""
    return {each.rank: each.state not in DEAF for each in statuses}


def stack_texts(
    ranks: Iterable[int], told: Mapping[int, str], lost: Collection[int], seconds: float
) -> dict[int, str]:
    """The stacks of each rank that was asked for, or why there are none.

    Args:
        ranks: Whose stacks were asked for.
        told: What their nodes told.
        lost: Ranks whose node is not there any more.
        seconds: How long the nodes had to answer.
    """
    late = f"(its node did not answer in {seconds:g} s)"
    why = {rank: "(its node is lost)" if rank in lost else late for rank in ranks}
    return {rank: told.get(rank, text) for rank, text in why.items()}


def deaf_ranks(statuses: Sequence[WorkerStatus]) -> tuple[int, ...]:
    """The ranks whose process takes no call."""
    return tuple(each.rank for each in statuses if each.state in DEAF)


def chosen_ranks(ranks: object, plan: LaunchPlan, absent: Collection[int] = ()) -> tuple[int, ...]:
    """Ranks of a group, if they are.

    Args:
        ranks: What was given.
        plan: The group.
        absent: Ranks that were given up, and can't be chosen.

    Raises:
        PlanError: Some are not.
    """
    findings = Findings(f"worker group {plan.group!r}")
    given = ranks if isinstance(ranks, Iterable) and not isinstance(ranks, str) else None
    if given is None:
        findings.fail("ranks", f"{ranks!r} is no list of ranks", "give a list, or None for all")
    chosen: list[int] = []
    for index, rank in enumerate(given):
        number = whole_number(rank)
        if number is None or not 0 <= number < plan.world_size:
            problem = f"{rank!r} is not a rank"
            findings.add(f"ranks[{index}]", problem, f"give 0 to {plan.world_size - 1}")
        elif number in absent:
            remedy = "leave it out: it has no process"
            findings.add(f"ranks[{index}]", f"rank {number} was given up by resize()", remedy)
        else:
            chosen.append(number)
    findings.check()
    return tuple(chosen)


def known_states(
    statuses: Sequence[WorkerStatus] | None, dead: Sequence[int]
) -> dict[int, WorkerState]:
    """What is known of the ranks when a group is ended.

    Args:
        statuses: How they were seen just now; None when nobody has looked.
        dead: Ranks that are known to be dead without a look.
    """
    if statuses is None:
        return dict.fromkeys(dead, WorkerState.DEAD)
    return {each.rank: each.state for each in statuses}


def status_text(statuses: Sequence[WorkerStatus]) -> str:
    """The statuses for people, one line per worker."""
    return "\n".join(map(str, statuses))
