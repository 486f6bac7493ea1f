"""Contestants measured side by side: interleaved rounds, medians, ratios, one table."""

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from attrs import field, frozen
from rich.console import Console
from rich.table import Table

__all__ = ["Comparison", "Expectation", "arguments", "compare", "describe_machine", "show"]

Contestant = Callable[[], float]
"""Runs once and gives the seconds that count."""


@frozen(kw_only=True)
class Comparison:
    """The seconds of every contestant, round by round.

    Attributes:
        title: What was measured.
        seconds: For each contestant its seconds, one entry per round.
    """

    title: str
    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """The median seconds of a contestant."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times as long as another one a contestant takes: the median over the rounds.

        Both of a round ran one right after the other, so a change in the machine's load, which
        moves both, cancels out.
        """
        return statistics.median(
            mine / other for mine, other in zip(self.seconds[name], self.seconds[to], strict=True)
        )


@frozen(kw_only=True)
class Expectation:
    """What a comparison should show: ``slower`` takes ``at_least`` or ``at_most`` times ``faster``.

    Attributes:
        name: The contestant that is divided.
        to: The contestant it is divided by.
        at_least: The smallest ratio that is expected, or None.
        at_most: The largest ratio that is expected, or None.
    """

    name: str
    to: str
    at_least: float | None = field(default=None)
    at_most: float | None = field(default=None)

    def verdict(self, comparison: Comparison) -> str:
        """What was expected and what was found, in one line."""
        ratio = comparison.ratio(self.name, self.to)
        reached = (self.at_least is None or ratio >= self.at_least) and (
            self.at_most is None or ratio <= self.at_most
        )
        wanted = (
            f"at least {self.at_least:g}"
            if self.at_least is not None
            else f"at most {self.at_most:g}"
        )
        word = "reached" if reached else "NOT reached"
        return f"{self.name} / {self.to}: {ratio:.2f} (expected {wanted}): {word}"


def compare(
    title: str,
    contestants: Mapping[str, Contestant],
    repeats: int,
    *,
    warm_up: bool = True,
    between: Callable[[], None] | None = None,
) -> Comparison:
    """Measure every contestant once per round, each round in another order.

    Args:
        title: What is measured.
        contestants: By name.
        repeats: How many rounds.
        warm_up: Run each once before the first round, without counting it.
        between: Run before each measurement, without counting it.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1 if warm_up else 0, repeats):
        start = turn % len(names)
        for name in (*names[start:], *names[:start]):
            if between is not None:
                between()
            taken = contestants[name]()
            if turn >= 0:
                seconds[name].append(taken)
    return Comparison(title=title, seconds={name: tuple(each) for name, each in seconds.items()})


def show(
    comparisons: Sequence[Comparison],
    base: str,
    expectations: Sequence[Expectation] = (),
    *,
    per: str = "run",
) -> None:
    """Print one table, a line per contestant, and what was expected.

    Args:
        comparisons: All with a contestant called ``base``.
        base: What the ratios are relative to.
        expectations: Checked against each comparison that has both of its contestants.
        per: What one measurement is.
    """
    console = Console(width=120, highlight=False)
    table = Table(title=f"{describe_machine()}\nratios are medians over rounds, to {base!r}")
    table.add_column("measured")
    table.add_column("contestant")
    for heading in (f"median ms per {per}", "fastest", "slowest", "ratio"):
        table.add_column(heading, justify="right")
    for comparison in comparisons:
        for index, (name, seconds) in enumerate(comparison.seconds.items()):
            table.add_row(
                comparison.title if index == 0 else "",
                name,
                *(
                    f"{each * 1e3:,.3f}"
                    for each in (comparison.median(name), min(seconds), max(seconds))
                ),
                f"{comparison.ratio(name, base):.2f}",
            )
        table.add_section()
    console.print(table)
    for comparison in comparisons:
        for each in expectations:
            if {each.name, each.to} <= comparison.seconds.keys():
                console.print(f"{comparison.title}: {each.verdict(comparison)}", markup=False)


def describe_machine() -> str:
    """The cores, the load and the versions that figures depend on."""
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "numpy"))
    return (
        f"{cores} cores, load {os.getloadavg()[0]:.1f}; {platform.system()} "
        f"{platform.machine()}; Python {platform.python_version()}, {packages}"
    )


def arguments(purpose: str, repeats: int) -> argparse.ArgumentParser:
    """A parser of the command line with ``--repeats``."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument(
        "--repeats", type=_positive, default=repeats, help=f"rounds to run ({repeats})"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return number
