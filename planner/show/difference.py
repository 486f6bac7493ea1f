"""What differs from a prediction, and what a preflight found, for readers."""

from rich.console import Group, RenderableType
from rich.text import Text

from planner.difference import FieldDifference, PlanDifference
from planner.preflight import PreflightReport, State
from planner.show.rendering import WIDTH, as_text, cell, middle_left_out, new_table, runs

__all__ = ["difference_table", "difference_view", "preflight_table", "preflight_view"]

_STYLES = {State.GOOD: "green", State.NOTE: "yellow", State.FAILED: "bold red"}


def difference_table(difference: PlanDifference, width: int = WIDTH) -> str:
    """The differences as plain text."""
    return as_text(difference_view(difference), width)


def difference_view(difference: PlanDifference) -> RenderableType:
    """The differences: first what is broken, then the rest, ranks that differ alike together."""
    if not difference:
        return Text(f"worker group {difference.group} is as predicted")
    parts: list[RenderableType] = []
    if difference.broken:
        broken = new_table("Broken: it held in the prediction", "what", "ranks", "now")
        for each in difference.broken:
            broken.add_row(cell(each.name), cell(runs(each.ranks)), cell(each.problem))
        for column in broken.columns:
            column.justify, column.no_wrap = "left", False
        parts.append(broken)
    rows: list[tuple[str, FieldDifference]] = [
        *(("group", each) for each in difference.fields),
        *(("group", each) for each in difference.nodes),
        *((runs(each.ranks), field) for each in difference.ranks for field in each.fields),
    ]
    if rows:
        parts.append(_rows(difference.group, rows))
    return Group(*parts)


def _rows(group: str, rows: list[tuple[str, FieldDifference]]) -> RenderableType:
    words = ("ranks", "field", "predicted", "found")
    table = new_table(f"Worker group {group}: predicted and found", *words, left=words)
    first, left_out, last = middle_left_out(rows)
    for ranks, each in first:
        table.add_row(cell(ranks), cell(each.path), cell(each.predicted), cell(each.observed))
    if left_out:
        table.add_row(cell("..."), cell(f"{left_out} more"), cell(""), cell(""))
    for ranks, each in last:
        table.add_row(cell(ranks), cell(each.path), cell(each.predicted), cell(each.observed))
    return table


def preflight_table(report: PreflightReport, width: int = WIDTH) -> str:
    """The verdicts as plain text."""
    return as_text(preflight_view(report), width)


def preflight_view(report: PreflightReport) -> RenderableType:
    """The verdicts, one row each, by node in rank order."""
    words = ("node", "ranks", "check", "verdict", "found", "what would work")
    table = new_table("Preflight", *words, left=words)
    first, left_out, last = middle_left_out(report.rows)
    for index, row in enumerate((*first, *last)):
        if left_out and index == len(first):
            table.add_row(cell("..."), cell(""), cell(f"{left_out} more"))
        table.add_row(
            cell(row.node),
            cell(runs(row.ranks)),
            cell(row.check),
            Text(row.state.value, style=_STYLES[row.state]),
            cell(row.found),
            cell(row.remedy),
        )
    return table
