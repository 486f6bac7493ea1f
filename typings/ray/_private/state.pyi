from typing import TypedDict, overload

from ray._raylet import JobID

class _Address(TypedDict):
    IPAddress: str
    Port: int
    NodeID: str

class _ActorTable(TypedDict):
    ActorID: str
    ActorClassName: str
    IsDetached: bool
    Name: str
    JobID: str
    Address: _Address
    OwnerAddress: _Address
    State: str
    NumRestarts: int
    Timestamp: float
    StartTime: int
    EndTime: int
    DeathCause: object
    Pid: int

class _Job(TypedDict):
    JobID: str
    DriverIPAddress: str
    DriverPid: int
    Timestamp: int
    StartTime: int
    EndTime: int
    IsDead: bool
    Entrypoint: str

class _Accessor:
    def get_placement_group_table(self) -> list[bytes]: ...

class GlobalState:
    def _connect_and_get_accessor(self) -> _Accessor: ...

state: GlobalState

def jobs() -> list[_Job]: ...
@overload
def actors(
    actor_id: str, job_id: JobID | None = None, actor_state_name: str | None = None
) -> _ActorTable: ...
@overload
def actors(
    actor_id: None = None, job_id: JobID | None = None, actor_state_name: str | None = None
) -> dict[str, _ActorTable]: ...
def available_resources_per_node() -> dict[str, dict[str, float]]: ...
