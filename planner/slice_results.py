"""Whether what the slices gave back are the rows of those slices."""

from collections.abc import Sequence

from attrs import frozen

from planner.findings import Finding
from planner.slicing import SlicePlan

__all__ = ["SliceResult", "unlike_slices"]

_NAMED = 4
_REMEDY = (
    "return one row for each row, or take what each slice gives with PerShard() or AllByRank(), "
    "and one number of all with Reduce(...)"
)


@frozen(kw_only=True)
class SliceResult:
    """What one slice gave back, as far as it must be known to put it with the others.

    Attributes:
        kind: The type of the value, for messages.
        rows: How many rows it has; None for what has none.
        rank: Who gave it; None when not known.
    """

    kind: str
    rows: int | None
    rank: int | None = None


def unlike_slices(slices: SlicePlan | None, results: Sequence[SliceResult]) -> Finding | None:
    """What is wrong with results that shall become one batch; None when nothing is.

    A result has a row for each of its slice, or for each that is not padding: then, and only then,
    the rows can be put in the original order. An empty slice may give None.

    Args:
        slices: The slices; None where somebody else has cut them, and nobody here knows how.
        results: One for each.
    """
    told: list[tuple[str, str]] = []
    for index, result in enumerate(results):
        size = slices.sizes[index] if slices else None
        real = slices.real_sizes[index] if slices else None
        who = f"slice {index}" if result.rank is None else f"slice {index} (rank {result.rank})"
        if result.rows is None and not (size == 0 and result.kind == "NoneType"):
            told.append((who, f"a value of type {result.kind} has no rows"))
        elif result.rows is not None and slices and result.rows not in {size, real}:
            padding = f", {size - real} of them padding" if size and real and size > real else ""
            came = f"{result.rows} row{'' if result.rows == 1 else 's'} came"
            told.append((who, f"{came} for the {size} of the slice{padding}"))
    if not told:
        return None
    problem = told[0][1] + "".join(f"; {who}: {what}" for who, what in told[1:_NAMED])
    more = f"; and {len(told) - _NAMED} slices more" if len(told) > _NAMED else ""
    return Finding(told[0][0], f"{problem}{more}", _REMEDY)
