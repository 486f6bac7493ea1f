"""Who the ranks of a group are, and how to look at what one has left behind."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from planner.failure_causes import Death, Remains, death_of, tail_lines
from planner.outcomes import RankIdentity
from runtime.backend import Backend, Reference
from runtime.errors import WorkerGroupError

__all__ = ["Roster"]


Listener = Callable[[WorkerGroupError, Mapping[int, Reference]], None]


@frozen(eq=False)
class Roster(Mapping[int, RankIdentity]):
    """The ranks of a group, by number.

    Attributes:
        backend: Where they run.
        identities: Who each is.
        vitals: How each process can be looked at, as its host told.
        nodes: The node of each.
        listeners: Told of every failure, with the calls that have not answered.
    """

    backend: Backend
    identities: Mapping[int, RankIdentity]
    vitals: Mapping[int, Mapping[str, Any]] = {}
    nodes: Mapping[int, str] = {}
    listeners: list[Listener] = field(factory=list)

    def __getitem__(self, rank: int) -> RankIdentity:
        return self.identities[rank]

    def __iter__(self) -> Iterator[int]:
        return iter(self.identities)

    def __len__(self) -> int:
        return len(self.identities)

    def tell(self, error: WorkerGroupError, waiting: Mapping[int, Reference]) -> None:
        """Tell the listeners of a failure."""
        for listener in self.listeners:
            listener(error, waiting)

    def death_of(self, rank: int, error: BaseException) -> Death | None:
        """Why a rank's process is gone, if its error says that it is."""
        words = self.backend.words_of_death(error)
        if words is None:
            return None
        return death_of(words.told, self.remains_of(rank), at=words.at, preempted=words.preempted)

    def remains_of(self, rank: int) -> Remains:
        """The end of a rank's standard error, where this process can read it."""
        vitals = self.vitals.get(rank, {})
        found = self.backend.remains_here(vitals) if vitals else None
        log = str(vitals.get("log", ""))
        if found is None:
            return Remains(log=log)
        return Remains(tail=tail_lines(found["text"]), oom_kills=found["oom_kills"], log=log)
