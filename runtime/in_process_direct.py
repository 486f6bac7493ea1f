"""Direct transports of the in-process backend: planned as on Ray, carried out by copies."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from attrs import field, frozen

from runtime.in_process_objects import Item, ProcessDiedError

__all__ = ["InProcessDirect"]


def _ability(links: MutableMapping[str, Any]) -> dict[str, object]:
    del links
    return {"problem": "", "has_gloo": True}


def _open_meeting(links: MutableMapping[str, Any], name: str, seconds: float) -> int:
    del seconds
    links[name] = None
    return 0


def _join(links: MutableMapping[str, Any], name: str, *place: object) -> None:
    links[name] = place


def _leave(links: MutableMapping[str, Any], name: str) -> None:
    links.pop(name, None)


@frozen(eq=False)
class InProcessDirect:
    """``Direct`` where nothing is remote: results are copied as all others are."""

    _known: set[str] = field(factory=set, init=False)
    _makers: "WeakKeyDictionary[Item, Any]" = field(factory=WeakKeyDictionary, init=False)

    ability = staticmethod(_ability)
    open_meeting = staticmethod(_open_meeting)
    join = staticmethod(_join)
    leave = staticmethod(_leave)

    def lacking(self) -> str:
        """Nothing is needed."""
        return ""

    def note(self, name: str, transport: str, actors: Sequence[Any]) -> None:  # noqa: ARG002
        """Remember it."""
        self._known.add(name)

    def forget(self, name: str) -> None:
        """Forget it."""
        self._known.discard(name)

    def holds(self, name: str) -> bool:
        """Whether it is remembered: no transfer fails here."""
        return name in self._known

    def note_ended(self, actors: Sequence[Any]) -> None:
        """Nothing: a process is dead at once."""

    def was_ended(self, actor: Any) -> bool:
        """As the process itself knows."""
        return actor.process.death is not None

    def entry(
        self, actor: Any, method: str, transport: str, options: Mapping[str, Any]
    ) -> Callable[..., Item]:
        """A call as any other, whose result is marked."""
        call = getattr(actor, method).options(**options)

        def send(*args: object, **kwargs: object) -> Item:
            item: Item = call.remote(*args, **kwargs)
            item.transport = transport
            self._makers[item] = actor.process
            return item

        return send

    def check_held(self, references: Sequence[Any]) -> None:
        """As on Ray, whose processes take along what they hold.

        Raises:
            ProcessDiedError: Who holds one of some results is dead.
        """
        for each in references if self._makers else ():
            maker = self._makers.get(each) if isinstance(each, Item) else None
            if maker is not None and maker.death is not None:
                raise ProcessDiedError(maker.death, maker.died_at)

    def transport_of(self, reference: Any) -> str:
        """As it was marked."""
        return reference.transport if isinstance(reference, Item) else ""

    def argument(self, reference: Any) -> Any:
        """The reference itself."""
        return reference
