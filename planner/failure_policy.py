"""What a group does when some ranks fail: who shares their fate, and how often it recovers."""

# Ranks fail together in domains. What a domain is, the policy says: a rollout group's engines are
# independent of each other (tied group), a training group's ranks are not (group). Everything of a
# struck domain is ended and started again; the rest is kept and goes on serving.

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import assert_never

from attrs import frozen

from planner.findings import Findings
from planner.launch import LaunchPlan, WorkerPlan
from planner.times import seconds_of
from planner.whole_numbers import whole_number

__all__ = ["Domain", "FailurePolicy", "Survivors", "domain_of", "fate_of"]


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
        stacks: Whether the error shows the stacks of ranks that had not answered. Asking for them
            takes up to 5 s, in which the event loop of a call that is awaited stands still.
        budget: How many recoveries the group may have; those count that ended a rank, also when
            they failed after that.
        first_pause: Seconds before the second recovery; doubled before each further one.
        longest_pause: Never longer than this.
        grace: Seconds that the others have to answer a call once one has failed, so that one
            error names all that fail.

    Raises:
        PlanError: A value cannot be; the error names each.
    """

    domain: Domain = Domain.GROUP
    survivors: Survivors = Survivors.LEAVE
    stacks: bool = False
    budget: int = 3
    first_pause: float = 1.0
    longest_pause: float = 60.0
    grace: float = 0.5

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
        times: tuple[tuple[str, object], ...] = (
            ("first_pause", self.first_pause),
            ("longest_pause", self.longest_pause),
            ("grace", self.grace),
        )
        for path, time in times:
            seconds = seconds_of(time)
            if seconds is None:
                findings.add(path, f"{time!r} is not a time", "give seconds, 0 or more")
            elif path == "grace" and not math.isfinite(seconds):
                problem = f"{time!r} holds every error back until all ranks have answered"
                findings.add(path, problem, "give a number of seconds")
        findings.check()

    def pause_before(self, attempt: int) -> float:
        """Seconds to wait before a recovery, counted from 0; the first one does not wait."""
        if attempt <= 0:
            return 0.0
        return min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 60))


def domain_of(plan: LaunchPlan, rank: int, domain: Domain) -> tuple[int, ...]:
    """The ranks that share a rank's fate, itself included, sorted."""
    return tuple(sorted(fate_of(plan, (rank,), domain)))


def fate_of(plan: LaunchPlan, ranks: Iterable[int], domain: Domain) -> frozenset[int]:
    """All ranks that share the fate of some, themselves included."""
    struck = {_share(plan.workers[rank], domain) for rank in ranks}
    return frozenset(each.rank for each in plan.workers if _share(each, domain) in struck)


def _share(worker: WorkerPlan, domain: Domain) -> int | None:
    match domain:
        case Domain.RANK:
            return worker.rank
        case Domain.TIED_GROUP:
            return worker.tied_group
        case Domain.REPLICA:
            return worker.data_parallel_shard
        case Domain.GROUP:
            return None
        case _:
            assert_never(domain)
