"""What goes wrong when a plan is carried out: the cluster did not do what the plan says."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, SupportsIndex, TypeVar

from planner.outcomes import FailureReport, RankIdentity, failure_text
from runtime.raised import arguments_of, bare, fit_to_travel, put, state_of

__all__ = [
    "DeadlineError",
    "ExecutionError",
    "WorkerGroupError",
    "dual_error",
    "step_error",
    "worker_group_error",
]

_E = TypeVar("_E", bound="ExecutionError")


class ExecutionError(RuntimeError):
    """The cluster did not do what the plan says.

    Bad input is a ``planner.PlanError`` instead: it is found before anything is started or sent.
    """


class WorkerGroupError(ExecutionError):
    """A start or a call failed on some ranks of a worker group.

    Raised by ``worker_group_error``, it is of the first failure's own type too, so that
    ``except ValueError`` catches a worker's ``ValueError``; that exception is ``__cause__``, and
    what it carries (``errno``, ``status_code``) is here too.

    Attributes:
        report: Who failed how, who returned, who had not answered.
        errors: The exception of each failed rank.
    """

    report: FailureReport
    errors: Mapping[int, BaseException]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _reduced(self)


class DeadlineError(WorkerGroupError, TimeoutError):
    """A deadline passed; the message says who has answered and who has not."""


def worker_group_error(
    report: FailureReport,
    identities: Mapping[int, RankIdentity],
    errors: Mapping[int, BaseException],
) -> WorkerGroupError:
    """The one error for a group, to be raised ``from`` its own ``__cause__``."""
    text = failure_text(report, identities)
    first = report.first
    cause = errors.get(first.rank) if first is not None else None
    if cause is not None:
        _show_trace(cause)
    error = DeadlineError(text) if first is None else _both(WorkerGroupError, cause, text)
    error.report = report
    error.errors = dict(errors)
    error.__cause__ = cause
    return error


def _show_trace(cause: BaseException) -> None:
    """Note on an exception of a worker where it was raised there, once."""
    trace = vars(cause).get("rankplan_trace", "")
    told = f"on its worker:\n{trace}"
    if trace and told not in getattr(cause, "__notes__", ()):
        # Its class may guard its attributes.
        with contextlib.suppress(Exception):
            cause.add_note(told)


def dual_error(cause: BaseException, text: str) -> ExecutionError:
    """An ``ExecutionError`` that is caught as its cause's own type too."""
    return _both(ExecutionError, cause, text)


def step_error(what: str, cause: BaseException) -> ExecutionError:
    """The ``dual_error`` of one step, with what its cause says and the notes on it."""
    told = "".join(f"; {note}" for note in getattr(cause, "__notes__", ()))
    return dual_error(cause, f"{what} failed: {type(cause).__name__}: {cause}{told}")


def _both(ours: type[_E], cause: BaseException | None, text: str) -> _E:
    """An error that is caught as ours and as what the user's code raised, and carries the same."""
    if not isinstance(cause, Exception):
        return ours(text)
    error = next(_joined(ours, cause, text), None)
    if error is None:
        return ours(text)
    for name, value in state_of(cause).items():
        if name not in _ITS_OWN:
            put(error, name, value)
    error.args = (text,)
    return error


def _joined(ours: type[_E], cause: Exception, text: str) -> Iterator[_E]:
    """Errors that are of ours and of the nearest type of a cause that can be so."""
    parts = (cause.exceptions,) if isinstance(cause, ExceptionGroup) else ()
    for theirs in type(cause).__mro__:
        is_base = theirs is not type(cause)
        if issubclass(theirs, ours) or (is_base and issubclass(ours, theirs)):
            return
        # Some types take nothing but arguments of their own.
        for args in ((text, *parts), arguments_of(cause)):
            # Memory layouts may differ, and types may refuse.
            with contextlib.suppress(Exception):
                kind = type(f"{ours.__name__}[{theirs.__name__}]", (ours, theirs), _OWN_WAYS)
                yield bare(kind, args)


# Whatever the user's class does with its attributes: these are told in one way only.
_OWN_WAYS: dict[str, Any] = {
    "__init__": Exception.__init__,
    "__str__": Exception.__str__,
    "__repr__": Exception.__repr__,
    "__eq__": Exception.__eq__,
    "__hash__": Exception.__hash__,
    "__setattr__": Exception.__setattr__,
    "args": vars(BaseException)["args"],
}
_OWN_WAYS["__reduce_ex__"] = lambda error, _: _reduced(error)
_TRAVELS = frozenset({"__notes__", "report", "errors"})
_ITS_OWN = _TRAVELS | {"args", "rankplan_raised_at", "rankplan_trace"}


def _reduced(error: BaseException, _: SupportsIndex = 2) -> tuple[Any, ...]:
    """How an error is pickled whose type was made here: it is made again where it arrives."""
    ours = next(base for base in type(error).__mro__ if "[" not in base.__name__)
    kept = {name: value for name, value in vars(error).items() if name in _TRAVELS}
    if "errors" in kept:
        kept["errors"] = {rank: _fit(each) for rank, each in kept["errors"].items()}
    return _again, (ours, _fit(error.__cause__), str(error), kept)


def _fit(error: Any) -> Any:
    return fit_to_travel(error) if isinstance(error, Exception) else error


def _again(
    ours: type[ExecutionError], cause: BaseException | None, text: str, kept: Mapping[str, object]
) -> ExecutionError:
    error = _both(ours, cause, text)
    vars(error).update(kept)
    error.__cause__ = cause
    return error
