"""What goes wrong when a plan is carried out: the cluster did not do what the plan says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from planner.outcomes import FailureReport, RankIdentity, failure_text

__all__ = [
    "DeadlineError",
    "ExecutionError",
    "WorkerGroupError",
    "dual_error",
    "naming",
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
    ``except ValueError`` catches a worker's ``ValueError``; that exception is ``__cause__``.

    Attributes:
        report: Who failed how, who returned, who had not answered.
        errors: The exception of each failed rank.
    """

    report: FailureReport
    errors: Mapping[int, BaseException]


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
    kind = DeadlineError if first is None else _both(WorkerGroupError, type(cause))
    error = kind(text)
    error.report = report
    error.errors = dict(errors)
    error.__cause__ = cause
    return error


def dual_error(cause: BaseException, text: str) -> ExecutionError:
    """An ``ExecutionError`` that is caught as its cause's own type too."""
    return _both(ExecutionError, type(cause))(text)


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Put what failed in front of the text of every ``ExecutionError`` that is raised inside."""
    try:
        yield
    except ExecutionError as error:
        error.args = (f"{subject}: {error}",)
        raise


def _both(ours: type[_E], theirs: type) -> type[_E]:
    """A type that is caught as ours and as what the user's code raised."""
    if not issubclass(theirs, Exception) or issubclass(theirs, ours):
        return ours
    try:
        made = type(
            f"{ours.__name__}[{theirs.__name__}]",
            (ours, theirs),
            {"__init__": Exception.__init__, "__str__": Exception.__str__},
        )
        made("")
    except TypeError:
        # Some types can't be combined (their memory layouts differ) or can't be made from text.
        return ours
    return made
