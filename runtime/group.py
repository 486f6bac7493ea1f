"""A group of workers: one per rank, called together."""

import atexit
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from planner.difference import PlanDifference
from planner.environment import EnvironmentPolicy
from planner.failure_policy import FailurePolicy
from planner.findings import CoordinateError, Finding, Findings, PlanError
from planner.group import group_subject
from planner.launch import LaunchPlan
from planner.mesh import NamedSharding
from planner.preflight import PreflightReport
from planner.teardown import TeardownReport
from planner.transports import started_for
from planner.whole_numbers import whole_number
from runtime.arguments import check_end_arguments, check_group_arguments, start_request
from runtime.backend import Actor, Backend, Cluster
from runtime.builder import RayWorkerBuilder
from runtime.call import Calls, new_call_state
from runtime.calls import Sender
from runtime.care import Care
from runtime.claim import Claim
from runtime.handle import WorkerHandle
from runtime.in_flight import MOST_CALLS
from runtime.launching import Launched
from runtime.places import PORTS, place_arguments
from runtime.preflight import checked_checks
from runtime.roster import Roster
from runtime.rounds import end_after
from runtime.runs import Runs
from runtime.starting import START_SECONDS, start_group

__all__ = ["RayWorkerGroup"]

_log = logging.getLogger("rankplan")


class RayWorkerGroup(Runs, Calls, Care):
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
        self._report: TeardownReport | None = None
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
            admit=self._admission.admit,
            sent=self._in_flight.sent,
            lock=self._calling,
        )

    @property
    def _target(self) -> Self:
        return self

    @property
    def name(self) -> str:
        """The group's name: the first part of its workers' names."""
        return self.plan.group

    @property
    def plan(self) -> LaunchPlan:
        """What was carried out: every rank, its place, its environment."""
        return self._launched.plan

    @property
    def preflight(self) -> PreflightReport:
        """What was checked before any constructor ran."""
        return self._launched.preflight

    @property
    def difference(self) -> PlanDifference | None:
        """What differs from ``expected_plan``; None when none was given."""
        return self._launched.difference

    @property
    def cluster(self) -> Cluster:
        """Where the workers run."""
        return self._cluster

    @property
    def backend(self) -> Backend:
        """What carries its plans out."""
        return self._cluster.backend

    @property
    def sharding_annotations(self) -> NamedSharding | None:
        """The axes of the group."""
        return self.plan.mesh

    @property
    def world_size(self) -> int:
        """How many workers there are."""
        return self.plan.world_size

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

    @property
    def identities(self) -> Roster:
        """Who each rank is: coordinates, node, GPU and pid."""
        return self._launched.identities

    @property
    def worker_metadata(self) -> list[dict[str, Any]]:
        """Per worker its place, as the reference tells it; fresh dictionaries in rank order."""
        return [
            {
                "node_idx": worker.node,
                "local_rank": worker.node_local_rank,
                "global_rank": worker.rank,
                "name": worker.name,
                "bundle_indices": (
                    None
                    if worker.tied_bundles is None
                    else (worker.node, list(worker.tied_bundles))
                ),
                "dp_shard_idx": worker.data_parallel_shard,
            }
            for worker in self.plan.workers
        ]

    @property
    def dp_size(self) -> int:
        """How many data-parallel shards there are: the axis says so; without one, tied groups."""
        return len(self.plan.leaders)

    @property
    def dp_leader_worker_indices(self) -> list[int]:
        """The rank that leads each data-parallel shard."""
        return list(self.plan.leaders)

    def get_dp_leader_worker_idx(self, dp_shard_idx: int) -> int:
        """The rank that leads one data-parallel shard.

        Raises:
            CoordinateError: (an ``IndexError``) There is no such shard.
        """
        shard = whole_number(dp_shard_idx)
        if shard is None or not 0 <= shard < self.dp_size:
            raise CoordinateError(
                f"worker group {self.name!r}",
                [
                    Finding(
                        "dp_shard_idx",
                        f"{dp_shard_idx!r} of {self.dp_size} data-parallel shards",
                        f"give 0 to {self.dp_size - 1}",
                    )
                ],
            )
        return self.plan.leaders[shard]

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
        if self._ended and self._report is not None:
            return True
        findings = Findings(f"worker group {self.name!r}")
        check_end_arguments(timeout, force, findings)
        if cleanup_method is not None and force is not True:
            try:
                self._sender.method(cleanup_method, 0, ())
            except PlanError as error:
                findings.include(error)
        findings.check()
        return self._end(None if force else cleanup_method, timeout).went_well

    def _end(self, cleanup_method: str | None, timeout: float | None) -> TeardownReport:
        if self._ended and self._report is not None:
            return self._report
        if cleanup_method is not None:
            self._sender.method(cleanup_method, 0, ())
        self._ended = True
        self._admission.end()
        _live.discard(self)
        try:
            self._report = self._carry_out_end(cleanup_method, timeout)
        finally:
            self._claim.give_back()
            PORTS.release(self.plan)
        return self._report

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
        if not getattr(self, "_ended", True) and self.backend.is_up:
            self.shutdown(force=True)

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
