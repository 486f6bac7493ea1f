from collections.abc import Sequence
from typing import Literal, TypedDict, overload

from ray import ObjectRef
from ray._raylet import PlacementGroupID

class PlacementGroup:
    id: PlacementGroupID
    def __init__(
        self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None
    ) -> None: ...
    @property
    def is_empty(self) -> bool: ...
    @property
    def bundle_specs(self) -> list[dict[str, float]]: ...
    @property
    def bundle_count(self) -> int: ...
    def ready(self) -> ObjectRef[PlacementGroup]: ...
    def wait(self, timeout_seconds: float = 30) -> bool: ...
    def __hash__(self) -> int: ...

class _Stats(TypedDict):
    end_to_end_creation_latency_ms: float
    scheduling_latency_ms: float
    scheduling_attempt: int
    highest_retry_delay_ms: float
    scheduling_state: str

class _PlacementGroupTable(TypedDict):
    placement_group_id: str
    name: str
    bundles: dict[int, dict[str, float]]
    bundles_to_node_id: dict[int, str]
    strategy: str
    state: str
    stats: _Stats

def placement_group(
    bundles: Sequence[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: Literal["detached"] | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: Sequence[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup: ...
def remove_placement_group(placement_group: PlacementGroup) -> None: ...
def get_placement_group(placement_group_name: str) -> PlacementGroup: ...
@overload
def placement_group_table(placement_group: PlacementGroup) -> _PlacementGroupTable: ...
@overload
def placement_group_table(placement_group: None = None) -> dict[str, _PlacementGroupTable]: ...
def get_current_placement_group() -> PlacementGroup | None: ...
