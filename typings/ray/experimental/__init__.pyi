from typing import Any

from ray import ObjectRef

def get_local_object_locations(
    obj_refs: list[ObjectRef[Any]],
) -> dict[ObjectRef[Any], dict[str, Any]]: ...
