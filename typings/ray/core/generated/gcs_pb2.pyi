from collections.abc import Sequence
from typing import final

class _States:
    def Name(self, number: int) -> str: ...

@final
class PlacementGroupTableData:
    PlacementGroupState: _States
    placement_group_id: bytes
    name: str
    state: int
    bundles: Sequence[object]
    creator_job_id: bytes
    creator_actor_id: bytes
    creator_job_dead: bool
    creator_actor_dead: bool
    @classmethod
    def FromString(cls, data: bytes) -> PlacementGroupTableData: ...
