"""What a worker group holds of the GPUs of its cluster, from its start to its end."""

import threading
from collections.abc import Mapping, Sequence

from planner.gpu_ledger import BundleShare, GpuLedger, bundle_shares
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
        )
        self._made = 0
        self._lock = threading.RLock()

    def claim(self, group: str, shares: Sequence[BundleShare]) -> str:
        """Note what a group takes of the GPUs; gives the name to release it by.

        Raises:
            PlanError: The shares of some bundle would add up to more than its GPU.
        """
        with self._lock:
            self._made += 1
            name = f"{group} (#{self._made})"
            while True:
                # A group that nobody holds any more may be released while this is made.
                before = self._ledger
                after = before.with_group(name, shares)
                if self._ledger is before:
                    self._ledger = after
                    return name

    def release(self, group: str) -> None:
        """Note that a group has ended."""
        with self._lock:
            self._ledger = self._ledger.without_group(group)

    def workers_beside(self, group: str) -> Mapping[tuple[int, int], int]:
        """How many workers of other groups each bundle holds."""
        return self._ledger.workers_beside(group)


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
            PlanError: Other groups hold too much of some GPU.
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
