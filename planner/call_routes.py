"""How the payloads of a call travel: inside calls, as objects, or in parts from other workers."""

from collections.abc import Sequence

import attrs
import numpy as np

from planner.call_requests import ArgumentPlan, Cut, Given, Payload, Route
from planner.dispatch import Transport, choose_transport
from planner.resharding import (
    Part,
    Receiver,
    ReshardPlan,
    RowSpan,
    parts_sent,
    plan_resharding,
)
from planner.slicing import SlicePlan

__all__ = ["payload_of", "reason_of", "resharded"]

_TOLD = {
    Route.INLINE: "inside the calls, small or for one call alone",
    Route.OBJECT: "put into the store, once each",
    Route.REFERENCE: "there already",
    Route.PARTS: "in parts from worker to worker, through the store",
    Route.DIRECT: "in parts from worker to worker, past the store",
}

_CUT_THERE = "its makers cut it, each after the calls that it was sent before"


def payload_of(given: Given, size: int | None, ranks: tuple[int, ...], calls: int) -> Payload:
    """One distinct value and how it travels.

    Args:
        given: In what form the caller has it.
        size: About how many bytes; None when not known.
        ranks: Who is sent it.
        calls: How many calls there are in all.
    """
    if given is not Given.VALUE:
        return Payload(ranks=ranks, route=Route.REFERENCE, size=size)
    inline = choose_transport(size, len(ranks), calls) is Transport.INLINE
    return Payload(ranks=ranks, route=Route.INLINE if inline else Route.OBJECT, size=size)


def resharded(
    planned: ArgumentPlan,
    held: SlicePlan,
    wanted: SlicePlan,
    leaders: tuple[tuple[int, ...], ...],
    held_for: str = "",
    refusal: str = "",
) -> ArgumentPlan:
    """An argument whose slices are made of results that stayed where they are.

    Args:
        planned: The argument.
        held: How the results are spread.
        wanted: The slices that it is to have.
        leaders: Who is sent each slice.
        held_for: The direct transport that the results were made for; empty for none.
        refusal: Why they do not go by it; empty when they do.
    """
    # Rows that the source dropped are no rows of its results: the rest are counted anew.
    kept = held if not held.dropped else _without_dropped(held)
    plan = plan_resharding(kept, wanted)
    payloads = tuple(
        Payload(
            ranks=ranks,
            route=Route.DIRECT
            if held_for and not refusal
            else Route.PARTS
            if held_for or padding or not _as_it_is(plan, receiver, held)
            else Route.REFERENCE,
        )
        for receiver, ranks, padding in zip(plan.receivers, leaders, wanted.padding, strict=True)
    )
    # What was made for a transport is in its maker's memory, and comes out of it by a cut alone.
    needed = [
        (part.source, index)
        for index, (receiver, payload) in enumerate(zip(plan.receivers, payloads, strict=True))
        if payload.route is not Route.REFERENCE
        for part in parts_sent(receiver)
        if (held_for and refusal) or not _is_whole(part, plan, held)
    ]
    return attrs.evolve(
        planned,
        payloads=payloads,
        slices=wanted,
        resharding=plan,
        cuts=_cuts(needed, together=not held_for or bool(refusal)),
        joins=tuple(
            payload.ranks[0]
            for receiver, payload, padding in zip(
                plan.receivers, payloads, wanted.padding, strict=True
            )
            if payload.route is Route.PARTS and len(payload.ranks) > 1
            if len(parts_sent(receiver)) > 1 or receiver.order is not None or padding
        ),
        transport="" if refusal else held_for,
        reason=f"held for {held_for}, and {refusal}: {_CUT_THERE}" if refusal else "",
    )


def _cuts(needed: Sequence[tuple[int, int]], *, together: bool) -> tuple[Cut, ...]:
    """The calls that cut parts: one for each source, or one for each part."""
    if not together:
        return tuple(Cut(source=source, receivers=(index,)) for source, index in sorted(needed))
    receivers: dict[int, list[int]] = {}
    for source, index in sorted(needed):
        receivers.setdefault(source, []).append(index)
    return tuple(Cut(source=each, receivers=tuple(found)) for each, found in receivers.items())


def _without_dropped(held: SlicePlan) -> SlicePlan:
    kept = np.setdiff1d(np.arange(held.rows), np.array(held.dropped, dtype=np.int64))
    order = np.searchsorted(kept, held.order.array)
    return attrs.evolve(
        held, rows=int(kept.size), dropped=(), order=type(held.order).of(order.astype(np.int64))
    )


def _as_it_is(plan: ReshardPlan, receiver: Receiver, held: SlicePlan) -> bool:
    """Whether a receiver's slice is one source's results, whole and without padding."""
    if len(receiver.parts) != 1 or receiver.order is not None:
        return False
    return _is_whole(receiver.parts[0], plan, held)


def _is_whole(part: Part, plan: ReshardPlan, held: SlicePlan) -> bool:
    """Whether a part is all that its source holds, so that it need not be cut out of it."""
    whole = isinstance(part, RowSpan) and len(part) == plan.source_sizes[part.source]
    return whole and not held.padding[part.source]


def reason_of(arguments: Sequence[ArgumentPlan], transport: str) -> str:
    """How the payloads of a call travel and its results, and why so.

    Args:
        arguments: The arguments, as they are planned.
        transport: The direct transport that the results stay for; empty for none.
    """
    routes = [payload.route for each in arguments for payload in each.payloads]
    told = [f"{routes.count(route)} {what}" for route, what in _TOLD.items() if route in routes]
    parts = [", ".join(told) or "nothing to send"]
    parts += [f"{each.name!r} was {each.reason}" for each in arguments if each.reason]
    parts += [
        f"{each.name!r} goes by {each.transport}: it was held for it"
        for each in arguments
        if each.transport
    ]
    parts.append(
        f"results stay with their makers for {transport}, as the call asks"
        if transport
        else "results through the store: no direct transport was asked for"
    )
    return "; ".join(parts)
