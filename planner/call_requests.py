"""What is known of a call before it is planned, and the plan: facts in, who gets what out."""

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from planner.indices import Indices
from planner.mesh import NamedSharding
from planner.resharding import ReshardPlan
from planner.roles import Declaration, Result, Role
from planner.slicing import SlicePlan

__all__ = [
    "ArgumentFacts",
    "ArgumentPlan",
    "CallPlan",
    "CallRequest",
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
        transport: How results that stay move on: ``object store``, or a direct one for tensors.
    """

    group: str
    method: str
    mesh: NamedSharding
    roles: Declaration = Declaration()
    arguments: tuple[ArgumentFacts, ...] = ()
    streams: bool = False
    transport: str = "object store"


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
class ArgumentPlan:
    """What each called rank gets for one argument.

    Attributes:
        name: Its parameter.
        role: What it is.
        payloads: The distinct values.
        chosen: For each called rank, the index of its payload; ``DUMMY`` for None.
        slices: Which rows form each payload, for a batch that is cut.
        resharding: Which parts form each payload, for results that stayed where they are.
        share: The worker's method that hands the payload on inside the group; empty without.
    """

    name: str
    role: Role
    payloads: tuple[Payload, ...]
    chosen: tuple[int, ...]
    slices: SlicePlan | None = None
    resharding: ReshardPlan | None = None
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
        transport: How results that stay move on.
        reason: Why that transport.
    """

    group: str
    method: str
    ranks: tuple[int, ...]
    returns: tuple[int, ...]
    arguments: tuple[ArgumentPlan, ...]
    result: Result
    result_of: str = ""
    transport: str = "object store"
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
        objects: How many distinct objects.
        size: How many bytes are known of: an object counts once, an inline value in every call.
        unknown: How many payloads are of unknown size.
    """

    node: str
    calls: int
    objects: int
    size: int
    unknown: int


def traffic(plan: CallPlan, node_of: Mapping[int, str]) -> tuple[NodeTraffic, ...]:
    """What a call sends to each node, in the order of the nodes' names.

    Args:
        plan: The call.
        node_of: The node of each rank.
    """
    payloads = [payload for each in plan.arguments for payload in each.payloads]
    told = []
    for node in sorted({node_of[rank] for rank in plan.ranks}):
        here = {rank for rank in plan.ranks if node_of[rank] == node}
        sent = [(payload, len(here.intersection(payload.ranks))) for payload in payloads]
        sent = [(payload, times) for payload, times in sent if times]
        told.append(
            NodeTraffic(
                node=node,
                calls=len(here),
                objects=sum(payload.route is not Route.INLINE for payload, _ in sent),
                size=sum(
                    (payload.size or 0) * (times if payload.route is Route.INLINE else 1)
                    for payload, times in sent
                ),
                unknown=sum(payload.size is None for payload, _ in sent),
            )
        )
    return tuple(told)
