"""What a worker group offers around failures: how it is, abort, recovery, and its end."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve

from planner.findings import Findings
from planner.launch import LaunchPlan
from planner.liveness import WorkerStatus, chosen_ranks, known_states, responding
from planner.mesh import NamedSharding
from planner.recovery import (
    FailurePolicy,
    RecoveryFacts,
    RecoveryPlan,
    failed_ranks,
    lost_nodes,
    plan_recovery,
)
from planner.resizing import ResizeFacts, absent_after, plan_resize, serving_groups, serving_mesh
from planner.teardown import TeardownReport, plan_teardown
from runtime.admission import Admission
from runtime.arguments import check_end_arguments, check_start_timeout
from runtime.backend import Actor, Backend
from runtime.call_sending import CallState
from runtime.calls import Sender
from runtime.claim import Claim
from runtime.handle import WorkerHandle
from runtime.health import Health
from runtime.in_flight import InFlight
from runtime.lane import Lane
from runtime.launching import Launched
from runtime.recovering import RecoveryError, free_slots, start_again
from runtime.roster import Roster
from runtime.teardown import carry_out_teardown, end

__all__ = ["Care"]

_log = logging.getLogger("rankplan")

RESTART_SECONDS = 600.0
"""How long a recovery may take until every constructor has returned."""

NODE_SECONDS = 30.0
"""How long a recovery waits for the cluster to give a lost node's bundles to another."""

LAST_LOOK_SECONDS = 5.0
"""How long looking at the ranks may take before they are ended."""


