from collections.abc import Callable, Iterable
from pickle import PickleBuffer, Pickler
from types import ModuleType
from typing import IO, Any

from _typeshed import ReadableBuffer

class CloudPickler(Pickler):
    def __init__(
        self,
        file: IO[bytes],
        protocol: int | None = None,
        buffer_callback: Callable[[PickleBuffer], object] | None = None,
    ) -> None: ...
    def dump(self, obj: object) -> None: ...
    def reducer_override(self, obj: object) -> Any: ...

def dumps(
    obj: object,
    protocol: int | None = None,
    buffer_callback: Callable[[PickleBuffer], object] | None = None,
) -> bytes: ...
def loads(
    data: ReadableBuffer,
    /,
    *,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    errors: str = "strict",
    buffers: Iterable[ReadableBuffer] | None = (),
) -> Any: ...
def register_pickle_by_value(module: ModuleType) -> None: ...
def unregister_pickle_by_value(module: ModuleType) -> None: ...
