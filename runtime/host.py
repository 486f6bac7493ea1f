"""The generic actor in which one rank's worker lives.

It travels to the nodes by value, so it imports the standard library and Ray only: the
interpreter that runs it may be an environment in which rankplan is not installed. It decides
nothing. It reports where it landed, is told its rank's environment as data, sets that, and only
then imports the worker's class and unpickles the constructor's arguments.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import ray

from runtime.direct_values import direct
from runtime.host_body import Body, pair

__all__ = ["AsyncHost", "Host"]


class Host(Body):
    """A host whose worker's methods run one after the other on the main thread."""

    def start(
        self, told: Mapping[str, object], payloads: Sequence["ray.ObjectRef[object]"]
    ) -> object:
        """Become the worker of a rank: set its environment, import its class, construct it.

        ``payloads`` are references inside a list, so that Ray leaves them alone and they are
        unpickled here, after the environment is set.
        """
        self._prepare(told)
        with self._named("__init__"):
            return self._construct(told, [_resolved(ray.get(ref)) for ref in payloads])

    def call(self, method: str, /, *args: object, **kwargs: object) -> object:
        """Call a method and return its result."""
        with self._named(method):
            result = self._bound(method)(*args, **kwargs)
            return _finished(method, result)

    def named(self, /, *args: object, **kwargs: object) -> object:
        """Call the method that the task is named after: cheaper than an argument that says it."""
        return self.call(_task_name(), *args, **kwargs)

    def drain(self, method: str, /, *args: object, **kwargs: object) -> None:
        """Call a method for its effects: nothing is sent back, a stream is run to its end."""
        with self._named(method):
            result = self._bound(method)(*args, **kwargs)
            if inspect.isgenerator(result):
                for _ in result:
                    pass

    def serve_stream(
        self, method: str, told: Mapping[str, object], /, *args: object, **kwargs: object
    ) -> Iterator[object]:
        """As ``serve`` for a stream; where nothing comes back, one value says that it has begun."""
        with self._named(method):
            given = self._given(told, args, kwargs)
            result = _iterated(method, self._bound(method)(*given, **kwargs))
            if told["returns"]:
                for value in result:  # noqa: UP028  # as in ``stream``
                    yield value
                return
            yield None
            for _ in result:
                if _is_cancelled():
                    break

    def serve(
        self, method: str, told: Mapping[str, object], /, *args: object, **kwargs: object
    ) -> object:
        """Call a method with what a plain call leaves out.

        Args:
            method: Which.
            told: ``join``: arguments to be joined, by name or place, each with the number of its
                parts and what the function that joins takes before them; ``share``: arguments, by
                name or place, each with the method that hands it on inside the group; ``returns``:
                whether the result comes back; ``clock``: whether its times do; ``direct``: whether
                its tensors shall go by a direct transport.
            args: Where something is to be joined the function and the parts; its arguments.
            kwargs: Its arguments.
        """
        began = time.time()
        with self._named(method):
            result = self._bound(method)(*self._given(told, args, kwargs), **kwargs)
            return _clocked(told, _finished(method, result), began)

    def _given(
        self, told: Mapping[str, object], args: Sequence[object], kwargs: dict[str, object]
    ) -> list[object]:
        """The arguments given by position; those by name are put into ``kwargs``."""
        given = self._arguments(told, args, kwargs)
        for share, value, put in self._shares(told, given, kwargs):
            put(_finished(share, value))
        return given

    def apply(self, function: Callable[..., object], /, *args: object) -> object:
        """Call a function on objects that are here."""
        return function(*args)

    def stream(self, method: str, /, *args: object, **kwargs: object) -> Iterator[object]:
        """Call a method and yield its values one by one."""
        with self._named(method):
            # Ray sends values into the generators that it runs. ``yield from`` would hand them on
            # to the user's iterator, which may not take any.
            for value in _iterated(method, self._bound(method)(*args, **kwargs)):  # noqa: UP028
                yield value


