"""rankplan's pure core: facts and intent in, plans out.

Nothing here touches Ray, a process, a file or a clock. The same input gives the same plan, to the
byte, on every machine.

``predict_launch`` plans a worker group on a ``RayVirtualCluster``; ``plan_reservation`` places any
``GroupRequest`` (several GPUs to a bundle, memory, custom resources) on an ``Inventory``.
"""

from planner.accelerators import GpuVisibility
from planner.difference import PlanDifference, difference
from planner.dispatch import DispatchPlan
from planner.environment import EnvironmentPolicy, EnvironmentSources
from planner.failure_policy import Domain, FailurePolicy, Survivors
from planner.findings import (
    CoordinateError,
    Finding,
    PlanError,
    ResourceInsufficientError,
)
from planner.group import GroupArguments
from planner.inventory import Inventory
from planner.launch import LaunchPlan, WorkerPlan, environment_of
from planner.locality import Locality
from planner.mesh import NamedSharding
from planner.options import recursive_merge_options
from planner.prediction import ClusterIntent, predict_launch, predict_launches
from planner.recovery import RecoveryPlan
from planner.requests import GroupRequest
from planner.reservation import ReservationPlan, plan_reservation
from planner.topology import select_segment_nodes, sort_bundles
from planner.virtual_cluster import plan_cluster

__all__ = [
    "ClusterIntent",
    "CoordinateError",
    "DispatchPlan",
    "Domain",
    "EnvironmentPolicy",
    "EnvironmentSources",
    "FailurePolicy",
    "Finding",
    "GpuVisibility",
    "GroupArguments",
    "GroupRequest",
    "Inventory",
    "LaunchPlan",
    "Locality",
    "NamedSharding",
    "PlanDifference",
    "PlanError",
    "RecoveryPlan",
    "ReservationPlan",
    "ResourceInsufficientError",
    "Survivors",
    "WorkerPlan",
    "difference",
    "environment_of",
    "plan_cluster",
    "plan_reservation",
    "predict_launch",
    "predict_launches",
    "recursive_merge_options",
    "select_segment_nodes",
    "sort_bundles",
]
