"""Sending a planned call: everything that travels is made first, then the messages leave."""

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import field, frozen

from planner.binding import Bound
from planner.call_requests import ArgumentPlan, CallPlan, CallRequest
from planner.dispatch import DUMMY
from planner.mesh import NamedSharding
from planner.outcomes import RankIdentity, ranks_text
from planner.roles import Declaration, Result, Role
from planner.signatures import Method
from runtime.backend import Backend, Reference
from runtime.call_arguments import RowFacts, numbers_of_pads, payload_values, ship_payloads
from runtime.call_future import CallFuture, Sent
from runtime.call_results import Fold
from runtime.calls import Sender
from runtime.errors import ExecutionError
from runtime.remote_batches import Joined, RemoteBatch, Tools, send_parts
from runtime.streams import CallStream, Running

__all__ = ["CallOptions", "CallState", "HalfSentError", "Prepared", "Target", "send"]

_CALLS_KNOWN = 64


class HalfSentError(ExecutionError):
    """Sending a call broke in the middle.

    Attributes:
        sent: The ranks that have been called.
        not_sent: The ranks that have not.
    """

    sent: tuple[int, ...]
    not_sent: tuple[int, ...]


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
        buffer: How many values a worker's stream may be ahead; None for no limit.
        timeout: Seconds that a wait may take; None for no limit.
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
    buffer: int | None = None
    timeout: float | None = None


@frozen
class CallState:
    """What a group remembers from call to call.

    Attributes:
        tools: Functions sent to the workers.
        meshes: The meshes by name; the group's own under the empty name.
        one_by_one: Whether a worker takes one call after the other.
        bound: Calls whose arguments were bound, by their shape.
        roles: The roles that the class declares, by method.
        plans: Plans of recent calls, by request.
        recent: The latest calls that somebody still holds.
    """

    tools: Tools
    meshes: dict[str, NamedSharding]
    one_by_one: bool
    bound: dict[tuple[object, ...], Bound] = field(factory=dict)
    roles: dict[str, Declaration] = field(factory=dict)
    plans: dict[CallRequest, CallPlan] = field(factory=dict)
    recent: "deque[weakref.ref[CallFuture[Any]]]" = field(
        factory=lambda: deque(maxlen=_CALLS_KNOWN)
    )


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

    def _check_alive(self) -> None:
        """Raise unless it takes calls."""


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
        PlanError: A value can't be serialised; nothing was sent.
        HalfSentError: Sending broke in the middle.
    """
    with target._sender.lock:
        return _send(target, options, prepared)


def _send(target: Target, options: CallOptions, prepared: Prepared) -> Any:
    plan, bound = prepared.plan, prepared.bound
    target._sender.admit(plan.ranks)
    # A stream's values, and arguments given by position, leave no room for parts to be joined.
    in_call = not bound.method.kind.streams and not bound.by_position
    messages = _messages(target, plan, prepared.values, in_call=in_call)
    references: dict[int, Reference] = {}
    clocks: dict[int, Reference] = {}
    entries = _entries(target._sender, options, plan, bound, messages)
    first = bound.by_position
    positional, named = bound.names[:first], bound.names[first:]
    try:
        for rank, entry, message in zip(plan.ranks, entries, messages, strict=True):
            args = [message[name] for name in positional]
            answer = entry(*args, **{name: message[name] for name in named if name in message})
            if options.timed:
                answer, clocks[rank] = answer
            references[rank] = answer
    except Exception as error:
        raise _half_sent(plan, tuple(references)) from error
    target._sender.sent(list(references.values()))
    if bound.method.kind.streams:
        return CallStream(plan, _running(target, plan, references), options.timeout)
    future: CallFuture[Any] = CallFuture(
        Sent(
            plan=plan,
            backend=target.backend,
            references=references,
            identities=target.identities,
            actors=tuple(target._sender.actors[rank] for rank in plan.returns),
            clocks=clocks,
            fold=options.fold,
            timeout=options.timeout,
            earlier=_earlier(target),
        )
    )
    target._call_state.recent.append(weakref.ref(future))
    return future


def _messages(
    target: Target, plan: CallPlan, values: Mapping[str, Any], *, in_call: bool
) -> list[dict[str, Any]]:
    """What each called rank gets, ready to leave."""
    findings = target._sender.findings(plan.method)
    shipped: dict[str, Sequence[Any]] = {}
    for argument in plan.arguments:
        value = values[argument.name]
        if not isinstance(value, RemoteBatch):
            found = payload_values(argument, value)
            shipped[argument.name] = ship_payloads(target.backend, argument, found, findings)
    findings.check()
    for argument in plan.arguments:
        value = values[argument.name]
        if isinstance(value, RemoteBatch):
            pads = {} if argument.slices is None else numbers_of_pads(argument.slices)
            tools, actors = target._call_state.tools, target._sender.actors
            shipped[argument.name] = send_parts(
                tools, value, argument, pads, actors, in_call=in_call
            )
    if all(len(each.payloads) == 1 and not any(each.chosen) for each in plan.arguments) and not (
        any(each.share for each in plan.arguments)
    ):
        return [{name: each[0] for name, each in shipped.items()}] * len(plan.ranks)
    return [
        {each.name: _for_rank(each, shipped[each.name], place, rank) for each in plan.arguments}
        for place, rank in enumerate(plan.ranks)
    ]


def _for_rank(argument: ArgumentPlan, shipped: Sequence[Any], place: int, rank: int) -> Any:
    chosen = argument.chosen[place]
    if chosen == DUMMY or (argument.share and rank not in argument.payloads[chosen].ranks):
        return None
    return shipped[chosen]


def _entries(
    sender: Sender,
    options: CallOptions,
    plan: CallPlan,
    bound: Bound,
    messages: Sequence[dict[str, Any]],
) -> list[Callable[..., Any]]:
    """What to call for each rank; it takes what is then left in the rank's message."""
    method, returning = bound.method, frozenset(plan.returns)
    share = {each.name: each.share for each in plan.arguments if each.share}
    quiet = frozenset(plan.ranks) - returning
    plain = sender.entries(plan.ranks, method, quiet)
    if method.is_plain and not options.timed and not share and not _joins(messages):
        return plain
    entries: list[Callable[..., Any]] = []
    for rank, message, usual in zip(plan.ranks, messages, plain, strict=True):
        returns = rank in returning
        joined = {name: each for name, each in message.items() if isinstance(each, Joined)}
        if (options.timed or share or joined) and not method.kind.streams:
            told = {"share": share, "returns": returns, "clock": options.timed}
            entries.append(_served(sender.actors[rank], method, told, joined))
            for name in joined:
                del message[name]
        elif method.kind.streams and not returns:
            call: Any = sender.actors[rank].run_stream
            call = call.options(num_returns="streaming", **dict(method.options))
            entries.append(partial(call.remote, method.name))
        elif method.kind.streams and options.buffer is not None:
            call = sender.actors[rank].stream
            call = call.options(
                num_returns="streaming", _generator_backpressure_num_objects=options.buffer
            )
            entries.append(partial(call.remote, method.name))
        else:
            entries.append(usual)
    return entries


