"""Real batches: how many rows they have, taking rows out, and putting parts together again.

Lists, tuples, numpy arrays, torch tensors (jagged nested ones too), TensorDicts, mappings and named
tuples of all these, and any type with the three methods of ``Batch``. Everything else has no rows
and goes to each slice as it is; ``Whole`` marks a value with rows that shall do so too.

The module travels to the workers by value, so it imports the standard library only; numpy and
torch are used where a batch brings them. What a batch costs to send is in runtime/batch_bytes.py.
"""

import contextlib
import copy
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

__all__ = [
    "ONE_EACH",
    "Batch",
    "BatchError",
    "Rows",
    "Whole",
    "assemble",
    "column",
    "columns_of",
    "fields_of",
    "is_array",
    "is_tensor",
    "is_tensordict",
    "join",
    "leaf_rows",
    "row_count",
    "rows_text",
    "take",
    "with_fields",
]

ONE_EACH = "return one row for each row of the batch that was given"

Rows = slice | list[int]
"""Rows of a batch: a slice gives views of arrays and tensors, a list gives copies."""


@runtime_checkable
class Batch(Protocol):
    """What a type of the user's own has, so that calls can cut and join it."""

    def __rankplan_rows__(self) -> int:
        """How many rows there are."""

    def __rankplan_take__(self, rows: Rows) -> Self:
        """The same type with some of the rows, in that order; a row may occur twice."""

    @classmethod
    def __rankplan_join__(cls, parts: "Sequence[Self]") -> Self:
        """All rows of several parts, one part after the other."""


class BatchError(ValueError):
    """A batch can't be cut or joined.

    Attributes:
        path: The field.
        problem: What is wrong with it.
        remedy: What would work.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path or 'batch'}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy

    def __reduce__(self) -> tuple[type["BatchError"], tuple[str, str, str]]:
        return BatchError, (self.path, self.problem, self.remedy)


class Whole:
    """A value that every slice gets as it is, though it has rows."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def row_count(batch: object, path: str = "") -> int | None:
    """How many rows a batch has; None for a value that is not split.

    Raises:
        BatchError: Its fields differ in their number of rows.
    """
    fields = fields_of(batch)
    if fields is None:
        return leaf_rows(batch)
    first: tuple[str, int] | None = None
    for name, value in fields.items():
        inner = _under(path, name)
        rows = row_count(value, inner)
        if rows is None:
            continue
        if first is None:
            first = (inner, rows)
        elif first[1] != rows:
            raise BatchError(
                inner,
                f"it has {rows} rows, and {first[0]} has {first[1]}",
                "give all fields equally many rows, or wrap one that is not split in Whole(...)",
            )
    return None if first is None else first[1]


def rows_text(rows: int | None) -> str:
    """How many rows something has, for messages."""
    return "no rows" if rows is None else "1 row" if rows == 1 else f"{rows} rows"


def take(
    batch: Any,
    rows: Rows,
    repeats: Sequence[int] = (),
    pads: Mapping[str, float] | None = None,
    path: str = "",
) -> Any:
    """Some rows of a batch, in its own type; views where the rows are a slice without padding.

    Args:
        batch: A batch.
        rows: Which rows.
        repeats: Rows that padding repeats, after the others.
        pads: The number that a field's padding holds instead, by field name.
        path: The name of the field, for ``pads``.
    """
    if isinstance(batch, Whole):
        return batch.value
    fields = fields_of(batch)
    if fields is not None:
        return with_fields(
            batch,
            {
                name: take(value, rows, repeats, pads, _under(path, name))
                for name, value in fields.items()
            },
        )
    if leaf_rows(batch) is None:
        return batch
    real = _picked(batch, rows, path)
    if not repeats:
        return real
    padding = _picked(batch, list(repeats), path)
    return join([real, _filled(padding, pads or {}, path)], path)


def join(parts: Sequence[Any], path: str = "") -> Any:
    """All rows of several parts of one type, one part after the other.

    Raises:
        BatchError: The parts differ in type or fields, or hold values that can't be joined.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(type(part) is not type(first) for part in parts):
        names = sorted({type(part).__name__ for part in parts})
        raise BatchError(
            path, f"the parts are of types {', '.join(names)}", "return one type from every rank"
        )
    fields = fields_of(first)
    if fields is not None:
        return _joined_fields(parts, path)
    if leaf_rows(first) is None:
        return _agreed(parts, path)
    try:
        return _joined(parts)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BatchError(
            path, f"the parts do not fit: {error}", "return rows of one shape from every rank"
        ) from error


def assemble(
    order: list[int] | None,
    real: int,
    pads: Mapping[str, float] | None,
    *parts: object,
) -> Any:
    """A slice from parts that were cut elsewhere.

    Args:
        order: The place in the joined parts of each row, padding included; None as they are.
        real: How many of them are not padding.
        pads: As in ``take``.
        parts: The parts.

    Raises:
        BatchError: The parts do not fit, have another number of rows, or lack a field of ``pads``.
    """
    joined = join(parts)
    rows, wanted = row_count(joined), real if order is None else max(order, default=-1) + 1
    if rows != wanted:
        raise BatchError("", f"the parts have {rows_text(rows)}, not {wanted}", ONE_EACH)
    if order is None:
        return joined
    for name in pads or {} if order[real:] else {}:
        found: Any = joined
        for key in name.split(".") if name else []:
            found = (columns_of(found) or {}).get(key)
        if found is None:
            raise BatchError(name, "padding has a rule for it, and it is not there", "name a field")
    return take(joined, order[:real], order[real:], pads)


def column(batch: object, name: str) -> Any:
    """One field of a batch, a TensorDict's too; None when there is none."""
    return (columns_of(batch) or {}).get(name)


