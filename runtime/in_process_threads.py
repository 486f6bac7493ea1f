"""The controller's threads, as a world in process sees them."""

import threading
from collections.abc import Callable

__all__ = ["PATIENCE_SECONDS", "ControllerThreads"]

PATIENCE_SECONDS = 1.0
"""How long, in real time, the other threads have to do something when a wait finds nothing under
way. They may wait for each other outside the world, where it can't be seen, so it has to end."""

_LOOK_SECONDS = 0.01


class ControllerThreads:
    """The threads that have used a world.

    Args:
        lock: Held by whoever uses the world; given up while the others are waited for.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock_given_up = threading.Condition(lock)
        self._known: dict[int, threading.Thread] = {}
        self._waiting: set[int] = set()

    def note(self) -> None:
        """This thread uses the world."""
        number = threading.get_ident()
        known = self._known.get(number)
        if known is None or not known.is_alive():
            self._known[number] = threading.current_thread()

    def others(self) -> list[str]:
        """The names of those that can still do something: they live, and wait for nothing here."""
        for number in [number for number, each in self._known.items() if not each.is_alive()]:
            del self._known[number]
        idle = {*self._waiting, threading.get_ident()}
        return sorted(each.name for number, each in self._known.items() if number not in idle)

    def wait_for_others(self, is_over: Callable[[], bool]) -> bool:
        """Wait until they have done something, if there are any; gives whether they have."""
        me = threading.get_ident()
        self._waiting.add(me)
        try:
            for _ in range(round(PATIENCE_SECONDS / _LOOK_SECONDS)):
                if is_over() or not self.others():
                    break
                self._lock_given_up.wait(_LOOK_SECONDS)
            return is_over()
        finally:
            self._waiting.discard(me)
