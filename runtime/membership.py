"""What a group tells of itself and its workers: its plan, their places and their shards."""

from typing import Any

from planner.difference import PlanDifference
from planner.findings import CoordinateError, Finding
from planner.launch import LaunchPlan
from planner.mesh import NamedSharding
from planner.preflight import PreflightReport
from planner.whole_numbers import whole_number
from runtime.launching import Launched
from runtime.roster import Roster

__all__ = ["Membership"]


class Membership:
    """The part of ``RayWorkerGroup`` that reads from its plan."""

    _launched: Launched

    @property
    def plan(self) -> LaunchPlan:
        """What was carried out: every rank, its place, its environment."""
        return self._launched.plan

    @property
    def identities(self) -> Roster:
        """Who each rank is: coordinates, node, GPU and pid."""
        return self._launched.identities

    @property
    def name(self) -> str:
        """The group's name: the first part of its workers' names."""
        return self.plan.group

    @property
    def preflight(self) -> PreflightReport:
        """What was checked before any constructor ran."""
        return self._launched.preflight

    @property
    def difference(self) -> PlanDifference | None:
        """What differs from ``expected_plan``; None when none was given."""
        return self._launched.difference

    @property
    def sharding_annotations(self) -> NamedSharding | None:
        """The axes of the group."""
        return self.plan.mesh

    @property
    def world_size(self) -> int:
        """How many workers there are."""
        return self.plan.world_size

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