def columns_of(batch: Any) -> dict[Any, Any] | None:
    """The fields that can be read one by one: those of a TensorDict too."""
    if not is_tensordict(batch):
        return fields_of(batch)
    found = {}
    for name in batch.keys():  # noqa: SIM118  # without it come the rows
        # A stack that is not dense has no one tensor for a field.
        with contextlib.suppress(RuntimeError):
            found[name] = batch.get(name)
    return found


def _under(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def fields_of(batch: Any) -> dict[Any, Any] | None:
    """The fields of a mapping or a named tuple; None for what has no fields."""
    if isinstance(batch, Mapping) and not _is_own(batch):
        return dict(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return dict(zip(batch._fields, batch, strict=True))
    return None


def with_fields(batch: Any, fields: dict[Any, Any]) -> Any:
    """The same mapping or named tuple with other values in its fields."""
    if type(batch) is dict:
        return fields
    if isinstance(batch, tuple):
        return type(batch)(**fields)
    if isinstance(batch, MutableMapping):
        made = copy.copy(batch)
        made.update(fields)
        return made
    made_of: Any = type(batch)
    return made_of(fields)


def _is_own(value: object) -> bool:
    return isinstance(value, Batch) or is_tensordict(value)


def is_tensordict(value: object) -> bool:
    """Whether it is a TensorDict or a tensor class."""
    library = sys.modules.get("tensordict")
    return library is not None and bool(library.is_tensor_collection(value))


def is_array(value: object) -> bool:
    """Whether it is a numpy array."""
    library = sys.modules.get("numpy")
    return library is not None and isinstance(value, library.ndarray)


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor."""
    library = sys.modules.get("torch")
    return library is not None and isinstance(value, library.Tensor)


def leaf_rows(value: Any) -> int | None:
    """The rows of a value without fields; None when it is not split."""
    if isinstance(value, Batch):
        return value.__rankplan_rows__()
    if is_tensordict(value):
        return int(value.batch_size[0]) if len(value.batch_size) else None
    if is_tensor(value):
        return int(value.size(0)) if value.ndim else None
    if is_array(value):
        return len(value) if value.ndim else None
    return len(value) if isinstance(value, list | tuple) else None


def _picked(value: Any, rows: Rows, path: str) -> Any:
    try:
        return _taken(value, rows)
    except (NotImplementedError, RuntimeError) as error:
        if not is_tensor(value):
            raise
        kind = str(value.layout).removeprefix("torch.")
        raise BatchError(
            path, f"torch takes no rows out of this {kind} tensor", "give a dense tensor"
        ) from error


def _taken(value: Any, rows: Rows) -> Any:
    if isinstance(value, Batch):
        return value.__rankplan_take__(rows)
    if is_tensor(value) and value.is_nested:
        each = value.unbind()
        picked = each[rows] if isinstance(rows, slice) else [each[row] for row in rows]
        return _nested(value, picked)
    if isinstance(value, list | tuple):
        picked = value[rows] if isinstance(rows, slice) else [value[row] for row in rows]
        return picked if type(picked) is type(value) else type(value)(picked)
    return value[rows]


def _nested(like: Any, tensors: Sequence[Any]) -> Any:
    import torch

    if not tensors and like.layout is torch.jagged:
        # Values without their rows, and one offset, 0: the length of no row at all.
        return torch.nested.nested_tensor_from_jagged(like.values()[:0], like.offsets()[:1])
    return torch.nested.as_nested_tensor(list(tensors), layout=like.layout)


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Batch):
        return type(first).__rankplan_join__(parts)
    if is_array(first):
        import numpy as np

        return np.concatenate(parts)
    if is_tensor(first) and first.is_nested:
        return _nested(first, [each for part in parts for each in part.unbind()])
    if is_tensor(first) or is_tensordict(first):
        import torch

        return torch.cat(list(parts))
    return type(first)([each for part in parts for each in part])


def _joined_fields(parts: Sequence[Any], path: str) -> Any:
    each = [fields_of(part) or {} for part in parts]
    names = list(each[0])
    for fields in each:
        if set(fields) != set(names):
            odd = sorted(str(name) for name in set(fields) ^ set(names))
            raise BatchError(
                path, f"not all parts have {', '.join(odd)}", "return the same fields everywhere"
            )
    return with_fields(
        parts[0],
        {name: join([fields[name] for fields in each], _under(path, name)) for name in names},
    )


def _agreed(parts: Sequence[Any], path: str) -> Any:
    """A value without rows, which must then be the same in every part."""
    first = parts[0]
    for part in parts[1:]:
        if part is first:
            continue
        try:
            same = bool(part == first)
        except (RuntimeError, ValueError):
            same = False
        if not same:
            raise BatchError(
                path,
                f"a value of type {type(first).__name__} has no rows, and the slices differ in it",
                "return something with rows, or combine results with PerShard or Reduce",
            )
    return first


def _filled(padding: Any, pads: Mapping[str, float], path: str) -> Any:
    """Padding with the number of its field, where it has one."""
    if is_tensordict(padding):
        for name, value in (columns_of(padding) or {}).items():
            padding.set(name, _filled(value, pads, _under(path, name)))
        return padding
    if path not in pads:
        return padding
    number = pads[path]
    if isinstance(padding, list | tuple):
        return type(padding)([_filled_row(row, number) for row in padding])
    if is_array(padding) or is_tensor(padding):
        return _filled_row(padding, number)
    return padding


def _filled_row(row: Any, number: float) -> Any:
    if is_array(row):
        import numpy as np

        return np.full_like(row, number)
    if is_tensor(row):
        import torch

        return torch.full_like(row, number)
    if isinstance(row, list | tuple):
        return type(row)([number] * len(row))
    return number
