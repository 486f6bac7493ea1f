"""The values that plans are made of, to plain data and back, with nothing converted silently.

A reader takes exactly what its writer gives: never ``"7"``, ``1.9`` or ``True`` for a whole number.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from math import isfinite, isnan

import numpy as np

from planner.indices import Indices
from planner.mesh import NamedSharding
from planner.options import JsonObject

__all__ = [
    "EXACT_VALUES",
    "NotPlanValueError",
    "Reader",
    "Writer",
    "WrongValueError",
    "exact",
    "number_hooks",
    "read_enum",
    "shown",
    "write_enum",
]

Reader = Callable[[object, object], object]
"""Makes a value from plain data; the second argument, its type, is not needed."""
Writer = Callable[[object], object]
"""Makes plain data from a value."""

_LARGEST = 2**63
_INFINITE = {"inf": float("inf"), "-inf": float("-inf")}


class WrongValueError(Exception):
    """Plain data that is not what a plan has there.

    Attributes:
        problem: What was found.
        remedy: What would work.
        place: Where in the value, such as ``[3]`` or ``.layout``; empty for the value itself.
    """

    def __init__(self, problem: str, remedy: str, place: str = "") -> None:
        super().__init__(problem, remedy, place)
        self.problem = problem
        self.remedy = remedy
        self.place = place


class NotPlanValueError(TypeError):
    """A value that can't be part of a plan.

    Attributes:
        place: Where it is, in the plan that is being written.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place.removeprefix('.')}: {problem}" if place else problem)
        self.problem = problem
        self.place = place

    def within(self, place: str) -> "NotPlanValueError":
        """The same error, seen from one level further out."""
        return NotPlanValueError(self.problem, f"{place}{self.place}")


def shown(value: object) -> str:
    """Plain data for a message: its kind, and a short value itself."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def exact(kind: type, wanted: str) -> tuple[Reader, Writer]:
    """A reader and a writer that take values of one type only, and leave them as they are."""

    def read(value: object, _: object) -> object:
        if type(value) is kind:
            return value
        raise WrongValueError(f"{shown(value)} is not {wanted}", f"give {wanted}")

    def write(value: object) -> object:
        if type(value) is kind:
            return value
        raise NotPlanValueError(f"a value of type {type(value).__name__}, not {kind.__name__}")

    return read, write


def number_hooks(*, whole_too: bool) -> tuple[Reader, Writer]:
    """A reader and a writer of fractional numbers.

    JSON has no infinity, so that is written as ``"inf"``. With ``whole_too`` the type allows whole
    numbers as well; ``1.0`` and ``1`` are equal, so they are written alike.
    """

    def read(value: object, _: object) -> object:
        if type(value) is float and isfinite(value):
            return value
        if type(value) is int and whole_too:
            return value
        if isinstance(value, str) and value in _INFINITE:
            return _INFINITE[value]
        wanted = "a number" if whole_too else "a number with a decimal point"
        raise WrongValueError(f"{shown(value)} is not {wanted}", f'give {wanted}, "inf" or "-inf"')

    def write(value: object) -> object:
        if type(value) is int:
            return value if whole_too else float(value)
        if type(value) is not float or isnan(value):
            raise NotPlanValueError(f"{value!r} of type {type(value).__name__}, not a number")
        if not isfinite(value):
            return "inf" if value > 0 else "-inf"
        return int(value) if whole_too and value.is_integer() else value

    return read, write


def read_enum(kind: type[Enum]) -> Reader:
    """A reader of an enum's values."""
    members: dict[object, Enum] = {each.value: each for each in kind}
    wanted = ", ".join(shown(each) for each in members)

    def read(value: object, _: object) -> object:
        if isinstance(value, str) and value in members:
            return members[value]
        raise WrongValueError(f"{shown(value)} is no {kind.__name__}", f"give one of {wanted}")

    return read


def write_enum(kind: type[Enum]) -> Writer:
    """A writer of an enum's values."""

    def write(value: object) -> object:
        if isinstance(value, kind) and isinstance(value.value, str):
            return value.value
        raise NotPlanValueError(f"a value of type {type(value).__name__}, not {kind.__name__}")

    return write


def _read_indices(value: object, _: object) -> object:
    if not isinstance(value, list):
        raise WrongValueError(f"{shown(value)} is not a list", "give a list of whole numbers")
    for index, each in enumerate(value):
        if type(each) is not int or not -_LARGEST <= each < _LARGEST:
            problem = f"{shown(each)} is not a whole number of 64 bits"
            raise WrongValueError(problem, "give a whole number of 64 bits", f"[{index}]")
    return Indices.of(value)


def _write_indices(value: object) -> object:
    if type(value) is not Indices:
        raise NotPlanValueError(f"a value of type {type(value).__name__}, not Indices")
    return value.tolist()


def _read_json(value: object, _: object) -> object:
    if not isinstance(value, dict):
        raise WrongValueError(f"{shown(value)} is not an object", "give an object")
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise WrongValueError(
            f"it holds a number beyond all range: {error}", "leave it out"
        ) from None
    return JsonObject(text)


def _write_json(value: object) -> object:
    if type(value) is not JsonObject:
        raise NotPlanValueError(f"a value of type {type(value).__name__}, not JsonObject")
    try:
        loaded = json.loads(value.text)
        json.dumps(loaded, allow_nan=False)
    except ValueError:
        raise NotPlanValueError(f"{value.text!r} holds what JSON can't hold") from None
    return loaded


def _read_mesh(value: object, _: object) -> object:
    if not isinstance(value, dict):
        raise WrongValueError(
            f"{shown(value)} is not an object", 'give {"names": ..., "layout": ...}'
        )
    names, layout = value.get("names"), value.get("layout")
    if value.keys() != {"names", "layout"}:
        problem = f"its keys are {', '.join(sorted(value)) or 'none'}"
        raise WrongValueError(problem, "give names and layout, nothing else")
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        problem = f"{shown(names)} does not hold names alone"
        raise WrongValueError(problem, "give a list of axis names", ".names")
    _check_layout(layout)
    return NamedSharding(layout, names)


def _check_layout(layout: object) -> None:
    """Refuse an entry that numpy would take for a rank: ``True``, ``1.0``, ``"1"``."""
    level: Iterable[object] = [layout]
    while level := [each for each in level if type(each) is not int]:
        for each in level:
            if not isinstance(each, list):
                problem = f"{shown(each)} is neither a list nor a rank"
                raise WrongValueError(problem, "give nested lists of ranks", ".layout")
        level = [each for nested in level if isinstance(nested, list) for each in nested]


def _write_mesh(value: object) -> object:
    if type(value) is not NamedSharding:
        raise NotPlanValueError(f"a value of type {type(value).__name__}, not NamedSharding")
    layout: object = np.array(value.ranks, dtype=np.int64).reshape(value.sizes).tolist()
    return {"names": value.names, "layout": layout}


EXACT_VALUES: Sequence[tuple[type, tuple[Reader, Writer]]] = (
    (int, exact(int, "a whole number")),
    (str, exact(str, "a text")),
    (bool, exact(bool, "true or false")),
    (float, number_hooks(whole_too=False)),
    (Indices, (_read_indices, _write_indices)),
    (JsonObject, (_read_json, _write_json)),
    (NamedSharding, (_read_mesh, _write_mesh)),
)
"""The types that have a form of their own as plain data, each with its reader and writer."""
