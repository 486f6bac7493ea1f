"""Values whose tensors travel by themselves, and the rest of them as one object.

The module travels to the workers by value, as runtime/batches.py does. Ray's direct transport takes
the tensors that it meets when it serialises a result, and ends both processes when one can't be
sent. So it only meets those that can: the others stay in the text of the value.
"""

import io
import pickle
import sys
from typing import Any

from ray import cloudpickle

from runtime.batch_bytes import cut_out
from runtime.batches import Rows

__all__ = ["cut_direct", "direct"]


def direct(value: object) -> object:
    """The value in a form that is serialised with its tensors apart; reading it gives it back.

    Apart go dense tensors on the CPU without gradients. They are not copied unless they lie
    scattered in memory: whoever writes to one before it was sent, changes what is sent.
    """
    return _Direct(value)


def cut_direct(batch: object, piece: Rows, held: tuple[int, int]) -> object:
    """One piece of a result, as ``cut`` gives it, with its tensors apart."""
    return direct(cut_out(batch, [piece], held)[0])


class _Direct:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, tuple[bytes, list[Any], list[Any]]]:
        text, buffers = io.BytesIO(), list[Any]()
        pickler = _Apart(text, buffers)
        pickler.dump(self.value)
        return _together, (text.getvalue(), pickler.tensors, buffers)


class _Apart(cloudpickle.CloudPickler):
    def __init__(self, text: io.BytesIO, buffers: list[Any]) -> None:
        super().__init__(text, protocol=5, buffer_callback=buffers.append)
        self.tensors: list[Any] = []
        self._places: dict[int, tuple[int, Any]] = {}

    def persistent_id(self, value: Any) -> int | None:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or not _goes_alone(value):
            return None
        if id(value) not in self._places:
            self._places[id(value)] = len(self.tensors), value
            self.tensors.append(value.resolve_conj().resolve_neg().contiguous())
        return self._places[id(value)][0]

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            # Ray's own way with tensors would take it out of the text.
            return value.__reduce_ex__(5)
        return super().reducer_override(value)


def _goes_alone(tensor: Any) -> bool:
    torch = sys.modules["torch"]
    dense = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
    return dense and tensor.device.type == "cpu" and not tensor.requires_grad and not vars(tensor)


class _Reader(pickle.Unpickler):
    def __init__(self, text: bytes, tensors: list[Any], buffers: list[Any]) -> None:
        super().__init__(io.BytesIO(text), buffers=buffers)
        self._tensors = tensors

    def persistent_load(self, place: int) -> Any:
        return self._tensors[place]


def _together(text: bytes, tensors: list[Any], buffers: list[Any]) -> Any:
    return _Reader(text, tensors, buffers).load()
