"""Worker classes whose methods declare the roles of their arguments; tests start them by name."""

import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.declare import dispatch
from planner.roles import (
    AllByRank,
    Common,
    Concatenate,
    First,
    MicroBatches,
    PerRank,
    PerShard,
    Reduce,
    Replicate,
    Shard,
)
from planner.slice_policies import Balanced, Constant, Interleaved, Packed, Padded, Uneven

__all__ = ["AsyncWorker", "BatchWorker"]

Array = npt.NDArray[np.float64]


class BatchWorker:
    """One rank that cuts no corners: it says what it got, and gives it back."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.kept: list[object] = []

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Concatenate())
    def double(self, batch: Array, *, offset: float = 0.0) -> Array:
        """Twice each row."""
        return batch * 2 + offset

    @dispatch(batch=Shard("data_parallel", Interleaved()), returns=Concatenate())
    def same(self, batch: Any) -> Any:
        """The rows as they came."""
        return batch

    @dispatch(
        batch=Shard("data_parallel", Padded(), pads={"ids": Constant(-1)}), returns=Concatenate()
    )
    def padded(self, batch: Any) -> Any:
        """The rows and their padding."""
        self.kept.append(batch)
        return batch

    @dispatch(batch=Shard("data_parallel", Balanced(), weights="lengths"), returns=PerShard())
    def load(self, batch: Mapping[str, Any]) -> int:
        """The tokens of the slice."""
        return int(sum(batch["lengths"]))

    @dispatch(
        batch=Shard("data_parallel", Packed(budget=10), weights="lengths"),
        sizes=MicroBatches("batch"),
        returns=PerShard(),
    )
    def packed(self, batch: Mapping[str, Any], sizes: Sequence[int] = ()) -> list[int]:
        """The tokens of each micro-batch."""
        ends = np.cumsum(sizes, dtype=int)
        parts = np.split(np.asarray(batch["lengths"]), ends)
        return [int(part.sum()) for part in parts[:-1]]

    @dispatch(bacth=Shard("data_parallel", Uneven()))
    def misspelt(self, batch: Sequence[int]) -> Sequence[int]:
        """The whole batch, for its role has another's name."""
        self.kept.append(batch)
        return batch

    @dispatch(batch=Shard("data_parallel", Interleaved()), returns=Concatenate())
    def twice(self, batch: Sequence[int]) -> list[int]:
        """Two results for each row."""
        return [*batch, *batch]

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Reduce("maen"))
    def misreduced(self, batch: Array) -> float:
        """The sum of the rows, under a function that is none."""
        self.kept.append(batch)
        return float(np.sum(batch))

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Reduce("sum"))
    def total(self, batch: Array, scale: float = 1.0) -> float:
        """The sum of the rows."""
        return float(np.sum(batch)) * scale

    @dispatch(value=PerRank(), word=Common(), returns=AllByRank())
    def tell(self, value: int, word: str = "") -> tuple[int, int, str]:
        """Rank and arguments."""
        return self.rank, value, word

    @dispatch(state=Replicate(), returns=First())
    def install(self, state: Mapping[str, Any]) -> int:
        """Keep a value."""
        self.kept.append(state)
        return len(state)

    @dispatch(
        batch=Shard("data_parallel", Uneven()),
        free="tensor_parallel",
        dummy_calls=True,
        returns=AllByRank(),
    )
    def lead(self, batch: Sequence[Any] | None, step: int) -> tuple[int, object, int]:
        """What leaders get; the others keep what their dummy calls brought."""
        self.kept.append((batch, step))
        return self.rank, batch, step

    @dispatch(batch=Shard("data_parallel", Uneven(), share="hand_on"), returns=AllByRank())
    def shared(self, batch: Sequence[int]) -> tuple[bool, list[int]]:
        """Whether the batch came by Ray, and the batch."""
        return bool(self.kept[-1]), list(batch)

    def hand_on(self, batch: Sequence[int] | None) -> Sequence[int]:
        """Hand the leader's batch on through a file, as a collective would through the network."""
        self.kept.append(batch is not None)
        folder = Path(os.environ["HAND_ON"])
        place = folder / f"{self.rank // 2}.txt"
        if batch is not None:
            temporary = folder / f"{self.rank}.part"
            temporary.write_text(" ".join(map(str, batch)), encoding="utf-8")
            temporary.rename(place)
            return batch
        while not place.exists():
            time.sleep(0.01)
        return [int(word) for word in place.read_text(encoding="utf-8").split()]

    def take_kept(self) -> list[object]:
        """What was kept, and forget it."""
        kept, self.kept = self.kept, []
        return kept

    def fail(self, on: int) -> int:
        """Fail on one rank."""
        if self.rank == on:
            raise KeyError(f"rank {on} can't")
        return self.rank

    def sleep(self, seconds: float) -> None:
        """Take a while."""
        time.sleep(seconds)

    def wait_if(self, on: int, path: str) -> int:
        """Wait on one rank until a file is there."""
        while self.rank == on and not Path(path).exists():
            time.sleep(0.01)
        return self.rank

    @dispatch(batch=Shard("data_parallel", Uneven()))
    def tokens(self, batch: Sequence[int], fail_at: int = -1) -> Iterator[int]:
        """The rows one by one, for ever when there is none that fails."""
        try:
            for number, row in enumerate(batch):
                if number == fail_at and self.rank == 0:
                    raise RuntimeError("no more tokens")
                self.kept.append(row)
                yield row
        finally:
            self.kept.append("closed")

    @dispatch(returns=AllByRank())
    def count(self, pause: float = 0.0) -> Iterator[int]:
        """Numbers without end."""
        number = 0
        try:
            while True:
                self.kept.append(number)
                yield number
                number += 1
                time.sleep(pause)
        finally:
            self.kept.append("closed")

    @dispatch(returns=AllByRank())
    def one_until(self, path: str) -> Iterator[int]:
        """One number, and the end when a file is there."""
        yield self.rank
        while not Path(path).exists():
            time.sleep(0.01)


class AsyncWorker:
    """A worker with async methods."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.closed = False

    @dispatch(batch=Shard("data_parallel", Uneven()))
    async def double(self, batch: Array) -> Array:
        """Twice each row."""
        return batch * 2

    async def count(self) -> AsyncIterator[int]:
        """Numbers without end."""
        import asyncio

        number = 0
        try:
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.01)
        finally:
            self.closed = True

    async def give_up(self) -> None:
        """Let the end of a task of its own through."""
        import asyncio

        await asyncio.sleep(0)
        raise asyncio.CancelledError("given up")

    async def was_closed(self) -> bool:
        """Whether the numbers were ended."""
        return self.closed
