"""Balanced slicing side by side with Karmarkar-Karp differencing, on skewed lengths.

Run ``python benchmarks/balanced_slicing.py``. Both sides get the same list of lengths in the same
process; ours makes the whole plan, differencing only the slices. Times are medians.
"""

import heapq
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from attrs import frozen
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from planner.balancing import lower_bound
from planner.differencing import differenced
from planner.settling import loads_of
from planner.slice_policies import Balanced, RowCounts
from planner.slicing import plan_slices

CASES = ((64, 8), (256, 8), (512, 64), (1024, 16), (4096, 64), (16384, 128), (65536, 64))
MILLION = 1_000_000
MILLION_SLICES = (8, 64, 512)


@frozen
class Measured:
    """The median seconds of several runs, and the largest slice.

    Attributes:
        seconds: The median.
        largest: The weight of the heaviest slice.
    """

    seconds: float
    largest: int


Part = tuple[int, int]
"""Two part numbers, or a row and -1."""


def karmarkar_karp(lengths: list[int], slices: int, *, equal_counts: bool) -> list[list[int]]:
    """The largest differencing method for any number of slices, in its usual form.

    Each state has a load per slice, heaviest first. The two states with the largest spread are
    merged, heaviest onto lightest. With equal counts a state starts with one row in every slice.
    What a load is made of is kept as a tree, so that a merge copies no rows.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    parts: list[Part] = [(row, -1) for row in order]
    parts.append((-1, -1))
    together = slices if equal_counts else 1
    heap: list[tuple[int, int, list[tuple[int, int]]]] = []
    for start in range(0, len(order), together):
        state = [
            (lengths[row], start + place)
            for place, row in enumerate(order[start : start + together])
        ]
        state += [(0, len(order))] * (slices - len(state))
        heap.append((state[-1][0] - state[0][0], start, state))
    heapq.heapify(heap)
    for arrival in range(len(order), len(order) + len(heap) - 1):
        first = heapq.heappop(heap)[2]
        second = heap[0][2]
        merged = [
            (load + other_load, len(parts) + place)
            for place, ((load, _), (other_load, _)) in enumerate(
                zip(first, reversed(second), strict=True)
            )
        ]
        parts.extend(
            (part, other) for (_, part), (_, other) in zip(first, reversed(second), strict=True)
        )
        merged.sort(reverse=True)
        heapq.heapreplace(heap, (merged[-1][0] - merged[0][0], arrival, merged))
    return [rows_of(part, parts) for _, part in heap[0][2]]


def rows_of(part: int, parts: list[Part]) -> list[int]:
    """The rows that a part is made of."""
    rows: list[int] = []
    waiting = [part]
    while waiting:
        left, right = parts[waiting.pop()]
        if right >= 0:
            waiting += (left, right)
        elif left >= 0:
            rows.append(left)
    return rows


def skewed(name: str, rows: int) -> list[int]:
    """Lengths between 1 and 32,768, the same in every run."""
    generator = np.random.default_rng(rows)
    if name == "lognormal":
        drawn = generator.lognormal(6.0, 1.0, rows)
    else:
        drawn = generator.zipf(1.3, rows).astype(np.float64)
    lengths: list[int] = np.clip(drawn, 1, 32_768).astype(np.int64).tolist()
    return lengths


def measure(run: Callable[[], int], repeats: int) -> Measured:
    """Run several times; ``run`` gives the largest slice."""
    seconds: list[float] = []
    largest = 0
    for _ in range(repeats):
        start = time.perf_counter()
        largest = run()
        seconds.append(time.perf_counter() - start)
    return Measured(statistics.median(seconds), largest)


def ours(lengths: list[int], slices: int, counts: RowCounts, repeats: int) -> Measured:
    """A whole SlicePlan."""

    def run() -> int:
        plan = plan_slices(Balanced(counts), rows=len(lengths), slices=slices, weights=lengths)
        return max(plan.loads or ())

    return measure(run, repeats)


def usual(lengths: list[int], slices: int, counts: RowCounts, repeats: int) -> Measured:
    """Differencing alone, in its usual form."""

    def run() -> int:
        found = karmarkar_karp(lengths, slices, equal_counts=counts is not RowCounts.FREE)
        return max(sum(lengths[row] for row in rows) for rows in found)

    return measure(run, repeats)


def lean(lengths: list[int], slices: int, counts: RowCounts, repeats: int) -> Measured:
    """Differencing alone, in the leaner form that the planner keeps for hard cases."""

    def run() -> int:
        heavy = np.sort(np.array(lengths))[::-1]
        slice_of = differenced(heavy, slices, equal_counts=counts is not RowCounts.FREE)
        return int(loads_of(heavy, slice_of, slices).max())

    return measure(run, repeats)


def row_of(name: str, counts: RowCounts, rows: int, slices: int) -> list[str]:
    """One line of the table; differencing is left out where it takes longer than a minute."""
    lengths = skewed(name, rows)
    mine = ours(lengths, slices, counts, repeats_for(rows))
    others: list[Measured | None] = [None, None]
    if rows < MILLION or slices <= 8:
        others = [run(lengths, slices, counts, repeats_for(rows)) for run in (usual, lean)]
    bound = lower_bound(np.array(sorted(lengths, reverse=True)), slices)
    return [
        *(name, counts.value, f"{rows:,}", str(slices), f"{mine.seconds * 1e3:,.2f}"),
        *(f"{each.seconds * 1e3:,.2f}" if each else "-" for each in others),
        *(f"{each.seconds / mine.seconds:.1f}" if each else "-" for each in others),
        f"{mine.largest:,}",
        *(f"{mine.largest / each.largest:.4f}" if each else "-" for each in others),
        f"{mine.largest / bound:.4f}",
    ]


def repeats_for(rows: int) -> int:
    """How often to run: less often where a run takes seconds."""
    return 7 if rows < 16_384 else 3


def main() -> None:
    """Print one line per case."""
    table = Table(title="Balanced slicing: ours, Karmarkar-Karp differencing (KK), a leaner KK")
    for heading in ("lengths", "row counts"):
        table.add_column(heading)
    for heading in (
        *("rows", "slices", "ours ms", "KK ms", "lean ms", "time KK/ours", "time lean/ours"),
        *("largest", "largest ours/KK", "largest ours/lean", "largest ours/bound"),
    ):
        table.add_column(heading, justify="right")
    million = tuple((MILLION, slices) for slices in MILLION_SLICES)
    for name in ("lognormal", "Zipf"):
        for counts in (RowCounts.FREE, RowCounts.WITHIN_ONE):
            for rows, slices in CASES + million:
                table.add_row(*row_of(name, counts, rows, slices))
            table.add_section()
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
