"""The part of a backend that moves results from worker to worker past the object store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from runtime.backend import Actor, Reference

__all__ = ["Direct", "Step"]

Step = Callable[..., Any]
"""What a worker's process does about its links; its host gives it what is kept of them."""


class Direct(Protocol):
    """What links and calls with a transport need of the world."""

    @property
    def ability(self) -> Step:
        """Says whether a process can be linked: ``problem`` and ``has_gloo``."""

    @property
    def open_meeting(self) -> Step:
        """Gives the port at which members of a link find each other."""

    @property
    def join(self) -> Step:
        """Connects a process with the others of a link."""

    @property
    def leave(self) -> Step:
        """Gives up a process's part in a link."""

    def lacking(self) -> str:
        """Why this process can't take part in a link; empty when it can."""

    def note(self, name: str, transport: str, actors: Sequence[Actor]) -> None:
        """Let calls use a link that all its members have joined."""

    def forget(self, name: str) -> None:
        """Undo that; a link that is not known does nothing."""

    def holds(self, name: str) -> bool:
        """Whether calls can still use a link."""

    def note_ended(self, actors: Sequence[Actor]) -> None:
        """Note that actors are ended, before the cluster says so."""

    def was_ended(self, actor: Actor) -> bool:
        """Whether that was noted of an actor."""

    def entry(
        self, actor: Actor, method: str, transport: str, options: Mapping[str, Any]
    ) -> Callable[..., Reference]:
        """What calls a method of an actor so that its result stays in the actor's memory."""

    def transport_of(self, reference: Reference) -> str:
        """The transport that a result stays with its maker for; empty for the object store."""

    def argument(self, reference: Reference) -> Reference:
        """What stands for a result in a call, where it is given by position."""
