"""A request to slice a batch, checked whole: all that is wrong with it, at once."""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.findings import Findings
from planner.padding import check_pads
from planner.slice_policies import (
    Balanced,
    DropRemainder,
    Even,
    Packed,
    Pad,
    Padded,
    Policy,
    RowCounts,
)
from planner.whole_numbers import whole_number

__all__ = ["Labels", "Numbers", "SliceRequest", "checked_request"]

Numbers = Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.int32]
"""One whole number per row."""
Labels = Numbers | Sequence[str] | npt.NDArray[np.str_]
"""One label per row; rows with equal labels form a group."""

_A_SIZE = "give a whole number, 1 or more"
_LARGEST_TOTAL = 1 << 52
"""Sums of weights stay below this, so that 64 bits hold all that balancing makes of them."""


@frozen(kw_only=True)
class SliceRequest:
    """A request that can be planned.

    Attributes:
        policy: How to cut.
        rows: How many rows the batch has.
        slices: How many slices.
        weights: The weight of each row; empty unless the policy goes by weights.
        groups: The group of each row, counted from 0; None where rows go one by one.
        row_bytes: The bytes of each row; None when not known.
        pads: What padding holds, by field name, sorted.
    """

    policy: Policy
    rows: int
    slices: int
    weights: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None
    row_bytes: npt.NDArray[np.int64] | None
    pads: tuple[tuple[str, Pad], ...]


def checked_request(
    policy: Policy,
    rows: int,
    slices: int,
    weights: Numbers | None,
    groups: Labels | None,
    row_bytes: int | Numbers | None,
    pads: Mapping[str, Pad] | None,
) -> SliceRequest:
    """The request in plain arrays; see ``plan_slices`` for the arguments.

    Raises:
        PlanError: Something in it cannot be planned; all of it is said.
    """
    findings = Findings(f"slices by {type(policy).__name__}")
    _check_policy(policy, findings)
    _check_counts(policy, rows, slices, findings)
    _check_use(policy, weights, groups, findings)
    row_weights = _numbers("weights", weights, rows, findings)
    row_groups = _groups(groups, rows, findings)
    if rows >= 0 and slices > 0:
        _check_divides(policy, rows, slices, row_groups, findings)
    _check_budget(policy, row_weights, findings)
    if isinstance(row_bytes, int):
        row_bytes = np.full(max(rows, 0), row_bytes, dtype=np.int64)
    sized = None if row_bytes is None else _numbers("row_bytes", row_bytes, rows, findings)
    check_pads(pads or {}, findings)
    findings.check()
    return SliceRequest(
        policy=policy,
        rows=rows,
        slices=slices,
        weights=row_weights,
        groups=row_groups,
        row_bytes=sized,
        pads=tuple(sorted((pads or {}).items(), key=lambda named: named[0])),
    )


def _check_policy(policy: object, findings: Findings) -> None:
    """What is no policy at all ends the checks; the rest needs one."""
    if isinstance(policy, Policy):
        return
    named = policy.__name__ if isinstance(policy, type) else str(policy)
    meant = [each for each in get_args(Policy) if each.__name__.lower() == named.lower()]
    known = ", ".join(each.__name__ for each in get_args(Policy))
    made = f"{meant[0].__name__}({'budget=...' if meant[0] is Packed else ''})" if meant else ""
    findings.fail(
        "policy",
        f"{policy!r} is not a policy",
        f"give {made}" if made else f"give one of {known}",
    )


def _check_counts(policy: Policy, rows: int, slices: int, findings: Findings) -> None:
    if rows < 0:
        findings.add("rows", f"{rows} is negative", "give the number of rows, 0 or more")
    if slices < 1:
        findings.add("slices", f"{slices} slices hold nothing", "ask for at least one slice")
    if isinstance(policy, Padded | DropRemainder) and not _is_positive(policy.multiple):
        findings.add("policy.multiple", f"{policy.multiple!r} is not a size", _A_SIZE)
    if isinstance(policy, Packed) and not _is_positive(policy.budget):
        findings.add("policy.budget", f"{policy.budget!r} holds no row", _A_SIZE)
    counts: object = policy.row_counts if isinstance(policy, Balanced) else RowCounts.FREE
    if not isinstance(counts, RowCounts):
        findings.add(
            "policy.row_counts",
            f"{counts!r} is not one of RowCounts",
            f"give {', '.join(f'RowCounts.{each.name}' for each in RowCounts)}",
        )


def _is_positive(value: object) -> bool:
    return (whole_number(value) or 0) >= 1


