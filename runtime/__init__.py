"""rankplan's thin shell: carries plans out on Ray and reports facts."""

from planner.findings import PlanError, ResourceInsufficientError
from runtime.batches import BatchError, Whole
from runtime.builder import RayWorkerBuilder
from runtime.call_future import CallFuture
from runtime.call_results import ResultError
from runtime.cluster import RayVirtualCluster
from runtime.connection import init_ray
from runtime.errors import DeadlineError, ExecutionError, WorkerGroupError
from runtime.group import RayWorkerGroup
from runtime.half_sent import HalfSentError
from runtime.handle import WorkerHandle, actor_of
from runtime.hardware import observe_hardware
from runtime.health import InconsistentGroupError
from runtime.in_flight import TooManyCallsError
from runtime.interpreters import (
    ACTOR_ENVIRONMENT_REGISTRY,
    EnvironmentBuildError,
    get_actor_python_env,
)
from runtime.inventory_files import read_inventory, write_inventory
from runtime.leftovers import leftovers, remove_leftovers
from runtime.observe import observe_inventory
from runtime.places import NodeLostError
from runtime.preflight import DifferenceError, PreflightError
from runtime.recovering import RecoveryError
from runtime.results import MultiWorkerFuture
from runtime.streams import CallStream
from runtime.together import wait_all, wait_all_async

__all__ = [
    "ACTOR_ENVIRONMENT_REGISTRY",
    "BatchError",
    "CallFuture",
    "CallStream",
    "DeadlineError",
    "DifferenceError",
    "EnvironmentBuildError",
    "ExecutionError",
    "HalfSentError",
    "InconsistentGroupError",
    "MultiWorkerFuture",
    "NodeLostError",
    "PlanError",
    "PreflightError",
    "RayVirtualCluster",
    "RayWorkerBuilder",
    "RayWorkerGroup",
    "RecoveryError",
    "ResourceInsufficientError",
    "ResultError",
    "TooManyCallsError",
    "Whole",
    "WorkerGroupError",
    "WorkerHandle",
    "actor_of",
    "get_actor_python_env",
    "init_ray",
    "leftovers",
    "observe_hardware",
    "observe_inventory",
    "read_inventory",
    "remove_leftovers",
    "wait_all",
    "wait_all_async",
    "write_inventory",
]
