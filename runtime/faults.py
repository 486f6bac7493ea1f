"""Faults for the in-process backend: which call goes wrong, and how."""

import difflib
import random
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum

from attrs import field, frozen

from planner.findings import Findings
from planner.times import seconds_of
from planner.whole_numbers import whole_number

__all__ = ["Called", "Fault", "FaultKind", "FaultRates", "Faults", "check_seconds"]

_STRUCK_KEPT = 10_000
_RATES = ("death", "hang", "slow", "lost", "raises")


def _anything(value: object) -> object:
    """What a caller gave, who may not check types."""
    return value


def _is_count(value: object) -> bool:
    number = whole_number(value)
    return number is not None and number >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seconds(findings: Findings, path: str, value: object) -> None:
    """Note that something is not a time, if it is none."""
    if seconds_of(value) is None:
        findings.add(path, f"{value!r} is not a time", "give seconds, 0 or more")


class FaultKind(StrEnum):
    """What goes wrong with a call."""

    DEATH = "death"
    """The process dies while the call runs; its answer never comes."""
    HANG = "hang"
    """The call never returns; the process stays alive."""
    SLOW = "slow"
    """The call takes longer."""
    LOST_RESULT = "lost result"
    """The call runs to its end, and its answer is lost."""
    RAISES = "raises"
    """The call raises instead of running."""


@frozen(kw_only=True)
class Fault:
    """One call that goes wrong.

    Calls are counted for each rank of each group, by the group's name, as long as the cluster
    lives: a rank that is started again goes on counting, and so does that of a group that is
    started again under the same name. So a fault with a number strikes a rank once. The second
    ``"__init__"`` of a rank is that of its first restart.

    Every fault that fits a call counts it. When several are due, one with a number goes before
    those of every call, then the first in the list; the others do not strike this call.

    Attributes:
        kind: How.
        group: In which group, by its name; empty in every group.
        rank: On which rank; None on every rank, each of which counts by itself.
        method: Which method; ``"__init__"`` is the constructor, None is every method, the
            constructor included.
        call: The how-manyeth such call of a rank, counted from 1; 0 is every one.
        seconds: How long before death strikes, or how much longer the call takes.
        error: What is raised.
    """

    kind: FaultKind
    group: str = ""
    rank: int | None = None
    method: str | None = None
    call: int = 1
    seconds: float = 0.0
    error: Exception = field(factory=lambda: RuntimeError("injected fault"))

    def __attrs_post_init__(self) -> None:
        findings = Findings("fault")
        kind, method, error = _anything(self.kind), _anything(self.method), _anything(self.error)
        group = _anything(self.group)
        if not isinstance(kind, FaultKind):
            kinds = ", ".join(f"FaultKind.{kind.name}" for kind in FaultKind)
            findings.add("kind", f"{kind!r} is not a FaultKind", f"give one of {kinds}")
        if not isinstance(group, str):
            findings.add("group", f"{group!r} is not a name", "give a group's, or '' for all")
        if self.rank is not None and not _is_count(self.rank):
            findings.add("rank", f"{self.rank!r} is not a rank", "give 0 or more, or None for all")
        if method is not None and not isinstance(method, str):
            findings.add("method", f"{method!r} is not a name", "give one, or None for all")
        if not _is_count(self.call):
            findings.add(
                "call",
                f"{self.call!r} is not a number of a call",
                "count from 1, or give 0 for every call",
            )
        check_seconds(findings, "seconds", self.seconds)
        if not isinstance(error, Exception):
            findings.add("error", f"{error!r} is not an exception", "give one")
        findings.check()


@frozen(kw_only=True)
class FaultRates:
    """How often calls go wrong at random, from 0 to 1 each.

    Attributes:
        death: The process dies.
        hang: The call never returns.
        slow: It takes up to ``slow_seconds`` longer.
        lost: Its answer is lost.
        raises: It raises.
        slow_seconds: Longest delay.
        methods: Only these methods; empty for all, constructors included.
    """

    death: float = 0.0
    hang: float = 0.0
    slow: float = 0.0
    lost: float = 0.0
    raises: float = 0.0
    slow_seconds: float = 5.0
    methods: frozenset[str] = frozenset()

    def __attrs_post_init__(self) -> None:
        findings = Findings("rates of faults")
        rates = {name: getattr(self, name) for name in _RATES}
        chances = {
            name: rate for name, rate in rates.items() if _is_number(rate) and 0 <= rate <= 1
        }
        for name, rate in rates.items():
            if name not in chances:
                findings.add(name, f"{rate!r} is not a chance", "give a number from 0 to 1")
        if sum(chances.values()) > 1.0 + 1e-9:
            findings.add(
                ", ".join(name for name, rate in chances.items() if rate),
                f"together they are {sum(chances.values()):g}, and a call has one fault at most",
                "let them add up to 1 or less",
            )
        check_seconds(findings, "slow_seconds", self.slow_seconds)
        methods = _anything(self.methods)
        if not isinstance(methods, frozenset | set):
            findings.add("methods", f"{methods!r} is not a set of names", "give frozenset({'add'})")
        findings.check()


