"""The Ray session that this process is in: Ray joins one by itself, rankplan never does."""

import contextlib

import ray
from ray._private import worker
from ray.exceptions import RayError

from runtime.errors import ExecutionError

__all__ = ["DEAD", "check_connected", "check_up", "forget_dead", "session"]

DEAD = 4
"""``DEAD`` among the states of an actor; a number in Ray's messages, so it does not change."""

_known: list[tuple[object, str]] = [(None, "")]


def session() -> str:
    """Ray's name of it, and the job that this process is there; empty when it is in none."""
    if not ray.is_initialized():
        return ""
    # Each connection has a node of its own here, and asking Ray takes longer than looking.
    node = worker._global_node
    known, name = _known[0]
    if node is None or known is not node:
        context = ray.get_runtime_context()
        name = f"{context.get_session_name()}, job {context.get_job_id()}"
        _known[0] = (node, name)
    return name


def check_connected() -> None:
    """Do nothing while this process is connected.

    Raises:
        ExecutionError: It is not; Ray would start a cluster now, or join somebody else's.
    """
    if not ray.is_initialized():
        raise ExecutionError(
            "this process is not connected to Ray any more, so what was sent cannot be asked for: "
            "call ray.init() or init_ray(), and start a new cluster and a new group"
        )


def check_up(subject: str) -> None:
    """Do nothing when this process is connected to Ray.

    Raises:
        ExecutionError: It is not.
    """
    if not ray.is_initialized():
        raise ExecutionError(
            f"{subject}: this process is not connected to Ray; call ray.init() or init_ray() first"
        )


def forget_dead(name: str) -> None:
    """Have Ray forget here a dead actor that this process made, and that was never killed."""
    with contextlib.suppress(ValueError, RayError):
        actor = ray.get_actor(name)
        if actor._get_local_state() == DEAD:
            ray.kill(actor)
