"""Sending a planned call: everything that travels is made first, then the messages leave."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import field, frozen

from planner.binding import Bound
from planner.call_requests import ArgumentPlan, CallPlan, CallRequest, Route
from planner.call_ways import check_way
from planner.dispatch import DUMMY
from planner.findings import Findings
from planner.mesh import NamedSharding
from planner.outcomes import RankIdentity
from planner.roles import Declaration, Result, Role, Shard
from planner.signatures import Method
from planner.transports import OBJECT_STORE
from runtime.backend import Backend, Reference
from runtime.call_arguments import RowFacts, numbers_of_pads, payload_values, ship_payloads
from runtime.call_future import CallFuture, Sent
from runtime.call_results import Fold
from runtime.calls import Sender
from runtime.gather import Behind
from runtime.half_sent import HalfSentError, half_sent, send_each
from runtime.in_flight import InFlight
from runtime.links import LinkState
from runtime.payloads import is_plain, try_to_send
from runtime.remote_batches import Joined, RemoteBatch, Tools, send_parts
from runtime.streams import STREAM_BUFFER, CallStream, Running

__all__ = ["CallOptions", "CallState", "HalfSentError", "Prepared", "Target", "check", "send"]


@frozen(kw_only=True)
class CallOptions:
    """How calls are made; ``group.using(...)`` sets them.

    Attributes:
        mesh: The name of the mesh whose axes count; empty for the group's own.
        at: Coordinates to which calls are confined.
        roles: Roles of arguments, in place of what the class declares.
        returns: How results combine, in place of what the class declares.
        free: Axes along which only coordinate 0 is called, in place of what the class declares.
        dummy_calls: Whether the others get dummy calls, in place of what the class declares.
        fold: A function that makes one result of those of all slices.
        rows: Weights and labels of rows, by argument.
        timed: Whether workers report when they began and ended.
        buffer: How many values a worker's stream may be ahead; ``math.inf`` for no limit.
        timeout: Seconds that a wait may take; None for no limit.
        transport: The direct transport that results stay for; empty for the object store.
    """

    mesh: str = ""
    at: tuple[tuple[str, int], ...] = ()
    roles: Mapping[str, Role] = field(factory=dict)
    returns: Result | None = None
    free: Sequence[str] | None = None
    dummy_calls: bool | None = None
    fold: Fold | None = None
    rows: RowFacts = field(factory=RowFacts)
    timed: bool = False
    buffer: float = STREAM_BUFFER
    timeout: float | None = None
    transport: str = ""


@frozen
class CallState:
    """What a group remembers from call to call.

    Attributes:
        tools: Functions sent to the workers.
        meshes: The meshes by name; the group's own under the empty name.
        one_by_one: Whether a worker takes one call after the other.
        links: How the group stands to direct transports.
        bound: Calls whose arguments were bound, by their shape.
        roles: The roles that the class declares, by method.
        plans: Plans of recent calls, by request.
    """

    tools: Tools
    meshes: dict[str, NamedSharding]
    one_by_one: bool
    links: LinkState = field(factory=LinkState)
    bound: dict[tuple[object, ...], Bound] = field(factory=dict)
    roles: dict[str, Declaration] = field(factory=dict)
    plans: dict[CallRequest, CallPlan] = field(factory=dict)


class Target(Protocol):
    """What calls ask of a worker group."""

    @property
    def name(self) -> str:
        """The name of the group."""

    @property
    def backend(self) -> Backend:
        """Where it runs."""

    @property
    def identities(self) -> Mapping[int, RankIdentity]:
        """Who the ranks are."""

    @property
    def _sender(self) -> Sender:
        """What sends to them."""

    @property
    def _call_state(self) -> CallState:
        """What it remembers."""

    @property
    def _in_flight(self) -> InFlight:
        """Its calls that have not returned."""

    def _check_alive(self) -> None:
        """Raise unless it takes calls."""

    def _serving_mesh(self, name: str) -> NamedSharding:
        """The axes of calls on all ranks that serve."""


@frozen(kw_only=True)
class Prepared:
    """A call that can be sent: its plan, and the values that the plan names."""

    bound: Bound
    values: Mapping[str, Any]
    plan: CallPlan


def send(target: Target, options: CallOptions, prepared: Prepared) -> Any:
    """Send a call to every rank of its plan.

    Returns:
        A ``CallFuture``; a ``CallStream`` for a method that yields its values.

    Raises:
        PlanError: It can't be made in this way, or a value can't be serialised; nothing was sent.
        HalfSentError: Sending broke in the middle.
    """
    check(target, options, prepared)
    target._sender.look(prepared.plan.ranks)
    with target._sender.lock:
        return _send(target, options, prepared)


def check(target: Target, options: CallOptions, prepared: Prepared) -> None:
    """Refuse a call that can't be made in the way that it is asked for.

    Raises:
        PlanError: It can't.
    """
    shares = [(each.name, each.share) for each in prepared.plan.arguments if each.share]
    if shares or options.timed:
        sender = target._sender
        findings = sender.findings(prepared.plan.method)
        check_way(prepared.bound.method, shares, sender.methods, findings, timed=options.timed)
        findings.check()


def _send(target: Target, options: CallOptions, prepared: Prepared) -> Any:
    plan, bound = prepared.plan, prepared.bound
    target._sender.admit(plan.ranks)
    messages = _messages(target, plan, prepared.values)
    entries = _entries(target, options, plan, bound, messages)
    first = bound.by_position
    positional, named = bound.names[:first], bound.names[first:]
    answers = (
        entry(
            *[message[name] for name in positional if name in message],
            **{name: message[name] for name in named if name in message},
        )
        for entry, message in zip(entries, messages, strict=True)
    )
    try:
        sent = send_each(plan.group, plan.method, plan.ranks, answers, target._sender.sent)
    except HalfSentError:
        if len(plan.ranks) == 1:
            _unsendable(target, plan, messages)
        raise
    if bound.method.kind.streams:
        references = dict(zip(plan.ranks, sent, strict=True))
        stream: CallStream[Any] = CallStream(
            plan, _running(target, plan, references), options.timeout
        )
        return stream
    clocks: dict[int, Reference] = {}
    if options.timed:
        clocks = {rank: pair[1] for rank, pair in zip(plan.ranks, sent, strict=True)}
        sent = [pair[0] for pair in sent]
    references = dict(zip(plan.ranks, sent, strict=True))
    return CallFuture[Any](
        Sent(
            plan=plan,
            backend=target.backend,
            references=references,
            identities=target.identities,
            actors=tuple(target._sender.actors[rank] for rank in plan.returns),
            clocks=clocks,
            fold=options.fold,
            timeout=options.timeout,
            behind=_behind(target),
        )
    )


def _messages(target: Target, plan: CallPlan, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each called rank gets, ready to leave."""
    findings = target._sender.findings(plan.method)
    shipped: dict[str, Sequence[Any]] = {}
    for argument in plan.arguments:
        value = values.get(argument.name)
        if not isinstance(value, RemoteBatch):
            found = payload_values(argument, value)
            shipped[argument.name] = ship_payloads(target.backend, argument, found, findings)
            if isinstance(argument.role, Shard) and len(plan.ranks) > 1:
                _try_inline(target.backend, argument, shipped[argument.name], findings)
    findings.check()
    for argument in plan.arguments:
        value = values.get(argument.name)
        if isinstance(value, RemoteBatch):
            pads = {} if argument.slices is None else numbers_of_pads(argument.slices)
            tools, actors = target._call_state.tools, target._sender.actors
            try:
                shipped[argument.name] = send_parts(tools, value, argument, pads, actors)
            except Exception as error:
                raise half_sent(plan.group, plan.method, plan.ranks, ()) from error
    if all(
        len(each.payloads) == 1 and not any(each.chosen) and not each.share
        for each in plan.arguments
    ) and not _joins([{name: each[0] for name, each in shipped.items()}]):
        return [{name: each[0] for name, each in shipped.items()}] * len(plan.ranks)
    return [
        {each.name: _for_rank(each, shipped[each.name], place, rank) for each in plan.arguments}
        for place, rank in enumerate(plan.ranks)
    ]


