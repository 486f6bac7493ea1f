"""What is known of a call before it is planned, and the plan: facts in, who gets what out."""

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from planner.findings import Findings
from planner.indices import Indices
from planner.mesh import NamedSharding
from planner.outcomes import ranks_text
from planner.padding import FieldFacts
from planner.resharding import ReshardPlan, parts_sent
from planner.roles import Declaration, Result, Role
from planner.slicing import SlicePlan
from planner.transports import OBJECT_STORE, LinkFacts

__all__ = [
    "ArgumentFacts",
    "ArgumentPlan",
    "CallPlan",
    "CallRequest",
    "Cut",
    "Given",
    "NodeTraffic",
    "Payload",
    "Route",
    "traffic",
]


class Given(Enum):
    """In what form the caller gives an argument."""

    VALUE = "value"
    """A value in the caller's process."""
    REFERENCE = "reference"
    """A reference to an object, wherever it is."""
    REFERENCES = "references"
    """One reference for each slice, or for each rank."""
    HELD = "held"
    """The results of a call that stayed where they are, one for each slice of some slicing."""


class Route(Enum):
    """How a payload gets to those who receive it."""

    INLINE = "inline"
    """Inside each call."""
    OBJECT = "object"
    """Serialised once, as an object that each call names; a node pulls it once."""
    REFERENCE = "reference"
    """An object that exists already; the caller's process does not touch it."""
    PARTS = "parts"
    """Parts are cut where they are, and joined where they are needed."""
    DIRECT = "direct"
    """The same, past the object store, by a direct transport; each receiver joins them itself."""


@frozen(kw_only=True)
class ArgumentFacts:
    """What the plan must know of an argument; the values themselves are no part of it.

    Attributes:
        name: Its parameter.
        kind: The type of its value, for messages.
        given: In what form it is there.
        rows: How many rows it has; None for what has none, or for references.
        count: How many values or references there are, where there must be one for each.
        size: About how many bytes; None when not known.
        row_bytes: The bytes of a row, one number or one for each; None when not known.
        weights: A weight for each row.
        groups: A label for each row, as numbers.
        held: How the rows of ``Given.HELD`` are spread over its slices.
        is_cut: Whether ``held`` is already cut as this call wants it, padding included.
        held_for: The direct transport that ``Given.HELD`` was made for; empty for none.
        held_link: The link in which all are that hold it; empty for none.
        lost: Those slices of ``held`` that are gone with the workers that held them.
        fields: Its fields with rows; None where nobody has looked, as only padding needs them.
    """

    name: str
    kind: str = ""
    given: Given = Given.VALUE
    rows: int | None = None
    count: int | None = None
    size: int | None = None
    row_bytes: Indices | None = None
    weights: Indices | None = None
    groups: Indices | None = None
    held: SlicePlan | None = None
    is_cut: bool = False
    held_for: str = ""
    held_link: str = ""
    lost: tuple[int, ...] = ()
    fields: tuple[FieldFacts, ...] | None = None


@frozen(kw_only=True)
class CallRequest:
    """A call to be planned.

    Attributes:
        group: The group's name.
        method: The method's name.
        mesh: The ranks that may be called, and their axes.
        roles: The roles of the arguments, and how results combine.
        arguments: Facts about each argument.
        streams: Whether the method gives a stream of values.
        folds: Whether the caller gives the function that ``Reduce`` names.
        transport: The direct transport that the results shall stay for; empty for none.
        link: How the group stands to direct transports.
        timed: Whether workers report when they began and ended.
    """

    group: str
    method: str
    mesh: NamedSharding
    roles: Declaration = Declaration()
    arguments: tuple[ArgumentFacts, ...] = ()
    streams: bool = False
    folds: bool = False
    transport: str = ""
    link: LinkFacts = LinkFacts()
    timed: bool = False


@frozen(kw_only=True)
class Payload:
    """One distinct value, and the ranks that are sent it.

    Attributes:
        ranks: Who is sent it.
        route: How.
        size: About how many bytes; None when not known.
    """

    ranks: tuple[int, ...]
    route: Route
    size: int | None = None


@frozen(kw_only=True)
class Cut:
    """One call that cuts parts out of what a source holds.

    Attributes:
        source: Which of the slices that are held.
        receivers: The slices that the parts are for.
    """

    source: int
    receivers: tuple[int, ...]


