"""What a worker group offers around failures: how it is, abort, recovery, and its end."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve

from planner.findings import Findings
from planner.liveness import WorkerStatus, known_states
from planner.mesh import NamedSharding
from planner.recovery import (
    FailurePolicy,
    RecoveryPlan,
    failed_ranks,
    plan_recovery,
)
from planner.resizing import ResizeFacts, absent_after, plan_resize, serving_groups, serving_mesh
from planner.signatures import check_call
from planner.teardown import (
    TeardownPlan,
    TeardownReport,
    plan_teardown,
    report_of_lost_session,
)
from runtime.admission import Admission
from runtime.arguments import (
    check_end_arguments,
    check_restore,
    check_start_timeout,
    check_wait,
)
from runtime.backend import Actor
from runtime.call_sending import CallState
from runtime.calls import Sender
from runtime.claim import Claim
from runtime.ending import Ending, Session
from runtime.handle import WorkerHandle
from runtime.health import Health
from runtime.in_flight import InFlight
from runtime.lane import Lane
from runtime.launching import Launched
from runtime.looking import Looking
from runtime.places import PORTS
from runtime.recovering import RecoveryError, back_off, recovery_facts, start_again
from runtime.roster import Roster
from runtime.teardown import Course, carry_out_teardown, end, kill_each

__all__ = ["Care"]

_log = logging.getLogger("rankplan")

RESTART_SECONDS = 600.0
"""How long a recovery may take until every constructor has returned."""

NODE_SECONDS = 30.0
"""How long a recovery waits for the cluster to give a lost node's bundles to another."""

LAST_LOOK_SECONDS = 5.0
"""How long looking at the ranks may take before they are ended."""


