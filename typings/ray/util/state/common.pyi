class ActorState:
    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str | None
    node_id: str | None
    pid: int | None
    ray_namespace: str | None

class PlacementGroupState:
    placement_group_id: str
    name: str
    creator_job_id: str
    state: str
