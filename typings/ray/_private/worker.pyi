from abc import ABCMeta
from collections.abc import Iterator, Mapping
from typing import Any, Self

global_worker: Any
_global_node: object | None

class BaseContext(metaclass=ABCMeta):
    dashboard_url: str | None
    python_version: str
    ray_version: str

class RayContext(BaseContext, Mapping[str, str | None]):
    address_info: dict[str, str | None]
    def __getitem__(self, key: str) -> str | None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def disconnect(self) -> None: ...
