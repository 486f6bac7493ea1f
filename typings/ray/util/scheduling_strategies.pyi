from typing import Literal, TypeAlias

from ray.util.placement_group import PlacementGroup

class PlacementGroupSchedulingStrategy:
    placement_group: PlacementGroup
    placement_group_bundle_index: int
    placement_group_capture_child_tasks: bool | None
    def __init__(
        self,
        placement_group: PlacementGroup,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None: ...

class NodeAffinitySchedulingStrategy:
    node_id: str
    soft: bool
    def __init__(
        self,
        node_id: str,
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None: ...

class In:
    values: list[str]
    def __init__(self, *values: str) -> None: ...

class NotIn:
    values: list[str]
    def __init__(self, *values: str) -> None: ...

class Exists:
    def __init__(self) -> None: ...

class DoesNotExist:
    def __init__(self) -> None: ...

_Operator: TypeAlias = In | NotIn | Exists | DoesNotExist

class NodeLabelSchedulingStrategy:
    def __init__(
        self, hard: dict[str, _Operator], *, soft: dict[str, _Operator] | None = None
    ) -> None: ...

SchedulingStrategyT: TypeAlias = (
    Literal["DEFAULT", "SPREAD"]
    | PlacementGroupSchedulingStrategy
    | NodeAffinitySchedulingStrategy
    | NodeLabelSchedulingStrategy
    | None
)
