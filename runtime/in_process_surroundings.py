"""What a worker's code finds around it in process: its environment, pid, clock, random numbers.

While a world is open, some names of ``os``, ``time``, ``signal``, ``random`` and ``numpy.random``
hold substitutes. A substitute asks at every call who calls: the code of a worker gets what is the
worker's, all others (the driver, other threads) what was there before. So it does no harm when a
module that was imported meanwhile keeps one.
"""

import importlib
import math
import operator
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cached_property, update_wrapper
from typing import Any, NoReturn

import numpy as np

__all__ = ["LeavingError", "Surroundings", "being_in", "own_time", "put_back", "replace_names"]

READING_SECONDS = 1e-6
"""How long reading a clock takes: no two readings are the same, and a loop that waits for a time
ends."""

_LONGEST_SLEEP = 2**63 / 1e9

_HERE: "ContextVar[Surroundings | None]" = ContextVar("_HERE", default=None)


class LeavingError(SystemExit):
    """A worker's code ends its process, and not by ``sys.exit``."""


class Surroundings:
    """What one worker's code finds instead of what the driver does.

    Args:
        pid: Of its process.
        now: The time that has come for all workers; it may be ahead of it itself.
        seed: Its random numbers are drawn from it.
    """

    def __init__(self, pid: int, now: Callable[[], float], seed: str) -> None:
        self.pid = pid
        self.environment: dict[str, str] = {}
        self._now, self._seed, self._clock = now, seed, 0.0

    @property
    def now(self) -> float:
        """Its time."""
        return max(self._clock, self._now())

    @property
    def ahead(self) -> float:
        """By how many seconds it is ahead, because its code has slept since."""
        return self.now - self._now()

    @cached_property
    def random(self) -> random.Random:
        """In the place of the generator that the functions of ``random`` share."""
        return random.Random(self._seed)  # noqa: S311  # nothing secret

    @cached_property
    def legacy_random(self) -> np.random.RandomState:
        """In the place of the one that the functions of ``numpy.random`` share."""
        drawn = random.Random(f"{self._seed} numpy").getrandbits(32)  # noqa: S311
        return np.random.RandomState(drawn)

    def getpid(self) -> int:
        """Its pid."""
        return self.pid

    def time(self) -> float:
        """Its clock; all its clocks are the same."""
        self._clock = self.now + READING_SECONDS
        return self._clock

    def time_ns(self) -> int:
        """Its clock in nanoseconds."""
        return round(self.time() * 1e9)

    def sleep(self, seconds: Any, /) -> None:
        """Let its time pass; the time of others does not yet."""
        length: float = seconds if isinstance(seconds, float) else operator.index(seconds)
        if math.isnan(length):
            raise ValueError("Invalid value NaN (not a number)")
        if length < 0:
            raise ValueError("sleep length must be non-negative")
        if length > _LONGEST_SLEEP:
            raise OverflowError("timestamp out of range for platform time_t")
        self._clock = self.now + length

    def leave(self, code: int) -> NoReturn:
        """End its process."""
        raise LeavingError(f"it called os._exit({code})")

    def abort(self) -> NoReturn:
        """End its process."""
        self.raise_signal(signal.SIGABRT)

    def raise_signal(self, number: int, /) -> NoReturn:
        """End its process by a signal."""
        raise LeavingError(f"its process was ended by {signal.Signals(number).name}")

    def kill(self, pid: int, number: int, /) -> None:
        """Send a signal to its own process."""
        if pid != self.pid:
            raise ProcessLookupError(f"a worker in process can signal itself only, not pid {pid}")
        if number:
            self.raise_signal(number)

    def ignore(self, *ignored: object) -> None:
        """Do nothing: what would be written belongs to all."""


def own_time(common: float) -> float:
    """The time of whom this code belongs to; ``common`` when that is no worker."""
    here = _HERE.get()
    return common if here is None else here.now


def being_in(surroundings: Surroundings) -> AbstractContextManager[None]:
    """While it lasts, code that runs here finds them."""
    return _Finding(surroundings)


