"""Tensors of types that torch can't read again once they were pickled: fp8, uint16 and others.

Travels to the workers by value, as runtime/batches.py does.
"""

import copyreg
import sys
from typing import Any

__all__ = ["carry_storages"]


def carry_storages() -> None:
    """Have this process pickle storages that have no type as bytes, so that they can be read.

    Torch 2.13 pickles with such a storage those tensors alone whose types are newer than its typed
    storages, and leaves out what it needs to read it. ``torch.save`` has a way of its own. It does
    nothing before torch is imported.
    """
    kind = getattr(sys.modules.get("torch"), "UntypedStorage", None)
    if kind is not None and kind not in copyreg.dispatch_table:
        copyreg.pickle(kind, _written)


def _written(storage: Any) -> Any:
    torch: Any = sys.modules["torch"]
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.uint8, _internal=True)
    return typed.__reduce__()
