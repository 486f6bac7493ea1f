"""Named axes for a reader: the ranks as grids."""

from collections.abc import Iterator

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.mesh import NamedSharding
from planner.show.rendering import WIDTH, as_text, cell, middle_left_out, new_table

__all__ = ["mesh_picture", "mesh_view"]

_GRIDS = 8
_ROWS = 32
_COLUMNS = 32


def mesh_picture(mesh: NamedSharding, width: int = WIDTH, *, colour: bool = False) -> str:
    """One grid of ranks over the last two axes, for each coordinate of the others.

    Large meshes are shown in part, and the text says how much is left out.
    """
    return as_text(mesh_view(mesh), width, colour=colour)


def mesh_view(mesh: NamedSharding) -> Group:
    """The same as ``mesh_picture``, for a rich console."""
    sizes = " x ".join(f"{name} {size:,}" for name, size in mesh.shape.items())
    return Group(Text(f"{mesh.size:,} ranks: {sizes}"), *_grids(mesh))


def _grids(mesh: NamedSharding) -> Iterator[Table | Text]:
    names, layout = mesh.names, mesh.layout
    if mesh.ndim == 1:
        names, layout = ["", *names], layout[np.newaxis]
    outer = list(np.ndindex(layout.shape[:-2]))
    first, left_out, last = middle_left_out(outer, _GRIDS)
    for coords in first:
        yield from _grid(names, coords, layout[coords].tolist())
    if left_out:
        yield Text(f"... {left_out:,} more grids")
    for coords in last:
        yield from _grid(names, coords, layout[coords].tolist())


def _grid(
    names: list[str], coords: tuple[int, ...], rows: list[list[int]]
) -> Iterator[Table | Text]:
    title = ", ".join(f"{n}={c}" for n, c in zip(names, coords, strict=False))
    down, across = names[-2:]
    first, left_out, last = middle_left_out(range(len(rows[0])), _COLUMNS)
    columns = [*first, *([None] if left_out else []), *last]
    corner = f"{down} \\ {across}" if down else across
    heads = ["..." if column is None else str(column) for column in columns]
    table = new_table("", corner, *heads)
    table.columns[0].header = Text(corner)
    above, missing, below = middle_left_out(range(len(rows)), _ROWS)
    for row in above:
        table.add_row(*_row(down, row, rows, columns))
    if missing:
        table.add_row(cell(f"... {missing:,} more"))
    for row in below:
        table.add_row(*_row(down, row, rows, columns))
    if title:
        yield Text(title)
    yield table


def _row(down: str, row: int, rows: list[list[int]], columns: list[int | None]) -> list[Text]:
    ranks = ["..." if column is None else str(rows[row][column]) for column in columns]
    return [cell(row if down else "rank"), *map(cell, ranks)]
