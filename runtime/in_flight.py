"""How many calls of a group are under way: a limit, so that a fast driver does not outrun it."""

import threading
from collections import deque
from collections.abc import Sequence

from runtime.backend import Backend, Reference
from runtime.errors import ExecutionError

__all__ = ["MOST_CALLS", "InFlight", "TooManyCallsError", "first_of"]

MOST_CALLS = 10_000
"""How many calls of one group may be under way, each rank's counted by itself."""

_MOST_UNSEEN = 15
"""How many times in a row may be sent without a look at what has returned."""


def first_of(future: Reference | list[Reference] | None) -> Reference | None:
    """What stands for a call: the first of several returns; None when it returns nothing."""
    if isinstance(future, list):
        return future[0] if future else None
    return future


class TooManyCallsError(ExecutionError):
    """As many calls are under way as the group allows; nothing was sent."""


class InFlight:
    """The calls of a group that have not returned, oldest first.

    It holds the futures of calls that run, and of a few that have returned: when the caller
    waits for each, of one; when many are sent in a row, of those since the last look. So results
    are not kept from being freed for long.

    Args:
        backend: Where the calls run.
        group: The group's name, for messages.
        limit: How many may be under way.
    """

    def __init__(self, backend: Backend, group: str, limit: int) -> None:
        self.limit = limit
        self._backend, self._group = backend, group
        self._calls: deque[list[Reference]] = deque()
        self._count = 0
        self._unseen, self._pause = 0, 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many are under way, as far as was looked."""
        return self._count

    def admit(self, calls: int) -> None:
        """Refuse that many more calls when they would be too many.

        Raises:
            TooManyCallsError: They would.
        """
        with self._lock:
            if self._count + calls > self.limit:
                self._look_at_all()
            if self._count + calls > self.limit:
                raise TooManyCallsError(
                    f"worker group {self._group!r}: {self._count} calls are under way and "
                    f"{calls} more would pass the limit of {self.limit}: wait for some results, "
                    "or start the group with a higher max_calls_in_flight"
                )

    def sent(self, references: Sequence[Reference]) -> None:
        """Note calls that were sent, one item per rank.

        A call that returns several objects gives a list; they are there at the same time, so
        the first stands for all. One that returns none (None, or an empty list) has nothing to
        look at, so it is not counted.
        """
        counted = [
            first
            for each in references
            if (first := first_of(each)) is not None and not self._backend.is_stream(first)
        ]
        with self._lock:
            if self._unseen < self._pause:
                self._unseen += 1
            else:
                self._look_at_the_oldest()
            if counted:
                self._calls.append(counted)
                self._count += len(counted)

    def _look_at_the_oldest(self) -> None:
        # Calls return about in the order in which they were sent. A look at one that still runs
        # takes as long as sending to several ranks, so the next waits for some sends.
        self._unseen = 0
        while self._calls:
            oldest = self._calls[0]
            ready, rest = self._backend.wait(oldest, len(oldest), 0)
            self._count -= len(ready)
            if rest:
                self._calls[0] = rest
                self._pause = min(2 * self._pause + 1, _MOST_UNSEEN)
                return
            self._calls.popleft()
        self._pause = 0

    def _look_at_all(self) -> None:
        references = [each for call in self._calls for each in call]
        _, rest = self._backend.wait(references, len(references), 0) if references else ([], [])
        self._calls = deque([rest] if rest else [])
        self._count = len(rest)
