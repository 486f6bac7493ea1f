"""What is wrong with a request, as data: every finding at once, each with a path and a remedy."""

from collections.abc import Callable, Iterable
from typing import NoReturn, Self

from attrs import field, frozen

__all__ = ["CoordinateError", "Finding", "Findings", "PlanError", "ResourceInsufficientError"]


@frozen
class Finding:
    """One thing that is wrong with a request.

    Attributes:
        path: Where it is, in the caller's words, such as ``bundle_indices_list[2]``.
        problem: What was given and why it cannot be planned.
        remedy: What would work.
    """

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


class PlanError(ValueError):
    """The request is impossible, found from data alone: nothing was started or sent.

    Attributes:
        subject: What could not be planned, such as ``worker group 'policy'``.
        findings: Everything that is wrong, in the order in which it was found.
    """

    def __init__(self, subject: str, findings: Iterable[Finding]) -> None:
        self.subject = subject
        self.findings: tuple[Finding, ...] = tuple(findings)
        super().__init__(_text(subject, self.findings))

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[Finding, ...]]]:
        return type(self), (self.subject, self.findings)


class CoordinateError(PlanError, IndexError):
    """A coordinate or index lies outside its range."""


class ResourceInsufficientError(PlanError):
    """The cluster does not have what was asked for."""


def _text(subject: str, findings: tuple[Finding, ...]) -> str:
    if len(findings) == 1:
        return f"{subject}: {findings[0]}"
    lines = "\n".join(f"  - {finding}" for finding in findings)
    return f"{subject}: {len(findings)} problems\n{lines}"


@frozen
class Findings:
    """Collects findings while a request is checked, and raises them together.

    Attributes:
        subject: What is being planned; the first words of the error.
    """

    subject: str
    _found: list[Finding] = field(factory=list, init=False)

    def add(self, path: str, problem: str, remedy: str) -> None:
        """Record one finding."""
        self._found.append(Finding(path, problem, remedy))

    def include(self, error: PlanError, path: str = "") -> None:
        """Record every finding of another error, its paths put under ``path``."""
        for each in error.findings:
            joined = f"{path}.{each.path}" if path else each.path
            self._found.append(Finding(joined, each.problem, each.remedy))

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def found(self) -> tuple[Finding, ...]:
        """What was recorded so far."""
        return tuple(self._found)

    def check(self, error: Callable[[str, tuple[Finding, ...]], PlanError] = PlanError) -> None:
        """Raise all findings as one error; do nothing when there are none."""
        if self._found:
            raise error(self.subject, self.found)

    def fail(
        self,
        path: str,
        problem: str,
        remedy: str,
        error: Callable[[str, tuple[Finding, ...]], PlanError] = PlanError,
    ) -> NoReturn:
        """Record a last finding and raise everything found."""
        self.add(path, problem, remedy)
        raise error(self.subject, self.found)
