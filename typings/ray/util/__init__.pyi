from typing import Literal, TypedDict, overload

from ray.util.placement_group import get_current_placement_group as get_current_placement_group
from ray.util.placement_group import get_placement_group as get_placement_group
from ray.util.placement_group import placement_group as placement_group
from ray.util.placement_group import placement_group_table as placement_group_table
from ray.util.placement_group import remove_placement_group as remove_placement_group

class _NamedActor(TypedDict):
    name: str
    namespace: str

def get_node_ip_address(address: str | None = None) -> str: ...
@overload
def list_named_actors(all_namespaces: Literal[False] = False) -> list[str]: ...
@overload
def list_named_actors(all_namespaces: Literal[True]) -> list[_NamedActor]: ...