def _try_inline(
    backend: Backend, argument: ArgumentPlan, values: Sequence[Any], findings: Findings
) -> None:
    """Find what can't be serialised among the slices that are serialised only as they leave."""
    for payload, value in zip(argument.payloads, values, strict=True):
        if payload.route is Route.INLINE and not is_plain(value):
            try_to_send(backend, argument.name, value, findings)
            if findings.found:
                return


def _for_rank(argument: ArgumentPlan, shipped: Sequence[Any], place: int, rank: int) -> Any:
    chosen = argument.chosen[place]
    if chosen == DUMMY or (argument.share and rank not in argument.payloads[chosen].ranks):
        return None
    return shipped[chosen]


def _entries(
    target: Target,
    options: CallOptions,
    plan: CallPlan,
    bound: Bound,
    messages: Sequence[dict[str, Any]],
) -> list[Callable[..., Any]]:
    """What to call for each rank; it takes what is then left in the rank's message."""
    sender, method, returning = target._sender, bound.method, frozenset(plan.returns)
    shares = {_place(each.name, bound): each.share for each in plan.arguments if each.share}
    told: dict[str, Any] = {"share": shares, "join": {}, "clock": options.timed}
    streams, direct = method.kind.streams, plan.transport != OBJECT_STORE
    served = bool(shares) or options.timed or streams
    if not served and not direct and not _joins(messages):
        return sender.entries(plan.ranks, method, frozenset(plan.ranks) - returning)
    entries: list[Callable[..., Any]] = []
    for rank, message in zip(plan.ranks, messages, strict=True):
        joined = {name: each for name, each in message.items() if isinstance(each, Joined)}
        for name in joined:
            del message[name]
        returns = rank in returning
        if not served and not joined and not (direct and returns):
            entries += sender.entries([rank], method, frozenset() if returns else {rank})
            continue
        joins = {_place(name, bound): (len(e.parts), *e.how) for name, e in joined.items()}
        to_rank = {**told, "join": joins, "returns": returns, "direct": direct and returns}
        actor = sender.actors[rank]
        if streams:
            entry = _streamed(actor, method, to_rank, options)
        elif direct and returns:
            entry = partial(
                target.backend.direct.entry(actor, "serve", plan.transport, dict(method.options)),
                method.name,
                to_rank,
            )
        else:
            entry = _served(actor, method, to_rank)
        functions = [each.function for each in joined.values()][:1]
        entries.append(partial(entry, *functions, *(e for it in joined.values() for e in it.parts)))
    return entries


