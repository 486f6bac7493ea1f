"""What calls gave back: futures of many workers, collected by the plan's rules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from planner.dispatch import DispatchPlan
from planner.findings import Findings
from planner.outcomes import RankIdentity
from planner.whole_numbers import whole_number
from runtime.backend import Backend, Reference
from runtime.errors import WorkerGroupError
from runtime.gather import Behind, check_timeout, gather_or_raise
from runtime.in_flight import InFlight, first_of
from runtime.taking import Running, answers

__all__ = ["MultiWorkerFuture"]


class _Group(Protocol):
    """What a future asks of its worker group: who the ranks are."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> Backend: ...

    @property
    def identities(self) -> Mapping[int, RankIdentity]: ...

    @property
    def _behind(self) -> Behind: ...

    _in_flight: InFlight


class MultiWorkerFuture:
    """The futures of one call on several workers.

    Attributes:
        futures: One per called worker, in the order of ``called_workers``.
        return_from_workers: The ranks whose results count, in the order of the results; None
            for all that were called.
        called_workers: The ranks that were called; None when the futures are those of the
            ranks 0, 1, 2 ...

    Raises:
        PlanError: The lists contradict each other.
    """

    def __init__(
        self,
        futures: Sequence[Reference],
        return_from_workers: Sequence[int] | None = None,
        called_workers: Sequence[int] | None = None,
        method_name: str = "call",
    ) -> None:
        _check_lists(futures, return_from_workers, called_workers)
        self.futures = list(futures)
        self.called_workers = None if called_workers is None else list(called_workers)
        self.return_from_workers = (
            None if return_from_workers is None else list(return_from_workers)
        )
        self._method = method_name
        called = range(len(self.futures)) if called_workers is None else called_workers
        findings = Findings("MultiWorkerFuture")
        if len(called) != len(self.futures):
            findings.add(
                "called_workers",
                f"{len(called)} ranks for {len(self.futures)} futures",
                "give one rank per future",
            )
        for rank, times in Counter(called).items():
            if times > 1:
                findings.add(
                    "called_workers", f"rank {rank} occurs {times} times", "name each rank once"
                )
        missing = sorted(set(return_from_workers or ()) - set(called))
        if missing:
            findings.add(
                "return_from_workers",
                f"ranks {missing} were not called",
                f"the ranks called are {list(called)}",
            )
        findings.check()
        self._by_rank: dict[int, Reference] = dict(zip(called, self.futures, strict=True))

    @classmethod
    def of_call(cls, futures: list[Reference], plan: DispatchPlan, method_name: str) -> Self:
        """The futures of a call that was sent as planned, which needs no check."""
        made = cls.__new__(cls)
        made.futures = futures
        made.called_workers = list(plan.ranks)
        made.return_from_workers = list(plan.returns)
        made._method = method_name
        made._by_rank = dict(zip(plan.ranks, futures, strict=True))
        return made

    def get_results(
        self,
        worker_group: _Group,
        return_generators_as_proxies: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Wait for every called worker; give the results of those that return, in their order.

        The values of a streaming method come in order, each worker's after the other's; all
        streams run at the same time.

        Args:
            worker_group: The group that was called; errors name its ranks.
            return_generators_as_proxies: Give the generators of a streaming method themselves,
                one per returning worker, for the caller to consume. What ranks raise that do not
                return, the next call of the group tells.
            timeout: Seconds to wait; None waits without end and says now and then for whom.

        Raises:
            PlanError: An argument is wrong.
            WorkerGroupError: Some rank failed, also one that does not return; of the first
                failure's own type too.
            DeadlineError: Time is up.
        """
        method = worker_group._in_flight.method_of(self.futures) or self._method
        subject = f"worker group {worker_group.name!r}, {method}()"
        check_timeout(subject, timeout)
        if not isinstance(return_generators_as_proxies, bool):
            Findings(subject).fail(
                "return_generators_as_proxies",
                f"{return_generators_as_proxies!r} is not a truth value",
                "give True or False",
            )
        by_rank, returning = self._by_rank, self.return_from_workers
        named = None
        if self.called_workers is None:
            named = worker_group._in_flight.ranks_of(self.futures)
        if named is not None:
            # Futures of a call of some ranks, in a list: the group knows whose they are.
            ranks, _ = named
            by_rank = dict(zip(ranks, self.futures, strict=True))
            returning = None if returning is None else [ranks[place] for place in returning]
        returning = list(by_rank) if returning is None else returning
        backend = worker_group.backend
        streams = any(backend.is_stream(each) for each in self.futures)
        if streams and return_generators_as_proxies:
            rest = {rank: each for rank, each in by_rank.items() if rank not in returning}
            worker_group._in_flight.leave(subject, _firsts(rest), worker_group.identities)
            return [by_rank[rank] for rank in returning]
        if streams:
            streamed = _drain(worker_group, subject, by_rank, timeout)
            return [value for rank in returning for value in streamed[rank]]
        # A method with several returns gives a list of futures, which fail or succeed together.
        # One without returns gives no future: there is nothing to wait for, its result is None.
        firsts = _firsts(by_rank)
        identities, behind = worker_group.identities, worker_group._behind
        try:
            values = gather_or_raise(backend, subject, firsts, identities, timeout, behind)
        except WorkerGroupError:
            _look_at_rest(backend, self.futures)
            raise
        return [
            backend.get(future, None)
            if isinstance(future := by_rank[rank], list) and future
            else values.get(rank)
            for rank in returning
        ]


def _look_at_rest(backend: Backend, futures: Sequence[Reference]) -> None:
    """Look at what failed calls gave beside their firsts: of errors that nobody sees, Ray warns."""
    rest = [each for future in futures if isinstance(future, list) for each in future[1:]]
    if rest:
        backend.look(backend.wait(rest, len(rest), 0)[0])


def _firsts(futures: Mapping[int, Reference]) -> dict[int, Reference]:
    firsts = {rank: first_of(future) for rank, future in futures.items()}
    return {rank: first for rank, first in firsts.items() if first is not None}


def _check_lists(futures: object, returning: object, called: object) -> None:
    findings = Findings("MultiWorkerFuture")
    if not isinstance(futures, Sequence):
        findings.add(
            "futures", f"a value of type {type(futures).__name__}", "give a list of futures"
        )
    for path, given in (("return_from_workers", returning), ("called_workers", called)):
        good = isinstance(given, Sequence) and all(whole_number(rank) is not None for rank in given)
        if given is not None and not good:
            findings.add(path, f"{given!r} is not a list of ranks", "give a list, or None")
    findings.check()


def _drain(
    group: _Group, subject: str, futures: Mapping[int, Reference], timeout: float | None
) -> dict[int, list[Any]]:
    """Every value of every stream, taken from whichever has one; other calls are waited for too.

    A rank whose results do not come back is among the latter.
    """
    firsts = _firsts(futures)
    streams = [rank for rank, each in firsts.items() if group.backend.is_stream(each)]
    running = Running(
        subject=subject,
        backend=group.backend,
        references=firsts,
        returning=frozenset(streams),
        identities=group.identities,
        behind=group._behind,
    )
    values: dict[int, list[Any]] = {rank: [] for rank in futures}
    for answer in answers(running, None, timeout):
        values[answer.rank].append(answer.value)
    return values
