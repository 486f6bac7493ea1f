"""Sending a dispatch plan: complete and checked before the first message leaves."""

import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from attrs import field, frozen

from planner.dispatch import DUMMY, DispatchPlan, slice_path, slices_of
from planner.findings import Findings
from planner.mesh import NamedSharding
from planner.signatures import Method, check_call
from runtime.backend import Actor, Backend, Reference
from runtime.half_sent import HalfSentError, Told, send_each
from runtime.payloads import record_unsendable, ship

__all__ = ["Sender"]

_Entry = Callable[..., Any]


@frozen(kw_only=True)
class Sender:
    """Sends calls to the workers of one group.

    Attributes:
        group: The group's name, for messages.
        worker_class: The worker's class, for messages.
        mesh: The group's axes, or None.
        methods: The methods of the worker's class.
        actors: The host actors in rank order.
        backend: Where they run.
        look: Takes note of deaths before a call to some ranks.
        admit: Refuses a call to some ranks by raising.
        sent: Told of every call that was sent.
        lock: Held while a call is sent, so that all ranks see calls in one order.
    """

    group: str
    worker_class: str
    mesh: NamedSharding | None
    methods: Mapping[str, Method]
    actors: tuple[Actor, ...]
    backend: Backend
    look: Callable[[Sequence[int]], None] = lambda _: None
    admit: Callable[[Sequence[int]], None] = lambda _: None
    sent: Told = lambda *_: None
    lock: AbstractContextManager[object] = field(factory=threading.RLock)
    _plans: dict[tuple[object, ...], DispatchPlan] = field(factory=dict, init=False)
    _checked: dict[tuple[object, ...], Method] = field(factory=dict, init=False)
    _entries_of: dict[tuple[str, bool], list[_Entry]] = field(factory=dict, init=False)

    def plan(
        self,
        method_name: str,
        key: tuple[object, ...],
        make: Callable[[Findings], DispatchPlan],
    ) -> DispatchPlan:
        """The plan of a kind of call; made once, then found by its key."""
        try:
            known = self._plans.get(key)
        except TypeError:
            # Something that can't be a key is not a valid argument either: the planner says so.
            return make(self.findings(method_name))
        if known is None:
            known = self._plans[key] = make(self.findings(method_name))
        return known

    def findings(self, method_name: object) -> Findings:
        """An empty list of findings about a call."""
        return Findings(f"worker group {self.group!r}, {method_name}()")

    def method(self, method_name: object, positional: int, keywords: Sequence[str]) -> Method:
        """The method, its parameters checked against the arguments' names.

        Raises:
            PlanError: There is no such method, or its parameters do not take the arguments.
        """
        key = (method_name, *keywords)
        known = self._checked.get(key) if isinstance(method_name, str) else None
        if known is not None and not positional:
            return known
        findings = self.findings(method_name)
        if positional:
            findings.add(
                "args",
                f"{positional} positional argument{'s'[: positional > 1]}",
                "name every data argument: method(..., data=value)",
            )
        found = check_call(self.methods, self.worker_class, method_name, 0, keywords, findings)
        findings.check()
        if found is None:
            findings.fail("method_name", f"{method_name!r} is unknown", "give a method's name")
        self._checked[key] = found
        return found

    def send(
        self,
        plan: DispatchPlan,
        method: Method,
        common: Mapping[str, object],
        sliced: Mapping[str, object],
    ) -> list[Reference]:
        """Send one call to every rank of the plan; futures in the order of ``plan.ranks``.

        Each distinct slice and each common argument is serialised once, however many ranks
        receive it. A rank that does not return runs the call and sends nothing back.

        Raises:
            PlanError: The slices do not have the form that the plan asks for; nothing was sent.
            HalfSentError: Sending broke in the middle.
        """
        self.look(plan.ranks)
        # Ranks must see the calls of two threads in one order: else two collectives would wait
        # for each other.
        with self.lock:
            self.admit(plan.ranks)
            return self._send(plan, method, common, sliced)

    def _send(
        self,
        plan: DispatchPlan,
        method: Method,
        common: Mapping[str, object],
        sliced: Mapping[str, object],
    ) -> list[Reference]:
        findings = self.findings(method.name)
        slices = {name: slices_of(plan, name, value, findings) for name, value in sliced.items()}
        findings.check()
        calls = len(plan.ranks)
        if calls == 1:
            return self._send_one(plan, method, {**common, **{n: v[0] for n, v in slices.items()}})
        shared = {
            name: _shipped(self.backend, (plan, name, None), value, calls, calls, findings)
            for name, value in common.items()
        }
        receivers = plan.receivers if slices else ()
        shipped = {
            name: [
                _shipped(self.backend, (plan, name, number), value, len(ranks), calls, findings)
                for number, (value, ranks) in enumerate(zip(values, receivers, strict=True))
            ]
            for name, values in slices.items()
        }
        findings.check()
        if not slices:
            return self._send_same(plan, method, shared)
        entries = self.entries(plan.ranks, method, plan.quiet)
        answers = (
            entry(
                **shared,
                **{
                    name: None if number == DUMMY else values[number]
                    for name, values in shipped.items()
                },
            )
            for entry, number in zip(entries, plan.slices, strict=True)
        )
        return send_each(self.group, method.name, plan.ranks, answers, self.sent)

    def _send_one(
        self, plan: DispatchPlan, method: Method, arguments: Mapping[str, object]
    ) -> list[Reference]:
        # A single call carries its arguments itself: they are serialised once whatever they are.
        entry = self.entries(plan.ranks, method, plan.quiet)[0]
        answers = (each(**arguments) for each in (entry,))
        try:
            return send_each(self.group, method.name, plan.ranks, answers, self.sent)
        except HalfSentError:
            findings = self.findings(method.name)
            for name, value in arguments.items():
                _shipped(self.backend, (plan, name, None), value, 2, 2, findings)
            findings.check()
            raise

    def _send_same(
        self, plan: DispatchPlan, method: Method, shared: Mapping[str, object]
    ) -> list[Reference]:
        answers = (entry(**shared) for entry in self.entries(plan.ranks, method, plan.quiet))
        return send_each(self.group, method.name, plan.ranks, answers, self.sent)

    def entries(
        self, ranks: Sequence[int], method: Method, quiet: AbstractSet[int]
    ) -> list[_Entry]:
        """For each rank, what takes the arguments; those of ``quiet`` send nothing back."""
        if not method.is_plain:
            return [partial(self.entry(rank, method, rank in quiet), method.name) for rank in ranks]
        if not quiet:
            plain = self._plain(method)
            return [plain[rank] for rank in ranks]
        both = self._plain(method), self._drains(method)
        return [both[rank in quiet][rank] for rank in ranks]

    # Looking an actor's method up costs more than calling it: it is done once per worker.

    def _plain(self, method: Method) -> list[_Entry]:
        known = self._entries_of.get((method.name, False))
        if known is None:
            known = [self.backend.entry(actor, method.name) for actor in self.actors]
            self._entries_of[method.name, False] = known
        return known

    def _drains(self, method: Method) -> list[_Entry]:
        known = self._entries_of.get((method.name, True))
        if known is None:
            known = [partial(actor.drain.remote, method.name) for actor in self.actors]
            self._entries_of[method.name, True] = known
        return known

    def entry(self, rank: int, method: Method, quiet: bool) -> _Entry:
        """What to call for a method on a rank: takes the method's name, then its arguments."""
        actor, options = self.actors[rank], dict[str, object](method.options)
        entry: Any = actor.drain if quiet else actor.stream if method.kind.streams else actor.call
        if method.kind.streams and not quiet:
            options["num_returns"] = "streaming"
        elif method.returns != 1 and not quiet:
            options["num_returns"] = method.returns
        entry = entry.options(**options) if options else entry
        bound: _Entry = entry.remote
        return bound


def _shipped(
    backend: Backend,
    place: tuple[DispatchPlan, str, int | None],
    value: object,
    receivers: int,
    calls: int,
    findings: Findings,
) -> object:
    """The value as it travels; one that can't be serialised becomes a finding."""
    try:
        return ship(backend, value, receivers, calls)
    except Exception as error:  # noqa: BLE001  # serialising runs code of the value's type
        record_unsendable(slice_path(*place), value, error, findings)
        return None
