"""From rich renderables to text, the same everywhere: no terminal and no environment is asked."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from planner.outcomes import ranks_text

__all__ = [
    "MANY",
    "WIDTH",
    "FittingTable",
    "as_text",
    "cell",
    "middle_left_out",
    "new_table",
    "runs",
]

T = TypeVar("T")

WIDTH = 120
"""How wide a text is unless something else is asked for."""

_UNBOUNDED = 100_000
"""Wider than any table."""

MANY = 64
"""More rows than this are folded."""


def as_text(view: RenderableType, width: int = WIDTH, *, colour: bool = False) -> str:
    """What a view looks like on a terminal of some width; without colour it is plain text."""
    console = Console(
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        force_jupyter=False,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as capture:
        console.print(view)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


@frozen(kw_only=True)
class FittingTable:
    """A table that leaves out columns where it is too wide, and says which.

    Attributes:
        columns: The names of all columns.
        rows: The cells of each row.
        words: The columns that hold words.
        spare: The places of columns that may be left out, the least useful first.
        shorten: The places of those whose heads are shortened when that is not enough.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    words: tuple[str, ...]
    spare: tuple[int, ...]
    shorten: tuple[int, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for a console as wide as this one."""
        unbounded = options.update(width=_UNBOUNDED)
        for count in range(len(self.spare) + 1):
            gone = self.spare[:count]
            table = self._table(gone, ())
            if console.measure(table, options=unbounded).maximum <= options.max_width:
                break
        else:
            gone, table = self.spare, self._table(self.spare, self.shorten)
        yield table
        if gone:
            yield Text(f"No room for: {', '.join(self.columns[place] for place in gone)}")

    def _table(self, gone: Sequence[int], short: Sequence[int]) -> Table:
        heads = [
            _shortened(name) if place in short else name for place, name in enumerate(self.columns)
        ]
        kept = [place for place in range(len(heads)) if place not in gone]
        table = new_table("", *(heads[place] for place in kept), left=self.words)
        for row in self.rows:
            table.add_row(*(cell(row[place]) for place in kept))
        return table


def _shortened(name: str) -> str:
    return " ".join(word if len(word) <= 5 else f"{word[:4]}." for word in re.split("[_ ]", name))


def new_table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    """An empty table: numbers stand right, the columns named in ``left`` hold words."""
    table = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD)
    for name in columns:
        # One word to a line, so that a long name over short numbers takes little width.
        head, words = Text(name.replace("_", " ").replace(" ", "\n")), name in left
        side: Literal["left", "right"] = "left" if words else "right"
        table.add_column(head, justify=side, vertical="top", overflow="fold", no_wrap=not words)
    return table


def cell(value: object) -> Text:
    """A cell that shows a value as it is: square brackets in names are no markup."""
    return Text("" if value is None else str(value))


def runs(ranks: Iterable[int]) -> str:
    """Ranks with runs folded, as ``0-3, 7``."""
    listed = list(ranks)
    return ranks_text(listed).partition(" ")[2] if listed else "none"


def middle_left_out(rows: Sequence[T], limit: int = MANY) -> tuple[Sequence[T], int, Sequence[T]]:
    """The first rows, how many are left out, and the last ones: ``limit`` are shown at most."""
    if len(rows) <= limit:
        return rows, 0, ()
    last = limit // 4
    return rows[: limit - last], len(rows) - limit, rows[len(rows) - last :]