@frozen(kw_only=True)
class ArgumentPlan:
    """What each called rank gets for one argument.

    Attributes:
        name: Its parameter.
        role: What it is.
        payloads: The distinct values.
        chosen: For each called rank, the index of its payload; ``DUMMY`` for None.
        slices: Which rows form each payload, for a batch that is cut; for the sizes of
            micro-batches, the slices that they divide.
        resharding: Which parts form each payload, for results that stayed where they are.
        cuts: The calls on the sources of ``resharding`` that cut parts; a part in none of them is
            all that its source holds, and goes as it is.
        joins: The ranks that are asked to join a slice for several receivers, before their calls.
        transport: The direct transport that its parts go by; empty for the object store.
        reason: Why parts that were held for a direct transport do not go by it; empty otherwise.
        share: The worker's method that hands the payload on inside the group; empty without.
    """

    name: str
    role: Role
    payloads: tuple[Payload, ...]
    chosen: tuple[int, ...]
    slices: SlicePlan | None = None
    resharding: ReshardPlan | None = None
    cuts: tuple[Cut, ...] = ()
    joins: tuple[int, ...] = ()
    transport: str = ""
    reason: str = ""
    share: str = ""


@frozen(kw_only=True)
class CallPlan:
    """A call, complete before its first message: who gets what, who returns, what it costs.

    Attributes:
        group: The group's name.
        method: The method's name.
        ranks: Who is called, in rank order.
        returns: Whose results come back, in the order in which they combine.
        arguments: What each gets, argument by argument.
        result: How the results combine.
        result_of: The argument whose slices the results belong to; empty where there is none.
        transport: How the results go to those who need them: a direct transport when they stay in
            the memory of their makers for it; else the object store.
        reason: How the payloads go and the results, and why so.
    """

    group: str
    method: str
    ranks: tuple[int, ...]
    returns: tuple[int, ...]
    arguments: tuple[ArgumentPlan, ...]
    result: Result
    result_of: str = ""
    transport: str = OBJECT_STORE
    reason: str = ""

    @property
    def calls(self) -> int:
        """How many calls are sent."""
        return len(self.ranks)

    @property
    def objects(self) -> int:
        """How many objects the caller's process makes."""
        return sum(
            payload.route is Route.OBJECT for each in self.arguments for payload in each.payloads
        )

    @property
    def cuts(self) -> int:
        """How many calls there are beside these, to cut parts of held results and to join them."""
        return sum(len(each.cuts) + len(each.joins) for each in self.arguments)

    @property
    def slices(self) -> SlicePlan | None:
        """The slices that the results belong to."""
        found = [each.slices for each in self.arguments if each.name == self.result_of]
        return found[0] if found else None


@frozen(kw_only=True)
class NodeTraffic:
    """What a call sends to one node.

    Attributes:
        node: Which.
        calls: How many calls.
        objects: How many distinct objects; a slice that is joined there counts as its parts.
        parts: How many of these are parts of results that stayed on their workers.
        size: How many bytes are known of: an object counts once, an inline value in every call.
        unknown: How many payloads and parts are of unknown size.
    """

    node: str
    calls: int
    objects: int
    parts: int
    size: int
    unknown: int


def traffic(plan: CallPlan, node_of: Mapping[int, str]) -> tuple[NodeTraffic, ...]:
    """What a call sends to each node, in the order of the nodes' names.

    Args:
        plan: The call.
        node_of: The node of each rank.

    Raises:
        PlanError: A called rank has no node.
    """
    lost = [rank for rank in plan.ranks if rank not in node_of]
    if lost:
        Findings(f"worker group {plan.group!r}, {plan.method}()").fail(
            "node_of",
            f"no node for {ranks_text(lost)}",
            "give one for every called rank: {worker.rank: worker.node_id for worker in "
            "group.plan.workers}",
        )
    return tuple(
        _to_node(plan, node, {rank for rank in plan.ranks if node_of[rank] == node})
        for node in sorted({node_of[rank] for rank in plan.ranks})
    )


def _to_node(plan: CallPlan, node: str, here: set[int]) -> NodeTraffic:
    sent = [
        (payload, _parts_to(each, index, here), len(here.intersection(payload.ranks)))
        for each in plan.arguments
        for index, payload in enumerate(each.payloads)
        if here.intersection(payload.ranks)
    ]
    parts = sum(count for _, count, _ in sent)
    whole = [(payload, times) for payload, count, times in sent if not count]
    return NodeTraffic(
        node=node,
        calls=len(here),
        objects=parts + sum(payload.route is not Route.INLINE for payload, _ in whole),
        parts=parts,
        size=sum(
            (payload.size or 0) * (times if payload.route is Route.INLINE else 1)
            for payload, times in whole
        ),
        unknown=parts + sum(payload.size is None for payload, _ in whole),
    )


def _parts_to(argument: ArgumentPlan, index: int, here: set[int]) -> int:
    """How many parts of held results go to a node for one slice; 0 when it goes as one object."""
    if argument.resharding is None:
        return 0
    payload, count = argument.payloads[index], len(parts_sent(argument.resharding.receivers[index]))
    match payload.route:
        case Route.PARTS:
            # Others who receive what was joined get it as one object.
            return count if payload.ranks[0] in here else 0
        case Route.DIRECT:
            return count * len(here.intersection(payload.ranks))
        case _:
            return 1
