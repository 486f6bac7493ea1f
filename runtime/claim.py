"""What a worker group holds of the bundles of its cluster, from its start to its end."""

import threading
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve

from planner.gpu_ledger import BundleShare, GpuLedger, bundle_shares, held_amounts
from planner.group import FULL_GPU, GroupSpec
from planner.virtual_cluster import ClusterSpec
from runtime.backend import Cluster

__all__ = ["Claim", "Claims"]


class Claims:
    """What all groups hold of a cluster, counted by any thread.

    Args:
        spec: The cluster.
    """

    def __init__(self, spec: ClusterSpec) -> None:
        self._ledger = GpuLedger(
            colocated=spec.max_colocated_worker_groups,
            budget=FULL_GPU if spec.use_gpus else 0,
            others=held_amounts(
                spec.resources.bundle(spec.max_colocated_worker_groups, use_gpus=False)
            ),
        )
        self._made = 0
        self._lock = threading.RLock()

    def claim(self, group: str, shares: Sequence[BundleShare]) -> str:
        """Note what a group takes of the bundles; gives the key to release it by.

        Raises:
            PlanError: What is taken of some bundle would add up to more than it holds.
        """
        with self._lock:
            self._made += 1
            key = f"{group} (#{self._made})"
            self._change(lambda ledger: ledger.with_group(group, shares, key))
            return key

    def release(self, key: str) -> None:
        """Note that a group has ended."""
        self._change(lambda ledger: ledger.without_group(key))

    def clear(self) -> None:
        """Note that the bundles were given back: whoever was in them has ended."""
        self._change(lambda ledger: evolve(ledger, holders=()))

    def workers_beside(self, key: str) -> Mapping[tuple[int, int], int]:
        """How many workers of other groups each bundle holds."""
        return self._ledger.workers_beside(key)

    def _change(self, changed: Callable[[GpuLedger], GpuLedger]) -> None:
        with self._lock:
            while True:
                # A group that nobody holds any more may be released while this is made.
                before = self._ledger
                after = changed(before)
                if self._ledger is before:
                    self._ledger = after
                    return


class Claim:
    """One group's part of a cluster.

    Args:
        cluster: The cluster that counts it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._name: str | None = None

    def take(self, spec: GroupSpec) -> None:
        """Have it counted.

        Raises:
            PlanError: Other groups hold too much of some bundle.
        """
        self._name = self._cluster.claim(spec.name, bundle_shares(spec))

    def give_back(self) -> None:
        """Have it counted no more; does nothing when it is not."""
        name, self._name = self._name, None
        if name is not None:
            self._cluster.release(name)

    def workers_beside(self) -> Mapping[tuple[int, int], int]:
        """How many workers of other groups each bundle holds."""
        return self._cluster.workers_beside(self._name or "")
