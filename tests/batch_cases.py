"""A batch of every type that calls can cut, of any number of rows."""

from collections import OrderedDict, UserDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from tensordict import TensorDict

from runtime.batches import Rows

__all__ = ["MAKERS", "Own", "Record", "same"]


def jagged(rows: int) -> torch.Tensor:
    """A jagged tensor; torch makes none without rows of a list."""
    if not rows:
        return torch.nested.nested_tensor_from_jagged(torch.zeros(0), torch.tensor([0]))
    each = [torch.arange(float(row + 1)) for row in range(rows)]
    return torch.nested.nested_tensor(each, layout=torch.jagged)


class Own:
    """A user's own type: a column of numbers that it keeps as text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rankplan_rows__(self) -> int:
        """As many as there are letters."""
        return len(self.text)

    def __rankplan_take__(self, rows: Rows) -> Self:
        """Some letters."""
        picked = self.text[rows] if isinstance(rows, slice) else "".join(map(self._at, rows))
        return type(self)(picked)

    @classmethod
    def __rankplan_join__(cls, parts: Sequence[Self]) -> Self:
        """All letters."""
        return cls("".join(part.text for part in parts))

    def _at(self, row: int) -> str:
        return self.text[row]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class Record(NamedTuple):
    """A batch with named fields."""

    ids: Any
    words: list[str]


class Batched(UserDict[str, Any]):
    """A user's mapping that is no dict."""


def letters(rows: int) -> str:
    """As many letters."""
    return "abcdefghijklmnopqrstuvwxyz"[:rows]


MAKERS: dict[str, Callable[[int], Any]] = {
    "list": lambda rows: list(letters(rows)),
    "tuple": lambda rows: tuple(letters(rows)),
    "array": lambda rows: np.arange(rows * 3.0).reshape(rows, 3),
    "strided array": lambda rows: np.arange(rows * 6).reshape(rows * 2, 3)[::2],
    "object array": lambda rows: np.array(list(letters(rows)), dtype=object),
    "tensor": lambda rows: torch.arange(rows * 2).reshape(rows, 2),
    "bfloat16 tensor": lambda rows: torch.arange(rows).to(torch.bfloat16),
    "mapping": lambda rows: {
        "ids": torch.arange(rows),
        "mask": np.ones((rows, 2), dtype=bool),
        "words": list(letters(rows)),
        "temperature": 0.7,
        "inner": {"own": Own(letters(rows))},
    },
    "ordered mapping": lambda rows: OrderedDict(b=np.arange(rows), a=list(letters(rows))),
    "own mapping": lambda rows: Batched(b=np.arange(rows), a=list(letters(rows))),
    "named tuple": lambda rows: Record(np.arange(rows), list(letters(rows))),
    "own type": lambda rows: Own(letters(rows)),
    "ragged arrays": lambda rows: [np.arange(row) for row in range(rows)],
    "ragged tensors": lambda rows: tuple(torch.arange(row) for row in range(rows)),
    "lists of tokens": lambda rows: [[row] * row for row in range(rows)],
    "jagged tensor": jagged,
    "mapping of jagged": lambda rows: {"x": jagged(rows), "words": list(letters(rows))},
    "tensordict": lambda rows: TensorDict(
        {
            "ids": torch.arange(rows * 2).reshape(rows, 2),
            "inner": TensorDict({"mask": torch.ones(rows)}, batch_size=[rows]),
        },
        batch_size=[rows],
    ),
}


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, all the way down."""
    if type(one) is not type(other):
        return False
    equal = False
    match one:
        case TensorDict():
            fields = same(dict(one.items()), dict(other.items()))
            equal = one.batch_size == other.batch_size and fields
        case torch.Tensor() if one.is_nested:
            equal = same(list(one.unbind()), list(other.unbind()))
        case torch.Tensor():
            equal = one.dtype == other.dtype and torch.equal(one, other)
        case np.ndarray():
            equal = one.dtype == other.dtype and np.array_equal(one, other)
        case dict() | UserDict():
            equal = list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        case list() | tuple():
            equal = len(one) == len(other) and all(map(same, one, other))
        case _:
            equal = bool(one == other)
    return equal
