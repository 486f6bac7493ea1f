"""What a worker's code raises, made fit to travel: whole where it can, and never too large.

An exception whose class has a constructor of its own usually can't be unpickled: pickle calls the
constructor with ``args``. Here such an exception gets a way to be pickled of its own, for which
no constructor is called. Where its class can't be imported, a stand-in of the same name arrives,
of the nearest base class that is there.

Travels to the workers by value, as ``host`` does: the standard library and Ray only.
"""

import contextlib
import inspect
import pickle
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayTaskError

__all__ = [
    "arguments_of",
    "arrived",
    "bare",
    "carried",
    "cargo_of",
    "fit_to_travel",
    "put",
    "state_of",
]

LARGEST = 20_000
"""Bytes of an exception, and of its traceback as text: more is cut. Ray notices errors of more
than 100 KiB, which hold both several times over, only when every other answer is there."""

LARGEST_PART = 4_000
"""Characters or bytes of one argument, attribute or note of an exception that is cut."""

MOST_PARTS = 100
"""How many attributes an exception keeps that is cut."""

_REDUCE = "__reduce_ex__"
_CARGO = "rankplan_cargo"
_OURS = ("__notes__", "rankplan_raised_at")
_CHAIN = ("__traceback__", "__cause__", "__context__", "__suppress_context__")
_EVERYWHERE = frozenset({"builtins", "ray"})
_NO_STATE = frozenset({BaseException, Exception, BaseExceptionGroup, ExceptionGroup, object})


class _Way:
    """How one exception is pickled: looked up on the object itself, before its class is asked."""

    def __init__(self, facts: tuple[object, ...]) -> None:
        self._facts = facts

    def __call__(self, protocol: int) -> tuple[object, tuple[object, ...]]:  # noqa: ARG002
        # This module may be here twice: imported, and as it came from elsewhere, by value.
        here = sys.modules.get(__name__)
        return getattr(here, "arrived", arrived), self._facts


def fit_to_travel(error: Exception) -> Exception:
    """The same exception, or in its place one of the same type that can be sent.

    It arrives with its type, arguments, attributes, notes and message. What is too large is cut;
    what can't be serialised arrives as text.
    """
    if isinstance(error, RayTaskError) or _REDUCE in vars(error):
        return error
    if not _speaks(error):
        # Ray writes down what an exception says before it sends it.
        mute, error = error, _as_text(error)
        with contextlib.suppress(Exception):
            vars(error).update({name: vars(mute)[name] for name in _OURS if name in vars(mute)})
    kind = type(error)
    whole = _pickled(error)
    is_large = len(whole) > LARGEST or _told(error) > LARGEST
    survives = _survives(error, whole)
    if survives and not is_large and kind.__module__.partition(".")[0] in _EVERYWHERE:
        return error
    if is_large:
        error = _smaller(error)
        whole = _pickled(error)
        survives = len(whole) <= LARGEST and _survives(error, whole)
    text = _text(error)
    bases = [base for base in kind.__mro__ if issubclass(base, Exception)]
    facts = (
        whole if survives else b"",
        tuple((base.__module__, base.__qualname__, _pickled(base)) for base in bases),
        tuple(map(_part, arguments_of(error))),
        tuple((name, _part(value)) for name, value in state_of(error).items()),
        text,
    )
    vars(error)[_REDUCE] = _Way(facts)
    return error


def carried(error: BaseException) -> Exception:
    """What is no ``Exception``, inside one.

    Ray ends a worker that raises such in a stream, and of an async one it never tells.
    """
    carrier = _as_text(error)
    vars(carrier)[_CARGO] = error
    return fit_to_travel(carrier)


def cargo_of(error: BaseException) -> BaseException:
    """What an exception was made to carry, where it has arrived; else itself."""
    cargo = vars(error).get(_CARGO)
    if not isinstance(cargo, BaseException):
        return error
    return cargo if cargo.__traceback__ else cargo.with_traceback(error.__traceback__)


def arrived(
    whole: bytes,
    bases: Sequence[tuple[str, str, bytes]],
    args: Sequence[tuple[bytes, str]],
    state: Sequence[tuple[str, tuple[bytes, str]]],
    text: str,
) -> Exception:
    """An exception as it was elsewhere, as far as that can be had here.

    Args:
        whole: It, pickled; empty where it must be put together.
        bases: Its classes, its own first: module, name and the class, pickled.
        args: Its ``args``: each pickled, and as text.
        state: Its attributes: name, pickled, and as text.
        text: What it says.
    """
    if whole:
        with contextlib.suppress(Exception):
            error = pickle.loads(whole)  # noqa: S301  # from a worker of this group
            if isinstance(error, Exception):
                return error
    classes = [_loaded(pickled) for _, _, pickled in bases]
    found = next(
        place
        for place, each in enumerate(classes)
        if isinstance(each, type) and issubclass(each, Exception)
    )
    values = tuple(_value(each) for each in args)
    attributes = {name: _value(each) for name, each in state}
    facts = (whole, bases, args, state, text)
    error = _put_together(classes[found], values, attributes)
    if found == 0 and error is not None and _text(error) == text and _sends(error):
        vars(error)[_REDUCE] = _Way(facts)
        return error
    module, name, _ = bases[0]
    for base in (*classes[found:], RuntimeError):
        with contextlib.suppress(Exception):
            said = {"__module__": module, "__qualname__": name, "__str__": lambda _: text}
            stand_in = type(name.rpartition(".")[2], (base,), said)
            error = _put_together(stand_in, values, attributes)
            if error is not None:
                if found:
                    notes = getattr(error, "__notes__", [])
                    told = f"stands for {module}.{name}, which can't be imported here"
                    put(error, "__notes__", [*notes, told])
                vars(error)[_REDUCE] = _Way(facts)
                return error
    return RuntimeError(f"{module}.{name}: {text}")


