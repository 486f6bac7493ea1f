"""Testing a controller without a cluster: ``InProcessCluster`` in the place of a Ray cluster.

The same ``RayWorkerGroup``, ``RayWorkerBuilder`` and ``MultiWorkerFuture`` run on it, in this
process, in milliseconds, and the same way for the same seed::

    dies = Fault(kind=FaultKind.DEATH, rank=1, method="train", call=3)
    with InProcessCluster([2, 2], faults=[dies]) as cluster:
        group = RayWorkerGroup(cluster, RayWorkerBuilder("my_workers.Trainer"))
        ...

Workers see their own environment and random numbers, and ``time`` passes only while something
waits: a worker that sleeps an hour costs nothing. What does not work is in ``docs/faults.md``:
first of all workers that wait for each other, and their own threads and child processes.
"""

import threading
import warnings
from collections.abc import Mapping, Sequence
from signal import Signals
from types import TracebackType
from typing import Any, Self

from planner.findings import Findings
from planner.gpu_ledger import BundleShare
from planner.inventory import BundleFacts
from planner.virtual_cluster import ClusterSpec, plan_cluster
from planner.whole_numbers import whole_number
from runtime.claim import Claims
from runtime.faults import Fault, FaultKind, FaultRates, Faults, check_seconds
from runtime.group import RayWorkerGroup
from runtime.in_process import Process
from runtime.in_process_backend import InProcessGroup, World
from runtime.virtual_time import NothingWillHappenError

__all__ = [
    "Fault",
    "FaultKind",
    "FaultRates",
    "InProcessCluster",
    "NothingWillHappenError",
    "UnstruckFaultsWarning",
]


class UnstruckFaultsWarning(UserWarning):
    """A test has told faults to strike that never did, so it may have tested nothing."""

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> Self:
        """The warning for some faults."""
        told = "".join(f"\n  {fault}" for fault in faults)
        return cls(
            "these faults never struck: no such call began, or another fault struck it; "
            f"InProcessCluster.struck says which did:{told}"
        )


def _check(seed: object, faults: object, rates: object, spare_nodes: object) -> None:
    findings = Findings("in-process cluster")
    if whole_number(seed) is None:
        findings.add("seed", f"{seed!r} is not a whole number", "give one")
    if isinstance(faults, Sequence) and not isinstance(faults, str):
        for place, fault in enumerate(faults):
            if not isinstance(fault, Fault):
                findings.add(f"faults[{place}]", f"{fault!r} is not a Fault", "give a Fault")
    else:
        findings.add("faults", f"{faults!r} is not a list of faults", "give [Fault(...)]")
    if rates is not None and not isinstance(rates, FaultRates):
        findings.add("rates", f"{rates!r} is not FaultRates", "give FaultRates(...), or None")
    spares = whole_number(spare_nodes)
    if spares is None or spares < 0:
        findings.add("spare_nodes", f"{spare_nodes!r} is not a number of nodes", "give 0 or more")
    findings.check()


def _range_text(numbers: Sequence[int]) -> str:
    """Numbers for people: ``0 to 3``."""
    whole = list(numbers) == list(range(len(numbers)))
    return f"0 to {len(numbers) - 1}" if whole else ", ".join(map(str, numbers))


