"""What a worker group tells of its ranks while they are busy, and how it ends them at once."""

from collections.abc import Sequence

from planner.findings import Findings
from planner.launch import LaunchPlan
from planner.liveness import WorkerStatus, chosen_ranks, responding
from planner.outcomes import ranks_text
from runtime.arguments import check_wait
from runtime.backend import Backend
from runtime.health import Health
from runtime.lane import Lane
from runtime.launching import Launched

__all__ = ["Looking"]


class Looking:
    """The part of ``RayWorkerGroup`` that asks nothing of its workers."""

    _launched: Launched
    _lane: Lane
    _health: Health

    @property
    def backend(self) -> Backend:
        """What carries its plans out."""
        raise NotImplementedError

    @property
    def plan(self) -> LaunchPlan:
        """What was carried out."""
        return self._launched.plan

    def _refuse_if_ended(self) -> None:
        raise NotImplementedError

    def status(self, timeout: float | None = None) -> tuple[WorkerStatus, ...]:
        """How every rank is now: node, GPU, pid, state, current method and for how long.

        It is answered while workers are busy, asleep in a collective or stopped. The first time
        a small process is started on each node, which takes about a second.

        Args:
            timeout: Seconds; ranks whose node has not answered by then are out of reach. None
                waits 30 s.

        Raises:
            PlanError: The group has ended.
        """
        self._check_wait(timeout)
        seen = self._lane.status(timeout)
        # Nothing is known of ranks that were ended meanwhile.
        self._refuse_if_ended()
        return seen

    def ping(self, timeout: float | None = None) -> dict[int, bool]:
        """Per rank, whether its process is there and not stopped."""
        return responding(self.status(timeout))

    def stacks(
        self, ranks: Sequence[int] | None = None, timeout: float | None = None
    ) -> dict[int, str]:
        """The stacks of all threads of some ranks (None for all), also while they are busy.

        Where they can't be had in time, the text says why.
        """
        self._check_wait(timeout)
        return self._lane.stacks(self._chosen(ranks), timeout)

    def abort(self, ranks: Sequence[int] | None = None, timeout: float | None = None) -> list[int]:
        """Kill some ranks' processes (None for all), whatever they are doing.

        Calls that they were in fail; the group refuses further ones until it is recovered. A
        node that hears of it only after ``timeout`` (None for 30 s) ends nobody.

        Returns:
            The ranks whose node did it.

        Raises:
            PlanError: A rank is not in the group, or was given up; or the group has ended.
        """
        self._check_wait(timeout)
        absent = () if ranks is None else self._health.absent
        chosen = range(self.plan.world_size) if ranks is None else ranks
        ended = self._lane.kill(chosen_ranks(chosen, self.plan, absent), timeout)
        if ended:
            self._health.mark_dead(ended, f"{ranks_text(ended)}: ended by abort()")
        self.backend.direct.note_ended([self._launched.actors[rank] for rank in ended])
        return ended

    def _check_wait(self, timeout: float | None) -> None:
        self._refuse_if_ended()
        findings = Findings(f"worker group {self.plan.group!r}")
        check_wait(timeout, findings)
        findings.check()

    def _chosen(self, ranks: Sequence[int] | None) -> Sequence[int]:
        if ranks is None:
            return range(self.plan.world_size)
        return chosen_ranks(ranks, self.plan)