class _Finding:
    """No generator: that would write on what passes it, which may be frozen."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    def __enter__(self) -> None:
        self._token = _HERE.set(self._surroundings)

    def __exit__(self, *error: object) -> None:
        _HERE.reset(self._token)


class _Substitute:
    """A function that is another one for a worker's code.

    It is no function of Python's, so that it is no method either where a class holds it, as
    those of C are not.
    """

    def __init__(
        self, place: tuple[str, str], real: Callable[..., Any], own: Callable[..., Any]
    ) -> None:
        update_wrapper(self, real)
        self._place, self._real, self._own = place, real, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        here = _HERE.get()
        return self._real(*args, **kwargs) if here is None else self._own(here, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return _found, self._place


def _found(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)


class _Environ(os._Environ[str]):
    """``os.environ``, which is another one for a worker's code."""

    def __getitem__(self, key: str) -> str:
        here = _HERE.get()
        if here is None:
            return super().__getitem__(key)
        self.encodekey(key)
        return here.environment[key]

    def __setitem__(self, key: str, value: str) -> None:
        here = _HERE.get()
        if here is None:
            super().__setitem__(key, value)
        else:
            self.encodekey(key), self.encodevalue(value)
            here.environment[key] = value

    def __delitem__(self, key: str) -> None:
        here = _HERE.get()
        if here is None:
            super().__delitem__(key)
        else:
            del here.environment[key]

    def __iter__(self) -> Iterator[str]:
        here = _HERE.get()
        return super().__iter__() if here is None else iter(list(here.environment))

    def __len__(self) -> int:
        here = _HERE.get()
        return super().__len__() if here is None else len(here.environment)

    def __repr__(self) -> str:
        here = _HERE.get()
        return super().__repr__() if here is None else f"environ({here.environment!r})"


def _drawn(source: str, name: str) -> Callable[..., Any]:
    return lambda here, *args, **kwargs: getattr(getattr(here, source), name)(*args, **kwargs)


def _shared(module: Any, generator: object) -> list[str]:
    """The functions of a module that are methods of one generator."""
    return [name for name, held in vars(module).items() if _is_of(held, generator)]


def _is_of(held: object, generator: object) -> bool:
    return getattr(held, "__self__", None) is generator


_CLOCKS = ("time", "monotonic", "perf_counter")
_SUBSTITUTES: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (os, "getpid", Surroundings.getpid),
    (os, "kill", Surroundings.kill),
    (os, "_exit", Surroundings.leave),
    (os, "abort", Surroundings.abort),
    (os, "putenv", Surroundings.ignore),
    (os, "unsetenv", Surroundings.ignore),
    (signal, "raise_signal", Surroundings.raise_signal),
    (time, "sleep", Surroundings.sleep),
    *((time, name, Surroundings.time) for name in _CLOCKS),
    *((time, f"{name}_ns", Surroundings.time_ns) for name in _CLOCKS),
    *(
        (random, name, _drawn("random", name))
        for name in _shared(random, getattr(random, "_inst"))  # noqa: B009  # it has no type
    ),
    *(
        (np.random, name, _drawn("legacy_random", name))
        for name in _shared(np.random, getattr(np.random, "mtrand")._rand)  # noqa: B009
    ),
    (np.random, "seed", _drawn("legacy_random", "seed")),
    (np.random, "ranf", _drawn("legacy_random", "random_sample")),
    (np.random, "sample", _drawn("legacy_random", "random_sample")),
)


class _Names:
    """The names that hold substitutes now, and for whom."""

    def __init__(self) -> None:
        # A cluster that nobody holds is shut down by whatever runs, maybe inside here.
        self._lock = threading.RLock()
        self._worlds: weakref.WeakSet[Any] = weakref.WeakSet()
        self._held: list[tuple[Any, str, _Substitute, Any]] = []
        self._environ: Any = None

    def replace(self, world: object) -> None:
        with self._lock:
            self._worlds.add(world)
            if self._held:
                return
            for module, name, own in _SUBSTITUTES:
                real = getattr(module, name)
                if not isinstance(real, _Substitute):
                    substitute = _Substitute((module.__name__, name), real, own)
                    setattr(module, name, substitute)
                    self._held.append((module, name, substitute, real))
            if type(os.environ) is os._Environ:
                self._environ = os.environ
                self._environ.__class__ = _Environ

    def put_back(self, world: object) -> None:
        with self._lock:
            self._worlds.discard(world)
            if self._worlds:
                return
            held, self._held = self._held, []
            for module, name, substitute, real in held:
                # What somebody else has put there since is not ours to take away.
                if getattr(module, name) is substitute:
                    setattr(module, name, real)
            if self._environ is not None:
                self._environ.__class__ = os._Environ
                self._environ = None


_NAMES = _Names()


def replace_names(world: object) -> None:
    """Have workers of a world find their own things; again does nothing."""
    _NAMES.replace(world)


def put_back(world: object) -> None:
    """Have things as they were, unless another world is open."""
    _NAMES.put_back(world)
