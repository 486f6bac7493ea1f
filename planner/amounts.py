"""Amounts of resources as whole numbers, so that every sum and comparison is exact.

One unit per resource: CPUs and custom resources count in thousandths (``1500`` is one and a
half), memory in bytes, GPUs in ten-thousandths, the finest part of a GPU that Ray tells apart.
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from attrs import field, frozen

from planner.findings import Findings
from planner.whole_numbers import whole_number

__all__ = [
    "BUILT_IN",
    "CPU_UNIT",
    "GPU_UNIT",
    "Amounts",
    "amount_pairs",
    "amount_text",
    "checked_size",
    "in_units",
    "parse_size",
    "size_text",
]

CPU_UNIT = 1_000
"""One whole CPU, and one whole piece of a custom resource."""

GPU_UNIT = 10_000
"""One whole GPU."""

BUILT_IN = ("GPU", "CPU", "memory")
"""The resources that are not custom, in the order in which they are reported."""

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?i?b?)\s*", re.IGNORECASE)
_FIELDS = ("milli_cpus", "memory", "gpu_share")


def amount_pairs(
    amounts: Mapping[str, int] | Iterable[tuple[str, int]],
) -> tuple[tuple[str, int], ...]:
    """Named amounts as pairs sorted by name; none of something is the same as not having it."""
    pairs = amounts.items() if isinstance(amounts, Mapping) else amounts
    return tuple(sorted((name, amount) for name, amount in pairs if amount))


@frozen(kw_only=True)
class Amounts:
    """How much of each resource: of a node, what is free on it, or what a bundle needs.

    Attributes:
        milli_cpus: CPUs in thousandths.
        memory: Main memory in bytes.
        gpu_share: GPUs in ten-thousandths, summed over the GPUs: ``20000`` is two GPUs.
        custom: Custom resources in thousandths, as pairs sorted by name; a mapping is accepted.

    Raises:
        PlanError: An amount is negative, a name is empty, occurs twice or is a built-in one.
    """

    milli_cpus: int = 0
    memory: int = 0
    gpu_share: int = 0
    custom: tuple[tuple[str, int], ...] = field(default=(), converter=amount_pairs)

    def __attrs_post_init__(self) -> None:
        findings = Findings("amounts")
        built_in = zip(_FIELDS, (self.milli_cpus, self.memory, self.gpu_share), strict=True)
        for path, amount in built_in:
            if amount < 0:
                findings.add(path, f"{amount} is negative", "give 0 or more")
        names = [name for name, _ in self.custom]
        for name, amount in self.custom:
            path = f"custom.{name}"
            if not name or name in BUILT_IN:
                findings.add(path, f"{name!r} is not a custom resource", "give it its own name")
            if names.count(name) > 1:
                findings.add(path, "the resource occurs twice", "name each resource once")
            if amount < 0:
                findings.add(path, f"{amount} is negative", "give 0 or more")
        findings.check()

    def items(self) -> tuple[tuple[str, int], ...]:
        """Each resource with its amount, zeros left out: GPU, CPU, memory, then custom ones."""
        built_in = (("GPU", self.gpu_share), ("CPU", self.milli_cpus), ("memory", self.memory))
        return tuple((name, amount) for name, amount in (*built_in, *self.custom) if amount)

    def of(self, resource: str) -> int:
        """The amount of one resource; 0 for one that is not there."""
        return dict(self.items()).get(resource, 0)

    def plus(self, other: "Amounts") -> "Amounts":
        """The sum of two amounts."""
        custom = dict(self.custom)
        for name, amount in other.custom:
            custom[name] = custom.get(name, 0) + amount
        return Amounts(
            milli_cpus=self.milli_cpus + other.milli_cpus,
            memory=self.memory + other.memory,
            gpu_share=self.gpu_share + other.gpu_share,
            custom=custom,
        )

    def times(self, count: int) -> "Amounts":
        """The amount ``count`` times."""
        return Amounts(
            milli_cpus=self.milli_cpus * count,
            memory=self.memory * count,
            gpu_share=self.gpu_share * count,
            custom=tuple((name, amount * count) for name, amount in self.custom),
        )

    def __str__(self) -> str:
        return ", ".join(amount_text(name, amount) for name, amount in self.items()) or "nothing"


def in_units(number: float, unit: int = CPU_UNIT) -> int | None:
    """A number as whole parts of ``1 / unit``; None when it is finer than that, or no number."""
    if not -1e12 < number < 1e12:
        return None
    scaled = round(number * unit)
    return scaled if abs(number * unit - scaled) < 1e-6 else None


def parse_size(text: str) -> int | None:
    """A size in bytes from ``"80GiB"``, ``"1.5 TB"`` or ``"512"``; None when it is not one.

    ``KiB`` counts in powers of 1024, ``KB`` (and ``K``) in powers of 1000.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    number, unit = match.group(1), match.group(2).upper()
    prefix = unit[:1] if unit[:1] in "KMGTP" else ""
    if unit.removeprefix(prefix) not in {"", "B", "IB"} or (unit == "IB"):
        return None
    base = 1024 if unit.endswith("IB") else 1000
    exact = Fraction(number) * base ** ("KMGTP".index(prefix) + 1 if prefix else 0)
    return int(exact) if exact.denominator == 1 else None


def checked_size(path: str, given: object, findings: Findings) -> int:
    """A size in bytes, as a whole number or as ``parse_size`` reads it; 0 when it is wrong.

    Args:
        path: Where it was given.
        given: As given; None is 0.
        findings: Where problems are recorded.
    """
    size = parse_size(given) if isinstance(given, str) else whole_number(given)
    if given is None:
        return 0
    if size is None or size < 0:
        problem = f"{given!r} is not a size in bytes"
        findings.add(path, problem, "give a whole number of bytes, or a text such as '60GiB'")
        return 0
    return size


def size_text(size: int) -> str:
    """A size in bytes for a reader: ``80 GiB``."""
    for power, unit in ((5, "PiB"), (4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.4g} {unit}"
    return f"{size} bytes"


def amount_text(resource: str, amount: int) -> str:
    """An amount of a resource for a reader: ``2 GPUs``, ``1.5 CPUs``, ``80 GiB of memory``."""
    if resource == "memory":
        return f"{size_text(amount)} of memory"
    number = f"{amount / (GPU_UNIT if resource == 'GPU' else CPU_UNIT):.10g}"
    if resource in BUILT_IN:
        return f"{number} {resource}" if number == "1" else f"{number} {resource}s"
    return f"{number} {resource}"
