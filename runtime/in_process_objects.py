"""What calls of the in-process backend give and carry: copies of objects, made when asked for."""

import itertools
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol, Self

from attrs import frozen
from ray import cloudpickle
from ray.exceptions import ActorDiedError, TaskCancelledError

from runtime.raised import fit_to_travel
from runtime.virtual_time import VirtualTime

__all__ = [
    "Item",
    "Job",
    "ProcessDiedError",
    "Reader",
    "Stream",
    "StreamEnd",
    "copied",
    "dumped",
    "fetched",
    "held",
]


class _World(Protocol):
    """What objects need of the world that they are in."""

    @property
    def time(self) -> VirtualTime: ...

    @property
    def lock(self) -> threading.RLock: ...


_NUMBERS = itertools.count(1)
_COMPLETIONS = itertools.count(1)


class ProcessDiedError(ActorDiedError):
    """A process of the in-process backend is dead; caught as Ray's own error is."""

    def __init__(self, text: str, at: float | None = None) -> None:
        super().__init__()
        self.args, self.error_msg, self.at = (text,), text, at

    def __reduce__(self) -> tuple[type[Self], tuple[str, float | None]]:
        return type(self), (self.error_msg, self.at)


class Item:
    """A reference to one object: a copy of it is made each time that it is asked for."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.number = next(_NUMBERS)
        self.done_at: int | None = None
        self.transport = ""
        self._blob = b""
        self._error: BaseException | None = None
        self._holds: tuple[object, ...] = ()
        self._waiters: list[Callable[[], None]] = []

    @property
    def is_ready(self) -> bool:
        """Whether the object is there, or an error in its place."""
        return self.done_at is not None

    @property
    def error(self) -> BaseException | None:
        """The error that is there in place of the object."""
        return self._error

    @property
    def size(self) -> int:
        """How many bytes the object has."""
        return len(self._blob)

    def set(self, value: object) -> None:
        """Put the object there; it is serialised now."""
        if self.done_at is None:
            self._blob, self._holds = dumped(value)
            self._done()

    def fail(self, error: BaseException) -> None:
        """Put an error there."""
        if self.done_at is None:
            self._error = error
            self._done()

    def when_ready(self, action: Callable[[], None]) -> None:
        """Have something done once it is ready."""
        self._waiters.append(action)

    def _done(self) -> None:
        self.done_at = next(_COMPLETIONS)
        waiters, self._waiters = self._waiters, []
        for action in waiters:
            action()

    def load(self) -> Any:
        """A fresh copy of the object; raises the error that is there in its place."""
        if self._error is not None:
            raise self._error
        return pickle.loads(self._blob)  # noqa: S301  # written by this process

    def __reduce__(self) -> tuple[Callable[..., object], tuple[int]]:
        return held(self)


MOST_UNTAKEN = 10_000
"""How many values are made for a stream that nobody holds before its generator is closed."""


class Stream:
    """A stream of objects, as its worker sees it."""

    def __init__(self, world: _World, limit: int | None) -> None:
        self.world = world
        self.items: deque[Item] = deque()
        self.is_finished = False
        self.done_at: int | None = None
        self.error: BaseException | None = None
        self._limit = limit
        self._resume: Callable[[], None] | None = None
        self._untaken: int | None = None

    @property
    def is_ready(self) -> bool:
        """Whether taking the next item takes no wait."""
        return bool(self.items) or self.is_finished

    def take(self) -> Item | None:
        """The next object; None after the last one."""
        with self.world.lock:
            self.world.time.run_until(lambda: self.is_ready, None)
            if not self.items:
                return None
            item = self.items.popleft()
            self._go_on()
            return item

    def let_go(self) -> None:
        """Nobody takes the objects any more: they are made to the end, as on Ray, and dropped.

        A generator without end, which would keep a worker on Ray busy for ever, is closed.
        """
        with self.world.lock:
            self._untaken, self._limit = MOST_UNTAKEN, None
            self.items.clear()
            self._go_on()

    def _go_on(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()

    def add(self, item: Item) -> None:
        """One more object."""
        if self._untaken is not None:
            self._untaken -= 1
            if not self._untaken:
                self.finish()
        elif not self.is_finished:
            self.items.append(item)

    def finish(self, error: BaseException | None = None) -> None:
        """The end, after one more item that is an error, if there is one."""
        if error is not None and not self.is_finished:
            item = Item(self.world)
            item.fail(error)
            self.items.append(item)
            self.error = error
        if not self.is_finished:
            self.done_at = next(_COMPLETIONS)
        self.is_finished = True
        self._go_on()

    def when_wanted(self, produce: Callable[[], None]) -> None:
        """Have the next object made: now, or when one that waits has been taken."""
        if self._limit is None or len(self.items) < self._limit or self.is_finished:
            produce()
        else:
            self._resume = produce


class Reader:
    """A reference to a stream: iterating gives an ``Item`` for each object."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        dropped = weakref.finalize(self, stream.let_go)
        dropped.atexit = False

    @property
    def is_ready(self) -> bool:
        """Whether taking the next item takes no wait."""
        return self.stream.is_ready

    @property
    def done_at(self) -> int | None:
        """When its worker was through, among all completions."""
        return self.stream.done_at

    @property
    def error(self) -> BaseException | None:
        """What it ended with, if it did not end well."""
        return self.stream.error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        item = self.stream.take()
        if item is None:
            raise StopIteration
        return item


