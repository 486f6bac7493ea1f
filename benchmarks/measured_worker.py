"""The worker that the benchmarks start and call: it does as little as a worker can."""

import os

import numpy as np
import numpy.typing as npt

__all__ = ["MeasuredWorker"]


class MeasuredWorker:
    """Methods that cost nothing, so that what is measured is everything around them."""

    def __init__(self, start: int = 0) -> None:
        self._start = start
        self._kept: list[npt.NDArray[np.uint8]] = []

    def pid(self) -> int:
        """The process it lives in."""
        return os.getpid()

    def nothing(self) -> None:
        """Take nothing and give nothing."""

    def step(self, number: int, text: str) -> int:
        """Take two small arguments and give a small result."""
        return number + len(text) + self._start

    def rows(self, rows: list[int]) -> int:
        """Take a slice of a batch."""
        return len(rows) + self._start

    def take(self, array: npt.NDArray[np.uint8]) -> int:
        """Take a large argument."""
        return int(array[0]) + self._start

    def keep(self, array: npt.NDArray[np.uint8]) -> int:
        """Take a large argument and hold it, so that its memory in Ray's store stays taken."""
        self._kept.append(array)
        return len(self._kept)

    def drop(self) -> None:
        """Let go of everything that was kept."""
        self._kept.clear()

    def give(self, size: int) -> npt.NDArray[np.uint8]:
        """Give a large result."""
        return np.full(size, self._start % 256, dtype=np.uint8)