def _check_use(
    policy: Policy, weights: Numbers | None, groups: Labels | None, findings: Findings
) -> None:
    name = type(policy).__name__
    if isinstance(policy, Balanced | Packed):
        if weights is None:
            findings.add(
                "weights", f"{name} goes by a weight per row, and none are given", "give weights"
            )
        return
    for path, given in (("weights", weights), ("groups", groups)):
        if given is not None:
            findings.add(path, f"{name} has no use for {path}", "leave them out, or use Balanced")


def _numbers(
    path: str, given: Numbers | None, rows: int, findings: Findings
) -> npt.NDArray[np.int64]:
    """The numbers as an array; an empty one, with a finding, where they are not usable."""
    nothing = np.zeros(0, dtype=np.int64)
    if given is None:
        return nothing
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.asarray(None)
    if not _has_length(path, array.shape, rows, findings):
        return nothing
    whole = array.dtype.kind in "iu" or not array.size
    if not whole and array.dtype.kind == "f":
        whole = bool(np.all(np.isfinite(array) & (array == np.floor(array))))
    if not whole:
        findings.add(
            path,
            f"numbers of type {array.dtype} are not all whole",
            "give whole numbers; scale and round a cost that is not whole",
        )
        return nothing
    if float(np.sum(np.abs(array), dtype=np.float64)) >= _LARGEST_TOTAL:
        findings.add(path, "their sum is beyond 2 ** 52", "give them in a larger unit")
        return nothing
    numbers = array.astype(np.int64)
    negative = np.flatnonzero(numbers < 0)
    if negative.size:
        findings.add(path, f"{_named(numbers, negative)} negative", "give 0 or more for each row")
    return numbers


def _groups(given: Labels | None, rows: int, findings: Findings) -> npt.NDArray[np.int64] | None:
    if given is None:
        return None
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.asarray(None)
    if not _has_length("groups", array.shape, rows, findings):
        return None
    if array.size and array.dtype.kind not in "iuU":
        findings.add(
            "groups", f"labels of type {array.dtype} are no names", "give whole numbers or texts"
        )
        return None
    group_of: npt.NDArray[np.int64] = np.unique(array, return_inverse=True)[1].reshape(-1)
    return group_of


def _has_length(path: str, shape: tuple[int, ...], rows: int, findings: Findings) -> bool:
    if shape == (rows,) or (len(shape) == 1 and rows < 0):
        return True
    given = f"{shape[0]} entries" if len(shape) == 1 else f"shape {shape}"
    findings.add(path, f"{given} for {rows} rows", "give one per row")
    return False


def _check_divides(
    policy: Policy,
    rows: int,
    slices: int,
    groups: npt.NDArray[np.int64] | None,
    findings: Findings,
) -> None:
    match policy:
        case Even():
            instead = "use Uneven(), Padded() or DropRemainder()"
        case Balanced(row_counts=RowCounts.EQUAL | RowCounts.WITHIN_ONE):
            instead = "use RowCounts.FREE"
        case _:
            return
    units, noun = rows, "rows"
    if groups is not None:
        sizes = np.bincount(groups)
        units, noun = sizes.size, "groups"
        if sizes.size and sizes.min() != sizes.max():
            findings.add(
                "groups",
                f"groups of {sizes.min()} to {sizes.max()} rows cannot give equal row counts",
                f"make all groups equally large, or {instead}",
            )
    rest = units % slices
    if rest and not (isinstance(policy, Balanced) and policy.row_counts is RowCounts.WITHIN_ONE):
        nearest = " or ".join(str(near) for near in (units - rest, units - rest + slices) if near)
        findings.add(
            noun,
            f"{units} {noun} do not divide into {slices} slices, {rest} left over",
            f"give {nearest} {noun}, or {instead}",
        )


def _check_budget(policy: Policy, weights: npt.NDArray[np.int64], findings: Findings) -> None:
    if not isinstance(policy, Packed) or not _is_positive(policy.budget):
        return
    over = np.flatnonzero(weights > policy.budget)
    if over.size:
        findings.add(
            "weights",
            f"{_named(weights, over)} over the budget of {policy.budget}",
            f"raise the budget to {int(weights.max())}, or shorten or drop these rows",
        )


def _named(numbers: npt.NDArray[np.int64], which: npt.NDArray[np.intp]) -> str:
    """The offending rows with their numbers, the first few of many."""
    shown = ", ".join(f"row {row} ({numbers[row]})" for row in which[:4].tolist())
    if which.size == 1:
        return f"{shown} is"
    more = f" and {which.size - 4} more" if which.size > 4 else ""
    return f"{shown}{more} are"
