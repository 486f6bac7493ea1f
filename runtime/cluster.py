"""A reservation of bundles on a Ray cluster."""

import atexit
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from ray.util.placement_group import PlacementGroup

from planner.findings import Findings
from planner.gpu_ledger import BundleShare
from planner.inventory import BundleFacts, Inventory
from planner.node_choice import places_of, remaining_nodes
from planner.topology import sort_bundles
from planner.virtual_cluster import ClusterSpec, checked_strategy, plan_cluster
from planner.whole_numbers import whole_number
from runtime.backend import Backend
from runtime.claim import Claims
from runtime.observe import observe_bundles
from runtime.probes import free_address, gpus_of_bundles
from runtime.ray_backend import RAY
from runtime.ray_session import check_up
from runtime.reserving import READY_SECONDS, Reserved, are_removed, remove, reserve

__all__ = ["RayVirtualCluster"]


class RayVirtualCluster:
    """A reservation of bundles, made at first use and given back by ``shutdown``.

    A bundle holds ``max_colocated_worker_groups`` CPUs and one GPU (none when ``use_gpus`` is
    false), or what ``bundle_resources`` says beside the GPU. Bundles are reserved per node, each
    node's in a placement group of its own that never leaves one machine; or, for models that
    span nodes, in one unified placement group.
    A context manager: leaving it gives the bundles back.

    Args:
        bundle_ct_per_node_list: How many bundles each node gives; 0 makes no placement group.
        use_gpus: Whether a bundle holds a GPU.
        max_colocated_worker_groups: How many groups may share the bundles, each with an equal
            share of every GPU. Without GPUs it is only the number of CPUs in a bundle: how many
            of them a worker takes, its class or its options say.
        num_gpus_per_node: How many GPUs a node has; workers that ask are told.
        name: First part of the placement groups' names.
        placement_group_strategy: Ray's strategy for a unified placement group.
        segment_size: Use nodes of whole NVLink segments of this many nodes.
        topology: Node id to (NVLink domain, topology rank): only these nodes are used. None
            takes every node, and its place from its labels (``ray.io/gpu-domain`` and
            ``rankplan/topology-rank``).
        node_selector: Label to expression (``v``, ``!v``, ``in(a, b)``, ``!in(a, b)``) that
            every node must obey.
        exclude_nodes: Ids or addresses of nodes that are not used.
        ready_timeout: Seconds to wait for resources that others hold, or that no node has yet.
        bundle_resources: What each bundle holds beside its GPU: ``"CPU"`` (in the place of one
            for each colocated group), ``"memory"`` in bytes or as text (``"16GiB"``), and custom
            resources by their names. Workers take of it what their class or its options ask for.

    Raises:
        PlanError: An argument is wrong; every finding is in the error.
    """

    def __init__(
        self,
        bundle_ct_per_node_list: Sequence[int],
        use_gpus: bool = True,
        max_colocated_worker_groups: int = 1,
        num_gpus_per_node: int = 8,
        name: str = "",
        placement_group_strategy: str = "SPREAD",
        *,
        segment_size: int | None = None,
        topology: Mapping[str, tuple[str, int]] | None = None,
        node_selector: Mapping[str, str] | None = None,
        exclude_nodes: Sequence[str] | None = None,
        ready_timeout: float = READY_SECONDS,
        bundle_resources: Mapping[str, float | str] | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._reserved: Reserved | None = None
        self._session = ""
        self._unified = False
        self._sorted: list[int] | None = None
        self._spec = plan_cluster(
            bundle_ct_per_node_list=bundle_ct_per_node_list,
            use_gpus=use_gpus,
            max_colocated_worker_groups=max_colocated_worker_groups,
            num_gpus_per_node=num_gpus_per_node,
            name=name,
            strategy=placement_group_strategy,
            segment_size=segment_size,
            topology=topology,
            node_selector=node_selector,
            exclude_nodes=exclude_nodes,
            ready_timeout=ready_timeout,
            bundle_resources=bundle_resources,
        )
        self._ready_timeout = ready_timeout
        self._claims = Claims(self._spec)
        _live.add(self)

    @property
    def spec(self) -> ClusterSpec:
        """What is reserved, as data."""
        return self._spec

    @property
    def backend(self) -> Backend:
        """What carries plans out on it."""
        return RAY

    @property
    def name(self) -> str:
        """First part of the placement groups' names."""
        return self._spec.name

    @property
    def use_gpus(self) -> bool:
        """Whether a bundle holds a GPU."""
        return self._spec.use_gpus

    @property
    def num_gpus_per_node(self) -> int:
        """How many GPUs a node has."""
        return self._spec.num_gpus_per_node

    @property
    def max_colocated_worker_groups(self) -> int:
        """How many groups may share the bundles."""
        return self._spec.max_colocated_worker_groups

    def world_size(self) -> int:
        """How many bundles there are."""
        return sum(self._spec.bundle_counts)

    def node_count(self) -> int:
        """How many nodes give bundles."""
        return sum(1 for count in self._spec.bundle_counts if count)

    def get_placement_groups(self) -> list[PlacementGroup]:
        """The placement groups; reserved now, per node, when they are not yet.

        Raises:
            ExecutionError: This process is not connected to Ray.
            ResourceInsufficientError: The cluster does not have what was asked for.
            TimeoutError: They fit, but did not become ready in time; they were removed.
        """
        return self._init_placement_groups()

    def _init_placement_groups(
        self,
        strategy: str | None = None,
        use_unified_pg: bool = False,
    ) -> list[PlacementGroup]:
        """Reserve, per node or unified; what is reserved already is returned as it is."""
        with self._lock:
            findings = Findings(f"virtual cluster {self.name!r}")
            known = checked_strategy("strategy", strategy or self._spec.strategy, findings)
            unified: object = use_unified_pg
            if not isinstance(unified, bool):
                problem = f"{unified!r} is not a truth value"
                findings.add("use_unified_pg", problem, "give True or False")
            findings.check()
            if self._session != RAY.session:
                # What was reserved in another session is gone with it.
                self._forget()
            if self._reserved is None:
                check_up(f"virtual cluster {self.name!r}")
                self._reserved = reserve(
                    self._spec,
                    unified=use_unified_pg,
                    strategy=known,
                    ready_timeout=self._ready_timeout,
                )
                self._unified, self._session = use_unified_pg, RAY.session
            return list(self._reserved.groups)

    @property
    def bundle_counts(self) -> tuple[int, ...]:
        """How many bundles each placement group has, or will have; reserves nothing."""
        counts = tuple(count for count in self._spec.bundle_counts if count)
        return (sum(counts),) if self._unified else counts

    @property
    def is_unified(self) -> bool:
        """Whether all bundles are in one placement group over all nodes."""
        return self._unified

    @property
    def bundle_facts(self) -> tuple[BundleFacts, ...]:
        """On which node each bundle landed."""
        return observe_bundles(self.get_placement_groups())

    @property
    def inventory(self) -> Inventory:
        """The nodes that may be used, as they were when the bundles were reserved."""
        return self._made().inventory

    @property
    def places(self) -> tuple[tuple[str, str | None, int | None], ...]:
        """Node id, NVLink domain and topology rank of every node of which something is known."""
        return places_of(self.inventory)

    @property
    def remaining_topology(self) -> dict[str, tuple[str, int]]:
        """The nodes that may be used and are not: the ``topology`` of the next reservation."""
        reserved = self._made()
        return remaining_nodes(reserved.inventory, {each.node_id for each in reserved.facts})

    def _made(self) -> Reserved:
        with self._lock:
            self.get_placement_groups()
            if self._reserved is None:
                raise RuntimeError("the reservation was given back meanwhile")
            return self._reserved

    @property
    def _sorted_bundle_indices(self) -> list[int] | None:
        """The bundles of a unified placement group by node, then GPU id; None per node."""
        with self._lock:
            groups = self.get_placement_groups()
            if not self._unified:
                return None
            if self._sorted is None:
                facts = self.bundle_facts
                if self.use_gpus:
                    facts = gpus_of_bundles(groups, facts)
                topology = {node_id: (domain, rank) for node_id, domain, rank in self.places}
                self._sorted = [each.bundle for each in sort_bundles(facts, topology)]
            return list(self._sorted)

    def get_available_address_and_port(self, pg_idx: int, bundle_idx: int) -> tuple[str, int]:
        """The address of a bundle's node and a port that is free there at this moment.

        The port is not held, so another process may take it before it is used; the rendezvous
        port of a worker group is (``RayWorkerGroup`` needs no call of this method).

        Raises:
            PlanError: There is no such placement group or bundle.
        """
        groups = self.get_placement_groups()
        findings = Findings(f"virtual cluster {self.name!r}")
        place, bundle = whole_number(pg_idx), whole_number(bundle_idx)
        if place is None or not 0 <= place < len(groups):
            findings.fail(
                "pg_idx",
                f"{pg_idx!r} of {len(groups)} placement groups",
                f"give 0 to {len(groups) - 1}",
            )
        bundles = groups[place].bundle_count
        if bundle is None or not 0 <= bundle < bundles:
            findings.fail(
                "bundle_idx", f"{bundle_idx!r} of {bundles} bundles", f"give 0 to {bundles - 1}"
            )
        return free_address(groups[place], bundle)

    def get_master_address_and_port(self) -> tuple[str, int]:
        """The address of the first bundle's node and a port that is free there at this moment."""
        facts = self.bundle_facts
        topology = {node_id: (domain, rank) for node_id, domain, rank in self.places}
        first = sort_bundles(facts, topology)[0].bundle if self._unified else 0
        return self.get_available_address_and_port(0, first)

    def claim(self, group: str, shares: Sequence[BundleShare]) -> str:
        """Note what a group takes of the bundles; gives the key to release it by.

        Raises:
            PlanError: What is taken of some bundle would add up to more than it holds.
        """
        return self._claims.claim(group, shares)

    def release(self, group: str) -> None:
        """Note that a group has ended; does nothing where that is known."""
        self._claims.release(group)

    def workers_beside(self, group: str) -> Mapping[tuple[int, int], int]:
        """How many workers of other groups each bundle holds, by placement group and bundle."""
        return self._claims.workers_beside(group)

    def shutdown(self) -> bool:
        """Remove the placement groups; again does nothing. Workers in them are ended by Ray.

        The cluster can be used again: bundles are then reserved anew, and are free. When the Ray
        session of the reservation is over, nothing is left to remove.

        Returns:
            Whether they are gone. What is still there after 10 s is told in the log.
        """
        return are_removed(self._give_back(), self._spec.pool)

    def _give_back(self) -> Sequence[PlacementGroup]:
        with self._lock:
            groups = () if self._reserved is None else self._reserved.groups
            if self._session != RAY.session:
                groups = ()
            remove(groups)
            self._forget()
            return groups

    def _forget(self) -> None:
        """Be as before the reservation; the groups that were on it hold nothing any more."""
        self._reserved, self._sorted, self._unified = None, None, False
        self._claims.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __del__(self) -> None:
        if getattr(self, "_reserved", None):
            self._give_back()


_live: "weakref.WeakSet[RayVirtualCluster]" = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for cluster in list(_live):
        try:
            cluster.shutdown()
        except Exception:
            # The clusters after it must still be removed.
            logging.getLogger("rankplan").exception("%r: removing it failed", cluster)
