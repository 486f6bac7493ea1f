"""A group of workers: one per rank, called together."""

import atexit
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from attrs import evolve

from planner.environment import EnvironmentPolicy
from planner.failure_policy import FailurePolicy
from planner.findings import Findings
from planner.group import group_subject
from planner.launch import LaunchPlan
from planner.mesh import NamedSharding
from planner.teardown import TeardownReport
from planner.transports import started_for
from runtime.arguments import check_group_arguments, start_request
from runtime.backend import Actor, Backend, Cluster
from runtime.builder import RayWorkerBuilder
from runtime.call import Calls, new_call_state
from runtime.calls import Sender
from runtime.care import Care
from runtime.claim import Claim
from runtime.ending import Ending
from runtime.handle import WorkerHandle
from runtime.in_flight import MOST_CALLS
from runtime.launching import Launched
from runtime.membership import Membership
from runtime.places import PORTS, place_arguments
from runtime.preflight import checked_checks
from runtime.rounds import end_after
from runtime.runs import Runs
from runtime.starting import START_SECONDS, start_group
from runtime.teardown import Course

__all__ = ["RayWorkerGroup"]

_log = logging.getLogger("rankplan")


class RayWorkerGroup(Membership, Runs, Calls, Care):
    """Workers of one class, one per rank, on the bundles of a cluster.

    Starts all workers at the same time and returns when every constructor has returned. When
    anything fails on the way, everything started is ended and one error names the ranks.
    A context manager: leaving it ends the workers.

    Args:
        cluster: Where they run.
        remote_worker_builder: Their class and its constructor's arguments.
        workers_per_node: None for every bundle, a number for that many on every placement
            group, or a list with one number per placement group.
        name_prefix: First part of the workers' names; empty takes the class's name.
        bundle_indices_list: Tied groups, ``[(node_idx, [bundle, ...]), ...]``; overrides
            ``workers_per_node``.
        sharding_annotations: The axes of the group.
        env_vars: Variables of the workers' environment.
        gpu_visibility: Which GPUs of its node a worker sees: ``"isolated"`` (its own, as device
            0), ``"shared"`` (the group's on the node) or ``"unmasked"`` (all).
        environment_policy: What of the driver's environment workers inherit.
        force_env_vars: Variables that win over the plan's own, even ``RANK``.
        asynchronous: Whether the class has ``async`` methods; None finds out.
        start_timeout: Seconds from the first host until every constructor must have returned.
            Building an environment and importing the class before that have their own limits.
        localities: How close the ranks along an axis must be: axis name to ``"same_node"``,
            ``"same_domain"`` or ``"anywhere"``.
        ports_per_worker: How many ports in a row each worker gets, as ``RANKPLAN_PORTS``.
        ports_per_engine: How many each tied group gets on each of its nodes.
        numa_binding: Bind each worker to the cores and memory close to its GPU.
        profile: Patterns of worker names, with what a profiler needs in the runtime environment.
        preflight: True checks everything before any constructor runs, False nothing, None all
            but whether a single node reaches itself.
        free_gpu_memory: What must be free on every GPU before any constructor runs, in bytes or
            as text (``"60GiB"``); a GPU on which others hold too much fails the preflight.
        expected_plan: A prediction; the start stops when something it promised does not hold.
        failure_policy: What a failure of some ranks means for the others, and how often the
            group may be recovered.
        max_calls_in_flight: How many calls may be under way, each rank's counted by itself; one
            more is a ``TooManyCallsError``, and nothing is sent. At least one for each worker.
        tensor_transport: Start the group for a direct transport, ``"gloo"``, by which results can
            go to linked groups past the object store; methods then run beside the main thread.

    Raises:
        PlanError: An argument is wrong; nothing was started.
        PreflightError: A node is not as the plan needs it.
        DifferenceError: Something that ``expected_plan`` promised does not hold.
        WorkerGroupError: A worker failed to start; of its exception's own type too.
        DeadlineError: Not every constructor returned in time.
    """

    def __init__(
        self,
        cluster: Cluster,
        remote_worker_builder: RayWorkerBuilder,
        workers_per_node: int | Sequence[int] | None = None,
        name_prefix: str = "",
        bundle_indices_list: Sequence[tuple[int, Sequence[int]]] | None = None,
        sharding_annotations: NamedSharding | None = None,
        env_vars: Mapping[str, str] | None = None,
        *,
        gpu_visibility: str = "isolated",
        environment_policy: EnvironmentPolicy | None = None,
        force_env_vars: Mapping[str, str] | None = None,
        asynchronous: bool | None = None,
        start_timeout: float = START_SECONDS,
        localities: Mapping[str, str] | None = None,
        ports_per_worker: int = 0,
        ports_per_engine: int = 0,
        numa_binding: bool = False,
        profile: Mapping[str, Mapping[str, object]] | Sequence[str] | None = None,
        preflight: bool | None = None,
        free_gpu_memory: int | str | None = None,
        expected_plan: LaunchPlan | None = None,
        failure_policy: FailurePolicy | None = None,
        max_calls_in_flight: int = MOST_CALLS,
        tensor_transport: str | None = None,
    ) -> None:
        self._ended = True
        named = getattr(remote_worker_builder, "ray_actor_class_fqn", None)
        findings = Findings(group_subject(name_prefix, named))
        check_group_arguments(
            findings,
            cluster=cluster,
            builder=remote_worker_builder,
            env_vars=env_vars,
            force_env_vars=force_env_vars,
            policy=environment_policy,
            asynchronous=asynchronous,
            start_timeout=start_timeout,
            failure_policy=failure_policy,
            max_calls_in_flight=max_calls_in_flight,
        )
        claim = Claim(cluster)
        request = start_request(
            cluster,
            remote_worker_builder,
            workers_per_node=workers_per_node,
            bundle_indices_list=bundle_indices_list,
            name_prefix=name_prefix,
            mesh=sharding_annotations,
            gpu_visibility=gpu_visibility,
            env_vars=env_vars,
            force_env_vars=force_env_vars,
            policy=environment_policy,
            asynchronous=asynchronous,
            start_timeout=start_timeout,
            places=place_arguments(
                localities=localities,
                ports_per_worker=ports_per_worker,
                ports_per_engine=ports_per_engine,
                numa_binding=numa_binding,
                profile=profile,
            ),
            checks=checked_checks(preflight, expected_plan, free_gpu_memory, findings),
            claim=claim.take,
            max_calls_in_flight=max_calls_in_flight,
            tensor_transport=tensor_transport,
        )
        try:
            launched = start_group(request, findings)
        except BaseException:
            claim.give_back()
            raise
        self._cluster, self._claim = cluster, claim
        kept = failure_policy or FailurePolicy()
        launched = evolve(launched, identities=evolve(launched.identities, grace=kept.grace))
        self._launched = launched
        self._calling = threading.RLock()
        try:
            self._take_care(kept, max_calls_in_flight)
        except BaseException as error:
            workers = zip(launched.plan.workers, launched.actors, strict=True)
            actors = {worker.name: actor for worker, actor in workers}
            if "_lane" in vars(self):
                actors.update(self._lane.close())
            end_after(error, cluster.backend, launched.plan.group, actors)
            claim.give_back()
            PORTS.release(launched.plan)
            raise
        self._adopt(launched)
        self._call_state = new_call_state(
            cluster.backend,
            launched.plan.mesh,
            launched.plan.world_size,
            launched.methods.values(),
            started_for(launched.plan.options),
        )
        self._ended = False
        _live.add(self)

    def _adopt(self, launched: Launched) -> None:
        plan, self._launched = launched.plan, launched
        self._admission.adopt(launched.actors)
        self._handles = [
            WorkerHandle(actor, worker.name, launched.described, self._admission.gate(worker.rank))
            for actor, worker in zip(launched.actors, plan.workers, strict=True)
        ]
        self._sender = Sender(
            group=plan.group,
            worker_class=plan.worker_class,
            mesh=plan.mesh,
            methods=launched.methods,
            actors=launched.actors,
            backend=self.backend,
            look=self._admission.look,
            admit=self._admission.admit,
            sent=self._in_flight.sent,
            lock=self._calling,
        )

    @property
    def _target(self) -> Self:
        return self

    @property
    def cluster(self) -> Cluster:
        """Where the workers run."""
        return self._cluster

    @property
    def backend(self) -> Backend:
        """What carries its plans out."""
        return self._cluster.backend

    @property
    def workers(self) -> list[WorkerHandle]:
        """The workers in rank order; every method of their class is called on them.

        Such calls count among those in flight and are refused as the group's own are. Calls that
        pass by the group, such as those to a worker while others are broken, are made on
        ``actors``: ``group.actors[rank].call.remote("method", ...)``.
        """
        return list(self._handles)

    @property
    def actors(self) -> list[Actor]:
        """Ray's own handles of the host actors, in rank order."""
        return list(self._launched.actors)

    def shutdown(
        self, cleanup_method: str | None = None, timeout: float | None = 30.0, force: bool = False
    ) -> bool:
        """End the workers; a second call does nothing and is True.

        Args:
            cleanup_method: Called on every worker first.
            timeout: Seconds it may take; None waits without end.
            force: End the workers at once, without calling it.

        Returns:
            Whether everything ended well. One dead worker does not keep the others.

        Raises:
            PlanError: The worker's class has no such method, ``timeout`` is not a time, or
                ``force`` no truth value; nothing was ended.
        """
        if self._ending.report is not None:
            return True
        self._check_end(cleanup_method, timeout, force=force)
        return self._end(None if force else cleanup_method, timeout, at_once=force).went_well

    def _end(
        self, cleanup_method: str | None, timeout: float | None, *, at_once: bool = False
    ) -> TeardownReport:
        step = partial(self._end_once, cleanup_method, timeout)
        return self._ending.carried_out(step, self._cut_end_short if at_once else None)

    def _end_once(self, cleanup_method: str | None, timeout: float | None, course: Course) -> None:
        try:
            with self._ending.turn:
                self._ended = True
            self._admission.end()
            self._carry_out_end(course, cleanup_method, timeout)
        finally:
            if not (course.is_over or course.report.ended):
                self._cut_end_short()
            self._claim.give_back()
            PORTS.release(self.plan)
            if course.is_over:
                _live.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(force=True)

    def __del__(self) -> None:
        is_mine = not getattr(self, "_ended", True) or self._is_left_undone
        if is_mine and self.backend.is_up:
            self.shutdown(force=True)

    @property
    def _is_left_undone(self) -> bool:
        ending: Ending | None = vars(self).get("_ending")
        return ending is not None and ending.is_left_undone

    def __repr__(self) -> str:
        if self._ended:
            return "<RayWorkerGroup, ended>"
        return f"<RayWorkerGroup {self.name!r}: {self.world_size} x {self.plan.worker_class}>"


_live: "weakref.WeakSet[RayWorkerGroup]" = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for group in list(_live):
        try:
            if group.backend.is_up:
                group.shutdown(force=True)
        except Exception:  # noqa: BLE001  # the groups after it must still be ended
            _log.exception("worker group %r: ending it with the program failed", group.name)
