"""A launch as a value: every rank, its place, and what it is told."""

from functools import cached_property

from attrs import field, frozen

from planner.accelerators import GpuVisibility
from planner.affinity import Affinity
from planner.environment import GroupEnvironment
from planner.group import WorkerOverrides
from planner.interpreter import Interpreter
from planner.locality import Locality
from planner.mesh import NamedSharding
from planner.options import JsonObject

__all__ = ["LaunchPlan", "Rendezvous", "WorkerPlan"]


@frozen(kw_only=True)
class Rendezvous:
    """Where ``torch.distributed`` meets: rank 0's address, and the port that rank 0 holds.

    Attributes:
        address: ``MASTER_ADDR``.
        port: ``MASTER_PORT``; None until rank 0 is up.
    """

    address: str
    port: int | None


@frozen(kw_only=True)
class WorkerPlan:
    """One rank: where it runs and what it is told.

    Attributes:
        rank: Its global rank.
        name: Its actor's name.
        tied_group: Its tied group.
        member: Its place in the tied group; 0 leads.
        data_parallel_shard: Its data-parallel coordinate; its tied group when there is no
            data-parallel axis.
        node: The node index in the caller's terms.
        placement_group: Index of its placement group.
        bundle: Index of its bundle.
        tied_bundles: The bundles of its tied group; None for members that do not lead.
        gpu_share: In ten-thousandths of a GPU.
        node_id: Its node.
        node_rank: Its node's place among the group's nodes.
        node_local_rank: Its place among the group's ranks on its node.
        local_world_size: How many ranks of the group its node has.
        local_rank: ``LOCAL_RANK``: which of the visible devices is its own.
        address: Its node's address.
        gpus: Ids of its GPUs.
        visible: Ids of the GPUs that its process sees, in order; None leaves that to Ray.
        device_variable: The variable that lists ``visible``.
        overrides: What ``configure_worker`` asked for.
        domain: Its node's NVLink domain, where it is known.
        ports: The first and the last port that are its own; None when none were asked for.
        affinity: The cores and memory that it is bound to; None when it is not bound.
        profiler: What its runtime environment holds for a profiler; empty without one.
        uuids: Hardware ids of its GPUs, where they are known.
    """

    rank: int
    name: str
    tied_group: int
    member: int
    data_parallel_shard: int
    node: int
    placement_group: int
    bundle: int
    tied_bundles: tuple[int, ...] | None
    gpu_share: int
    node_id: str
    node_rank: int
    node_local_rank: int
    local_world_size: int
    local_rank: int
    address: str
    gpus: tuple[str, ...]
    visible: tuple[str, ...] | None
    device_variable: str
    overrides: WorkerOverrides | None = None
    domain: str | None = None
    ports: tuple[int, int] | None = None
    affinity: Affinity | None = None
    profiler: JsonObject = JsonObject()
    uuids: tuple[str, ...] = ()

    @property
    def is_leader(self) -> bool:
        """Whether it leads its tied group."""
        return self.member == 0


@frozen(kw_only=True)
class LaunchPlan:
    """A worker group, complete: every rank, its place, its environment.

    Attributes:
        group: The group's name.
        worker_class: Full name of the worker's class.
        interpreter: What the hosts run in.
        gpu_visibility: Which GPUs of its node a worker sees.
        asynchronous: Whether hosts run on an event loop.
        mesh: The group's axes, or None.
        leaders: For each data-parallel shard, the rank that leads it.
        rendezvous: Where the ranks meet.
        environment: What all workers share; ``environment_of`` adds what a rank is told.
        runtime_env: Ray's runtime environment, shared by all hosts.
        options: Further actor options of the hosts.
        workers: One per rank, in rank order.
        notes: What a reader should know.
        localities: How close the ranks along an axis must be, by axis name.
    """

    group: str
    worker_class: str
    interpreter: Interpreter
    gpu_visibility: GpuVisibility
    asynchronous: bool
    mesh: NamedSharding | None
    leaders: tuple[int, ...]
    rendezvous: Rendezvous
    environment: GroupEnvironment
    runtime_env: JsonObject
    options: JsonObject
    workers: tuple[WorkerPlan, ...]
    notes: tuple[str, ...] = field(default=())
    localities: tuple[tuple[str, Locality], ...] = ()

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return len(self.workers)

    @cached_property
    def node_count(self) -> int:
        """How many nodes the group is on."""
        return 1 + max(worker.node_rank for worker in self.workers)
