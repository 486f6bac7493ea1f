"""The generic actor in which one rank's worker lives.

It travels to the nodes by value, so it imports the standard library and Ray only: the
interpreter that runs it may be an environment in which rankplan is not installed. It decides
nothing. It reports where it landed, is told its rank's environment as data, sets that, and only
then imports the worker's class and unpickles the constructor's arguments.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import inspect
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import ray

from runtime.direct_values import direct
from runtime.inherited import drop_inherited
from runtime.node_facts import Door, bind_process, look, reachable
from runtime.raised import fit_to_travel
from runtime.vitals import Vitals
from runtime.worker_class import configures, describe_class, extend_search_path, load_class

__all__ = ["AsyncHost", "Host"]


class _Body:
    """What both kinds of host share."""

    _door: Door | None = None
    _bound_to: Mapping[str, object] | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._identity = name
        self._worker: object = None
        self._port = _hold_port()
        self._vitals = Vitals()

    def __repr__(self) -> str:
        # Ray puts this in front of every line that the worker prints.
        return self._name

    def report(
        self, expected: Sequence[str], asked: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Where this host landed; ``expected`` are variables whose values the plan counts on.

        ``asked`` is what else shall be looked at on its machine.
        """
        context = ray.get_runtime_context()
        ids = {kind: tuple(held) for kind, held in context.get_accelerator_ids().items() if held}
        kind, gpus = next(iter(sorted(ids.items())), ("GPU", ()))
        return {
            "node_id": context.get_node_id(),
            "address": ray.util.get_node_ip_address(),
            "gpus": gpus,
            "accelerator": kind,
            "pid": os.getpid(),
            "port": self._port.getsockname()[1],
            "uuids": _gpu_uuids(gpus) if kind == "GPU" else (),
            "visible_variables": tuple(sorted(name for name in os.environ if "VISIBLE" in name)),
            "seen": {name: os.environ.get(name, "") for name in expected},
            "vitals": self._vitals.facts(),
            "look": look(asked, gpus, ray.__version__) if asked else None,
        }

    def open_door(self) -> None:
        """Take connections on the held port, for others to try."""
        self._door = Door(self._port)

    def close_door(self) -> None:
        """Stop that; the port stays held."""
        if self._door is not None:
            self._door.close()
            self._door = None

    def knock(self, addresses: Sequence[str], port: int, seconds: float) -> list[str]:
        """At which of the addresses a port takes connections from here."""
        return reachable(addresses, port, seconds)

    def linked(self, step: Callable[..., object], *args: object) -> object:
        """Have something done about the links of this process, which are kept here."""
        return step(vars(self).setdefault("_links", {}), *args)

    def _prepare(self, told: Mapping[str, object]) -> None:
        """Set the rank's environment; nothing of the user's has been imported yet."""
        from_node = told["from_node"]
        if isinstance(from_node, Mapping):
            drop_inherited(from_node, os.environ)
        variables = told["environment"]
        if isinstance(variables, Mapping):
            os.environ.update(variables)
        extend_search_path()
        affinity = told.get("affinity")
        if isinstance(affinity, Mapping):
            self._bound_to = bind_process(affinity["cores"], affinity["memory_node"])
        if not told["holds_port"]:
            self._port.close()
        self._identity = str(told["identity"])

    def _construct(self, told: Mapping[str, object], payloads: Sequence[object]) -> object:
        cls = load_class(str(told["worker_class"]))
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for payload in payloads:
            more_args, more_kwargs = _pair(payload)
            args.extend(more_args)
            kwargs.update(more_kwargs)
        self._worker = cls(*args, **kwargs)
        described = describe_class(cls)
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return {
            "digest": digest,
            "configures": configures(cls),
            "methods": described if told["describes"] else None,
            "affinity": self._bound_to,
        }

    def _bound(self, method: str) -> Callable[..., object]:
        if self._worker is None:
            raise RuntimeError(f"{self._name} has no worker yet: its constructor did not return")
        bound: Callable[..., object] = getattr(self._worker, method)
        return bound

    def _arguments(
        self, told: Mapping[str, object], given: Sequence[object], kwargs: dict[str, object]
    ) -> list[object]:
        """The arguments given by position; where told so, some are joined from parts first."""
        args, joins = list(given), told["join"]
        if not isinstance(joins, Mapping) or not joins:
            return args
        assemble: Any = args.pop(0)
        joined: list[tuple[object, object]] = []
        for place, (count, *how) in joins.items():
            parts, args = args[:count], args[count:]
            joined.append((place, assemble(*how, *parts)))
        for place, value in joined:
            if isinstance(place, int):
                args.insert(place, value)
            else:
                kwargs[str(place)] = value
        return args

    def _shares(
        self, told: Mapping[str, object], args: list[object], kwargs: dict[str, object]
    ) -> Iterator[tuple[str, object, Callable[[object], None]]]:
        """For each argument handed on inside the group: how, what that gives, and its place."""
        shares = told["share"]
        for place, method in shares.items() if isinstance(shares, Mapping) else ():
            given: Any = args if isinstance(place, int) else kwargs
            yield method, self._bound(method)(given[place]), partial(given.__setitem__, place)

    def _named(self, method: str) -> "_Named":
        """Put the rank's identity on whatever the user's code raises."""
        return _Named(self._vitals, method, self._identity)


