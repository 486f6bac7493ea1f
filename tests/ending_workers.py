"""Workers for the tests of how groups end: they note in this process what they did."""

import os
import time
from collections.abc import Iterator

import ray

__all__ = ["STEPS", "Cleaner", "TakesTwoCpus"]

STEPS: list[tuple[int, str]] = []
"""Rank and step, in the order in which they were done."""


class Cleaner:
    """Cleans up in several ways."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])

    def close(self) -> None:
        """Clean up; higher ranks take longer."""
        time.sleep(1.0 + self.rank)
        STEPS.append((self.rank, "closed"))

    def close_in_steps(self) -> Iterator[str]:
        """Clean up, and give values that nobody takes."""
        for step in ("flushed", "left", "closed"):
            STEPS.append((self.rank, step))
            yield step

    def close_with(self, reason: str) -> None:
        """Clean up for a reason."""
        STEPS.append((self.rank, reason))

    def note(self) -> None:
        """Be called."""
        STEPS.append((self.rank, "called"))


@ray.remote(num_cpus=2)
class TakesTwoCpus:
    """Needs two CPUs of its bundle."""

    def note(self) -> None:
        """Be called."""