class Care:
    """The part of ``RayWorkerGroup`` that deals with failures."""

    _launched: Launched
    _claim: Claim
    _handles: list[WorkerHandle]
    _ended: bool
    _lane: Lane
    _health: Health
    _in_flight: InFlight
    _sender: Sender
    _calling: threading.RLock
    _call_state: CallState
    _generation: int
    _recoveries: int

    @property
    def backend(self) -> Backend:
        """What carries its plans out."""
        raise NotImplementedError

    @property
    def plan(self) -> LaunchPlan:
        """What was carried out."""
        return self._launched.plan

    @property
    def identities(self) -> Roster:
        """Who each rank is: coordinates, node, GPU and pid."""
        return self._launched.identities

    def _adopt(self, launched: Launched) -> None:
        raise NotImplementedError

    def _refuse_if_ended(self) -> None:
        raise NotImplementedError

    def _take_care(self, policy: FailurePolicy, calls: int) -> None:
        self._in_flight = InFlight(self.backend, self.plan.group, calls, self.plan.world_size)
        self._generation = self._recoveries = 0
        self._serving: dict[tuple[str, frozenset[int]], NamedSharding] = {}
        self._mending = threading.RLock()
        self._lane = Lane(self.backend, self.plan.group, self.identities)
        self._health = Health(self.plan, policy, self.backend, self._lane)
        self._admission = Admission(self.backend, self._health, self._in_flight, self._calling)
        self._lane.warm()
        self.identities.listeners.append(self._health.note)
        self.identities.readers.append(self._lane.remains)

    @property
    def failure_policy(self) -> FailurePolicy:
        """What it does when some of its ranks fail."""
        return self._health.policy

    @property
    def broken(self) -> tuple[int, ...]:
        """The ranks that are known to be dead, or still in a call that failed elsewhere."""
        return self._health.broken()

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
        return self._lane.status(timeout)

    def ping(self, timeout: float | None = None) -> dict[int, bool]:
        """Per rank, whether its process is there and not stopped."""
        return responding(self.status(timeout))

    def stacks(
        self, ranks: Sequence[int] | None = None, timeout: float | None = None
    ) -> dict[int, str]:
        """The stacks of all threads of some ranks (None for all), also while they are busy."""
        self._check_wait(timeout)
        return self._lane.stacks(self._chosen(ranks), timeout)

    def abort(self, ranks: Sequence[int] | None = None, timeout: float | None = None) -> list[int]:
        """Kill some ranks' processes (None for all), whatever they are doing.

        Calls that they were in fail; the group refuses further ones until it is recovered.

        Returns:
            The ranks whose node did it.
        """
        self._check_wait(timeout)
        return self._lane.kill(self._chosen(ranks), timeout)

    def end(
        self, cleanup_method: str | None = None, timeout: float | None = 30.0
    ) -> TeardownReport:
        """End the workers and report on it; a second call gives the first one's report.

        Args:
            cleanup_method: Called on every worker first.
            timeout: Seconds that it may take; None waits without end.

        Raises:
            PlanError: The class has no such method, or ``timeout`` is not a time; nothing was
                ended.
        """
        findings = Findings(f"worker group {self.plan.group!r}")
        check_end_arguments(timeout, False, findings)
        findings.check()
        return self._end(cleanup_method, timeout)

    def _end(self, cleanup_method: str | None, timeout: float | None) -> TeardownReport:
        raise NotImplementedError

    def _carry_out_end(self, cleanup: str | None, grace: float | None) -> TeardownReport:
        looks = cleanup is not None and self._lane.is_warm
        seen = self._lane.status(LAST_LOOK_SECONDS) if looks else None
        states = known_states(seen, self._health.dead())
        plan = plan_teardown(self.plan, states, cleanup=cleanup, grace=grace)
        companions = self._lane.end()
        plan = evolve(plan, names=(*plan.names, *companions))
        actors = dict(enumerate(self._launched.actors))
        groups, beside = self._launched.again.groups, self._claim.workers_beside
        return carry_out_teardown(plan, self.backend, actors, self.identities, groups, beside)

    def plan_recovery(self, timeout: float | None = None) -> RecoveryPlan:
        """What ``recover`` would do now; changes nothing.

        Unlike ``recover`` it does not wait for the cluster to give the bundles of a lost node to
        another: until it has, the plan says that they are missing.

        Args:
            timeout: Seconds that looking at the ranks may take; None waits 30 s.
        """
        return self._recovery(timeout, 0.0)

    def recover(
        self,
        restore: Callable[[Any, RecoveryPlan], object] | None = None,
        *,
        start_timeout: float = RESTART_SECONDS,
        timeout: float | None = None,
    ) -> RecoveryPlan:
        """Make the group whole again: end what is struck, start it again in its place.

        What is struck, the group's ``FailurePolicy.domain`` says. The other ranks go on: they
        are not called, stopped or told. Futures of ended ranks fail; nothing is sent again.

        Args:
            restore: Called at the end with the group and the plan, to load a checkpoint.
            start_timeout: Seconds until every constructor must have returned.
            timeout: Seconds that looking at the ranks may take, and then waiting for the cluster
                to give the bundles of a lost node to another; None gives 30 s for each.

        Returns:
            What was done; it names no rank when nothing was broken.

        Raises:
            RecoveryError: Something is missing, or the budget is spent; nothing was changed.
            PreflightError: A node is not as the group needs it; what was started there was ended.
            WorkerGroupError: A worker failed to start.
            PlanError: The group has ended.
            Exception: What ``restore`` raised. The ranks that were started count as broken then:
                the next recovery starts them again.
        """
        self._check_start(start_timeout)
        with self._mending:
            plan = self._recovery(timeout, NODE_SECONDS)
            if not plan.is_possible:
                raise RecoveryError.of(plan)
            if plan.end or plan.start:
                self._recoveries += 1
                _log.info("worker group %r recovers, generation %d", plan.group, plan.generation)
                if plan.pause:
                    self.backend.pause(plan.pause)
                self._end_ranks(plan)
                self._start_ranks(plan, start_timeout)
                self._health.mend([*plan.end, *(each.rank for each in plan.start)])
                self._restore(restore, plan)
            return plan

    def _restore(
        self, restore: Callable[[Any, RecoveryPlan], object] | None, plan: RecoveryPlan
    ) -> None:
        try:
            if restore is not None:
                restore(self, plan)
        except BaseException as error:
            why = f"restore() did not finish after a recovery: {type(error).__name__}: {error}"
            self._health.mark_dead([each.rank for each in plan.start], why)
            raise

    def resize(
        self, tied_groups: Sequence[int], *, start_timeout: float = RESTART_SECONDS
    ) -> RecoveryPlan:
        """Give up tied groups that are not named, and start those that were given up.

        The bundles stay reserved. Calls of the whole group leave out the ranks that were given
        up: slices are cut over the coordinates that serve. Calls to given-up ranks are refused.

        Args:
            tied_groups: The tied groups that shall serve.
            start_timeout: Seconds until every constructor must have returned.

        Raises:
            PlanError: There is no such tied group, or none would be left; or the group has ended.
            RecoveryError: There is no bundle for one that shall come back; nothing was changed.
            PreflightError: A node is not as the group needs it; what was started there was ended.
            WorkerGroupError: A worker failed to start; what was to be given up is given up.
        """
        self._check_start(start_timeout)
        with self._mending:
            self._refuse_if_ended()
            absent = self._health.absent
            serving = serving_groups(self.plan, absent)
            facts = ResizeFacts(
                live=self.backend.live_nodes(),
                landed=self.backend.landed(self._launched.again.groups),
            )
            plan = plan_resize(self.plan, tied_groups, self._generation + 1, serving, facts)
            if not plan.is_possible:
                raise RecoveryError.of(plan)
            self._end_ranks(plan)
            self._health.absent = absent.union(plan.end)
            self._health.mend(plan.end)
            self._start_ranks(plan, start_timeout)
            self._health.absent = absent_after(absent, plan)
            self._health.mend([each.rank for each in plan.start])
            return plan

    def _serving_mesh(self, name: str) -> NamedSharding:
        """The axes of calls on the whole group; all ranks' where those that serve have none."""
        mesh, key = self._call_state.meshes[name], (name, self._health.absent)
        if not self._health.absent:
            return mesh
        if key not in self._serving:
            self._serving[key] = serving_mesh(mesh, self._health.absent)
        return self._serving[key]

    def _recovery(self, timeout: float | None, wait: float) -> RecoveryPlan:
        ends = math.inf if timeout is None else self.backend.now() + timeout
        seen, live, nodes = self.status(timeout), self.backend.live_nodes(), self.identities.nodes
        alive = [
            rank
            for rank, actor in enumerate(self._launched.actors)
            if nodes[rank] in live and self.backend.death(actor) is None
        ]
        failed = failed_ranks(seen, self._health.broken(), self._health.absent, alive)
        lost = lost_nodes(nodes, failed, live)
        facts = RecoveryFacts(
            failed=failed,
            lost_nodes=lost,
            attempt=self._recoveries,
            free_slots=free_slots(
                self.backend,
                self._launched,
                lost,
                self._health.absent,
                max(0.0, min(wait, ends - self.backend.now())),
            ),
            absent=tuple(sorted(self._health.absent)),
        )
        return plan_recovery(self.plan, facts, self._health.policy, self._generation + 1)

    def _end_ranks(self, plan: RecoveryPlan) -> None:
        if plan.end:
            teardown = plan_teardown(self.plan, ranks=plan.end)
            actors: Mapping[int, Actor] = dict(enumerate(self._launched.actors))
            # What starts in the bundles again waits for them by itself.
            teardown = evolve(teardown, names=(), bundles=())
            carry_out_teardown(teardown, self.backend, actors, self.identities)
            self._health.mark_dead(plan.end, "they were ended for a recovery")

    def _start_ranks(self, plan: RecoveryPlan, start_timeout: float) -> None:
        if plan.start:
            self._generation = plan.generation
            launched = start_again(self.backend, self._launched, plan.start, start_timeout)
            if self._ended:
                # It was ended meanwhile: nobody would end these.
                fresh = {each.name: launched.actors[each.rank] for each in plan.start}
                end(self.backend, list(fresh.values()), list(fresh))
                self._refuse_if_ended()
            with self._sender.lock:
                self._adopt(launched)
            self._lane.roster = launched.identities
            self._lane.warm()
            self._health.plan = launched.plan

    def _check_start(self, start_timeout: float) -> None:
        findings = Findings(f"worker group {self.plan.group!r}")
        check_start_timeout(start_timeout, findings)
        findings.check()

    def _check_wait(self, timeout: float | None) -> None:
        self._refuse_if_ended()
        findings = Findings(f"worker group {self.plan.group!r}")
        check_end_arguments(timeout, False, findings)
        findings.check()

    def _chosen(self, ranks: Sequence[int] | None) -> Sequence[int]:
        if ranks is None:
            return range(self.plan.world_size)
        return chosen_ranks(ranks, self.plan)
