"""Workers whose methods say how they are called, for programs that run on both backends."""

import os
import signal
import time
from collections.abc import Iterator, Sequence

from planner.declare import dispatch
from planner.roles import AllByRank, Common, Concatenate, PerShard, Reduce, Shard
from planner.slice_policies import Uneven
from tests.exception_workers import thrown

__all__ = ["Agreeing"]


class Agreeing:
    """Counts what it was given."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.step = 0

    @dispatch(batch=Shard("data_parallel", Uneven()), scale=Common(), returns=Concatenate())
    def scale(self, batch: Sequence[int], scale: int = 2) -> list[int]:
        """Each row, scaled."""
        return [row * scale for row in batch]

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Reduce("sum"))
    def total(self, batch: Sequence[int]) -> int:
        """The sum of the rows."""
        return sum(batch)

    @dispatch(returns=Reduce("max"))
    def highest(self) -> int:
        """The highest rank."""
        return self.rank

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=PerShard())
    def seen(self, batch: Sequence[int]) -> tuple[int, list[int]]:
        """Who got what."""
        return self.rank, list(batch)

    @dispatch(returns=AllByRank())
    def train(self, ranks: Sequence[int] = (), how: str = "", others: float = 0.0) -> int:
        """One step; some ranks fail, the others take their time."""
        if self.rank in ranks:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exit":
                raise SystemExit(4)
            raise thrown(how, self.rank)
        time.sleep(others)
        self.step += 1
        return self.step

    @dispatch(returns=AllByRank())
    def stream(self, upto: int, ranks: Sequence[int] = (), how: str = "") -> Iterator[int]:
        """Numbers; some ranks fail after the last."""
        for number in range(upto):
            yield self.rank * 10 + number
        if self.rank in ranks:
            raise thrown(how, self.rank)

    def interrupt(self) -> None:
        """Raise what Ctrl-C does."""
        raise KeyboardInterrupt

    def restore(self, step: int) -> None:
        """Go back to a step."""
        self.step = step