class AsyncHost(Body):
    """A host on an event loop: many calls at once, as Ray runs classes with async methods."""

    async def start(self, told: Mapping[str, object], payloads: Sequence[object]) -> object:
        """As ``Host.start``; the constructor runs on the event loop, as in any async Ray actor."""
        self._prepare(told)
        fetched = [await _awaited(ref) for ref in payloads]
        resolved = []
        for args, kwargs in map(pair, fetched):
            more = [await _awaited(value) for value in args]
            named = {key: await _awaited(value) for key, value in kwargs.items()}
            resolved.append((more, named))
        with self._named("__init__"):
            return self._construct(told, resolved)

    async def call(self, method: str, /, *args: object, **kwargs: object) -> object:
        """Call a method and return its result."""
        with self._named(method):
            result = self._bound(method)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            return _finished(method, result)

    async def named(self, /, *args: object, **kwargs: object) -> object:
        """As ``Host.named``."""
        return await self.call(_task_name(), *args, **kwargs)

    async def drain(self, method: str, /, *args: object, **kwargs: object) -> None:
        """Call a method for its effects: nothing is sent back, a stream is run to its end."""
        with self._named(method):
            result = self._bound(method)(*args, **kwargs)
            if inspect.isawaitable(result):
                await result
            elif inspect.isasyncgen(result):
                async for _ in result:
                    pass
            elif inspect.isgenerator(result):
                for _ in result:
                    await asyncio.sleep(0)

    async def serve_stream(
        self, method: str, told: Mapping[str, object], /, *args: object, **kwargs: object
    ) -> AsyncIterator[object]:
        """As ``Host.serve_stream``."""
        with self._named(method):
            given = await self._given(told, args, kwargs)
            if not told["returns"]:
                yield None
            async for value in self._values(method, given, kwargs):
                if told["returns"]:
                    yield value
                else:
                    await asyncio.sleep(0)

    async def serve(
        self, method: str, told: Mapping[str, object], /, *args: object, **kwargs: object
    ) -> object:
        """As ``Host.serve``."""
        began = time.time()
        with self._named(method):
            result = self._bound(method)(*await self._given(told, args, kwargs), **kwargs)
            if inspect.isawaitable(result):
                result = await result
            return _clocked(told, _finished(method, result), began)

    async def _given(
        self, told: Mapping[str, object], args: Sequence[object], kwargs: dict[str, object]
    ) -> list[object]:
        """As ``Host._given``."""
        given = self._arguments(told, args, kwargs)
        for share, value, put in self._shares(told, given, kwargs):
            put(_finished(share, await value if inspect.isawaitable(value) else value))
        return given

    async def apply(self, function: Callable[..., object], /, *args: object) -> object:
        """As ``Host.apply``."""
        return function(*args)

    async def stream(
        self, method: str, /, *args: object, **kwargs: object
    ) -> AsyncIterator[object]:
        """Call a method and yield its values one by one."""
        with self._named(method):
            async for value in self._values(method, args, kwargs):
                yield value

    async def _values(
        self, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> AsyncIterator[object]:
        result = self._bound(method)(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if inspect.isasyncgen(result):
            async for value in result:
                yield value
        else:
            for value in _iterated(method, result):
                yield value


def _clocked(told: Mapping[str, object], result: object, began: float) -> object:
    """The result, None where it is not to come back; with its times, where those are asked for."""
    kept = result if told["returns"] else None
    if told.get("direct"):
        kept = direct(kept)
    return (kept, (began, time.time())) if told["clock"] else kept


def _task_name() -> str:
    """What the caller named this call; only outside of any call there is nothing."""
    return ray.get_runtime_context().get_task_name() or ""


def _is_cancelled() -> bool:
    """Whether the caller has cancelled the call that runs."""
    if not ray.is_initialized():
        # Asking for the context would start Ray.
        return False
    context = ray.get_runtime_context()
    try:
        return context.is_canceled()
    except (AttributeError, RuntimeError):
        # An older Ray, or no call of Ray's.
        return False


def _finished(method: str, result: object) -> object:
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            f"{method}() returned a generator, but Python can't see that it does: it is wrapped "
            "by a plain function. Make it a generator function, or call it with "
            f"{method}.options(num_returns='streaming')"
        )
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{method}() returned a coroutine, but its class has no async methods that Python "
            "can see: start the group with asynchronous=True"
        )
    return result


def _iterated(method: str, result: object) -> Iterator[object]:
    if not isinstance(result, Iterator):
        raise TypeError(f"{method}() returned {type(result).__name__}, which is not a stream")
    return result


async def _awaited(value: object) -> object:
    return await value if isinstance(value, ray.ObjectRef) else value


def _resolved(payload: object) -> tuple[list[object], dict[str, object]]:
    args, kwargs = pair(payload)
    return (
        [ray.get(value) if isinstance(value, ray.ObjectRef) else value for value in args],
        {k: ray.get(v) if isinstance(v, ray.ObjectRef) else v for k, v in kwargs.items()},
    )
