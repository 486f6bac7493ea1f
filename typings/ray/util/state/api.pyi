from typing import Literal, TypeAlias

from ray.util.state.common import ActorState, PlacementGroupState

_Filter: TypeAlias = tuple[str, Literal["=", "!="], str | bool | int | float]

def get_actor(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> ActorState | None: ...
def list_actors(
    address: str | None = None,
    filters: list[_Filter] | None = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]: ...
def list_placement_groups(
    address: str | None = None,
    filters: list[_Filter] | None = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]: ...
