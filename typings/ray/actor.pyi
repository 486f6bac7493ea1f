from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from ray import ObjectRef, ObjectRefGenerator
from ray._raylet import ActorID
from ray.remote_function import _CommonOptions

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Callable[..., object])

class _ActorOptions(_CommonOptions, total=False):
    concurrency_groups: dict[str, int] | None
    enable_tensor_transport: bool | None
    get_if_exists: bool
    lifetime: Literal["detached", "non_detached"] | None
    max_concurrency: int
    max_pending_calls: int
    max_restarts: int
    max_task_retries: int
    namespace: str | None
    allow_out_of_order_execution: bool | None

class _CallOptions(TypedDict, total=False):
    name: str
    concurrency_group: str
    enable_task_events: bool
    max_task_retries: int
    retry_exceptions: bool | Sequence[type[Exception]]
    tensor_transport: str
    _generator_backpressure_num_objects: int

class _StreamingMethod:
    def remote(self, *args: object, **kwargs: object) -> ObjectRefGenerator[Any]: ...

class ActorMethod:
    def remote(self, *args: object, **kwargs: object) -> ObjectRef[Any]: ...
    @overload
    def options(
        self, *, num_returns: Literal["streaming"], **options: Unpack[_CallOptions]
    ) -> _StreamingMethod: ...
    @overload
    def options(
        self, *, num_returns: Literal[1] = 1, **options: Unpack[_CallOptions]
    ) -> ActorMethod: ...

class ActorHandle(Generic[_T]):
    @property
    def _actor_id(self) -> ActorID: ...
    def _get_local_state(self) -> int | None: ...
    def __getattr__(self, item: str) -> ActorMethod: ...

class ActorClass(Generic[_T]):
    def remote(self, *args: object, **kwargs: object) -> ActorHandle[_T]: ...
    def options(self, **actor_options: Unpack[_ActorOptions]) -> ActorClass[_T]: ...

@overload
def method(wrapped: _M, /) -> _M: ...
@overload
def method(
    *,
    num_returns: int | Literal["streaming"] | None = None,
    concurrency_group: str | None = None,
    max_task_retries: int | None = None,
    retry_exceptions: bool | Sequence[type[Exception]] | None = None,
    enable_task_events: bool | None = None,
    tensor_transport: str | None = None,
    _generator_backpressure_num_objects: int | None = None,
) -> Callable[[_M], _M]: ...
def exit_actor() -> None: ...
