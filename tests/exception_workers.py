"""Exceptions as APIs have them, and a worker that raises them."""

import asyncio
import os
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass

from attrs import frozen

__all__ = [
    "CodedError",
    "FrozenError",
    "GuardedError",
    "MuteError",
    "Raising",
    "StrictError",
    "made",
    "thrown",
]


class CodedError(Exception):
    """Its constructor takes something else than its message."""

    retries = 0

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text, self.retries = code, text, 3


class StrictError(OSError):
    """All its arguments are by name, and some of what it holds can't be sent."""

    __slots__ = ("place",)

    def __init__(self, *, place: str) -> None:
        super().__init__(28, "full", place)
        self.place = place
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return f"no room in {self.place}"


@frozen(kw_only=True)
class FrozenError(ValueError):
    """Its attributes can't be set."""

    rank: int


@dataclass(frozen=True)
class GuardedError(ArithmeticError):
    """Nothing at all can be set on it."""

    rank: int


class MuteError(Exception):
    """What it says can't be had."""

    def __str__(self) -> str:
        raise AttributeError("no text")


def thrown(how: str, rank: int = 0) -> BaseException:
    """As ``made``, and what is no ``Exception``."""
    match how:
        case "cancelled":
            return asyncio.CancelledError("given up")
        case "generator":
            return GeneratorExit("left")
        case "base":
            return BaseExceptionGroup("several", [KeyboardInterrupt("a"), KeyError("b")])
        case _:
            return made(how, rank)


def made(how: str, rank: int = 0, size: int = 0) -> Exception:
    """An exception of some kind."""
    error: Exception
    match how:
        case "coded":
            error = CodedError(7, "busy" + "!" * size)
        case "strict":
            error = StrictError(place="/data")
        case "frozen":
            error = FrozenError(rank=1)
        case "guarded":
            error = GuardedError(rank=1)
        case "own":
            error = ValueError(f"trouble on rank {rank}")
        case "file":
            error = FileNotFoundError(2, "nope", "/f")
        case "group":
            error = ExceptionGroup("several", [ValueError("a"), KeyError("b")])
        case "attributes":
            error = ValueError("short")
            vars(error)["body"] = "x" * size
        case "chain":
            error = ValueError("short")
            error.__cause__ = KeyError("x" * size)
        case "mute":
            error = MuteError(rank)
        case "away":
            error = _of_a_module_that_is_only_there()
        case _:
            error = ValueError("x" * size)
    return error


def _of_a_module_that_is_only_there() -> Exception:
    module = types.ModuleType("only_there")
    kind = type("AwayError", (LookupError,), {"__module__": "only_there"})
    vars(module)["AwayError"] = kind
    sys.modules["only_there"] = module
    error: Exception = kind("not here")
    vars(error)["page"] = 4
    return error


class Raising:
    """Raises what it is told, on some ranks or all."""

    def __init__(self, how: str = "") -> None:
        self.rank = int(os.environ["RANK"])
        if how and self.rank % 2:
            raise made(how)

    def do(self, how: str, size: int = 0, ranks: list[int] | None = None) -> int:
        """Raise."""
        if ranks is None or self.rank in ranks:
            raise made(how, self.rank, size)
        return self.rank

    def stream(self, how: str) -> Iterator[int]:
        """Give a number, then raise."""
        yield self.rank
        raise made(how)

    def echo(self, value: object) -> object:
        """Give back what came."""
        return value

    def throw(self, how: str) -> None:
        """Raise, also what is no ``Exception``."""
        raise thrown(how)

    def leave(self, how: str) -> None:
        """End the process, as a signal or a script does."""
        raise KeyboardInterrupt if how == "interrupt" else SystemExit(4)