def bare(kind: Any, args: Sequence[object]) -> Any:
    """An exception of some type, made without a call of a constructor of the user's.

    Raises:
        TypeError: The type can't be made so.
    """
    built_in = _built_in(kind)
    error = built_in.__new__(kind, *args)
    built_in.__init__(error, *args)
    return error


def state_of(error: BaseException) -> dict[str, object]:
    """The attributes that an exception has of its own, also those that are no part of its dict."""
    state = {name: value for name, value in vars(error).items() if name != _REDUCE}
    for base in type(error).__mro__:
        if base in _NO_STATE:
            continue
        for name, there in vars(base).items():
            # Slots, and what the built-in ones keep in C, such as ``errno``.
            if inspect.ismemberdescriptor(there) or name == "characters_written":
                with contextlib.suppress(Exception):
                    state[name] = there.__get__(error, type(error))
    return state


def put(error: BaseException, name: str, value: object) -> None:
    """Set an attribute, whatever the exception's class does to guard it."""
    try:
        object.__setattr__(error, name, value)
    except Exception:  # noqa: BLE001  # a property, or one that can only be read
        vars(error)[name] = value


def _built_in(kind: type) -> Any:
    base: Any = kind
    while base.__module__ != "builtins":
        base = base.__base__
    return base


def arguments_of(error: Exception) -> tuple[object, ...]:
    """What its built-in type is made from; for an ``OSError`` that is more than ``args``."""
    try:
        _, args, *_ = _built_in(type(error)).__reduce__(error)
    except Exception:  # noqa: BLE001  # any type: it is the user's
        return error.args
    return tuple(args)


def _put_together(
    kind: Any, args: Sequence[object], attributes: Mapping[str, object]
) -> Exception | None:
    try:
        error: Exception = bare(kind, args)
    except Exception:  # noqa: BLE001  # any type: it is the user's
        return None
    for name, value in attributes.items():
        put(error, name, value)
    return error


def _smaller(error: Exception) -> Exception:
    """One of the same type with its texts cut, where it stands."""
    args = tuple(map(_cut_value, arguments_of(error)))
    attributes = {
        name: _cut_value(value) for name, value in list(state_of(error).items())[:MOST_PARTS]
    }
    made = _put_together(type(error), args, attributes)
    if made is None or _told(made) > LARGEST or len(_pickled(state_of(made))) > 2 * LARGEST:
        made = _as_text(error)
    for name in _CHAIN:
        put(made, name, getattr(error, name))
    if _told(made) > LARGEST:
        put(made, "__cause__", None)
        put(made, "__context__", None)
    return made


def _as_text(error: BaseException) -> Exception:
    """What says the same, and whose type says nothing."""
    kind = type(error)
    made = RuntimeError(f"{kind.__module__}.{kind.__qualname__}: {_cut(_text(error))}")
    for name in _CHAIN:
        put(made, name, getattr(error, name))
    return made


def _survives(error: Exception, whole: bytes) -> bool:
    """Whether what arrives is the same: of its type, saying the same."""
    loaded = _loaded(whole)
    return type(loaded) is type(error) and _text(loaded) == _text(error)


def _sends(error: Exception) -> bool:
    # Ray pickles it once more where it arrives.
    return bool(_pickled(error))


def _pickled(value: object) -> bytes:
    try:
        return cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001  # any type: it is the user's
        return b""


def _loaded(pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)  # noqa: S301  # from a worker of this group
    except Exception:  # noqa: BLE001  # empty, or of a class that is not here
        return None


def _part(value: object) -> tuple[bytes, str]:
    pickled = _pickled(value)
    return pickled, "" if pickled and _is_plain(value) else _cut(_shown(value))


def _value(part: tuple[bytes, str]) -> object:
    pickled, text = part
    with contextlib.suppress(Exception):
        return pickle.loads(pickled)  # noqa: S301  # from a worker of this group
    return text


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bytes | int | float)


def _cut_value(value: object) -> object:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value[:LARGEST_PART])
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        # Notes are a list of texts, and have to stay one.
        return list(_few(value))
    pickled = _pickled(value)
    return value if pickled and len(pickled) <= LARGEST_PART else _cut(_shown(value))


def _few(texts: Sequence[str]) -> Iterator[str]:
    left = LARGEST_PART
    for place, text in enumerate(texts):
        if left <= 0:
            yield f"... ({len(texts) - place} more)"
            return
        yield _cut(text, left)
        left -= len(text)


def _cut(text: str, most: int = LARGEST_PART) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most:,} more characters)"


def _speaks(error: BaseException) -> bool:
    try:
        str(error)
    except Exception:  # noqa: BLE001  # any type: it is the user's
        return False
    return True


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001  # any type: it is the user's
        return f"(its message can't be had: {type(failed).__name__})"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # any type: it is the user's
        return f"<{type(value).__qualname__}>"


def _told(error: BaseException) -> int:
    try:
        lines = traceback.format_exception(error)
    except Exception:  # noqa: BLE001  # any type: it is the user's
        return 0
    return sum(len(line.encode(errors="replace")) for line in lines)