class _Named:
    """A call of the user's code."""

    def __init__(self, vitals: Vitals, method: str, identity: str) -> None:
        self._vitals, self._method, self._identity = vitals, method, identity

    def __enter__(self) -> None:
        self._vitals.began(self._method)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._vitals.ended()
        if isinstance(error, Exception):
            # Its class may guard its attributes.
            with contextlib.suppress(Exception):
                error.add_note(f"raised by {self._identity} in {self._method}()")
            vars(error)["rankplan_raised_at"] = time.time()
            sent = fit_to_travel(error)
            if sent is not error:
                raise sent from sent.__cause__


class Host(_Body):
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


class AsyncHost(_Body):
    """A host on an event loop: many calls at once, as Ray runs classes with async methods."""

    async def start(self, told: Mapping[str, object], payloads: Sequence[object]) -> object:
        """As ``Host.start``; the constructor runs on the event loop, as in any async Ray actor."""
        self._prepare(told)
        fetched = [await _awaited(ref) for ref in payloads]
        resolved = []
        for args, kwargs in map(_pair, fetched):
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
    args, kwargs = _pair(payload)
    return (
        [ray.get(value) if isinstance(value, ray.ObjectRef) else value for value in args],
        {k: ray.get(v) if isinstance(v, ray.ObjectRef) else v for k, v in kwargs.items()},
    )


def _pair(payload: object) -> tuple[Sequence[object], Mapping[str, object]]:
    args, kwargs = payload if isinstance(payload, tuple) else ((), {})
    return args, kwargs


def _hold_port() -> socket.socket:
    """Take a free port and keep it.

    The socket is bound but never listens, and allows its address to be reused: on Linux the
    process that shall serve the port can bind it beside this one, and the kernel gives it to
    nobody who asks for a free port.
    """
    try:
        held = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        anywhere = "::"
    except OSError:
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        anywhere = ""
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((anywhere, 0))
    except OSError:
        held.close()
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
    return held


def _gpu_uuids(gpus: Sequence[str]) -> tuple[str, ...]:
    """Hardware ids of NVIDIA GPUs by their index on the node; empty where there is no driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ()
    if nvml.nvmlInit_v2() != 0:
        return ()
    found: list[str] = []
    for gpu in gpus:
        device = ctypes.c_void_p()
        text = ctypes.create_string_buffer(96)
        if (
            not gpu.isdigit()
            or nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(gpu)), ctypes.byref(device))
            or nvml.nvmlDeviceGetUUID(device, text, ctypes.c_uint(96))
        ):
            return ()
        found.append(text.value.decode())
    return tuple(found)
