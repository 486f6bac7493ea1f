"""Workers that tell what they find around them."""

import asyncio
import importlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["AsyncSleeper", "Configured", "Observer"]


class Observer:
    """Looks around."""

    clock: Any = time.monotonic

    def bound(self, module: str) -> tuple[object, ...]:
        """What a module has bound: two ranks, two pids, and how long a sleep takes by its clock."""
        names = importlib.import_module(module)
        began = names.monotonic()
        names.sleep(100.0)
        return (
            names.environ["RANK"],
            names.getenv("RANK"),
            names.getpid() == os.getpid(),
            round(names.monotonic() - began, 3),
        )

    def passed(self, seconds: float) -> dict[str, float]:
        """How long a sleep takes, by each clock."""
        began = _readings()
        time.sleep(seconds)
        return {name: after - began[name] for name, after in _readings().items()}

    def read(self, times: int) -> list[float]:
        """A clock's readings, in a row."""
        return [time.perf_counter() for _ in range(times)]

    def wait_busily(self, seconds: float) -> int:
        """Read the clock until a time has come."""
        ends, readings = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            readings += 1
        return readings

    def held_clock(self) -> float:
        """A clock that a class holds."""
        read: float = self.clock()
        return read

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def write(self, name: str, value: str) -> dict[str, str]:
        """Change the environment in every way."""
        os.environ[name] = value
        os.putenv(name, value)
        os.environ.update({f"{name}_MORE": value, f"{name}_GONE": value})
        del os.environ[f"{name}_GONE"]
        return {key: held for key, held in os.environ.items() if key.startswith(name)}

    def misuse(self) -> list[str]:
        """What the environment takes no more than the real one does."""
        told = []
        for key, value in ((1, "a"), ("A", 1)):
            try:
                os.environ[key] = value  # type: ignore[index,assignment]
            except TypeError as error:
                told.append(str(error))
        return [*told, str("NO SUCH NAME" in os.environ), str(len(os.environ) > 1)]

    def draw(self) -> list[float]:
        """Numbers of the generators that modules share, and in which order things come."""
        deck = list(range(20))
        random.shuffle(deck)
        # What is old is what is tested.
        return [random.random(), np.random.rand(), np.random.randint(2**30), *deck]  # noqa: S311

    def seed(self, number: int) -> tuple[float, float]:
        """Numbers after a seed of its own."""
        random.seed(number)
        np.random.seed(number)
        return random.random(), float(np.random.random_sample())  # noqa: S311

    def leave(self, how: str) -> None:
        """End the process."""
        if how == "abort":
            os.abort()
        signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        """Clean up."""


def _readings() -> dict[str, float]:
    return {
        "time": time.time(),
        "monotonic": time.monotonic(),
        "perf_counter": time.perf_counter(),
        "time_ns": time.time_ns() / 1e9,
        "monotonic_ns": time.monotonic_ns() / 1e9,
        "perf_counter_ns": time.perf_counter_ns() / 1e9,
    }


class AsyncSleeper:
    """Sleeps in the way that holds an event loop up."""

    async def sleep(self, seconds: float) -> float:
        """How long it takes, by its own clock, which never goes back."""
        began = time.monotonic()
        await asyncio.sleep(1.0)
        time.sleep(seconds)  # noqa: ASYNC251
        await asyncio.sleep(0)
        return time.monotonic() - began

    async def stream(self, seconds: float) -> AsyncIterator[int]:
        """Numbers, slowly."""
        for number in range(3):
            time.sleep(seconds)  # noqa: ASYNC251
            yield number

    async def bound(self, module: str) -> tuple[str, str | None]:
        """Its rank, as a module sees it before and after others had their turn."""
        names: ModuleType = importlib.import_module(module)
        before = names.environ["RANK"]
        await asyncio.sleep(1.0)
        return before, names.getenv("RANK")


class Configured:
    """Is asked what it needs, by code that binds names."""

    @staticmethod
    def configure_worker(num_gpus: float, bundle_indices: object) -> tuple[object, ...]:
        """Nothing but its share."""
        del bundle_indices
        names = importlib.import_module("tests.bound_names")
        seen = {"SEEN": f"{names.environ.get('COLOUR')} {names.getpid() == os.getpid()}"}
        return {"num_gpus": num_gpus}, seen, {}

    def environment(self, name: str) -> str | None:
        """A variable, as a module sees it."""
        found: str | None = importlib.import_module("tests.bound_names").environ.get(name)
        return found

    def numbers(self) -> Iterator[int]:
        """A stream."""
        yield from range(3)
