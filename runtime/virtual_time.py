"""Time that passes only when something waits: events in a seeded order, and an event loop on it."""

import asyncio
import heapq
import itertools
import math
import random
import selectors
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from runtime.in_process_surroundings import own_time

__all__ = ["NothingWillHappenError", "VirtualLoop", "VirtualTime"]

MOST_IDLE_WAITS = 1_000
"""How many waits in a row may pass in which nothing at all is under way."""


FREE_LOOKS = 10
"""How many looks in a row find nothing before looking takes time."""

LOOK_SECONDS = 0.001
"""How long the first look takes that does; each further one takes twice as long."""


class NothingWillHappenError(RuntimeError):
    """A wait can never end: nothing is under way, and the one who waits does nothing else."""


@frozen(eq=False)
class VirtualTime:
    """A clock, and what happens when on it; events at the same time come in a seeded order.

    Attributes:
        random: What every choice is drawn from.
        standing: Says, a line for each, what waits when nothing will happen any more.
        others: Waits in real time, when nothing is under way, until others have seen to it that
            something holds; gives whether they have.
    """

    random: random.Random
    standing: Callable[[], Sequence[str]] = field(default=tuple)
    others: Callable[[Callable[[], bool]], bool] = field(default=lambda is_over: is_over())
    _events: list[tuple[float, float, int, Callable[[], None]]] = field(factory=list, init=False)
    _numbers: "itertools.count[int]" = field(factory=itertools.count, init=False)
    _state: dict[str, float] = field(
        factory=lambda: {"now": 0.0, "idle": 0, "looks": 0, "until": 0.0, "asked": 0}, init=False
    )

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._state["now"]

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something happen at a time, now at the earliest."""
        self._state["idle"] = self._state["looks"] = self._state["asked"] = 0
        event = (max(when, self.now), self.random.random(), next(self._numbers), action)
        heapq.heappush(self._events, event)

    def run_until(self, is_done: Callable[[], bool], ends: float | None) -> bool:
        """Let time pass until something holds, or until a time.

        A time that is now makes it a look, which takes no time. One who looks again and again
        waits in fact: after some looks in a row that find nothing, looking takes time too.

        Returns:
            Whether it holds.

        Raises:
            NothingWillHappenError: It can never hold.
        """
        if is_done():
            self._state["looks"] = 0
            return True
        if ends is None or ends > self.now:
            self._state["looks"] = 0
        else:
            ends = self._end_of_look()
        while not is_done():
            if not self._events:
                if self._others_act(is_done):
                    continue
                return self._idle(ends)
            if ends is not None and self._events[0][0] > ends:
                self._state["now"] = max(self.now, ends)
                return False
            when, _, _, action = heapq.heappop(self._events)
            self._state["now"] = max(self.now, when)
            action()
        return True

    def waits_until(self, ends: float) -> None:
        """Note until when somebody waits in pieces; infinity for no deadline."""
        self._state["until"] = ends if math.isfinite(ends) else 0.0

    def _end_of_look(self) -> float:
        looks = self._state["looks"] = self._state["looks"] + 1
        if looks <= FREE_LOOKS:
            return self.now
        longer: float = 2.0 ** min(looks - FREE_LOOKS - 1, 30)
        after = self.now + LOOK_SECONDS * longer
        following = self._events[0][0] if self._events else after
        return max(self.now, min(after, following))

    def _others_act(self, is_done: Callable[[], bool]) -> bool:
        """Whether others have done something, who are waited for once until something happens."""
        asked, self._state["asked"] = self._state["asked"], 1
        return not asked and self.others(lambda: is_done() or bool(self._events))

    def _idle(self, ends: float | None) -> bool:
        # A piece of a wait that has a deadline is no wait of its own.
        if ends is None or ends >= self._state["until"]:
            self._state["idle"] += 1
        if ends is None or self._state["idle"] > MOST_IDLE_WAITS:
            waiting = "".join(f"\n  {line}" for line in self.standing())
            raise NothingWillHappenError(
                f"at {self.now:g} s of virtual time nothing is under way any more, and something "
                f"waits for ever: give it a deadline{waiting}"
            )
        self._state["now"] = max(self.now, ends)
        return False


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock is a ``VirtualTime``.

    Args:
        time: The clock.
        wrap: Gets every coroutine that becomes a task, and gives what runs in its place.
    """

    def __init__(self, time: VirtualTime, wrap: Callable[[Any], Any]) -> None:
        self._virtual = time
        self._selector_of_no_files = _NoFiles()
        super().__init__(self._selector_of_no_files)
        self.set_task_factory(
            lambda loop, coro, **more: asyncio.Task(wrap(coro), loop=loop, **more)
        )

    def time(self) -> float:
        """Seconds of virtual time; a worker whose code has slept is ahead of the others."""
        return own_time(self._virtual.now)

    def settle(self) -> float | None:
        """Run everything that can run now.

        Returns:
            The time of the next timer; None when there is none.
        """
        self._selector_of_no_files.stop = self.stop
        # The caller may itself be in an event loop: it stands still meanwhile.
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            self.run_forever()
        finally:
            asyncio._set_running_loop(outer)
        left = self._selector_of_no_files.left
        return None if left is None else self.time() + left


class _NoFiles(selectors.BaseSelector):
    """Stops its loop at the moment in which the loop would block."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] = lambda: None
        self.left: float | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: object = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fileobj] = selectors.SelectorKey(fileobj, number, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.left = timeout
            self.stop()
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys
