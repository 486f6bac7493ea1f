from ray._raylet import TaskID

class RayError(Exception): ...

class TaskCancelledError(RayError):
    task_id: TaskID | None
    def __init__(self, task_id: TaskID | None = None, error_message: str | None = None) -> None: ...

class RayTaskError(RayError):
    function_name: str
    traceback_str: str
    cause: BaseException
    proctitle: str
    pid: int
    ip: str
    actor_repr: str | None
    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None: ...
    def as_instanceof_cause(self) -> RayTaskError: ...

class LocalRayletDiedError(RayError): ...
class WorkerCrashedError(RayError): ...

class RayActorError(RayError):
    actor_id: str | None
    error_msg: str
    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = "The actor experienced an error before finishing this task.",
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None: ...
    @property
    def preempted(self) -> bool: ...
    @property
    def actor_init_failed(self) -> bool: ...

class ActorDiedError(RayActorError):
    def __init__(self, cause: RayTaskError | None = None) -> None: ...

class ActorUnavailableError(RayActorError):
    def __init__(self, error_message: str, actor_id: bytes | None) -> None: ...

class RaySystemError(RayError):
    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None: ...

class ObjectStoreFullError(RayError): ...
class OutOfDiskError(RayError): ...

class OutOfMemoryError(RayError):
    def __init__(self, message: str) -> None: ...

class NodeDiedError(RayError):
    def __init__(self, message: str) -> None: ...

class ObjectLostError(RayError):
    object_ref_hex: str
    def __init__(
        self, object_ref_hex: str, owner_address: bytes | None, call_site: str
    ) -> None: ...

class ObjectFetchTimedOutError(ObjectLostError): ...
class ReferenceCountingAssertionError(ObjectLostError, AssertionError): ...
class ObjectFreedError(ObjectLostError): ...
class OwnerDiedError(ObjectLostError): ...
class GetTimeoutError(RayError, TimeoutError): ...

class RuntimeEnvSetupError(RayError):
    error_message: str | None
    def __init__(self, error_message: str | None = None) -> None: ...

class TaskPlacementGroupRemoved(RayError): ...
class ActorPlacementGroupRemoved(RayError): ...
class PendingCallsLimitExceeded(RayError): ...

class TaskUnschedulableError(RayError):
    error_message: str
    def __init__(self, error_message: str) -> None: ...

class ActorUnschedulableError(RayError):
    error_message: str
    def __init__(self, error_message: str) -> None: ...

class ActorAlreadyExistsError(ValueError, RayError):
    error_message: str
    def __init__(self, error_message: str) -> None: ...

class ActorHandleNotFoundError(ValueError, RayError):
    error_message: str
    def __init__(self, error_message: str) -> None: ...
