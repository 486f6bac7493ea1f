"""What both kinds of host share: what a process reports, how it becomes the worker of a rank.

Travels to the nodes by value with ``runtime.host``: the standard library and Ray only.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import ray

from runtime.inherited import drop_inherited
from runtime.node_facts import Door, bind_process, look, reachable
from runtime.raised import carried, fit_to_travel
from runtime.tensor_storages import carry_storages
from runtime.vitals import Vitals
from runtime.worker_class import configures, describe_class, extend_search_path, load_class

__all__ = ["Body", "pair"]


class Body:
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
            more_args, more_kwargs = pair(payload)
            args.extend(more_args)
            kwargs.update(more_kwargs)
        self._worker = cls(*args, **kwargs)
        carry_storages()
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

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._vitals.ended()
        carry_storages()
        if error is None or _is_the_end(error, trace):
            return
        # Its class may guard its attributes.
        with contextlib.suppress(Exception):
            error.add_note(f"raised by {self._identity} in {self._method}()")
        vars(error)["rankplan_raised_at"] = time.time()
        sent = fit_to_travel(error) if isinstance(error, Exception) else carried(error)
        if sent is not error:
            raise sent from sent.__cause__


def _is_the_end(error: BaseException, trace: TracebackType | None) -> bool:
    """Whether the call, or its process, was told to end: that is no failure of the user's code."""
    match error:
        case SystemExit() | KeyboardInterrupt():
            return True
        case GeneratorExit():
            # Whoever closes a generator of the host raises it there, not below.
            return trace is None or trace.tb_next is None
        case asyncio.CancelledError():
            try:
                task = asyncio.current_task()
            except RuntimeError:
                return False
            return task is not None and task.cancelling() > 0
        case _:
            return False


def pair(payload: object) -> tuple[Sequence[object], Mapping[str, object]]:
    """A constructor's arguments by position and by name; none where there are none."""
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
