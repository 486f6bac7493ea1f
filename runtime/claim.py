"""What a worker group holds of the GPUs of its cluster, from its start to its end."""

from planner.gpu_ledger import bundle_shares
from planner.group import GroupSpec
from runtime.backend import Cluster

__all__ = ["Claim"]


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
