"""The part of Ray's interface that rankplan uses, typed; what is missing here is not used."""

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, final, overload

from ray import _private as _private
from ray import actor as actor
from ray import cloudpickle as cloudpickle
from ray import exceptions as exceptions
from ray import util as util
from ray._private.worker import RayContext
from ray._raylet import ActorID as ActorID
from ray._raylet import BaseID
from ray._raylet import JobID as JobID
from ray._raylet import NodeID as NodeID
from ray._raylet import PlacementGroupID as PlacementGroupID
from ray._raylet import TaskID as TaskID
from ray.actor import ActorClass, ActorHandle, _ActorOptions
from ray.actor import method as method
from ray.remote_function import RemoteFunction, _TaskOptions
from ray.runtime_context import get_runtime_context as get_runtime_context

__version__: str
__commit__: str

_T_co = TypeVar("_T_co", covariant=True)
_C = TypeVar("_C")
_R = TypeVar("_R")

@final
class ObjectRef(BaseID, Awaitable[_T_co], Generic[_T_co]):
    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def future(self) -> concurrent.futures.Future[_T_co]: ...
    def as_future(self, _internal: bool = False) -> asyncio.Future[_T_co]: ...
    def task_id(self) -> TaskID: ...
    def job_id(self) -> JobID: ...
    def owner_address(self) -> bytes: ...
    def call_site(self) -> str: ...
    def _on_completed(self, py_callback: Callable[[Any], None]) -> None: ...

class ObjectRefGenerator(Generic[_T_co]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> ObjectRef[_T_co]: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> ObjectRef[_T_co]: ...
    def completed(self) -> ObjectRef[None]: ...
    def next_ready(self) -> bool: ...
    def is_finished(self) -> bool: ...
    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[_T_co]: ...
    async def _next_async(self, timeout_s: float | None = None) -> ObjectRef[_T_co]: ...

_W = TypeVar("_W", bound=ObjectRef[Any] | ObjectRefGenerator[Any])

class _NodeTable(TypedDict):
    NodeID: str
    Alive: bool
    NodeManagerAddress: str
    NodeManagerHostname: str
    NodeManagerPort: int
    ObjectManagerPort: int
    ObjectStoreSocketName: str
    RayletSocketName: str
    NodeName: str
    DeathReason: int
    DeathReasonMessage: str
    Resources: dict[str, float]
    Labels: dict[str, str]

def init(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: Literal[False] = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = ...,
    dashboard_port: int | None = None,
    job_config: None = None,
    configure_logging: bool = True,
    logging_level: int | str = ...,
    logging_format: str | None = None,
    logging_config: None = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    cgroup_path: str | None = None,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    proxy_server_url: str | None = None,
    _memory: int | None = None,
    _node_ip_address: str | None = None,
    _node_name: str | None = None,
    _system_config: dict[str, Any] | None = None,
    _temp_dir: str | None = None,
) -> RayContext: ...
def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None: ...
def is_initialized() -> bool: ...
@overload
def get(
    object_refs: ObjectRef[_R], *, timeout: float | None = None, _use_object_store: bool = False
) -> _R: ...
@overload
def get(
    object_refs: Sequence[ObjectRef[_R]],
    *,
    timeout: float | None = None,
    _use_object_store: bool = False,
) -> list[_R]: ...
def put(
    value: _R, *, _owner: ActorHandle[Any] | None = None, _tensor_transport: str | None = None
) -> ObjectRef[_R]: ...
def wait(
    ray_waitables: list[_W],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[_W], list[_W]]: ...
def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]: ...
def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None: ...
def cancel(
    ray_waitable: ObjectRef[Any] | ObjectRefGenerator[Any],
    *,
    force: bool = False,
    recursive: bool = True,
) -> None: ...
def get_gpu_ids() -> list[int] | list[str]: ...
def nodes() -> list[_NodeTable]: ...
def cluster_resources() -> dict[str, float]: ...
def available_resources() -> dict[str, float]: ...

class _RemoteOptions(_TaskOptions, _ActorOptions, total=False): ...

class _RemoteDecorator:
    @overload  # a class is a callable too: the first that matches wins
    def __call__(  # type: ignore[overload-overlap]
        self, wrapped: type[_C], /
    ) -> ActorClass[_C]: ...
    @overload
    def __call__(self, wrapped: Callable[..., _R], /) -> RemoteFunction[_R]: ...

@overload  # a class is a callable too: the first that matches wins
def remote(  # type: ignore[overload-overlap]
    wrapped: type[_C], /
) -> ActorClass[_C]: ...
@overload
def remote(wrapped: Callable[..., _R], /) -> RemoteFunction[_R]: ...
@overload
def remote(**options: Unpack[_RemoteOptions]) -> _RemoteDecorator: ...