def _joins(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(isinstance(value, Joined) for each in messages for value in each.values())


def _served(
    actor: Any, method: Method, told: Mapping[str, object], joined: Mapping[str, Joined]
) -> Callable[..., Any]:
    """A call with all that a plain one leaves out; what is joined there comes before the rest."""
    returns = 2 if told["clock"] else 1
    call = actor.serve.options(num_returns=returns, **dict(method.options))
    joins = {name: (len(each.parts), *each.how) for name, each in joined.items()}
    functions = [each.function for each in joined.values()][:1]
    parts = [part for each in joined.values() for part in each.parts]
    return partial(call.remote, method.name, {**told, "join": joins}, *functions, *parts)


def _running(target: Target, plan: CallPlan, references: Mapping[int, Reference]) -> Running:
    return Running(
        subject=f"worker group {plan.group!r}, {plan.method}()",
        backend=target.backend,
        references=references,
        returning=frozenset(plan.returns),
        identities=target.identities,
    )


def _earlier(target: Target) -> Callable[[], Sequence[CallFuture[Any]]]:
    """The calls before this one; none where workers take many calls at once."""
    state = target._call_state
    if not state.one_by_one:
        return tuple
    recent = tuple(state.recent)
    return lambda: [future for each in recent if (future := each()) is not None]


def _half_sent(plan: CallPlan, sent: tuple[int, ...]) -> HalfSentError:
    rest = plan.ranks[len(sent) :]
    error = HalfSentError(
        f"worker group {plan.group!r}, {plan.method}(): sending broke: "
        f"{ranks_text(sent) if sent else 'no rank'} called, {ranks_text(rest)} not; "
        "end the group if its ranks must all take part"
    )
    error.sent, error.not_sent = sent, rest
    return error
