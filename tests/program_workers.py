"""Workers of random programs: the same methods, one call at a time or many."""

import os
from collections.abc import AsyncIterator

from tests.fault_workers import Worker

__all__ = ["AsyncCounter", "Counter"]


class Counter(Worker):
    """One call at a time."""


class AsyncCounter:
    """Many calls at once."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.seen = [0]

    async def add(self, value: int) -> tuple[int, int]:
        """Remember a value."""
        self.seen.append(value)
        return self.rank, sum(self.seen)

    async def echo(self, value: object) -> object:
        """Give back what came."""
        return value

    async def count(self, upto: int) -> AsyncIterator[int]:
        """Stream numbers."""
        for number in range(upto):
            yield self.rank * 100 + number

    def log(self) -> list[int]:
        """All that was remembered."""
        return self.seen

    async def close(self) -> None:
        """Clean up."""
