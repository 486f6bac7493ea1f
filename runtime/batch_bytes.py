"""How many bytes a batch has, and batches in the form in which sending them costs least.

Travels to the workers by value, as runtime/batches.py does.
"""

import sys
from collections.abc import Sequence
from typing import Any

from runtime.batches import (
    ONE_EACH,
    BatchError,
    Rows,
    fields_of,
    is_array,
    is_tensor,
    is_tensordict,
    leaf_rows,
    row_count,
    rows_text,
    take,
    with_fields,
)
from runtime.tensor_storages import carry_storages

__all__ = ["compact", "cut", "cut_out", "pack", "row_bytes"]

_LISTED = 65_536
"""Of how many entries of a list the bytes are counted."""


def row_bytes(batch: object) -> int | list[int] | None:
    """About how many bytes a row has: one number, one for each, or None when not known."""
    fields = fields_of(batch)
    if fields is None:
        return _leaf_row_bytes(batch)
    total: int | list[int] = 0
    for value in fields.values():
        size = row_bytes(value) if row_count(value) is not None else 0
        if size is None:
            return None
        if isinstance(total, int) and isinstance(size, int):
            total += size
        else:
            total = [a + b for a, b in _pairs(total, size)]
    return total


def cut(batch: object, pieces: Sequence[Rows], held: tuple[int, int]) -> Any:
    """Pieces of a result, cut where it is; a tuple with several, the piece itself with one.

    Raises:
        BatchError: As ``cut_out``.
    """
    made = tuple(pack(each) for each in cut_out(batch, pieces, held))
    return made if len(made) > 1 else made[0]


def cut_out(batch: object, pieces: Sequence[Rows], held: tuple[int, int]) -> tuple[Any, ...]:
    """Pieces of a result, in its own type.

    Args:
        batch: A result.
        pieces: The rows of each.
        held: How many rows it has: without padding, and with it.

    Raises:
        BatchError: It has another number of rows.
    """
    rows = row_count(batch)
    if rows not in held:
        raise BatchError("", f"the result has {rows_text(rows)}, not {held[1]}", ONE_EACH)
    return tuple(take(batch, piece) for piece in pieces)


def compact(value: Any) -> Any:
    """The value with tensors that view a part of a larger storage copied out of it.

    Pickling such a tensor would send the whole storage.
    """
    fields = fields_of(value)
    if fields is not None:
        return with_fields(value, {name: compact(each) for name, each in fields.items()})
    if is_tensordict(value):
        return value.apply(_without_rest)
    if is_tensor(value):
        return _without_rest(value)
    if type(value) in {list, tuple} and value and (is_tensor(value[0]) or is_tensordict(value[0])):
        return type(value)(compact(each) for each in value)
    return value


def _without_rest(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    held = tensor.values() if tensor.layout is torch.jagged else tensor
    if held.is_nested or held.layout is not torch.strided:
        return tensor
    whole = held.untyped_storage().nbytes()
    return tensor.clone() if whole > held.numel() * held.element_size() else tensor


def pack(value: Any) -> Any:
    """The value with its tensors in a form that is serialised without copying them.

    Reading it gives the tensors back: plain ones on the CPU, without gradients, in dictionaries,
    lists and tuples. Others are copied out of a larger storage, and are serialised as usual.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return value
    carry_storages()
    if type(value) is torch.Tensor:
        plain = value.layout is torch.strided and value.device.type == "cpu"
        plain = plain and not value.is_nested and not value.requires_grad
        return _Packed(value) if plain else compact(value)
    if is_tensordict(value):
        return compact(value)
    if type(value) is dict:
        return {key: pack(each) for key, each in value.items()}
    if type(value) in {list, tuple} and len(value) <= _LISTED:
        return type(value)(pack(each) for each in value)
    return value


class _Packed:
    __slots__ = ("tensor",)

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        tensor = self.tensor.resolve_conj().resolve_neg()
        try:
            return _unpacked, (tensor.numpy(), "")
        except TypeError:
            # numpy has no such type, bfloat16 for one: the bytes travel.
            size = f"int{8 * tensor.element_size()}"
            name = str(tensor.dtype).removeprefix("torch.")
            return _unpacked, (tensor.view(getattr(sys.modules["torch"], size)).numpy(), name)


def _unpacked(array: Any, dtype: str) -> Any:
    import torch

    # Arrays out of Ray's store are read-only; a tensor's owner may write to it.
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.view(getattr(torch, dtype)) if dtype else tensor


def _leaf_row_bytes(value: Any) -> int | list[int] | None:
    if is_array(value) and not value.dtype.hasobject and value.ndim:
        return int(value.nbytes // max(1, value.shape[0]))
    if (is_tensor(value) or is_tensordict(value)) and leaf_rows(value):
        size = _tensor_bytes(value) if is_tensor(value) else value.bytes()
        return None if size is None else int(size // max(1, leaf_rows(value) or 0))
    if isinstance(value, list | tuple) and len(value) <= _LISTED:
        sizes = [_entry_bytes(each) for each in value]
        return None if None in sizes else [size or 0 for size in sizes]
    return 0 if leaf_rows(value) in {None, 0} else None


def _tensor_bytes(tensor: Any) -> int | None:
    """Its bytes; None for a sparse one, which has no such number, and for rows of own lengths."""
    if tensor.is_nested or tensor.layout is not sys.modules["torch"].strided:
        return None
    return int(tensor.nbytes)


def _entry_bytes(entry: Any) -> int | None:
    if entry is None or isinstance(entry, bool | int | float):
        return 8
    if isinstance(entry, str | bytes | bytearray):
        return 8 + len(entry)
    if is_array(entry) and not entry.dtype.hasobject:
        return 64 + int(entry.nbytes)
    if is_tensor(entry) and (size := _tensor_bytes(entry)) is not None:
        return 64 + size
    if type(entry) in {list, tuple} and (not entry or isinstance(entry[0], int | float)):
        return 16 + 8 * len(entry)
    return None


def _pairs(one: int | list[int], other: int | list[int]) -> list[tuple[int, int]]:
    count = len(one) if isinstance(one, list) else len(other) if isinstance(other, list) else 0
    ones = one if isinstance(one, list) else [one] * count
    others = other if isinstance(other, list) else [other] * count
    return list(zip(ones, others, strict=True))
