"""Workers that hand arguments on inside their group; tests start them by name."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence

from planner.declare import dispatch
from planner.roles import AllByRank, PerRank, Shard
from planner.slice_policies import Uneven

__all__ = ["AsyncSharer", "Sharer"]

Rows = Sequence[int]


class Sharer:
    """Says what it was handed."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.calls: list[str] = []

    def hand_on(self, batch: Rows | None) -> Rows:
        """Pretend to get from the leader what Ray did not bring."""
        self.calls.append("hand_on")
        return [-1] if batch is None else batch

    def hand_on_one_by_one(self, batch: Rows | None) -> Iterator[int]:
        """No way to hand a slice on."""
        yield from batch or ()

    def hand_on_nothing(self) -> Rows:
        """Takes no slice."""
        return []

    @dispatch(batch=Shard("data_parallel", Uneven(), share="hand_on"), returns=AllByRank())
    def tokens(self, batch: Rows) -> Iterator[int]:
        """The rows one by one."""
        yield from batch

    @dispatch(batch=Shard("data_parallel", Uneven(), share="hand_on"), returns=AllByRank())
    def by_place(self, batch: Rows, /, scale: int = 1) -> list[int]:
        """The rows; their parameter has no name that a caller could use."""
        return [row * scale for row in batch]

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=AllByRank())
    def rows(self, batch: Rows) -> list[int]:
        """The rows."""
        self.calls.append("rows")
        return list(batch)

    @dispatch(value=PerRank())
    def keep(self, value: object) -> object:
        """One value for each rank."""
        self.calls.append("keep")
        return value

    def give(self, size: int) -> bytes:
        """A large result."""
        return bytes(size)

    @dispatch(returns=AllByRank())
    def count(self, upto: int) -> Iterator[int]:
        """Numbers; it is known how many were made."""
        for number in range(upto):
            self.calls.append(str(number))
            yield number

    @dispatch(batch=Shard("data_parallel", Uneven()))
    def count_rows(self, batch: Rows, fail_at: int = -1) -> Iterator[int]:
        """The rows, one by one."""
        for row in batch:
            if row == fail_at:
                raise ValueError(f"no row {row}")
            yield row

    def take_calls(self) -> list[str]:
        """What was called, and forget it."""
        calls, self.calls = self.calls, []
        return calls


class AsyncSharer:
    """The same on an event loop."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.made = 0

    async def hand_on(self, batch: Rows | None) -> Rows:
        """Pretend to get from the leader what Ray did not bring."""
        return [-1] if batch is None else batch

    @dispatch(batch=Shard("data_parallel", Uneven(), share="hand_on"), returns=AllByRank())
    async def rows(self, batch: Rows) -> list[int]:
        """The rows."""
        return list(batch)

    @dispatch(batch=Shard("data_parallel", Uneven(), share="hand_on"), returns=AllByRank())
    async def tokens(self, batch: Rows) -> AsyncIterator[int]:
        """The rows one by one."""
        for row in batch:
            yield row

    @dispatch(returns=AllByRank())
    async def count(self) -> AsyncIterator[int]:
        """Numbers without end; it is known how many were made."""
        while True:
            self.made += 1
            yield self.made

    async def how_many(self) -> int:
        """How many numbers were made."""
        return self.made
