from typing import Any

from ray.actor import ActorHandle

class CommunicatorHandle:
    def __init__(self, actors: list[ActorHandle[Any]], name: str, backend: str) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def actors(self) -> list[ActorHandle[Any]]: ...
