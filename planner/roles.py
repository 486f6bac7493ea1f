"""What the arguments of a call are and how its results combine: roles, as data.

A worker's class declares roles with ``planner.declare.dispatch``; they can be given at a call too.
"""

import json
from collections.abc import Mapping, Sequence
from enum import Enum

import attrs
from attrs import field, frozen

from planner import slice_policies as policies
from planner.findings import Findings

__all__ = [
    "AllByRank",
    "Common",
    "Concatenate",
    "Declaration",
    "First",
    "MicroBatches",
    "PerRank",
    "PerShard",
    "REDUCTIONS",
    "Reduce",
    "Replicate",
    "Result",
    "Role",
    "Shard",
    "declaration_of",
    "declaration_text",
]


def _axes(given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    unchecked: object = given
    axes = tuple(unchecked) if isinstance(unchecked, Sequence) else (unchecked,)
    findings = Findings("roles")
    for axis in axes:
        if not isinstance(axis, str):
            remedy = "give the name of an axis, or a tuple of names, as in ('data_parallel',)"
            findings.add("axes", f"{axis!r} is not the name of an axis", remedy)
    findings.check()
    return tuple(str(axis) for axis in axes)


def _pads(
    given: "Mapping[str, policies.Pad] | Sequence[tuple[str, policies.Pad]]",
) -> tuple[tuple[str, policies.Pad], ...]:
    pairs = given.items() if isinstance(given, Mapping) else given
    return tuple(sorted(((name, pad) for name, pad in pairs), key=lambda named: named[0]))


@frozen
class Shard:
    """A batch that is cut over axes: each coordinate gets its own rows.

    Attributes:
        axes: The axes, outermost first; one name may be given as a string.
        policy: How the rows are cut.
        weights: The field of the batch that holds each row's weight, for ``Balanced`` and
            ``Packed``; empty where the weights are given at the call.
        groups: The field that holds each row's label; rows with equal labels stay together.
        pads: What padding holds, by field name; ``""`` for a batch without fields.
        like: Another argument of the call, whose rows this one's go with; the policy is then its.
        share: A method of the worker that hands the slice on inside the group. Only the leader
            of each slice is sent it; every rank calls the method, with the slice or with None, and
            goes on with what it gives. Empty: every rank is sent its slice, and a node pulls an
            object once.
    """

    axes: tuple[str, ...] = field(converter=_axes)
    policy: policies.Policy = policies.Even()
    weights: str = field(default="", kw_only=True)
    groups: str = field(default="", kw_only=True)
    pads: tuple[tuple[str, policies.Pad], ...] = field(default=(), converter=_pads, kw_only=True)
    like: str = field(default="", kw_only=True)
    share: str = field(default="", kw_only=True)


@frozen
class Replicate:
    """One value for every rank that takes part; a dummy call gets None.

    Attributes:
        share: As in ``Shard``: only rank 0 of those called is sent the value.
    """

    share: str = field(default="", kw_only=True)


@frozen
class PerRank:
    """A sequence with one value per called rank, in rank order."""


@frozen
class Common:
    """One value for every called rank, dummy calls included; what an argument is by default."""


@frozen
class MicroBatches:
    """How the slice of another argument is divided: the sizes of its micro-batches, in order.

    The caller leaves the argument out, and each rank gets a list of whole numbers for its own
    slice; an empty list where the policy of that slice does not pack, or where its rows were cut
    elsewhere. A dummy call gets None.

    Attributes:
        of: The sharded argument whose slices they are.
    """

    of: str


Role = Shard | Replicate | PerRank | Common | MicroBatches
"""What an argument of a call is."""


@frozen
class Concatenate:
    """The results of all slices as one batch: rows in the original order, without padding.

    Attributes:
        like: The sharded argument whose rows the results are; empty where there is one slicing.
    """

    like: str = field(default="", kw_only=True)


@frozen
class PerShard:
    """One result per coordinate of the sharded axes, in that order."""


@frozen
class First:
    """The result of the first coordinate alone."""


@frozen
class AllByRank:
    """The result of every rank."""


REDUCTIONS = ("sum", "mean", "min", "max", "all", "any")
"""The functions that ``Reduce`` knows by name."""


@frozen
class Reduce:
    """The results of all slices, folded into one; mappings field by field.

    In a call without a sharded argument, the results of all ranks.

    Attributes:
        function: One of ``REDUCTIONS``; or the name of a function that the caller gives.
    """

    function: str


Result = Concatenate | PerShard | First | AllByRank | Reduce
"""How the results of a call combine."""


@frozen(kw_only=True)
class Declaration:
    """The roles of a method.

    Attributes:
        arguments: A role for each argument that is not ``Common``, sorted by name.
        returns: How the results combine; None for ``Concatenate`` where an argument is sharded,
            else ``AllByRank``.
        free: Axes along which only coordinate 0 is called.
        dummy_calls: Whether the others along free axes are called too, with None for every
            argument that is not common.
    """

    arguments: tuple[tuple[str, Role], ...] = ()
    returns: Result | None = None
    free: tuple[str, ...] = field(default=(), converter=_axes)
    dummy_calls: bool = False


_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Shard,
        Replicate,
        PerRank,
        Common,
        MicroBatches,
        Concatenate,
        PerShard,
        First,
        AllByRank,
        Reduce,
        Declaration,
        policies.Even,
        policies.Uneven,
        policies.Padded,
        policies.DropRemainder,
        policies.Interleaved,
        policies.Balanced,
        policies.Packed,
        policies.Constant,
        policies.RepeatLastRow,
    )
}


def declaration_text(declaration: Declaration) -> str:
    """A declaration as JSON text, the same for the same declaration."""
    return json.dumps(_plain(declaration), sort_keys=True)


def declaration_of(text: str, findings: Findings) -> Declaration:
    """Read a declaration from its JSON text.

    Args:
        text: What ``declaration_text`` gives, or the same written by hand.
        findings: Where everything that is wrong with it is recorded, and raised.
    """
    try:
        data: object = json.loads(text)
    except ValueError as error:
        findings.fail("__rankplan_dispatch__", f"it is not JSON: {error}", "use @dispatch")
    read = _read("__rankplan_dispatch__", data, findings)
    findings.check()
    if not isinstance(read, Declaration):
        findings.fail("__rankplan_dispatch__", "it is not a declaration", "use @dispatch")
    return read


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    kind = type(value)
    if attrs.has(kind):
        named = {each.name: _plain(getattr(value, each.name)) for each in attrs.fields(kind)}
        return {"kind": kind.__name__, **named}
    return value


def _read(path: str, data: object, findings: Findings) -> object:
    if isinstance(data, list):
        return tuple(_read(f"{path}[{place}]", each, findings) for place, each in enumerate(data))
    if not isinstance(data, dict):
        return data
    kind = _KINDS.get(str(data.get("kind")))
    if kind is None:
        findings.add(
            f"{path}.kind", f"{data.get('kind')!r} is unknown", f"use one of {', '.join(_KINDS)}"
        )
        return None
    named = {
        str(key): _read(f"{path}.{key}", each, findings)
        for key, each in data.items()
        if key != "kind"
    }
    try:
        if "row_counts" in named:
            named["row_counts"] = policies.RowCounts(named["row_counts"])
        made: object = kind(**named)
    except (TypeError, ValueError) as error:
        findings.add(path, str(error), "declare it with @dispatch")
        return None
    return made
