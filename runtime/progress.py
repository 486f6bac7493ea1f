"""Waits in pieces, so that a long one says now and then for whom it waits."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import field, frozen

from planner.outcomes import Held, RankIdentity, still_waiting_text
from runtime.backend import Backend, Reference
from runtime.lookout import Lookout

__all__ = ["PROGRESS_SECONDS", "SHORTEST_SECONDS", "Behind", "Progress", "held_by", "waits"]

_log = logging.getLogger("rankplan")

Behind = Callable[
    [Mapping[int, Reference]],
    Iterable[tuple[str, Sequence[int]] | tuple[str, Sequence[int], float]],
]
"""Says of calls that have not answered, by rank, which earlier call still holds which ranks: its
method, the ranks and, where that is known, when it was sent by the backend's clock."""

PROGRESS_SECONDS = 60.0
"""How often a wait says for whom it waits."""

SHORTEST_SECONDS = 0.005
"""What is not worth waiting for: Ray counts in milliseconds."""


def waits(
    backend: Backend,
    limit: float | None,
    is_over: Callable[[], bool],
    tell: Callable[[], None] = lambda: None,
    lookout: Lookout | None = None,
) -> Iterator[float]:
    """How long to wait next, again and again, until it is over or time is up.

    Args:
        backend: Whose clock counts.
        limit: Seconds; None waits without end.
        is_over: Asked after each piece.
        tell: Called about once a minute.
        lookout: Looks between the pieces whether somebody died.
    """
    now = backend.now
    ends = math.inf if limit is None else now() + limit
    tells = now() + PROGRESS_SECONDS
    while not is_over():
        backend.waits_until(ends)
        looks = math.inf if lookout is None or lookout.is_struck else lookout.due
        yield max(0.0, min(ends, tells, looks) - now())
        if is_over() or ends - now() < SHORTEST_SECONDS:
            return
        if lookout is not None:
            lookout.look()
        if now() >= tells:
            tells = now() + PROGRESS_SECONDS
            tell()


@frozen(eq=False, kw_only=True)
class Progress:
    """What is told of a wait while it lasts.

    Attributes:
        subject: What was called.
        backend: Where it runs.
        identities: Who the ranks are.
        called: How many were called.
        behind: Says which ranks have not begun.
        streams: Whether it waits for values of streams.
        since: When it was called by the backend's clock, or else since when is waited.
    """

    subject: str
    backend: Backend
    identities: Mapping[int, RankIdentity]
    called: int
    behind: Behind | None = None
    streams: bool = False
    since: float = field()

    @since.default
    def _now(self) -> float:
        return self.backend.now()

    def tell(self, waiting: Mapping[int, Reference]) -> None:
        """Say which ranks have not answered.

        Args:
            waiting: What their calls gave.
        """
        told = still_waiting_text(
            self.subject,
            sorted(waiting),
            self.called,
            self.backend.now() - self.since,
            self.identities,
            held_by(self.backend, self.behind, waiting),
            streams=self.streams,
        )
        _log.warning("%s", told)


def held_by(
    backend: Backend, behind: Behind | None, waiting: Mapping[int, Reference]
) -> tuple[Held, ...]:
    """Which of some calls have not begun; costs no message to a worker.

    Args:
        backend: Whose clock counts.
        behind: Says so; None when nobody can.
        waiting: Calls that have not answered, by rank.
    """
    if behind is None or not waiting:
        return ()
    ranks: dict[tuple[str, float | None], list[int]] = {}
    for method, holding, *since in behind(waiting):
        ranks.setdefault((method, since[0] if since else None), []).extend(holding)
    now = backend.now()
    return tuple(
        Held(
            method=method,
            ranks=tuple(sorted(each)),
            seconds=None if since is None else now - since,
        )
        for (method, since), each in ranks.items()
    )
