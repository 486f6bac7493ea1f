"""How ranks are arranged: named axes over a layout of rank ids."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.findings import CoordinateError, Finding, Findings, PlanError
from planner.whole_numbers import whole_number

__all__ = ["NamedSharding"]


@frozen(init=False, repr=False)
class NamedSharding:
    """An arrangement of ranks in N dimensions, one named axis per dimension, outermost first.

    Equal when layout and names are equal; hashable. The layout is row-major: the last axis
    varies fastest. Rank ids may be permuted freely and need not start at 0, so a
    sub-arrangement is a ``NamedSharding`` too.

    Args:
        layout: Nested sequences, or an array, of distinct rank ids; floats that hold whole
            numbers are accepted.
        names: One axis name per dimension.

    Raises:
        PlanError: (a ``ValueError``) The layout is ragged or empty, an id is not a whole number
            of 0 or more, a rank or a name occurs twice, or there is not one name per dimension.
    """

    _names: tuple[str, ...]
    _sizes: tuple[int, ...]
    _ranks: tuple[int, ...]

    def __init__(self, layout: object, names: Sequence[str]) -> None:
        array, axes = _checked(layout, names)
        self.__attrs_init__(axes, tuple(array.shape), tuple(array.ravel().tolist()))

    @property
    def names(self) -> list[str]:
        """The axis names, outermost first; a copy."""
        return list(self._names)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._names)

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self._ranks)

    @property
    def shape(self) -> dict[str, int]:
        """The size of each axis by its name, outermost first; a copy."""
        return dict(zip(self._names, self._sizes, strict=True))

    @property
    def layout(self) -> npt.NDArray[np.int64]:
        """The rank ids as an array with one dimension per axis; a copy."""
        return np.array(self._ranks, dtype=np.int64).reshape(self._sizes)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank ids in layout order: row-major, the last axis fastest."""
        return self._ranks

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of each axis, outermost first."""
        return self._sizes

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {rank: position for position, rank in enumerate(self._ranks)}

    def get_axis_index(self, name: str) -> int:
        """The position of an axis, 0 for the outermost.

        Raises:
            PlanError: (a ``ValueError``) There is no axis of that name.
        """
        if name not in self._names:
            raise PlanError("named sharding", [unknown_axis("name", name, self._names)])
        return self._names.index(name)

    def get_axis_size(self, name: str) -> int:
        """How many coordinates an axis has.

        Raises:
            PlanError: (a ``ValueError``) There is no axis of that name.
        """
        return self._sizes[self.get_axis_index(name)]

    def get_worker_coords(self, worker_id: int) -> dict[str, int]:
        """The coordinate of a rank on every axis.

        Raises:
            PlanError: (a ``ValueError``) The rank is not in the layout.
        """
        number = whole_number(worker_id)
        position = None if number is None else self._positions.get(number)
        if position is None:
            finding = Finding(
                "worker_id",
                f"rank {worker_id!r} is not in the layout of {self.size} ranks",
                f"use one of {_span(self._ranks)}",
            )
            raise PlanError("named sharding", [finding])
        coords: list[int] = []
        for size in reversed(self._sizes):
            position, coord = divmod(position, size)
            coords.append(coord)
        return dict(zip(self._names, reversed(coords), strict=True))

    def get_ranks_by_coord(self, **coords: int) -> list[int]:
        """The ranks that match, sorted; an axis not named matches every coordinate.

        A coordinate out of range matches nothing: the list is empty.

        Raises:
            PlanError: (a ``ValueError``) An axis is unknown.
        """
        self._check_axes(coords)
        if any(not 0 <= coord < self.get_axis_size(name) for name, coord in coords.items()):
            return []
        return sorted(self._select(coords).ravel().tolist())

    def get_ranks(self, **coords: int) -> "NamedSharding | int":
        """The sub-arrangement over the axes not named; a plain rank when all are named.

        Raises:
            PlanError: (a ``ValueError``) An axis is unknown.
            CoordinateError: (an ``IndexError``) A coordinate is out of range.
        """
        self._check_axes(coords)
        findings = Findings("named sharding")
        for name, coord in coords.items():
            size = self.get_axis_size(name)
            if not 0 <= coord < size:
                findings.add(
                    name, f"coordinate {coord} is out of range", f"the axis has 0 to {size - 1}"
                )
        findings.check(CoordinateError)
        chosen = self._select(coords)
        if not chosen.ndim:
            return int(chosen)
        return NamedSharding(chosen, [name for name in self._names if name not in coords])

    def _select(self, coords: Mapping[str, int]) -> npt.NDArray[np.int64]:
        picked: npt.NDArray[np.int64] = self.layout[
            tuple(coords.get(name, slice(None)) for name in self._names)
        ]
        return np.asarray(picked, dtype=np.int64)

    def _check_axes(self, coords: Mapping[str, object]) -> None:
        findings = Findings("named sharding")
        for name, coord in coords.items():
            if name not in self._names:
                unknown = unknown_axis("coords", name, self._names)
                findings.add(unknown.path, unknown.problem, unknown.remedy)
            elif whole_number(coord) is None:
                findings.add(name, f"{coord!r} is not a coordinate", "give a whole number")
        findings.check()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.shape.items())
        layout = self.layout.tolist() if self.size <= 64 else f"<{self.size} ranks>"
        return f"NamedSharding({sizes}; layout={layout})"


def unknown_axis(path: str, name: str, names: Sequence[str]) -> Finding:
    """The finding for an axis that does not exist, with those that do."""
    return Finding(path, f"unknown axis {name!r}", f"the axes are {', '.join(names) or 'none'}")


def _checked(layout: object, names: object) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    findings = Findings("named sharding")
    axes = _axis_names(names, findings)
    try:
        raw = np.asarray(layout)
    except ValueError:
        raw = np.asarray(None)
    if raw.dtype == object:
        findings.fail(
            "layout",
            "it is ragged or holds something other than rank ids",
            "give nested sequences of whole numbers, equally long at each level",
        )
    array = _whole_numbers(raw, findings)
    if axes is not None and len(axes) != array.ndim:
        findings.add(
            "names",
            f"{len(axes)} names for {array.ndim} dimensions of shape {array.shape}",
            "give one name per dimension, outermost first",
        )
    if not array.ndim or not array.size:
        findings.add("layout", f"shape {array.shape} holds no rank", "give at least one rank")
    _check_ids(array, findings)
    findings.check()
    return array, axes or ()


def _axis_names(names: object, findings: Findings) -> tuple[str, ...] | None:
    if isinstance(names, str) or not isinstance(names, Iterable):
        kind = "one string" if isinstance(names, str) else "not a sequence of names"
        findings.add("names", f"{names!r} is {kind}", "give a sequence of axis names")
        return None
    axes: list[str] = []
    for index, name in enumerate(names):
        if not (isinstance(name, str) and name):
            findings.add(f"names[{index}]", f"{name!r} is not a name", "give a non-empty string")
        elif name in axes:
            findings.add(f"names[{index}]", f"axis {name!r} occurs twice", "name each axis once")
        axes.append(str(name))
    return tuple(axes)


def _whole_numbers(ids: object, findings: Findings) -> npt.NDArray[np.int64]:
    raw = np.asarray(ids)
    if raw.dtype.kind in "iu":
        return raw.astype(np.int64)
    whole = raw.dtype.kind == "f" and np.all((np.abs(raw) < 2**53) & (raw == np.floor(raw)))
    if whole:
        return raw.astype(np.int64)
    if raw.size:
        findings.fail(
            "layout",
            f"ids of type {raw.dtype} are not whole numbers",
            "give rank ids such as 0, 1, 2",
        )
    return np.zeros(raw.shape, dtype=np.int64)


def _check_ids(array: npt.NDArray[np.int64], findings: Findings) -> None:
    ids, counts = np.unique(array, return_counts=True)
    if ids.size and ids[0] < 0:
        findings.add("layout", f"rank {int(ids[0])} is negative", "give rank ids of 0 or more")
    twice = ids[counts > 1].tolist()
    if twice:
        findings.add("layout", f"duplicate ranks {_span(twice)}", "give each rank once")


def _span(ranks: Sequence[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8])
    return f"{shown}, ... ({len(ranks)} in all)" if len(ranks) > 8 else shown
