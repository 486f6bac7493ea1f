"""Batches that are not here: slices held as objects, and their parts sent on to others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from attrs import field, frozen

from planner.call_requests import ArgumentPlan, Route
from planner.outcomes import RankIdentity
from planner.resharding import Part, Receiver, ReshardPlan, RowSpan, parts_sent
from planner.slice_results import SliceResult, unlike_slices
from planner.slicing import SlicePlan, restore_order
from runtime.backend import Actor, Backend, Reference
from runtime.batch_bytes import cut
from runtime.batches import BatchError, Rows, assemble, join, row_count, take
from runtime.direct_values import cut_direct
from runtime.gather import Behind, check_timeout, gather_or_raise

__all__ = [
    "Joined",
    "Makers",
    "RemoteBatch",
    "Tools",
    "joined_in_order",
    "places_of",
    "rows_in",
    "send_parts",
]

R = TypeVar("R")


@frozen(kw_only=True, eq=False)
class Makers:
    """The call that makes a batch.

    Attributes:
        subject: What was called, for messages.
        ranks: The rank that makes each slice.
        identities: Who the ranks are.
        behind: Says which of them have not begun.
    """

    subject: str
    ranks: tuple[int, ...]
    identities: Mapping[int, RankIdentity]
    behind: Behind


@frozen(kw_only=True, eq=False)
class RemoteBatch(Generic[R]):
    """A batch held as one object for each slice, wherever those are.

    It stands for the batch as an argument that is sharded, of the same group or another one; the
    parts go from worker to worker.

    Attributes:
        references: One for each slice.
        slices: Which rows each holds, and how much padding.
        is_cut: Whether the slices were cut for a call, padding included, and can only be that.
        homes: The worker that holds each slice, and cuts parts out of it.
        backend: Where they are.
        makers: The call that makes them; None where they were stored from here.
    """

    references: tuple[Reference, ...]
    slices: SlicePlan
    is_cut: bool
    homes: tuple[Actor, ...]
    backend: Backend
    makers: Makers | None = None

    @property
    def rows(self) -> int:
        """How many rows there are, without padding."""
        return sum(self.slices.real_sizes)

    @property
    def transport(self) -> str:
        """The direct transport that it is held for; empty for the object store."""
        made_for = self.backend.direct.transport_of
        return made_for(self.references[0]) if self.references else ""

    def as_argument(self) -> R:
        """The same, typed as the batch that it stands for."""
        return cast("R", self)

    def fetch(self, timeout: float | None = None) -> R:
        """The whole batch, brought here: rows in the original order, without padding.

        Args:
            timeout: Seconds it may take; None waits without end and says now and then for whom.

        Raises:
            WorkerGroupError: A rank that makes it has failed, or is gone with what it held; of the
                failure's own type too.
            DeadlineError: It did not come in time.
            BatchError: The results are not the rows of the slices.
        """
        makers = self.makers
        if makers is None:
            return cast(
                "R", joined_in_order(self.slices, self.backend.get(self.references, timeout))
            )
        count = len(self.references)
        subject = f"{makers.subject}, held in {count} slice{'s' * (count != 1)}"
        check_timeout(subject, timeout)
        values = gather_or_raise(
            self.backend,
            subject,
            dict(zip(makers.ranks, self.references, strict=True)),
            makers.identities,
            timeout,
            makers.behind,
            lambda _: "fetch it again with more time",
        )
        return cast(
            "R",
            joined_in_order(self.slices, [values[rank] for rank in makers.ranks], makers.ranks),
        )


@frozen(kw_only=True, eq=False)
class Joined:
    """An argument that its one receiver joins from parts, so that it is stored nowhere.

    Attributes:
        function: What joins them.
        how: What that takes before the parts.
        parts: The parts.
    """

    function: Reference
    how: tuple[object, ...]
    parts: tuple[Reference, ...]


@frozen
class Tools:
    """Functions that cut and join on the workers, each sent once.

    Attributes:
        backend: Where they are sent.
    """

    backend: Backend
    _sent: dict[str, Reference] = field(factory=dict)

    def reference(self, function: Callable[..., object]) -> Reference:
        """The function as an object."""
        name = function.__name__
        if name not in self._sent:
            self._sent[name] = self.backend.put(function)
        return self._sent[name]


def joined_in_order(
    slices: SlicePlan | None, values: Sequence[Any], ranks: Sequence[int | None] = ()
) -> Any:
    """The results of all slices as one batch: the original order, padding removed.

    Args:
        slices: The slices; None for values that are joined as they come.
        values: The result of each.
        ranks: Who gave each, for messages.

    Raises:
        BatchError: A result has not as many rows as its slice, or they do not fit together.
    """
    results = [
        SliceResult(kind=type(value).__name__, rows=row_count(value), rank=rank)
        for value, rank in zip(values, ranks or (None,) * len(values), strict=True)
    ]
    unlike = unlike_slices(slices, results)
    if unlike is not None:
        raise BatchError(unlike.path, unlike.problem, unlike.remedy)
    if slices is None:
        return join(values)
    parts = [
        take(value, slice(0, real)) if real != size and result.rows == size else value
        for value, result, real, size in zip(
            values, results, slices.real_sizes, slices.sizes, strict=True
        )
    ]
    # An empty part tells nothing of the type of its rows.
    full = [part for part, real in zip(parts, slices.real_sizes, strict=True) if real]
    joined = join(full or parts)
    order = restore_order(slices)
    rows = order.as_slice()
    if rows is not None and (rows.start, rows.step) == (0, 1):
        return joined
    return take(joined, order.tolist() if rows is None else rows)


def send_parts(
    tools: Tools,
    held: RemoteBatch[Any],
    argument: ArgumentPlan,
    pads: Mapping[str, float],
    actors: Sequence[Actor],
) -> list[Reference | Joined]:
    """A reference to each slice of a resharded argument; the bytes go between the workers.

    Each source cuts the parts that others need. The only receiver of a slice joins them in the
    call itself, and so does each receiver of parts that come directly; else the first of several
    joins them into an object for all.

    Args:
        tools: The functions that do it.
        held: What is resharded.
        argument: The plan.
        pads: The numbers that padding holds.
        actors: The receiving group's workers, by rank.
    """
    plan, slices = argument.resharding, argument.slices
    if plan is None or slices is None:
        return list(held.references)
    cuts = _cut_at_sources(tools, held, argument, plan)
    made: list[Reference | Joined] = []
    for index, (receiver, payload) in enumerate(
        zip(plan.receivers, argument.payloads, strict=True)
    ):
        if payload.route is Route.REFERENCE:
            made.append(held.references[receiver.parts[0].source])
            continue
        parts = [
            cuts.get((index, part.source), held.references[part.source])
            for part in parts_sent(receiver)
        ]
        order = places_of(receiver, slices, index)
        if payload.route is Route.PARTS and len(parts) == 1 and order is None:
            made.append(parts[0])
            continue
        how = (order, slices.real_sizes[index], dict(pads))
        given = tuple(held.backend.direct.argument(part) for part in parts)
        joined = Joined(function=tools.reference(assemble), how=how, parts=given)
        if payload.ranks[0] in argument.joins and payload.route is Route.PARTS:
            joined = actors[payload.ranks[0]].apply.remote(joined.function, *how, *given)
        made.append(joined)
    return made


def places_of(receiver: Receiver, slices: SlicePlan, index: int) -> list[int] | None:
    """The place in the joined parts of each row of a slice; None when they are as it is."""
    if receiver.order is not None:
        return receiver.order.tolist()
    # Padding may stand in order too, and still hold something of its own.
    return list(range(slices.sizes[index])) if slices.padding[index] else None


def rows_in(part: Part) -> Rows:
    """The rows of a part, as a slice where that gives a view."""
    if isinstance(part, RowSpan):
        return slice(part.start, part.stop)
    rows = part.places.as_slice()
    return part.places.tolist() if rows is None else rows


def _cut_at_sources(
    tools: Tools, held: RemoteBatch[Any], argument: ArgumentPlan, plan: ReshardPlan
) -> dict[tuple[int, int], Reference]:
    """A reference to every part that is cut, by its receiver and its source."""
    rows = {
        (index, part.source): rows_in(part)
        for index, receiver in enumerate(plan.receivers)
        for part in parts_sent(receiver)
    }
    made: dict[tuple[int, int], Reference] = {}
    direct = held.backend.direct
    for each in argument.cuts:
        source, home = each.source, held.homes[each.source]
        whole = direct.argument(held.references[source])
        size = (held.slices.real_sizes[source], held.slices.sizes[source])
        wanted = [(index, source) for index in each.receivers]
        if argument.transport:
            apply = direct.entry(home, "apply", argument.transport, {})
            function = tools.reference(cut_direct)
            made.update((key, apply(function, whole, rows[key], size)) for key in wanted)
            continue
        answer = home.apply.options(num_returns=len(wanted)).remote(
            tools.reference(cut), whole, [rows[key] for key in wanted], size
        )
        made.update(zip(wanted, answer if len(wanted) > 1 else [answer], strict=True))
    return made