class Care(Looking):
    """The part of ``RayWorkerGroup`` that deals with failures."""

    _claim: Claim
    _handles: list[WorkerHandle]
    _ended: bool
    _health: Health
    _in_flight: InFlight
    _sender: Sender
    _calling: threading.RLock
    _call_state: CallState
    _generation: int
    _recoveries: int

    @property
    def identities(self) -> Roster:
        """Who each rank is: coordinates, node, GPU and pid."""
        return self._launched.identities

    def _adopt(self, launched: Launched) -> None:
        raise NotImplementedError

    def _take_care(self, policy: FailurePolicy, calls: int) -> None:
        self._in_flight = InFlight(self.backend, self.plan.group, calls, self.plan.world_size)
        self._generation = self._recoveries = 0
        self._serving: dict[tuple[str, frozenset[int]], NamedSharding] = {}
        self._mending = threading.RLock()
        self._session = Session(self.backend, self.plan.group, self.backend.session)
        self._ending = Ending(self.plan.group)
        self._lane = Lane(self.backend, self.plan.group, self.identities)
        self._health = Health(self.plan, policy, self.backend, self._lane)
        self._admission = Admission(
            self.backend, self._health, self._in_flight, self._calling, self._session
        )
        self._lane.warm()
        self.identities.listeners.append(self._health.note)
        self.identities.readers.append(self._lane.remains)
        self.identities.lookers.append(self._admission.fallen)

    @property
    def failure_policy(self) -> FailurePolicy:
        """What it does when some of its ranks fail; another one counts from when it is set.

        It is set with ``group.failure_policy = attrs.evolve(group.failure_policy, budget=9)``,
        which waits for a recovery that is under way.

        Raises:
            PlanError: What is set is no ``FailurePolicy``.
        """
        return self._health.policy

    @failure_policy.setter
    def failure_policy(self, policy: FailurePolicy) -> None:
        given: object = policy
        if not isinstance(given, FailurePolicy):
            Findings(f"worker group {self.plan.group!r}").fail(
                "failure_policy", f"a value of type {type(given).__name__}", "give a FailurePolicy"
            )
        with self._mending:
            self._health.policy = policy
            identities = evolve(self.identities, grace=policy.grace)
            self._launched = evolve(self._launched, identities=identities)
            self._lane.roster = identities

    @property
    def broken(self) -> tuple[int, ...]:
        """The ranks that are known to be dead, or still in a call that failed elsewhere."""
        return self._health.broken()

    def end(
        self, cleanup_method: str | None = None, timeout: float | None = 30.0
    ) -> TeardownReport:
        """End the workers and report on it.

        It is done once: a second call gives the first one's report, and waits for it while
        another thread is at it. After an end that was interrupted it does the rest. When the Ray
        session in which the workers ran is over, nothing is done, and the report says so.

        Args:
            cleanup_method: Called on every worker first.
            timeout: Seconds that it may take; None waits without end.

        Raises:
            PlanError: The class has no such method, or ``timeout`` is not a time; nothing was
                ended.
        """
        if (report := self._ending.report) is not None:
            return report
        self._check_end(cleanup_method, timeout, force=False)
        return self._end(cleanup_method, timeout)

    def _end(self, cleanup_method: str | None, timeout: float | None) -> TeardownReport:
        raise NotImplementedError

    def _check_end(self, cleanup: object, timeout: object, *, force: object) -> None:
        findings = Findings(f"worker group {self.plan.group!r}")
        check_end_arguments(timeout, force, findings)
        if cleanup is not None and force is not True:
            sender = self._sender
            check_call(sender.methods, sender.worker_class, cleanup, 0, (), findings)
        findings.check()

    def _carry_out_end(self, course: Course, cleanup: str | None, grace: float | None) -> None:
        launched, before = self._launched, course.report

        def planned(seen: Sequence[WorkerStatus] | None) -> TeardownPlan:
            states = known_states(seen, self._health.dead())
            return plan_teardown(
                launched.plan,
                states,
                cleanup=cleanup,
                grace=grace,
                absent=self._health.absent,
                before=before,
            )

        plan = planned(None)
        if self._session.is_over:
            course.report, course.is_over = report_of_lost_session(plan, before), True
            return
        looks = cleanup is not None and self._lane.is_warm
        carry_out_teardown(
            plan,
            self.backend,
            dict(enumerate(launched.actors)),
            launched.identities,
            launched.again.groups,
            self._claim.workers_beside,
            course=course,
            look=(lambda: planned(self._lane.status(LAST_LOOK_SECONDS))) if looks else None,
            companions=self._lane.close,
        )

    def _cut_end_short(self) -> None:
        if not self._session.is_over:
            first, *others = self._launched.actors
            kill_each(self.backend, self.plan.group, [*others, first])

    def plan_recovery(self, timeout: float | None = None) -> RecoveryPlan:
        """What ``recover`` would do now; changes nothing.

        Unlike ``recover`` it does not wait for the cluster to give the bundles of a lost node to
        another: until it has, the plan says that they are missing.

        Args:
            timeout: Seconds that looking at the ranks may take; None waits 30 s.

        Raises:
            PlanError: ``timeout`` is not a time, or the group has ended.
        """
        self._check_wait(timeout)
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

        Until it returns, calls to the ranks that it is about are refused, but for those that
        ``restore`` makes: in the thread that it runs in, its tasks and ``asyncio.to_thread``.
        A recovery counts from when it ends the first rank, also when it fails after that; one
        that is refused, or interrupted in the pause before, does not.

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
            PlanError: An argument is wrong, or the group has ended; nothing was changed.
            Exception: What ``restore`` raised. The ranks that were started count as broken then:
                the next recovery starts them again.
        """
        findings = Findings(f"worker group {self.plan.group!r}")
        check_start_timeout(start_timeout, findings)
        check_wait(timeout, findings)
        check_restore(restore, findings)
        findings.check()
        with self._mending:
            plan = self._recovery(timeout, NODE_SECONDS if timeout is None else math.inf)
            if not plan.is_possible:
                raise RecoveryError.of(plan)
            if plan.end or plan.start:
                back_off(self.backend, plan)
                ranks = [*plan.end, *(each.rank for each in plan.start)]
                with self._health.mending(ranks):
                    self._recoveries += 1
                    self._end_ranks(plan)
                    self._start_ranks(plan, start_timeout)
                    self._health.mend(ranks)
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
            # Before they end: whoever waits for those that stay must not take it for a failure.
            self._health.absent = absent.union(plan.end)
            self._end_ranks(plan)
            self._health.mend(plan.end)
            self._start_ranks(plan, start_timeout)
            self._health.absent = absent_after(absent, plan)
            self._health.mend([each.rank for each in plan.start])
            return plan

    def _serving_mesh(self, name: str) -> NamedSharding:
        """The axes of calls on the whole group; all ranks' where those that serve have none."""
        mesh, absent = self._call_state.meshes[name], self._health.absent
        if not absent:
            return mesh
        key = name, absent
        if key not in self._serving:
            self._serving[key] = serving_mesh(mesh, absent)
        return self._serving[key]

    def _recovery(self, timeout: float | None, wait: float) -> RecoveryPlan:
        ends = math.inf if timeout is None else self.backend.now() + timeout
        seen, live, nodes = self.status(timeout), self.backend.live_nodes(), self.identities.nodes
        alive = [
            rank
            for rank, actor in enumerate(self._launched.actors)
            if nodes[rank] in live and self.backend.death(actor) is None
        ]
        absent = self._health.absent
        failed = failed_ranks(seen, self._health.broken(), absent, alive)
        left = max(0.0, min(wait, ends - self.backend.now()))
        facts = recovery_facts(self.backend, self._launched, failed, absent, self._recoveries, left)
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
            self._refuse_if_ended()
            self._generation = plan.generation
            launched = start_again(self.backend, self._launched, plan.start, start_timeout)
            with self._sender.lock, self._ending.turn:
                if not self._ended:
                    self._adopt(launched)
                is_late = self._ended
            if is_late:
                # It was ended meanwhile: nobody would end these.
                fresh = {each.name: launched.actors[each.rank] for each in plan.start}
                try:
                    end(self.backend, list(fresh.values()), list(fresh))
                finally:
                    PORTS.release(launched.plan)
                self._refuse_if_ended()
            self._lane.roster = launched.identities
            self._lane.warm()
            self._health.plan = launched.plan

    def _check_start(self, start_timeout: float) -> None:
        findings = Findings(f"worker group {self.plan.group!r}")
        check_start_timeout(start_timeout, findings)
        findings.check()
