"""The fields of a batch as facts: their names, and what a row of each can hold."""

from typing import Any

import numpy as np

from planner.padding import FieldFacts
from runtime.batches import Batch, Whole, columns_of, is_array, is_tensor, is_tensordict, leaf_rows

__all__ = ["field_facts"]


def field_facts(batch: Any, path: str = "") -> tuple[FieldFacts, ...]:
    """The fields with rows, those of inner mappings too, named with dots."""
    if isinstance(batch, Whole):
        return ()
    fields = columns_of(batch)
    if fields is None or (is_tensordict(batch) and not fields):
        return () if leaf_rows(batch) is None else (_facts(path, batch),)
    return tuple(
        found
        for name, value in fields.items()
        for found in field_facts(value, f"{path}.{name}" if path else str(name))
    )


def _facts(name: str, value: Any) -> FieldFacts:
    if is_array(value):
        return _of_array(name, value)
    if is_tensor(value):
        return _of_tensor(name, value)
    if isinstance(value, list | tuple) and not isinstance(value, Batch):
        first = next((row for row in value if row is not None), None)
        if is_array(first) or is_tensor(first):
            return _facts(name, first)
        if first is None or isinstance(first, bool | int | float | np.number | list | tuple):
            return FieldFacts(name=name, kind=type(first).__name__)
        return FieldFacts(name=name, kind=type(first).__name__, takes_numbers=False)
    return FieldFacts(name=name, kind=type(value).__name__, takes_numbers=False)


def _of_array(name: str, array: Any) -> FieldFacts:
    kind = str(array.dtype)
    match array.dtype.kind:
        case "b":
            return FieldFacts(name=name, kind=kind, whole=True, least=0, most=1)
        case "i" | "u":
            limits = np.iinfo(array.dtype)
            return FieldFacts(
                name=name, kind=kind, whole=True, least=int(limits.min), most=int(limits.max)
            )
        case "f":
            most = float(np.finfo(array.dtype).max)
            return FieldFacts(name=name, kind=kind, least=-most, most=most)
        case "c" | "O":
            return FieldFacts(name=name, kind=kind)
        case _:
            return FieldFacts(name=name, kind=kind, takes_numbers=False)


def _of_tensor(name: str, tensor: Any) -> FieldFacts:
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.dtype is torch.bool:
        return FieldFacts(name=name, kind=kind, whole=True, least=0, most=1)
    if tensor.is_complex():
        return FieldFacts(name=name, kind=kind)
    if tensor.is_floating_point():
        most = float(torch.finfo(tensor.dtype).max)
        return FieldFacts(name=name, kind=kind, least=-most, most=most)
    limits = torch.iinfo(tensor.dtype)
    return FieldFacts(name=name, kind=kind, whole=True, least=limits.min, most=limits.max)
