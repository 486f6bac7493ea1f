"""How large a value is, and sending each distinct one once."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from planner.dispatch import Transport, choose_transport
from planner.findings import Findings
from planner.transports import held_apart_text
from runtime.backend import Backend
from runtime.tensor_storages import carry_storages

__all__ = ["is_plain", "payload_size", "record_unsendable", "ship", "try_to_send"]

_LOOKED_AT = 256
"""How many elements of a container are looked at; a larger one counts as of unknown size."""


_NUMBERS = frozenset({int, float, bool, type(None)})
_PLAIN = _NUMBERS | {str, bytes, bytearray}


def ship(backend: Backend, value: object, receivers: int, calls: int) -> object:
    """The value itself, or a reference to the one object that it has become.

    Args:
        backend: Where the calls run.
        value: A payload.
        receivers: How many calls carry it.
        calls: How many calls there are in all.

    Raises:
        TypeError: It stands for a result that is held for a direct transport.
    """
    held_for = backend.direct.transport_of(value)
    if held_for:
        raise TypeError("; ".join(held_apart_text(held_for)))
    if backend.is_reference(value):
        return value
    carry_storages()
    compact = _compact(value)
    match choose_transport(payload_size(compact), receivers, calls):
        case Transport.INLINE:
            return compact
        case Transport.OBJECT:
            return backend.put(compact)


def _compact(value: object) -> object:
    """The value without what only its views drag along.

    A torch tensor is pickled with its whole storage: a slice of a batch would carry the batch.
    Tensors inside plain containers count too.
    """
    torch = sys.modules.get("torch")
    return value if torch is None else _without_rest(value, torch.Tensor)


def _without_rest(value: Any, tensor: type) -> Any:
    if isinstance(value, tensor):
        view: Any = value
        is_part = view.device.type == "cpu" and view.layout == sys.modules["torch"].strided
        whole = view.untyped_storage().nbytes() if is_part else view.nbytes
        return view.detach().clone() if whole > view.nbytes and not view.requires_grad else value
    if type(value) in {list, tuple} and len(value) <= _LOOKED_AT:
        parts = [_without_rest(each, tensor) for each in value]
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else type(value)(parts)
    if type(value) is dict and len(value) <= _LOOKED_AT:
        named = {key: _without_rest(each, tensor) for key, each in value.items()}
        return value if all(named[key] is value[key] for key in value) else named
    return value


def record_unsendable(path: str, value: object, error: Exception, findings: Findings) -> None:
    """Record that a value can't be serialised; ``error`` is what trying it raised."""
    cause = error.__cause__ or error
    reason = (str(cause).strip().splitlines() or ["no reason given"])[0]
    findings.add(
        path,
        f"a value of type {type(value).__name__} can't be serialised "
        f"({type(cause).__name__}: {reason})",
        "give data that pickle can send to another process",
    )


def try_to_send(backend: Backend, path: str, value: object, findings: Findings) -> None:
    """Find out whether a value can be serialised; what that gives is dropped."""
    try:
        backend.put(value)
    except Exception as error:  # noqa: BLE001  # serialising runs code of the value's type
        record_unsendable(path, value, error, findings)


def is_plain(value: object) -> bool:
    """Whether a value consists of numbers, text, arrays and plain containers alone.

    Such a value can always be serialised.
    """
    if type(value) in _PLAIN:
        return True
    if type(value) in {list, tuple, set, frozenset}:
        parts: Any = value
        return _PLAIN.issuperset(map(type, parts)) or all(map(is_plain, parts))
    if isinstance(value, dict) and type(value) is dict:
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    if type(value) is np.ndarray:
        return not value.dtype.hasobject
    torch: Any = sys.modules.get("torch")
    tensor: Any = value
    return torch is not None and type(value) is torch.Tensor and tensor.layout is torch.strided


def payload_size(value: object) -> int | None:
    """About how many bytes a value has; None when only serialising it would tell."""
    return _size(value, [_LOOKED_AT])


def _size(value: object, left: list[int]) -> int | None:
    if value is None or isinstance(value, bool | int | float):
        return 16
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else int(value.nbytes)
    if type(value) in {list, tuple, set, frozenset, dict}:
        return _container_size(value, left)
    nbytes = getattr(value, "nbytes", None)
    if type(value).__module__.partition(".")[0] == "torch" and isinstance(nbytes, int):
        return nbytes
    return None


def _container_size(value: object, left: list[int]) -> int | None:
    parts: list[object] = []
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, Sequence | set | frozenset):
        left[0] -= len(value)
        parts = list(value) if left[0] >= 0 else []
    if left[0] < 0:
        return None
    if _NUMBERS.issuperset(map(type, parts)):
        # A slice of token ids: looking at each by itself would cost as much as sending it.
        return 16 + 16 * len(parts)
    total = 16
    for part in parts:
        size = _size(part, left)
        if size is None:
            return None
        total += size
    return total
