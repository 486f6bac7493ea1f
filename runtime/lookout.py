"""Looks, while calls are waited for, whether others died with whom their ranks fail together."""

from collections.abc import Callable

from attrs import define, field

from runtime.backend import Backend

__all__ = ["LOOK_SECONDS", "Lookout"]

LOOK_SECONDS = 0.4
"""How often a wait looks whether something has failed. With the grace of 0.5 s that the others
have, the error comes within a second of the failure."""


@define(eq=False)
class Lookout:
    """A look now and then in one wait, be it in many pieces; it costs nothing while all live.

    Attributes:
        backend: Whose clock counts.
        looks: Gives whether a rank has died that ends the wait.
        due: When to look next.
        is_struck: Whether one has.
    """

    backend: Backend
    looks: Callable[[], bool]
    due: float = field(init=False)
    is_struck: bool = field(default=False, init=False)

    @due.default
    def _first(self) -> float:
        return self.backend.now() + LOOK_SECONDS

    def look(self) -> None:
        """Look, if it is time to."""
        if not self.is_struck and self.backend.now() >= self.due:
            self.due = self.backend.now() + LOOK_SECONDS
            self.is_struck = self.looks()
