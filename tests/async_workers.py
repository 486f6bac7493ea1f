"""Worker classes with ``async`` methods, that Ray tests start by name."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import ray

from tests.workers import Witness

__all__ = ["AsyncDecorated", "AsyncRecorder", "Late"]


class AsyncRecorder:
    """A worker on an event loop: many calls at once."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args = args
        self.kwargs = kwargs
        self.running = 0
        self.together = asyncio.Event()

    def rank(self) -> int:
        """The worker's global rank; a plain method among async ones."""
        return int(os.environ["RANK"])

    def made_with(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """The constructor's arguments."""
        return self.args, self.kwargs

    def witnessed(self) -> list[str | None]:
        """In which ranks' environments the constructor's arguments were unpickled."""
        return [each.seen for each in self.args if isinstance(each, Witness)]

    async def meet(self, parties: int) -> int:
        """Return when so many calls are running at the same time."""
        self.running += 1
        if self.running == parties:
            self.together.set()
        await asyncio.wait_for(self.together.wait(), 20)
        return self.running

    async def count(self, number: int) -> AsyncIterator[tuple[int, int]]:
        """An async stream."""
        for index in range(number):
            await asyncio.sleep(0)
            yield self.rank(), index

    def plain_count(self, number: int) -> Iterator[int]:
        """A plain stream among async methods."""
        yield from range(number)

    async def fail(self, rank: int = 0) -> int:
        """Raise on one rank."""
        await asyncio.sleep(0)
        if self.rank() == rank:
            raise ZeroDivisionError("async trouble")
        return self.rank()


async def answered(worker: object, value: int) -> int:
    """A function that becomes a method."""
    del worker
    return value


class Late:
    """Its async method is made elsewhere, so its source does not tell that there is one."""

    answer = answered


@ray.remote
class AsyncDecorated(AsyncRecorder):
    """Async methods under Ray's decorator, its own and inherited ones."""

    async def more(self, number: int) -> AsyncIterator[int]:
        """An async stream of its own."""
        for index in range(number):
            yield index

    def fewer(self, number: int) -> Iterator[int]:
        """A plain stream of its own."""
        yield from range(number)

    async def soon(self, value: int) -> int:
        """An async method of its own."""
        return value
