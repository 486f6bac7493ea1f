"""The calls of random programs, and the oracle that says how each must end on each rank."""

# Faults come within 0.1 s, at most three calls are under way, and the grace of an error is 0.5 s.
# So whatever strikes in them is in the error, and it can be compared exactly.

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from attrs import field, frozen

from runtime import MultiWorkerFuture, RayWorkerGroup
from runtime.faults import Called
from runtime.testing import Fault, FaultKind, InProcessCluster

__all__ = ["DEADLINE", "HOW", "End", "Oracle", "Started", "start_call"]

DEADLINE = 100.0
HOW = ("add all", "add one", "add", "echo", "count all", "count")


class End(Enum):
    """How a call ends on a rank."""

    RETURNS = "returns"
    FAILS = "fails"
    DIES = "dies"
    HANGS = "hangs"
    EITHER = "returns, or dies with another call that runs there"


@frozen(kw_only=True)
class Started:
    """A call that was sent.

    Attributes:
        method: Which.
        token: What it carries.
        ranks: Who was called.
        wait: Waits for it, and gives the result of each rank.
    """

    method: str
    token: int
    ranks: tuple[int, ...]
    wait: Callable[[], Mapping[int, object]] = field(repr=False)

    def check(self, results: Mapping[int, Any]) -> None:
        """Each rank has given what it was to."""
        assert tuple(results) == self.ranks
        for rank, result in results.items():
            match self.method:
                case "add":
                    assert result[0] == rank
                case "echo":
                    assert result == self.token
                case _:
                    assert result == [rank * 100 + number for number in range(3)]


def start_call(group: RayWorkerGroup, how: str, token: int, ranks: Sequence[int]) -> Started:
    """Send a call to ranks of a group, all those that serve, or one of them."""
    method, _, whom = how.partition(" ")
    data: dict[str, Any] = {"upto": 3} if method == "count" else {"value": token}
    if not whom:
        future = group.using(timeout=DEADLINE).call(method, **data)
        return Started(method=method, token=token, ranks=tuple(ranks), wait=future.by_rank)
    called = list(ranks) if whom == "all" else [ranks[token % len(ranks)]]
    if whom == "all":
        futures = group.run_all_workers_single_data(method, **data)
    else:
        futures = [group.run_single_worker_single_data(method, called[0], **data)]
    many = MultiWorkerFuture(futures, None, called, method)

    def wait() -> Mapping[int, object]:
        results = many.get_results(group, timeout=DEADLINE)
        each = len(results) // len(called)
        parts = [results[place : place + each] for place in range(0, len(results), each)]
        return dict(zip(called, parts if method == "count" else results, strict=True))

    return Started(method=method, token=token, ranks=tuple(called), wait=wait)


@frozen(kw_only=True)
class Oracle:
    """Knows which faults struck a group since some moment.

    Attributes:
        cluster: Where it is.
        group: Its name.
        is_concurrent: Whether many calls run at once on a rank.
        since: How many faults had struck before.
    """

    cluster: InProcessCluster
    group: str
    is_concurrent: bool
    since: int

    @classmethod
    def now(cls, cluster: InProcessCluster, group: str, *, is_concurrent: bool) -> "Oracle":
        """What strikes from now on."""
        since = len(cluster.backend.faults.struck)
        return cls(cluster=cluster, group=group, is_concurrent=is_concurrent, since=since)

    def strikes(self) -> dict[tuple[str, int], FaultKind]:
        """What has struck, by method and rank."""
        struck: list[tuple[Called, Fault]] = list(self.cluster.backend.faults.struck)
        return {
            (called.method, called.rank): fault.kind
            for called, fault in struck[self.since :]
            if called.group == self.group
        }

    def ends(self, method: str, ranks: Sequence[int]) -> dict[int, End]:
        """How a call ends on each rank when it is the only one."""
        strikes = self.strikes()
        return {rank: _end(strikes.get((method, rank))) for rank in ranks}

    def ends_of(self, calls: Sequence[Started], place: int, aborted: set[int]) -> dict[int, End]:
        """How one of several calls ends; all were sent at once, and their methods differ.

        Args:
            calls: All, in the order in which they were sent.
            place: Which.
            aborted: Ranks that the group has ended meanwhile, because they hung.
        """
        strikes = self.strikes()
        found: dict[int, End] = {}
        for rank in calls[place].ranks:
            own = [_end(strikes.get((e.method, rank))) for e in calls if rank in e.ranks]
            at = sum(rank in each.ranks for each in calls[:place])
            end = _beside(own, at) if self.is_concurrent else _behind(own, at)
            found[rank] = End.DIES if end is End.HANGS and rank in aborted else end
        return found

    def of_kind(self, *kinds: FaultKind) -> set[int]:
        """The ranks that some kinds of faults have struck."""
        return {rank for (_, rank), kind in self.strikes().items() if kind in kinds}


def _end(kind: FaultKind | None) -> End:
    match kind:
        case FaultKind.DEATH:
            return End.DIES
        case FaultKind.HANG:
            return End.HANGS
        case FaultKind.RAISES | FaultKind.LOST_RESULT:
            return End.FAILS
        case _:
            return End.RETURNS


def _behind(own: Sequence[End], place: int) -> End:
    """How a call ends on a rank that takes one after the other."""
    stops = [end for end in own[:place] if end in {End.DIES, End.HANGS}]
    return stops[0] if stops else own[place]


def _beside(own: Sequence[End], place: int) -> End:
    """How a call ends on a rank that takes all at once: a death ends those that still run."""
    dies = any(end is End.DIES for index, end in enumerate(own) if index != place)
    if dies and own[place] is End.HANGS:
        return End.DIES
    return End.EITHER if dies and own[place] is End.RETURNS else own[place]
