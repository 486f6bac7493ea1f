from typing import Any

from ray._private.node import Node

class Cluster:
    head_node: Node | None
    worker_nodes: set[Node]
    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None: ...
    @property
    def gcs_address(self) -> str: ...
    @property
    def address(self) -> str: ...
    def connect(self, namespace: str | None = None) -> None: ...
    def add_node(
        self,
        wait: bool = True,
        *,
        num_cpus: int = 1,
        num_gpus: int = 0,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        memory: int | None = None,
        object_store_memory: int = 157286400,
        include_dashboard: bool | None = None,
        node_ip_address: str | None = None,
        node_name: str | None = None,
        env_vars: dict[str, str] | None = None,
        temp_dir: str | None = None,
        _system_config: dict[str, Any] | None = None,
    ) -> Node: ...
    def remove_node(self, node: Node, allow_graceful: bool = True) -> None: ...
    def wait_for_nodes(self, timeout: float = 30) -> None: ...
    def list_all_nodes(self) -> list[Node]: ...
    def remaining_processes_alive(self) -> bool: ...
    def shutdown(self) -> None: ...