def _place(name: str, bound: Bound) -> str | int:
    """Under what the worker finds an argument: its name, or its place among those before it."""
    place = bound.names.index(name)
    return place if place < bound.by_position else name


def _streamed(
    actor: Any, method: Method, told: Mapping[str, Any], options: CallOptions
) -> Callable[..., Any]:
    """A call that streams; a rank whose values do not come back is not held back."""
    asked: dict[str, Any] = {**dict(method.options), "num_returns": "streaming"}
    if told["returns"] and options.buffer != math.inf:
        asked["_generator_backpressure_num_objects"] = int(options.buffer)
    if told["returns"] and not told["share"] and not told["join"]:
        return partial(actor.stream.options(**asked).remote, method.name)
    return partial(actor.serve_stream.options(**asked).remote, method.name, told)


def _joins(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(isinstance(value, Joined) for each in messages for value in each.values())


def _served(actor: Any, method: Method, told: Mapping[str, object]) -> Callable[..., Any]:
    """A call with all that a plain one leaves out."""
    returns = 2 if told["clock"] else 1
    call = actor.serve.options(num_returns=returns, **dict(method.options))
    return partial(call.remote, method.name, told)


def _running(target: Target, plan: CallPlan, references: Mapping[int, Reference]) -> Running:
    return Running(
        subject=f"worker group {plan.group!r}, {plan.method}()",
        backend=target.backend,
        references=references,
        returning=frozenset(plan.returns),
        identities=target.identities,
        behind=_behind(target),
    )


def _behind(target: Target) -> Behind:
    """Says what holds ranks that have not begun; nothing does where workers take many calls."""
    return target._in_flight.behind if target._call_state.one_by_one else lambda _: ()


def _unsendable(target: Target, plan: CallPlan, messages: Sequence[Mapping[str, Any]]) -> None:
    """Find what can't be serialised, after a call to one rank alone did not leave."""
    findings = target._sender.findings(plan.method)
    for name, value in messages[0].items():
        if not isinstance(value, Joined) and not target.backend.is_reference(value):
            try_to_send(target.backend, name, value, findings)
    findings.check()
