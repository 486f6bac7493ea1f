"""Batches of every type: cut and joined, they are what they were."""

import pickle
from collections import OrderedDict, UserDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pytest
import torch
from ray import cloudpickle

from runtime.batch_bytes import compact, cut, pack, row_bytes
from runtime.batches import (
    BatchError,
    Rows,
    Whole,
    assemble,
    column,
    join,
    row_count,
    take,
)


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
}


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict | UserDict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("rows", range(8))
def test_what_is_cut_joins_to_what_it_was(kind: str, rows: int) -> None:
    """Neighbouring slices, an empty one among them, give the batch back, its type and order."""
    batch = MAKERS[kind](rows)
    cuts = [(0, rows // 2), (rows // 2, rows // 2), (rows // 2, rows)]

    parts = [take(batch, slice(*each)) for each in cuts]

    assert row_count(batch) == rows
    assert [row_count(part) for part in parts] == [stop - start for start, stop in cuts]
    assert same(join(parts), batch)


@pytest.mark.parametrize("kind", MAKERS)
def test_rows_are_taken_in_any_order(kind: str) -> None:
    """A list of rows gives those rows, in that order, in the batch's own type."""
    batch = MAKERS[kind](5)

    picked = take(batch, [3, 0, 3])

    assert type(picked) is type(batch)
    assert same(picked, join([take(batch, slice(row, row + 1)) for row in (3, 0, 3)]))


@pytest.mark.parametrize("kind", MAKERS)
def test_padding_repeats_a_row(kind: str) -> None:
    """Without a rule padding is what the row is that it repeats."""
    batch = MAKERS[kind](4)

    padded = take(batch, slice(2, 4), [3, 3])

    assert same(padded, take(batch, [2, 3, 3, 3]))


def test_padding_holds_the_number_of_its_field() -> None:
    """Each field has its own number, also in lists, inner mappings and rows that are arrays."""
    batch = {
        "ids": torch.tensor([[1, 2], [3, 4]]),
        "mask": np.array([True, True]),
        "inner": {"tokens": [[5], [6, 7]], "scores": [0.5, 0.25]},
        "ragged": [np.array([1.0]), np.array([2.0, 3.0])],
        "words": ["a", "b"],
    }
    pads = {"ids": -1, "mask": 0, "inner.tokens": 9, "inner.scores": 0.0, "ragged": 7}

    padded = take(batch, slice(0, 2), [1], pads)

    assert padded["ids"].tolist() == [[1, 2], [3, 4], [-1, -1]]
    assert padded["mask"].tolist() == [True, True, False]
    assert padded["inner"] == {"tokens": [[5], [6, 7], [9, 9]], "scores": [0.5, 0.25, 0.0]}
    assert [row.tolist() for row in padded["ragged"]] == [[1.0], [2.0, 3.0], [7.0, 7.0]]
    assert padded["words"] == ["a", "b", "b"]


def test_a_batch_without_fields_is_padded_under_the_empty_name() -> None:
    """A bare array has no field's name to go by."""
    assert take(np.array([4, 5]), slice(0, 2), [1, 1], {"": -1}).tolist() == [4, 5, -1, -1]


@pytest.mark.parametrize("kind", ["array", "strided array", "tensor"])
def test_neighbouring_rows_are_views(kind: str) -> None:
    """Nothing is copied until it is sent."""
    batch = MAKERS[kind](6)

    part = take(batch, slice(2, 5))

    if isinstance(batch, np.ndarray):
        assert np.shares_memory(part, batch)
    else:
        assert part.untyped_storage().data_ptr() == batch.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    "value", ["text", b"bytes", 3, None, np.float64(2), np.array(1), torch.tensor(1), object()]
)
def test_what_has_no_rows_goes_whole(value: Any) -> None:
    """Every slice gets the very object."""
    assert row_count(value) is None
    assert take(value, slice(0, 1)) is value
    assert take({"x": [1, 2], "value": value}, slice(0, 1))["value"] is value


def test_a_value_with_rows_can_be_kept_whole() -> None:
    """A worker gets the value itself, not its wrapper."""
    table = [1, 2, 3]

    part = take({"x": [1, 2], "table": Whole(table)}, slice(0, 1))

    assert part == {"x": [1], "table": table}
    assert part["table"] is table


def test_fields_of_different_length_are_refused_by_name() -> None:
    """The message names both fields, by their way through the mappings."""
    with pytest.raises(BatchError) as raised:
        row_count({"ids": np.arange(3), "inner": {"mask": np.arange(4)}})

    assert str(raised.value) == (
        "inner: it has 4 rows, and ids has 3; give all fields equally many rows, "
        "or wrap one that is not split in Whole(...)"
    )
    sent = cloudpickle.loads(cloudpickle.dumps(raised.value))
    assert str(sent) == str(raised.value)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([[1], (2,)], "of types list, tuple"),
        ([{"a": [1]}, {"b": [1]}], "not all parts have a, b"),
        ([np.zeros((1, 2)), np.zeros((1, 3))], "do not fit"),
        ([torch.zeros(1, 2), torch.zeros(1, 3)], "do not fit"),
        ([{"x": [1], "loss": 0.5}, {"x": [2], "loss": 0.25}], "loss: a value of type float"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: list[Any], told: str) -> None:
    """No value is dropped without a word."""
    with pytest.raises(BatchError, match=told):
        join(parts)


def test_a_nested_tensor_is_cut_and_joined() -> None:
    """A jagged tensor keeps its layout, and each row its length."""
    rows = [torch.arange(float(length)) for length in (3, 1, 4, 2)]
    batch = torch.nested.nested_tensor(rows, layout=torch.jagged)

    parts = [take(batch, slice(0, 1)), take(batch, [3, 1, 2])]
    joined = join(parts)

    assert row_count(batch) == 4
    assert joined.layout is torch.jagged
    assert [row.tolist() for row in joined.unbind()] == [rows[i].tolist() for i in (0, 3, 1, 2)]


def test_a_slice_is_assembled_from_parts() -> None:
    """Parts in any order become the rows wanted, padding put at the end."""
    parts = (np.array([10, 11]), np.array([20, 21, 22]))

    assert assemble(None, 5, {}, *parts).tolist() == [10, 11, 20, 21, 22]
    assert assemble([4, 0, 2, 2], 3, {"": -1}, *parts).tolist() == [22, 10, 20, -1]
    with pytest.raises(BatchError, match="the parts have 5 rows, not 6"):
        assemble(None, 6, {}, *parts)


def test_pieces_are_cut_out_of_a_result() -> None:
    """One piece comes as it is, several as a tuple; a result of another length is refused."""
    assert cut([1, 2, 3, 3], [slice(0, 2)], (3, 4)) == [1, 2]
    assert cut([1, 2, 3], [slice(0, 1), [2, 1]], (3, 4)) == ([1], [3, 2])
    with pytest.raises(BatchError, match="the result has 2 rows, not 4"):
        cut([1, 2], [slice(0, 1)], (3, 4))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_packed_batch_arrives_as_it_was(kind: str) -> None:
    """Tensors travel as plain bytes, which nobody sees."""
    batch = MAKERS[kind](5)

    sent = cloudpickle.loads(cloudpickle.dumps(pack(batch)))

    assert same(sent, batch)


def test_a_packed_tensor_can_be_written_to_though_the_store_is_read_only() -> None:
    """The store's arrays are read-only; the worker's tensor is its own."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(pack(torch.zeros(1000)), protocol=5, buffer_callback=buffers.append)

    tensor = cloudpickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    tensor += 1

    assert len(data) < 500
    assert tensor.sum() == 1000


def test_a_small_view_of_a_large_tensor_is_sent_small() -> None:
    """Pickling a view would send the storage behind it."""
    large = torch.zeros(100_000)
    part = {"x": large[:10], "rows": [large[:3]], "same": large}

    sent = compact(part)

    assert sent["x"].untyped_storage().nbytes() == 40
    assert sent["rows"][0].untyped_storage().nbytes() == 12
    assert sent["same"] is large
    assert len(cloudpickle.dumps(pack({"x": large[:10]}))) < 2_000


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (np.zeros((4, 8)), 64),
        (torch.zeros(4, 8), 32),
        ({"a": np.zeros(4), "b": torch.zeros(4), "whole": "x" * 100}, 12),
        ([b"ab", b"abcd"], [10, 12]),
        ({"a": [b"ab", b"abcd"], "b": np.zeros(2)}, [18, 20]),
        ([object()], None),
        (Own("abc"), None),
    ],
)
def test_the_bytes_of_rows_are_told(batch: Any, size: int | list[int] | None) -> None:
    """One number where all rows are alike, one for each where not, none where nobody knows."""
    assert row_bytes(batch) == size


def test_a_column_is_read_by_its_name() -> None:
    """From tensors too; a batch without such a field has none."""
    assert column({"lengths": torch.tensor([3, 1])}, "lengths").tolist() == [3, 1]
    assert column({"lengths": [3, 1]}, "weights") is None
    assert column([1, 2], "lengths") is None
