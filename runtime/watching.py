"""Watching calls until they have answered: their errors are noticed, large values stay away."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from planner.outcomes import RankIdentity
from runtime.backend import Backend, Reference
from runtime.gather import GRACE_SECONDS, Gathered
from runtime.lookout import Lookout
from runtime.progress import Progress, waits

__all__ = ["Struck", "Tell", "Watch", "answered_of", "fetched", "polled"]

Tell = Callable[[Mapping[int, Reference]], None]
Struck = Callable[[Mapping[int, Reference]], bool]

_SHORTEST, _LONGEST = 0.001, 0.05
"""Seconds between two looks of an event loop at what it waits for."""


@frozen(eq=False)
class Watch:
    """What is known of calls that have answered, and which have not.

    Attributes:
        backend: Where they run.
        left: The calls that have not answered, and the number of each.
        since: When they were sent by the backend's clock, or else since when they are watched.
        values: The values that came by themselves, by number.
        errors: What the failed ones raised, by number.
        returned: The numbers of those that have returned.
    """

    backend: Backend
    left: dict[Reference, int]
    since: float = field()
    values: dict[int, Any] = field(factory=dict, init=False)
    errors: dict[int, BaseException] = field(factory=dict, init=False)
    returned: list[int] = field(factory=list, init=False)

    @since.default
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
        self, limit: float | None, tell: Tell, struck: Struck, grace: float = GRACE_SECONDS
    ) -> Gathered:
        """Wait until all have returned, one has failed, or time is up.

        Args:
            limit: Seconds; None waits without end.
            tell: Told now and then which calls have not answered, by number.
            struck: Asked now and then of those whether a death of others ends the wait.
            grace: Seconds that the others get once one has failed.
        """
        for seconds in self._waits(limit, tell, struck, grace):
            self.look(seconds)
        return self.gathered()

    async def until_over_async(
        self, limit: float | None, tell: Tell, struck: Struck, grace: float = GRACE_SECONDS
    ) -> Gathered:
        """The same in an event loop, whose other tasks go on."""
        for seconds in self._waits(limit, tell, struck, grace):
            await polled(self.backend, lambda: self.look(0.0), seconds)
        return self.gathered()

    def _waits(
        self, limit: float | None, tell: Tell, struck: Struck, grace: float
    ) -> Iterator[float]:
        """How long to wait for the next answer, again and again."""
        lookout = Lookout(self.backend, lambda: struck(self._waiting()))

        def has_failed() -> bool:
            return bool(self.errors) or lookout.is_struck

        def is_over() -> bool:
            return not self.left or has_failed()

        yield from waits(self.backend, limit, is_over, lambda: tell(self._waiting()), lookout)
        if has_failed():
            # The others get a moment more, so that one error names all that fail.
            yield from waits(self.backend, grace, lambda: not self.left)

    def _waiting(self) -> dict[int, Reference]:
        return {number: reference for reference, number in self.left.items()}

    def gathered(self) -> Gathered:
        """How all stand; of the values, those that came by themselves."""
        waiting = self._waiting()
        return Gathered(
            values={number: self.values.get(number) for number in self.returned},
            errors=self.errors,
            pending=tuple(waiting),
            waiting=waiting,
            kept=self.values,
            seconds=self.backend.now() - self.since,
        )


def answered_of(
    backend: Backend,
    subject: str,
    references: Mapping[int, Reference],
    identities: Mapping[int, RankIdentity],
    limit: float | None,
) -> list[Reference]:
    """Wait until all have answered, be it with an error, or time is up; gives those that have.

    Args:
        backend: Where the calls run.
        subject: What was called, for what is told now and then of a long wait.
        references: What each rank's call gave.
        identities: Who the ranks are.
        limit: Seconds; None waits without end.
    """
    progress = Progress(
        subject=subject, backend=backend, identities=identities, called=len(references)
    )
    left = {reference: rank for rank, reference in references.items()}

    def tell() -> None:
        progress.tell({rank: reference for reference, rank in left.items()})

    answered: list[Reference] = []
    for seconds in waits(backend, limit, lambda: not left, tell):
        ready, _ = backend.wait(list(left), len(left), seconds)
        for each in ready:
            del left[each]
        answered += ready
    return answered


async def fetched(backend: Backend, reference: Reference) -> Any:
    """A value that is there, without holding up the event loop if it is somewhere else.

    Raises:
        Exception: What is there in its place.
    """
    looked = backend.look([reference])
    if reference in looked.errors:
        raise looked.errors[reference]
    if reference in looked.values:
        return looked.values[reference]
    return (await backend.fetch([reference]))[0]


async def polled(backend: Backend, is_ready: Callable[[], bool], limit: float | None) -> None:
    """Look again and again whether something is ready, until a limit, letting other tasks run."""
    began = backend.now()
    while not is_ready():
        waited = backend.now() - began
        left = _LONGEST if limit is None else limit - waited
        if left <= 0:
            return
        await backend.rest(max(min(waited / 20, _LONGEST, left), _SHORTEST))
