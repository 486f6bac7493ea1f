"""Who the ranks of a group are, and how to look at what one has left behind."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from planner.failure_causes import Death, Remains, death_of, tail_lines
from planner.outcomes import RankIdentity
from runtime.backend import Backend, Reference
from runtime.errors import WorkerGroupError

__all__ = ["Roster", "fallen_of"]


Reader = Callable[[Sequence[int]], Mapping[int, Mapping[str, Any]]]
Listener = Callable[[WorkerGroupError, Mapping[int, Reference], "Roster"], None]
Looker = Callable[[Collection[int], "Roster"], Mapping[int, BaseException]]


@frozen(eq=False)
class Roster(Mapping[int, RankIdentity]):
    """The ranks of a group, by number.

    Attributes:
        backend: Where they run.
        identities: Who each is.
        vitals: How each process can be looked at, as its host told.
        nodes: The node of each.
        listeners: Told of every failure, with the calls that have not answered.
        readers: Asked for what ranks left behind on machines that this process does not see.
        lookers: Give the deaths of those who share the fate of ranks that are waited for.
        grace: Seconds the others have to answer once one has failed.
    """

    backend: Backend
    identities: Mapping[int, RankIdentity]
    vitals: Mapping[int, Mapping[str, Any]] = {}
    nodes: Mapping[int, str] = {}
    listeners: list[Listener] = field(factory=list)
    readers: list[Reader] = field(factory=list)
    lookers: list[Looker] = field(factory=list)
    grace: float = 0.5

    def __getitem__(self, rank: int) -> RankIdentity:
        return self.identities[rank]

    def __iter__(self) -> Iterator[int]:
        return iter(self.identities)

    def __len__(self) -> int:
        return len(self.identities)

    def tell(self, error: WorkerGroupError, waiting: Mapping[int, Reference]) -> None:
        """Tell the listeners of a failure."""
        for listener in self.listeners:
            listener(error, waiting, self)

    def fallen(self, waiting: Collection[int]) -> dict[int, BaseException]:
        """The deaths of others for which ranks that are waited for may wait for ever.

        Args:
            waiting: Who is waited for, as they were when they were called.
        """
        if not waiting:
            return {}
        return {rank: e for look in self.lookers for rank, e in look(waiting, self).items()}

    def death_of(self, error: BaseException, remains: Remains) -> Death | None:
        """Why a rank's process is gone, if its error says that it is."""
        words = self.backend.words_of_death(error)
        if words is None:
            return None
        return death_of(words.told, remains, at=words.at, preempted=words.preempted)

    def remains_of(self, ranks: Iterable[int]) -> dict[int, Remains]:
        """The end of each rank's standard error; read here, or else by a process on its node."""
        shown = {rank: self.vitals.get(rank, {}) for rank in ranks}
        found = {
            rank: self.backend.remains_here(vitals) if vitals else None
            for rank, vitals in shown.items()
        }
        elsewhere = [rank for rank, each in found.items() if each is None and shown[rank]]
        for read in self.readers if elsewhere else ():
            found.update(read(elsewhere))
        return {rank: _remains(shown[rank], each) for rank, each in found.items()}


def fallen_of(
    identities: Mapping[int, RankIdentity], waiting: Collection[int]
) -> dict[int, BaseException]:
    """``Roster.fallen``; where there is no group yet, nobody's."""
    return identities.fallen(waiting) if isinstance(identities, Roster) else {}


def _remains(shown: Mapping[str, Any], found: Mapping[str, Any] | None) -> Remains:
    log = str(shown.get("log", ""))
    if found is None:
        return Remains(log=log, was_read=False)
    tail = tail_lines(found["text"])
    return Remains(tail=tail, oom_kills=found["oom_kills"], kernel=found.get("kernel", ""), log=log)
