from collections.abc import Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack

from ray import ObjectRef
from ray.util.scheduling_strategies import SchedulingStrategyT

_R_co = TypeVar("_R_co", covariant=True)

class _CommonOptions(TypedDict, total=False):
    num_cpus: float | None
    num_gpus: float | None
    memory: int | None
    resources: dict[str, float] | None
    accelerator_type: str | None
    label_selector: dict[str, str] | None
    name: str | None
    runtime_env: dict[str, Any] | None
    scheduling_strategy: SchedulingStrategyT
    enable_task_events: bool

class _TaskOptions(_CommonOptions, total=False):
    num_returns: int | Literal["streaming"] | None
    max_calls: int
    max_retries: int
    retry_exceptions: bool | Sequence[type[Exception]]

class RemoteFunction(Generic[_R_co]):
    def remote(self, *args: object, **kwargs: object) -> ObjectRef[_R_co]: ...
    def options(self, **task_options: Unpack[_TaskOptions]) -> RemoteFunction[_R_co]: ...
