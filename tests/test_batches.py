"""Batches of every type: cut and joined, they are what they were."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from ray import cloudpickle
from tensordict import TensorDict

from runtime.batch_bytes import compact, cut, pack, row_bytes
from runtime.batches import (
    BatchError,
    Whole,
    assemble,
    column,
    join,
    row_count,
    take,
)
from tests.batch_cases import MAKERS, Own, same


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
    data = cloudpickle.dumps(pack(torch.zeros(1000)), protocol=5, buffer_callback=buffers.append)

    tensor = cloudpickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    tensor += 1

    assert len(data) < 2_000
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


def test_a_few_rows_of_a_large_tensordict_are_sent_small() -> None:
    """Inner ones, jagged tensors and lists of them too; as slices, and as parts of results."""
    each = torch.nested.nested_tensor([torch.zeros(3)] * 2000, layout=torch.jagged)
    inner = TensorDict({"mask": torch.zeros(2000, 100)}, batch_size=[2000])
    large = TensorDict(
        {"ids": torch.zeros(2000, 100), "x": each, "inner": inner}, batch_size=[2000]
    )
    part = take(large, slice(0, 3))

    assert len(cloudpickle.dumps(pack(compact(part)))) < 20_000
    assert len(cloudpickle.dumps(compact([part]))) < 20_000
    assert len(cloudpickle.dumps(cut(large, [slice(0, 3)], (2000, 2000)))) < 20_000
    assert same(cloudpickle.loads(cloudpickle.dumps(pack(part))), part)


def test_a_jagged_tensor_has_empty_slices() -> None:
    """Of the same type and of as many dimensions, which join again."""
    batch = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged)

    empty = take(batch, slice(2, 2))
    padded = take(batch, [], [1, 1])

    assert (row_count(empty), empty.layout, empty.dtype) == (0, torch.jagged, torch.float32)
    assert same(join([empty, batch]), batch)
    assert [tuple(row.shape) for row in padded.unbind()] == [(3, 4), (3, 4)]


def test_rows_of_a_sparse_tensor_are_refused() -> None:
    """With the name of the field; its bytes are not known either."""
    batch = {"x": torch.eye(4).to_sparse()}

    assert row_bytes(batch) is None
    with pytest.raises(BatchError, match="x: torch takes no rows out of this sparse_coo tensor"):
        take(batch, slice(0, 1))


def test_neither_torch_nor_tensordict_is_needed() -> None:
    """Batches of other types are cut and joined where there are none."""
    code = (
        "import sys; sys.modules.update(torch=None, tensordict=None)\n"
        "import numpy, runtime\n"
        "from runtime.batch_bytes import compact, pack\n"
        "from runtime.batches import join, take\n"
        "batch = {'x': numpy.arange(4), 'w': list('abcd')}\n"
        "parts = [take(batch, slice(0, 2)), take(batch, [2, 3], [3], {'x': -1})]\n"
        "print(join([compact(pack(part)) for part in parts])['x'].tolist())\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[0, 1, 2, 3, -1]"


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
    assert column(TensorDict({"n": torch.tensor([3, 1])}, batch_size=[2]), "n").tolist() == [3, 1]
    assert column({"lengths": [3, 1]}, "weights") is None
    assert column([1, 2], "lengths") is None
