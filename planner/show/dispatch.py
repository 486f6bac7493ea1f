"""A DispatchPlan for a reader: who is called with what, and who returns."""

from collections.abc import Iterator

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.dispatch import DUMMY, CallKind, DispatchPlan
from planner.show.rendering import MANY, WIDTH, as_text, cell, middle_left_out, new_table, runs

__all__ = ["dispatch_table", "dispatch_view"]


def dispatch_table(plan: DispatchPlan, width: int = WIDTH, *, colour: bool = False) -> str:
    """The call, then one row per called rank; one per slice when there are more than 64 ranks."""
    return as_text(dispatch_view(plan), width, colour=colour)


def dispatch_view(plan: DispatchPlan) -> Group:
    """The same as ``dispatch_table``, for a rich console."""
    rows = _rank_rows(plan) if len(plan.ranks) <= MANY else _slice_rows(plan)
    return Group(Text(_summary(plan)), rows)


def _summary(plan: DispatchPlan) -> str:
    over = " x ".join(f"{axis} {n}" for axis, n in zip(plan.axes, plan.shape, strict=True))
    dummies = plan.slices.count(DUMMY)
    parts = [f"{plan.kind.value}: {_count(len(plan.ranks), 'call')}"]
    if plan.kind is CallKind.SHARDED:
        parts.append(_count(plan.slice_count, "slice") + (f" over {over}" if over else ""))
    if dummies:
        parts.append(_count(dummies, "dummy call"))
    result = f"{_count(len(plan.returns), 'result')} from "
    noun = "rank" if len(plan.returns) == 1 else "ranks"
    parts.append(f"{result}{noun} {runs(plan.returns)}" if plan.returns else "no result")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _places(plan: DispatchPlan) -> dict[int, int]:
    return {rank: place for place, rank in enumerate(plan.returns)}


def _slice_text(plan: DispatchPlan, number: int) -> str:
    if number == DUMMY:
        return "dummy"
    if not plan.axes:
        return "the same data"
    coords = np.unravel_index(number, plan.shape)
    named = zip(plan.axes, coords, strict=True)
    return ", ".join(f"{axis}={int(coord)}" for axis, coord in named)


def _rank_rows(plan: DispatchPlan) -> Table:
    table = new_table("", "rank", "slice", "result", left=("slice",))
    places = _places(plan)
    for rank, number in zip(plan.ranks, plan.slices, strict=True):
        table.add_row(cell(rank), cell(_slice_text(plan, number)), cell(places.get(rank, "-")))
    return table


def _slice_rows(plan: DispatchPlan) -> Table:
    words = ("slice", "goes to ranks", "results from ranks")
    table = new_table("", *words, left=words)
    first, left_out, last = middle_left_out(list(_slices(plan)))
    rest = [(f"... {left_out:,} more slices", "", "")] if left_out else []
    for row in (*first, *rest, *last):
        table.add_row(*map(cell, row))
    return table


def _slices(plan: DispatchPlan) -> Iterator[tuple[str, str, str]]:
    returning = frozenset(plan.returns)
    for number, ranks in enumerate(plan.receivers):
        results = [rank for rank in ranks if rank in returning]
        yield _slice_text(plan, number), runs(ranks), runs(results)
    quiet = [r for r, number in zip(plan.ranks, plan.slices, strict=True) if number == DUMMY]
    if quiet:
        yield "dummy", runs(quiet), runs(())
