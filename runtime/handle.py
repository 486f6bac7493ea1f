"""A worker as its callers hold it: every method of the user's class, called on the host actor.

Handles travel to other actors and tasks, by value where need be, so this module imports the
standard library and Ray only.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ray.actor import ActorHandle

__all__ = ["RemoteMethod", "WorkerHandle", "actor_of"]

_Gate = Callable[[str, Callable[[], Any]], Any]

_KINDS = {kind.description: kind for kind in inspect._ParameterKind}


class WorkerHandle:
    """One worker: ``handle.method.remote(...)`` calls a method of the user's class.

    Handles are values: they compare by the actor behind them, and can be passed to other actors
    and tasks; from there, calls go to the worker directly. In the process of their group, calls
    pass its gate, which refuses and counts them as it does the group's own. Every name without
    a leading underscore belongs to the user's class; the Ray handle behind it is
    ``group.actors[rank]``, or ``actor_of(handle)``.
    """

    __slots__ = ("_rankplan_actor", "_rankplan_gate", "_rankplan_label", "_rankplan_methods")

    def __init__(
        self,
        actor: ActorHandle[Any],
        label: str,
        methods: Mapping[str, Mapping[str, object]],
        gate: _Gate | None = None,
    ) -> None:
        self._rankplan_actor = actor
        self._rankplan_label = label
        self._rankplan_methods = methods
        self._rankplan_gate = gate

    def __getattr__(self, name: str) -> "RemoteMethod":
        if name.startswith("__ray_"):
            return RemoteMethod(getattr(self._rankplan_actor, name), None, name, None, {})
        if name.startswith("_rankplan"):
            raise AttributeError(name)
        described = self._rankplan_methods.get(name)
        if described is None:
            near = difflib.get_close_matches(name, self._rankplan_methods, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"{self._rankplan_label} has no method {name!r}{hint}")
        actor = self._rankplan_actor
        return RemoteMethod(
            actor.call,
            actor.stream,
            name,
            described,
            {},
            self._rankplan_label,
            self._rankplan_gate,
        )

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._rankplan_methods]

    def __reduce__(self) -> tuple[type["WorkerHandle"], tuple[object, ...]]:
        return WorkerHandle, (
            self._rankplan_actor,
            self._rankplan_label,
            self._rankplan_methods,
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WorkerHandle)
            and self._rankplan_actor._actor_id == other._rankplan_actor._actor_id
        )

    def __hash__(self) -> int:
        return hash(self._rankplan_actor._actor_id)

    def __repr__(self) -> str:
        return f"<{self._rankplan_label}>"


class RemoteMethod:
    """One method of a worker, to be called with ``.remote(...)``."""

    __slots__ = ("_call", "_described", "_gate", "_label", "_name", "_options", "_stream")

    def __init__(
        self,
        call: Any,
        stream: Any,
        name: str,
        described: Mapping[str, object] | None,
        options: Mapping[str, object],
        label: str = "",
        gate: _Gate | None = None,
    ) -> None:
        self._label = label
        self._gate = gate
        self._call = call
        self._stream = stream
        self._name = name
        self._described = described
        self._options = options

    def options(self, **options: object) -> "RemoteMethod":
        """The same method with Ray's call options, such as ``num_returns`` or ``name``."""
        merged = {**self._options, **options}
        return RemoteMethod(
            self._call, self._stream, self._name, self._described, merged, self._label, self._gate
        )

    def remote(self, /, *args: object, **kwargs: object) -> Any:
        """Call the method; gives an ``ObjectRef``, or a stream's ``ObjectRefGenerator``.

        Raises:
            TypeError: The arguments do not fit the method's parameters; nothing was sent.
            ExecutionError: The worker's group takes no such call now; nothing was sent.
        """
        if self._described is None:
            return _with(self._call, self._options).remote(*args, **kwargs)
        signature = _signature(self._described)
        if signature is not None:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                told = f"{self._label}: {self._name}{signature}: {error}; nothing was sent"
                raise TypeError(told) from None
        options = {**_pairs(self._described["options"]), **self._options}
        returns = options.setdefault("num_returns", self._described["returns"])
        if str(self._described["kind"]).endswith("generator") or returns == "streaming":
            options["num_returns"] = "streaming"
            entry = _with(self._stream, options)
        else:
            entry = _with(self._call, options)
        send = partial(entry.remote, self._name, *args, **kwargs)
        return send() if self._gate is None else self._gate(self._name, send)

    def __reduce__(self) -> tuple[type["RemoteMethod"], tuple[object, ...]]:
        return RemoteMethod, (
            self._call,
            self._stream,
            self._name,
            self._described,
            self._options,
            self._label,
        )

    def __call__(self, *_: object, **__: object) -> None:
        """Refuse a direct call, which would run nothing."""
        raise TypeError(f"call {self._name}.remote(...): the worker lives in another process")


class _Default:
    """Stands for a default that only the class knows."""

    def __repr__(self) -> str:
        return "..."


_DEFAULT = _Default()


def _pairs(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, list | tuple) else {}


def _with(entry: Any, options: Mapping[str, object]) -> Any:
    needed = {key: value for key, value in options.items() if (key, value) != ("num_returns", 1)}
    return entry.options(**needed) if needed else entry


def _signature(described: Mapping[str, object]) -> inspect.Signature | None:
    parameters = described["parameters"]
    if not isinstance(parameters, list | tuple):
        return None
    return inspect.Signature(
        [
            inspect.Parameter(
                name, _KINDS[kind], default=inspect.Parameter.empty if required else _DEFAULT
            )
            if _KINDS[kind] not in {_KINDS["variadic positional"], _KINDS["variadic keyword"]}
            else inspect.Parameter(name, _KINDS[kind])
            for name, kind, required in parameters
        ]
    )


def actor_of(handle: WorkerHandle) -> ActorHandle[Any]:
    """The Ray handle of the host actor behind a worker."""
    return handle._rankplan_actor
