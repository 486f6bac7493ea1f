"""How a batch may be cut into slices, and how each field is padded: the choices, as data."""

from enum import Enum

from attrs import field, frozen

from planner.whole_numbers import whole_number

__all__ = [
    "Balanced",
    "Constant",
    "DropRemainder",
    "Even",
    "Interleaved",
    "Packed",
    "Pad",
    "Padded",
    "Policy",
    "RepeatLastRow",
    "RowCounts",
    "Uneven",
]


@frozen
class Even:
    """Slices of equal size, in the original order; an error unless the rows divide."""


@frozen
class Uneven:
    """Slices in the original order whose sizes differ by at most one, the larger ones first."""


@frozen
class Padded:
    """Slices of equal size, in the original order, filled up at the end of the batch.

    Padding stands for a repeat of the last row; what a field really holds there is its ``Pad``.

    Attributes:
        multiple: Every slice's size is a multiple of this, 1 or more.
    """

    multiple: int = 1


@frozen
class DropRemainder:
    """Slices of equal size, in the original order; the rows left over at the end are dropped.

    Attributes:
        multiple: Every slice's size is a multiple of this, 1 or more.
    """

    multiple: int = 1


@frozen
class Interleaved:
    """Rows dealt out in turn: slice i gets rows i, i + slices, i + 2 x slices ..."""


class RowCounts(Enum):
    """How many rows balanced slices may have."""

    FREE = "free"
    """Any number, none too: the weights alone decide."""
    WITHIN_ONE = "within_one"
    """Numbers that differ by at most one row (one group, where rows are grouped)."""
    EQUAL = "equal"
    """The same number in every slice; an error unless the rows divide."""


@frozen
class Balanced:
    """Slices whose weights are as equal as can be; rows ascend within a slice.

    Attributes:
        row_counts: What holds of the number of rows in each slice.
    """

    row_counts: RowCounts = RowCounts.FREE


@frozen(kw_only=True)
class Packed:
    """Slices cut into micro-batches, as few as can be found, none heavier than a budget.

    Micro-batches stand heaviest first in every slice, so that the ranks' n-th ones are alike.

    Attributes:
        budget: The largest weight of a micro-batch, such as its number of tokens; 1 or more.
        equal_counts: Whether every slice has the same number of micro-batches, as ranks need that
            enter a collective in each. A micro-batch is empty only where rows are too few.
    """

    budget: int
    equal_counts: bool = True


Policy = Even | Uneven | Padded | DropRemainder | Interleaved | Balanced | Packed
"""How a batch is cut: one of the policies."""


def _plain_number(value: float) -> int | float:
    whole = int(value) if isinstance(value, bool) else whole_number(value)
    return value if whole is None else whole


@frozen
class Constant:
    """Padding rows hold one number everywhere, such as 0 in a mask or -1 for an id.

    Attributes:
        value: That number; ``False`` and ``True`` are kept as 0 and 1.
    """

    value: int | float = field(converter=_plain_number)


@frozen
class RepeatLastRow:
    """Padding rows hold what the row they repeat holds."""


Pad = Constant | RepeatLastRow
"""What padding rows hold in one field."""
