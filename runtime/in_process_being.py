"""Being a process of the in-process backend for a while, also in steps of its coroutines."""

from collections.abc import Coroutine, Generator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from runtime.in_process_surroundings import Surroundings, being_in

__all__ = ["being", "inside_current"]


class Pretended(Protocol):
    """A process that this one can be."""

    @property
    def around(self) -> Surroundings: ...

    def inside(self) -> AbstractContextManager[None]: ...


_CURRENT: ContextVar[Pretended | None] = ContextVar("_CURRENT", default=None)


def being(process: Pretended) -> AbstractContextManager[None]:
    """While it lasts, a process is in the place of this one."""
    return _Being(process)


class _Being:
    """No generator: that would write on what passes it, which may be frozen."""

    def __init__(self, process: Pretended) -> None:
        self._process, self._around = process, being_in(process.around)

    def __enter__(self) -> None:
        self._token = _CURRENT.set(self._process)
        self._around.__enter__()

    def __exit__(self, *error: object) -> None:
        self._around.__exit__(None, None, None)
        _CURRENT.reset(self._token)


class _Inside(Coroutine[Any, Any, Any]):
    """A coroutine, each step of which runs inside a process."""

    def __init__(self, process: Pretended, inner: Coroutine[Any, Any, Any]) -> None:
        self._process, self._inner = process, inner

    def send(self, value: object) -> Any:
        with self._process.inside():
            return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        with self._process.inside():
            return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def inside_current(running: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """A task's coroutine, run inside the process whose code made the task."""
    process = _CURRENT.get()
    return running if process is None else _Inside(process, running)