class InProcessCluster:
    """A cluster that exists only in this process.

    Args:
        bundle_ct_per_node_list: As for ``RayVirtualCluster``.
        use_gpus: As for ``RayVirtualCluster``.
        max_colocated_worker_groups: As for ``RayVirtualCluster``.
        num_gpus_per_node: As for ``RayVirtualCluster``.
        name: As for ``RayVirtualCluster``.
        placement_group_strategy: As for ``RayVirtualCluster``.
        seed: Every order and every chance is drawn from it.
        faults: Calls that go wrong.
        rates: How often other calls go wrong.
        spare_nodes: Nodes that have no bundles yet; a lost node's bundles move there.

    Raises:
        PlanError: An argument is wrong.
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
        seed: int = 0,
        faults: Sequence[Fault] = (),
        rates: FaultRates | None = None,
        spare_nodes: int = 0,
    ) -> None:
        self._spec = plan_cluster(
            bundle_ct_per_node_list=bundle_ct_per_node_list,
            use_gpus=use_gpus,
            max_colocated_worker_groups=max_colocated_worker_groups,
            num_gpus_per_node=num_gpus_per_node,
            name=name,
            strategy=placement_group_strategy,
        )
        _check(seed, faults, rates, spare_nodes)
        chosen = Faults(tuple(faults), rates or FaultRates())
        chosen.check_ranks("", sum(self._spec.bundle_counts))
        self._world = World(seed, chosen)
        self._groups: list[InProcessGroup] | None = None
        self._unified = False
        self._spares = [len(self._spec.bundle_counts) + index for index in range(spare_nodes)]
        self._world.nodes.update(f"node-{node}" for node in range(len(self._spec.bundle_counts)))
        self._claims = Claims(self._spec)
        self._lock = threading.RLock()

    @property
    def spec(self) -> ClusterSpec:
        """What is reserved, as data."""
        return self._spec

    @property
    def backend(self) -> World:
        """What carries plans out on it."""
        return self._world

    @property
    def name(self) -> str:
        """Its name."""
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

    @property
    def now(self) -> float:
        """Virtual seconds since it was made."""
        return self._world.now()

    @property
    def live(self) -> list[str]:
        """The names of what is alive: empty when everything was ended."""
        return sorted(self._world.names())

    @property
    def struck(self) -> list[tuple[int, str, Fault]]:
        """What went wrong lately: rank, method and fault, in the order in which it struck."""
        return [(call.rank, call.method, fault) for call, fault in self._world.faults.struck]

    @property
    def unstruck(self) -> list[Fault]:
        """The faults among ``faults`` that have struck nowhere yet."""
        return self._world.faults.unstruck

    def world_size(self) -> int:
        """How many bundles there are."""
        return sum(self._spec.bundle_counts)

    def node_count(self) -> int:
        """How many nodes give bundles."""
        return sum(1 for count in self._spec.bundle_counts if count)

    def get_placement_groups(self) -> list[InProcessGroup]:
        """The pretended placement groups."""
        return self._init_placement_groups()

    def _init_placement_groups(
        self,
        strategy: str | None = None,  # noqa: ARG002  # as on Ray; here nothing depends on it
        use_unified_pg: bool = False,
    ) -> list[InProcessGroup]:
        with self._lock:
            if self._groups is None:
                gpus = self.use_gpus
                nodes = [
                    tuple((node, index if gpus else -1) for index in range(count))
                    for node, count in enumerate(self._spec.bundle_counts)
                    if count
                ]
                whole = [tuple(bundle for bundles in nodes for bundle in bundles)]
                self._groups = [
                    InProcessGroup(each) for each in (whole if use_unified_pg else nodes)
                ]
                self._unified = use_unified_pg
            return list(self._groups)

    @property
    def bundle_counts(self) -> tuple[int, ...]:
        """How many bundles each placement group has, or will have."""
        counts = tuple(count for count in self._spec.bundle_counts if count)
        return (sum(counts),) if self._unified else counts

    @property
    def is_unified(self) -> bool:
        """Whether all bundles are in one placement group."""
        return self._unified

    @property
    def bundle_facts(self) -> tuple[BundleFacts, ...]:
        """On which node each bundle is."""
        return self._world.landed(self.get_placement_groups())

    @property
    def _sorted_bundle_indices(self) -> list[int] | None:
        groups = self.get_placement_groups()
        return list(range(groups[0].bundle_count)) if self._unified else None

    def get_available_address_and_port(self, pg_idx: int, bundle_idx: int) -> tuple[str, int]:
        """The address of a bundle's node, and a number for a port."""
        facts = [
            each
            for each in self.bundle_facts
            if (each.placement_group, each.bundle) == (pg_idx, bundle_idx)
        ]
        if not facts:
            Findings("in-process cluster").fail(
                "bundle_idx", f"there is no bundle {bundle_idx!r} in {pg_idx!r}", "name one"
            )
        return facts[0].address, 30_000 + next(self._world.numbers) % 30_000

    def get_master_address_and_port(self) -> tuple[str, int]:
        """The address of the first bundle's node, and a number for a port."""
        return self.get_available_address_and_port(0, 0)

    def claim(self, group: str, shares: Sequence[BundleShare]) -> str:
        """Note what a group takes of the GPUs; gives the name to release it by.

        Raises:
            PlanError: It takes too much, or lacks a rank that a fault of it is to strike.
        """
        self._world.faults.check_ranks(group, len(shares))
        return self._claims.claim(group, shares)

    def release(self, group: str) -> None:
        """Note that a group has ended."""
        self._claims.release(group)

    def workers_beside(self, group: str) -> Mapping[tuple[int, int], int]:
        """How many workers of other groups each bundle holds, by placement group and bundle."""
        return self._claims.workers_beside(group)

    def pause(self, seconds: float) -> None:
        """Let virtual time pass.

        Raises:
            PlanError: That is not a time.
        """
        findings = Findings("pause")
        check_seconds(findings, "seconds", seconds)
        findings.check()
        self._world.pause(seconds)

    def kill_worker(self, group: RayWorkerGroup, rank: int, signal: str = "SIGKILL") -> None:
        """Kill a rank's process now.

        Raises:
            PlanError: There is no such rank, or no such signal.
        """
        if signal not in Signals.__members__:
            Findings("kill_worker").fail(
                "signal", f"there is no signal {signal!r}", "name one such as 'SIGKILL'"
            )
        with self._world.lock:
            self._process("kill_worker", group, rank).die(f"its process was ended by {signal}")

    def stop_worker(self, group: RayWorkerGroup, rank: int) -> None:
        """Freeze a rank's process, as SIGSTOP does."""
        self._process("stop_worker", group, rank).stop()

    def continue_worker(self, group: RayWorkerGroup, rank: int) -> None:
        """Let a frozen process run again."""
        self._process("continue_worker", group, rank).go()

    def state_of(self, group: RayWorkerGroup, rank: int) -> Any:
        """A rank's own object, to look into: the one thing that no real cluster offers.

        Raises:
            LookupError: Its process is dead.
        """
        body = self._process("state_of", group, rank).body
        if body is None:
            raise LookupError(f"rank {rank} of {group.name!r} is dead")
        return body._worker

    def kill_node(self, node: int) -> None:
        """Lose a node, with every process on it; its bundles move to a spare one, if there is.

        Raises:
            PlanError: There is no such node.
        """
        with self._world.lock:
            node_id = f"node-{node}"
            if isinstance(node, bool) or node_id not in self._world.nodes:
                there = sorted(int(each.removeprefix("node-")) for each in self._world.nodes)
                Findings("kill_node").fail(
                    "node", f"there is no node {node!r}", f"name one of {_range_text(there)}"
                )
            self._world.dead_nodes.add(node_id)
            if self._spares:
                spare = self._spares.pop(0)
                self._world.nodes.add(f"node-{spare}")
                moved = self._world.moved
                moved.update({home: spare for home, now in moved.items() if now == node})
                moved.setdefault(node, spare)
            for process in list(self._world.processes.values()):
                if process.node_id == node_id:
                    process.die("its node has died")

    def remove_placement_group(self, index: int = 0) -> None:
        """Lose a placement group, with every process in its bundles.

        Raises:
            PlanError: There is no such placement group.
        """
        groups, number = self.get_placement_groups(), whole_number(index)
        if number is None or not 0 <= number < len(groups):
            Findings("remove_placement_group").fail(
                "index",
                f"there is no placement group {index!r}",
                f"name one of {_range_text(range(len(groups)))}",
            )
        with self._world.lock:
            self._world.removed.add(groups[number])
            for process in list(self._world.processes.values()):
                if process.bundle is not None and process.bundle[0] == groups[number]:
                    process.die("its placement group was removed")

    def _process(self, what: str, group: RayWorkerGroup, rank: int) -> Process:
        number = whole_number(rank)
        if number is None or not 0 <= number < len(group.actors):
            Findings(what).fail(
                "rank",
                f"there is no rank {rank!r}",
                f"name one of {_range_text(range(len(group.actors)))}",
            )
        return self._world.process_of(group.actors[rank])

    def shutdown(self) -> bool:
        """End everything; again does nothing."""
        self._world.close()
        self._claims.clear()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        if kind is None and self.unstruck:
            warnings.warn(UnstruckFaultsWarning.of(self.unstruck), stacklevel=2)

    def __del__(self) -> None:
        if hasattr(self, "_world"):
            self.shutdown()
