"""Plain data as canonical JSON text: the same bytes for the same data, made to be compared.

Keys keep the order of the type's fields, so that a difference reads like the type. What fits on a
line is on one line, a row of numbers always; everything else has one entry per line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import NoReturn, TypeAlias

from planner.findings import Findings

__all__ = ["PlainData", "canonical_text", "digest_of", "parse_text"]

PlainData: TypeAlias = (
    "bool | int | float | str | Sequence[PlainData] | Mapping[str, PlainData] | None"
)
"""What JSON holds."""

_WIDTH = 100
_INTEGERS = frozenset({int})


def canonical_text(data: object) -> str:
    """The data as indented JSON, in ASCII, with a line end at the end.

    Raises:
        TypeError: Something in it is not plain data.
    """
    return _written(data, 0) + "\n"


def digest_of(data: object) -> str:
    """``sha256:`` and the hash of the data, whatever the order of keys and the layout."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def parse_text(text: object, findings: Findings) -> object:
    """The data of a JSON text; everything JSON does not define is refused.

    Raises:
        PlanError: The text is not JSON, or an object has a key twice.
    """
    if not isinstance(text, str):
        problem = f"a value of type {type(text).__name__}"
        findings.fail("text", problem, "give the text of a plan file")
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        findings.fail(place, f"this is not JSON: {error.msg}", "take the file as it was written")
    except (ValueError, RecursionError) as error:
        findings.fail("text", f"this cannot be read: {error}", "take the file as it was written")


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return made


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _written(value: object, depth: int, before: int = 0) -> str:
    """The value as text; ``before`` is how long what stands before it on its line is."""
    if type(value) is dict:
        if _is_short(value, _WIDTH - 2 * depth - before):
            return _on_one_line(value)
        inner = "  " * (depth + 1)
        parts = [
            f"{inner}{_scalar(name)}: {_written(each, depth + 1, len(name) + 4)}"
            for name, each in value.items()
        ]
        return "{\n" + ",\n".join(parts) + f"\n{'  ' * depth}}}"
    if type(value) is list:
        if _INTEGERS.issuperset(map(type, value)) or _is_short(value, _WIDTH - 2 * depth - before):
            return _on_one_line(value)
        inner = "  " * (depth + 1)
        parts = [inner + _written(each, depth + 1) for each in value]
        return "[\n" + ",\n".join(parts) + f"\n{'  ' * depth}]"
    return _scalar(value)


def _on_one_line(value: object) -> str:
    if type(value) is dict:
        pairs = (f"{_scalar(name)}: {_on_one_line(each)}" for name, each in value.items())
        return "{" + ", ".join(pairs) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_on_one_line, value)) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if type(value) is str:
        return encode_basestring_ascii(value)
    if type(value) is int:
        return repr(value)
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is float and isfinite(value):
        return repr(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} is not plain data")


def _is_short(value: object, room: int) -> bool:
    """Whether the value, on one line, is at most ``room`` characters long."""
    return _left_of(room, value) >= 0


def _left_of(room: int, value: object) -> int:
    """What is left of the room; stops when there is nothing left, so the cost is bounded."""
    if type(value) is dict:
        room -= 2 + 2 * max(len(value) - 1, 0)
        for name, each in value.items():
            if room < 0:
                return room
            room = _left_of(room - len(_scalar(name)) - 2, each)
        return room
    if type(value) is list:
        room -= 2 + 2 * max(len(value) - 1, 0)
        for each in value:
            if room < 0 or type(each) is dict:
                return -1  # objects in a list stand one under the other, so that they compare
            room = _left_of(room, each)
        return room
    return room - len(_scalar(value))
