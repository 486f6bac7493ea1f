"""From rich renderables to text, the same everywhere: no terminal and no environment is asked."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from planner.outcomes import ranks_text

__all__ = ["MANY", "WIDTH", "as_text", "cell", "middle_left_out", "new_table", "runs"]

T = TypeVar("T")

WIDTH = 120
"""How wide a text is unless something else is asked for."""

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
