"""Handles of the in-process backend's processes, called as Ray's actor handles are."""

from collections.abc import Callable, Mapping
from typing import Any

from runtime.in_process import Process
from runtime.in_process_objects import Item, Job, Reader, Stream, held

__all__ = ["InProcessActor"]


class InProcessActor:
    """A handle of a host: ``actor.call.remote(...)``."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.number = -process.pid

    @property
    def _actor_id(self) -> int:
        return self.process.pid

    def __getattr__(self, name: str) -> "_Entry":
        if name.startswith("_"):
            raise AttributeError(name)
        return _Entry(self.process, name, {})

    def __reduce__(self) -> tuple[Callable[..., object], tuple[int]]:
        return held(self)


class _Entry:
    def __init__(self, process: Process, name: str, options: Mapping[str, Any]) -> None:
        self._process, self._name, self._options = process, name, options

    def options(self, **options: object) -> "_Entry":
        return _Entry(self._process, self._name, {**self._options, **options})

    def remote(self, *args: object, **kwargs: object) -> Any:
        process = self._process
        with process.world.lock:
            count = self._options.get("num_returns", 1)
            if count == "streaming":
                limit = self._options.get("_generator_backpressure_num_objects")
                stream = Stream(process.world, limit)
                process.submit(Job(self._name, (args, kwargs), (), stream))
                return Reader(stream)
            answers = [Item(process.world) for _ in range(count)]
            process.submit(Job(self._name, (args, kwargs), answers, None))
            return answers[0] if count == 1 else answers