@frozen
class Called:
    """A call that begins.

    Attributes:
        process: The name of its process.
        group: The name of its group.
        rank: Whose it is.
        method: Which method.
    """

    process: str
    group: str
    rank: int
    method: str


@frozen(eq=False)
class Faults:
    """Decides for every call whether it goes wrong.

    Attributes:
        chosen: Calls that go wrong for certain.
        rates: How often the others do.
        struck: What went wrong lately.
    """

    chosen: tuple[Fault, ...] = ()
    rates: FaultRates = FaultRates()
    struck: "deque[tuple[Called, Fault]]" = field(
        factory=lambda: deque(maxlen=_STRUCK_KEPT), init=False
    )
    _calls: Counter[tuple[str, int, int]] = field(factory=Counter, init=False)
    _done: set[int] = field(factory=set, init=False)

    @property
    def unstruck(self) -> list[Fault]:
        """The chosen ones that have struck nowhere yet."""
        return [fault for index, fault in enumerate(self.chosen) if index not in self._done]

    def check_ranks(self, group: str, size: int) -> None:
        """Refuse a group in which some fault is told to strike a rank that it lacks.

        Args:
            group: Its name; empty stands for any group of a cluster.
            size: How many ranks it has, or how many any group may have.

        Raises:
            PlanError: Such a fault would never strike.
        """
        findings = Findings(f"faults of worker group {group!r}" if group else "in-process cluster")
        for index, fault in enumerate(self.chosen):
            if fault.group == group and fault.rank is not None and fault.rank >= size:
                findings.add(
                    f"faults[{index}].rank",
                    f"there is no rank {fault.rank} among {size}",
                    f"give 0 to {size - 1}, or None for all",
                )
        findings.check()

    def check_methods(self, group: str, worker_class: Callable[..., object]) -> None:
        """Refuse a class that lacks a method on which some fault of this group is to strike.

        Raises:
            PlanError: Such a fault would never strike.
        """
        findings = Findings(f"faults of worker group {group!r}")
        for index, fault in enumerate(self.chosen):
            method = fault.method
            if fault.group != group or method is None or hasattr(worker_class, method):
                continue
            near = difflib.get_close_matches(method, dir(worker_class), n=1)
            findings.add(
                f"faults[{index}].method",
                f"{worker_class.__name__} has no method {method!r}",
                f"did you mean {near[0]!r}?" if near else "name one that it has, or None for all",
            )
        findings.check()

    def strike(self, called: Called, source: random.Random) -> Fault | None:
        """The fault of the call that begins now, if it has one."""
        fault = self._chosen(called) or self._by_chance(called.rank, called.method, source)
        if fault is not None:
            self.struck.append((called, fault))
        return fault

    def _chosen(self, called: Called) -> Fault | None:
        due: list[int] = []
        for index, fault in enumerate(self.chosen):
            if (
                fault.group not in {"", called.group}
                or fault.rank not in {None, called.rank}
                or fault.method not in {None, called.method}
            ):
                continue
            self._calls[called.group, called.rank, index] += 1
            if fault.call in {0, self._calls[called.group, called.rank, index]}:
                due.append(index)
        if not due:
            return None
        first = min(due, key=lambda index: self.chosen[index].call == 0)
        self._done.add(first)
        return self.chosen[first]

    def _by_chance(self, rank: int, method: str, source: random.Random) -> Fault | None:
        rates = self.rates
        if rates.methods and method not in rates.methods:
            return None
        drawn = source.random()
        for kind, rate in (
            (FaultKind.DEATH, rates.death),
            (FaultKind.HANG, rates.hang),
            (FaultKind.SLOW, rates.slow),
            (FaultKind.LOST_RESULT, rates.lost),
            (FaultKind.RAISES, rates.raises),
        ):
            if drawn < rate:
                seconds = source.random() * rates.slow_seconds
                return Fault(kind=kind, rank=rank, method=method, seconds=seconds)
            drawn -= rate
        return None
