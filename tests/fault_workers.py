"""Workers for the tests of faults: the same on Ray and in process."""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator

__all__ = ["AsyncWorker", "Picky", "SlowStart", "Worker"]


class Worker:
    """Does what it is told, on some ranks only."""

    def __init__(self, start: int = 0) -> None:
        self.rank = int(os.environ["RANK"])
        self.seen = [start]

    def add(self, value: int) -> tuple[int, int]:
        """Remember a value."""
        self.seen.append(value)
        return self.rank, sum(self.seen)

    def echo(self, value: object) -> object:
        """Give back what came."""
        return value

    def environment(self, name: str) -> str | None:
        """A variable, as the worker sees it."""
        return os.environ.get(name)

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def sleep(self, seconds: float, ranks: list[int] | None = None) -> int:
        """Take long, on some ranks."""
        if ranks is None or self.rank in ranks:
            time.sleep(seconds)
        return self.rank

    def fail(self, ranks: list[int], after: float = 0.0, others: float = 0.0) -> int:
        """Raise, on some ranks; the others take their time."""
        if self.rank in ranks:
            time.sleep(after)
            raise ValueError(f"bad batch on {len(ranks)} ranks")
        time.sleep(others)
        return self.rank

    def die(self, ranks: list[int], how: str = "SIGKILL", others: float = 0.0) -> int:
        """Lose the process, on some ranks; the others take their time."""
        if self.rank in ranks:
            print(f"last words of rank {self.rank}", file=sys.stderr, flush=True)  # noqa: T201
            if how.startswith("exit"):
                os._exit(int(how.removeprefix("exit")))
            os.kill(os.getpid(), getattr(signal, how))
            time.sleep(60)
        time.sleep(others)
        return self.rank

    def count(self, upto: int, fail_at: int = -1) -> Iterator[int]:
        """Stream numbers."""
        for number in range(upto):
            if number == fail_at:
                raise ValueError(f"no number {number}")
            yield self.rank * 100 + number

    def drip(self, upto: int, seconds: float) -> Iterator[int]:
        """Stream numbers slowly."""
        for number in range(upto):
            time.sleep(seconds)
            yield number

    def total(self) -> int:
        """The sum of all that was remembered."""
        return sum(self.seen)

    def log(self) -> list[int]:
        """All that was remembered."""
        return self.seen

    def close(self) -> None:
        """Clean up; it takes a moment."""
        time.sleep(0.3)


class Picky:
    """Its constructor raises on one rank."""

    def __init__(self, bad: int, how: str = "raise") -> None:
        if int(os.environ["RANK"]) == bad:
            if how == "hang":
                time.sleep(10_000)
            raise KeyError(f"rank {bad} is picky")

    def ping(self) -> str:
        """Answer."""
        return "pong"


class AsyncWorker:
    """Many calls at once."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.event = asyncio.Event()

    async def wait(self) -> str:
        """Wait for ``release``."""
        await self.event.wait()
        return os.environ["RANK"]

    async def release(self) -> None:
        """Let those that wait go on."""
        self.event.set()

    async def number(self) -> int:
        """The rank, at once."""
        return self.rank

    async def stream(self, upto: int) -> AsyncIterator[int]:
        """Stream numbers."""
        for number in range(upto):
            await asyncio.sleep(1)
            yield self.rank * 100 + number


class SlowStart:
    """Its constructor says which process it is in, then takes long."""

    def __init__(self, folder: str, seconds: float) -> None:
        rank = os.environ["RANK"]
        with open(os.path.join(folder, f"{rank}.new"), "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
        os.rename(os.path.join(folder, f"{rank}.new"), os.path.join(folder, rank))
        time.sleep(seconds)

    def close(self, seconds: float = 0.0) -> None:
        """Clean up, slowly."""
        time.sleep(seconds)

    def linger(self) -> None:
        """Clean up for ever."""
        time.sleep(10_000)

    def ticks(self, seconds: float) -> Iterator[int]:
        """Stream numbers without end."""
        for number in itertools.count():
            time.sleep(seconds)
            yield number
