"""Watching calls until they have answered: their errors are noticed, large values stay away."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import field, frozen

from runtime.backend import Backend, Reference
from runtime.gather import GRACE_SECONDS, PROGRESS_SECONDS, Gathered

__all__ = ["Watch", "polled"]

_SHORTEST, _LONGEST = 0.001, 0.05
"""Seconds between two looks of an event loop at what it waits for."""


@frozen(eq=False)
class Watch:
    """What is known of calls that have answered, and which have not.

    Attributes:
        backend: Where they run.
        left: The calls that have not answered, and the number of each.
        values: The values that came by themselves, by number.
        errors: What the failed ones raised, by number.
        returned: The numbers of those that have returned.
    """

    backend: Backend
    left: dict[Reference, int]
    values: dict[int, Any] = field(factory=dict, init=False)
    errors: dict[int, BaseException] = field(factory=dict, init=False)
    returned: list[int] = field(factory=list, init=False)
    _begun: float = field(init=False)

    @_begun.default
    def _now(self) -> float:
        return self.backend.now()

    def look(self, seconds: float) -> bool:
        """Whether some have answered now; waits for the first."""
        waiting = list(self.left)
        first, _ = self.backend.wait(waiting, 1, seconds)
        if not first:
            return False
        ready, _ = self.backend.wait(waiting, len(waiting), 0)
        looked = self.backend.look(ready)
        for reference in ready:
            number = self.left.pop(reference)
            if reference in looked.errors:
                self.errors[number] = looked.errors[reference]
                continue
            self.returned.append(number)
            if reference in looked.values:
                self.values[number] = looked.values[reference]
        return True

    def until_over(
        self, limit: float | None, progress: Callable[[Sequence[int]], None] | None = None
    ) -> Gathered:
        """Wait until all have returned, one has failed, or time is up.

        Args:
            limit: Seconds; None waits without end.
            progress: Told now and then who has not answered.
        """
        for seconds in self._waits(limit, progress):
            self.look(seconds)
        return self.gathered()

    async def until_over_async(
        self, limit: float | None, progress: Callable[[Sequence[int]], None] | None = None
    ) -> Gathered:
        """The same in an event loop, whose other tasks go on."""
        for seconds in self._waits(limit, progress):
            await polled(self.backend, lambda: self.look(0.0), seconds)
        return self.gathered()

    def _waits(
        self, limit: float | None, progress: Callable[[Sequence[int]], None] | None
    ) -> Iterator[float]:
        """How long to wait for the next answer, again and again."""
        now = self.backend.now
        ends = None if limit is None else now() + limit
        while self.left and not self.errors:
            left = PROGRESS_SECONDS if ends is None else max(0.0, ends - now())
            before = len(self.left)
            yield min(left, PROGRESS_SECONDS)
            if ends is not None and now() >= ends:
                break
            if len(self.left) == before and progress is not None:
                progress(tuple(self.left.values()))
        # Once one has failed, the others get a moment more, so that one error names all that fail.
        ends = now() + GRACE_SECONDS
        while self.errors and self.left and (left := ends - now()) > _SHORTEST:
            yield left

    def gathered(self) -> Gathered:
        """How all stand; of the values, those that came by themselves."""
        waiting = {number: reference for reference, number in self.left.items()}
        return Gathered(
            values={number: self.values.get(number) for number in self.returned},
            errors=self.errors,
            pending=tuple(waiting),
            waiting=waiting,
            seconds=self.backend.now() - self._begun,
        )


async def polled(backend: Backend, is_ready: Callable[[], bool], limit: float | None) -> None:
    """Look again and again whether something is ready, until a limit, letting other tasks run."""
    began = backend.now()
    while not is_ready():
        waited = backend.now() - began
        left = _LONGEST if limit is None else limit - waited
        if left <= 0:
            return
        await backend.rest(max(min(waited / 20, _LONGEST, left), _SHORTEST))
