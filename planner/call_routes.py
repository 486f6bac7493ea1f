"""How the payloads of a call travel: inside calls, as objects, or in parts from other workers."""

from collections.abc import Sequence

import attrs
import numpy as np

from planner.call_requests import ArgumentPlan, Given, Payload, Route
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
}
_NOT_DIRECT = (
    "no direct transport: Ray's takes no references by keyword, which calls use, and the caller "
    "can't put into it"
)


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
) -> ArgumentPlan:
    """An argument whose slices are made of results that stayed where they are.

    Args:
        planned: The argument.
        held: How the results are spread.
        wanted: The slices that it is to have.
        leaders: Who is sent each slice.
    """
    # Rows that the source dropped are no rows of its results: the rest are counted anew.
    kept = held if not held.dropped else _without_dropped(held)
    plan = plan_resharding(kept, wanted)
    payloads = tuple(
        Payload(
            ranks=ranks,
            route=Route.PARTS
            if padding or not _as_it_is(plan, receiver, held)
            else Route.REFERENCE,
        )
        for receiver, ranks, padding in zip(plan.receivers, leaders, wanted.padding, strict=True)
    )
    cuts = {
        part.source
        for receiver, payload in zip(plan.receivers, payloads, strict=True)
        if payload.route is Route.PARTS
        for part in parts_sent(receiver)
        if not _is_whole(part, plan, held)
    }
    return attrs.evolve(
        planned, payloads=payloads, slices=wanted, resharding=plan, cuts=tuple(sorted(cuts))
    )


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


def reason_of(arguments: Sequence[ArgumentPlan]) -> str:
    """How the payloads of a call travel, and why not directly from worker to worker."""
    routes = [payload.route for each in arguments for payload in each.payloads]
    told = [f"{routes.count(route)} {what}" for route, what in _TOLD.items() if route in routes]
    return f"{', '.join(told) or 'nothing to send'}; {_NOT_DIRECT}"
