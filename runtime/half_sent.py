"""Sending the messages of one call: what has left is known, whatever happens on the way."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from planner.outcomes import ranks_text
from runtime.backend import Reference
from runtime.errors import ExecutionError

__all__ = ["HalfSentError", "Told", "half_sent", "send_each"]

Told = Callable[[Sequence[Reference], str, Sequence[int]], None]
"""Takes note of calls that were sent: what each gave, the method, and the ranks."""


class HalfSentError(ExecutionError):
    """Sending a call broke in the middle.

    Attributes:
        sent: The ranks that have been called.
        not_sent: The ranks that have not.
        references: What the calls that were sent gave, by rank.
    """

    sent: tuple[int, ...]
    not_sent: tuple[int, ...]
    references: Mapping[int, Reference]


def send_each(
    group: str, method: str, ranks: Sequence[int], answers: Iterator[Reference], told: Told
) -> list[Reference]:
    """Send one message after the other: taking the next of ``answers`` sends it.

    Args:
        group: The group's name.
        method: What is called.
        ranks: To whom the messages go, in their order.
        answers: Gives what each call gives.
        told: Told what was sent, also when not all of it was.

    Raises:
        HalfSentError: Sending broke, be it at the first.
    """
    references: list[Reference] = []
    try:
        for answer in answers:
            references.append(answer)  # noqa: PERF402  # what came before an error must be kept
    except Exception as error:
        raise half_sent(group, method, ranks, references) from error
    finally:
        told(references, method, ranks[: len(references)])
    return references


def half_sent(
    group: str, method: str, ranks: Sequence[int], references: Sequence[Reference]
) -> HalfSentError:
    """The error for a call whose first messages alone have left."""
    sent, rest = tuple(ranks[: len(references)]), tuple(ranks[len(references) :])
    error = HalfSentError(
        f"worker group {group!r}, {method}(): sending broke: "
        f"{ranks_text(sent) if sent else 'no rank'} called, {ranks_text(rest)} not; "
        + ("end the group if its ranks must all take part" if sent else "call again")
    )
    error.sent, error.not_sent = sent, rest
    error.references = dict(zip(sent, references, strict=True))
    return error
