"""The end of a worker group: there is one, whoever asks for it, and however often."""

import threading
from collections.abc import Callable

from attrs import frozen

from planner.findings import Findings
from planner.teardown import TeardownReport, why_over
from runtime.backend import Backend
from runtime.teardown import Course

__all__ = ["Ending", "Session"]


@frozen(eq=False)
class Session:
    """The session of the cluster in which a group was started.

    Attributes:
        backend: Where it was started.
        group: Its name.
        name: The session's.
    """

    backend: Backend
    group: str
    name: str

    @property
    def is_over(self) -> bool:
        """Whether this process is in no session, or in another one: nothing may be sent."""
        return self.backend.session != self.name

    def refuse_if_over(self, *, has_ended: bool = False) -> None:
        """Do nothing while the group lives.

        Args:
            has_ended: Whether it was ended.

        Raises:
            PlanError: It was, or the session is over.
        """
        over = why_over(has_ended=has_ended, began_in=self.name, is_in=self.backend.session)
        if over is not None:
            subject = f"worker group {self.group!r}"
            Findings(subject).fail(over.path, over.problem, over.remedy)


class Ending:
    """The one end of a group, asked for by any thread, and again after it was interrupted.

    Whoever asks while it is under way waits for its report. The handler of a signal may ask in
    the very thread that carries it out: it carries it out by itself then.

    Args:
        group: The group's name.
    """

    def __init__(self, group: str) -> None:
        self.turn = threading.RLock()
        self._one = threading.RLock()
        self._course = Course(TeardownReport(group=group))
        self._is_under_way = False
        self._is_begun = False

    @property
    def report(self) -> TeardownReport | None:
        """What came of it; None until it is over."""
        return self._course.report if self._course.is_over else None

    @property
    def is_left_undone(self) -> bool:
        """Whether it was begun, and interrupted before it was over."""
        return self._is_begun and not self._is_under_way and not self._course.is_over

    def carried_out(
        self, step: Callable[[Course], None], cut_short: Callable[[], None] | None = None
    ) -> TeardownReport:
        """What came of it, carried out now or by another thread.

        Args:
            step: Carries it out, from where an earlier one is: it was interrupted, or is under
                way further out in this thread.
            cut_short: Ends the ranks at once, where another thread waits for their clean-up.
        """
        if cut_short is not None:
            # Whoever begins a clean-up after the look at the lock sees this.
            self._course.is_cut = True
            if self._is_elsewhere():
                cut_short()
        with self._one:
            if not self._course.is_over:
                was_under_way = self._is_under_way
                self._is_begun = self._is_under_way = True
                try:
                    step(self._course)
                finally:
                    self._is_under_way = was_under_way
            return self._course.report

    def _is_elsewhere(self) -> bool:
        if self._one.acquire(blocking=False):
            self._one.release()
            return False
        return True