@frozen
class StreamEnd:
    """Stands for the end of a stream on its worker; it has no value."""

    stream: Stream
    size: ClassVar[int] = 0

    @property
    def is_ready(self) -> bool:
        """Whether the worker is through."""
        return self.stream.is_finished

    @property
    def done_at(self) -> int | None:
        """When it was, among all completions."""
        return self.stream.done_at

    @property
    def error(self) -> BaseException | None:
        """What the stream ended with, if it did not end well."""
        return self.stream.error

    def load(self) -> None:
        """Nothing; raises the error that the stream ended with."""
        if self.stream.error is not None:
            raise self.stream.error


class Job:
    """One call: sent, not yet answered.

    Args:
        entry: Which method of the host.
        arguments: Its ``(args, kwargs)``; serialised now.
        answers: Where its results go.
        stream: Where they go instead, when it is a stream.
    """

    def __init__(
        self, entry: str, arguments: object, answers: Sequence[Item], stream: Stream | None
    ) -> None:
        self.entry, self.answers, self.stream = entry, answers, stream
        self._blob, self._holds = dumped(arguments)
        self._loaded: tuple[list[Any], dict[str, Any]] | None = None

    @property
    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """A copy of the arguments of its own."""
        if self._loaded is None:
            args, kwargs = pickle.loads(self._blob)  # noqa: S301  # written by this process
            self._loaded = list(args), kwargs
        return self._loaded

    def waits_for(self) -> Item | None:
        """An argument that is not there yet."""
        args, kwargs = self.arguments
        each = (*args, *kwargs.values())
        return next((it for it in each if isinstance(it, Item) and not it.is_ready), None)

    def resolved(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments, with objects in the place of references to them."""
        args, kwargs = self.arguments
        return [fetched(each) for each in args], {k: fetched(v) for k, v in kwargs.items()}

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        for answer in self.answers:
            answer.fail(error)
        if self.stream is not None:
            self.stream.finish(error)

    def succeed(self, value: object) -> None:
        """Answer with a value, or several."""
        try:
            if len(self.answers) == 1:
                self.answers[0].set(value)
                return
            parts = list(value) if isinstance(value, tuple | list) else [value]
            for answer, part in zip(self.answers, parts, strict=True):
                answer.set(part)
        except Exception as error:  # noqa: BLE001  # what can't be serialised, or is not as many
            self.fail(error)


def copied(error: Exception | KeyboardInterrupt) -> Exception:
    """An exception as it arrives from another process; its traceback stays, for people.

    For ``KeyboardInterrupt`` it is what Ray makes of it: the worker goes on.
    """
    sent = TaskCancelledError() if isinstance(error, KeyboardInterrupt) else fit_to_travel(error)
    copied_error: Exception = pickle.loads(cloudpickle.dumps(sent))  # noqa: S301
    return copied_error.with_traceback(error.__traceback__)


_HELD: "weakref.WeakValueDictionary[int, object]" = weakref.WeakValueDictionary()
_SERIALISED: "ContextVar[list[object] | None]" = ContextVar("_SERIALISED", default=None)


def held(what: Any) -> tuple[Callable[..., object], tuple[int]]:
    """How a reference or an actor is serialised: by its number; it lives while that text does."""
    _HELD[what.number] = what
    serialised = _SERIALISED.get()
    if serialised is not None:
        serialised.append(what)
    return _find, (what.number,)


def _find(number: int) -> object:
    return _HELD[number]


def dumped(value: object) -> tuple[bytes, tuple[object, ...]]:
    """A value as bytes, and what must be kept alive for them."""
    serialised: list[object] = []
    token = _SERIALISED.set(serialised)
    try:
        return cloudpickle.dumps(value), tuple(serialised)
    finally:
        _SERIALISED.reset(token)


def fetched(value: Any) -> Any:
    """The object that a reference stands for; anything else is itself."""
    return value.load() if isinstance(value, Item) else value
