"""Tensors of types that torch can't read again once they were pickled: fp8, uint16 and others.

Travels to the workers by value, as runtime/batches.py does.
"""

import copyreg
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["carry_storages"]


def carry_storages() -> None:
    """Have this process pickle every storage without a type as bytes, so that it can be read.

    Torch pickles with such a storage those tensors alone whose types are newer than its typed
    storages, and leaves out what it needs to read it. ``torch.save`` has a way of its own. It does
    nothing before torch is imported.
    """
    kind = getattr(sys.modules.get("torch"), "UntypedStorage", None)
    if kind is not None and kind not in copyreg.dispatch_table:
        copyreg.pickle(kind, _written)


def _written(storage: Any) -> tuple[Callable[..., Any], tuple[Any]]:
    torch: Any = sys.modules["torch"]
    held = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return torch.Tensor.untyped_storage, (held,)
