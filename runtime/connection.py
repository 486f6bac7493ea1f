"""Connects this process to Ray: to a cluster that runs, or to one of its own."""

import logging
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray._private.services import find_bootstrap_address

from planner.findings import Findings
from planner.local_cluster import GPU_MARK_LABEL, gpu_mark, may_join

__all__ = ["init_ray"]

_log = logging.getLogger("rankplan")

ANSWER_SECONDS = 1.0
"""How long a cluster may take to take a connection; the note of one that has ended stays."""


def init_ray(log_dir: str | None = None) -> None:
    """Attach to a running Ray cluster, or start a local one.

    Does nothing when this process is connected already. A running cluster is the one that
    ``RAY_ADDRESS`` names, or that was started last with ``ray start`` or by another driver. A local
    cluster that another driver started with this function is shared only by drivers that see
    the same GPUs: its workers would otherwise land on devices that this driver was told to
    leave alone.

    Args:
        log_dir: Where a local cluster keeps its logs; None for Ray's own place.

    Raises:
        PlanError: ``log_dir`` is no path.
    """
    if log_dir is not None and not isinstance(log_dir, str | os.PathLike):
        Findings("init_ray").fail(
            "log_dir", f"a value of type {type(log_dir).__name__}", "give a path, or None"
        )
    if ray.is_initialized():
        return
    mark = gpu_mark(os.environ)
    if _attached(mark):
        return
    options: dict[str, Any] = {}
    if log_dir is not None:
        folder = Path(log_dir).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        options["_temp_dir"] = str(folder)
    ray.init(address="local", labels={GPU_MARK_LABEL: mark}, include_dashboard=False, **options)
    address = ray.get_runtime_context().gcs_address
    note = _note(mark)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(address, encoding="utf-8")
    _log.info("started a local Ray cluster at %s for the GPUs %r", address, mark)


def _attached(mark: str) -> bool:
    """Connect to a running cluster, unless there is none that this driver may use."""
    for address, announced in _candidates(mark):
        if not _answers(address):
            continue
        if not os.environ.get("RAY_ADDRESS"):
            _use_own_token()
        try:
            ray.init(address=address)
        except ConnectionError:
            continue
        labels = [node["Labels"] for node in ray.nodes() if node["Alive"]]
        if may_join(labels, mark, announced=announced):
            _log.info("attached to the Ray cluster at %s", address)
            return True
        ray.shutdown()
    return False


def _candidates(mark: str) -> list[tuple[str, bool]]:
    """The addresses of clusters that may run, and whether each was announced."""
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return [(named, True)]
    note = _note(mark)
    mine = note.read_text(encoding="utf-8").strip() if note.exists() else None
    newest = find_bootstrap_address(None)
    found = [(mine, False)] if mine else []
    return found if newest is None or newest == mine else [*found, (newest, True)]


def _note(mark: str) -> Path:
    """Where the address of the newest local cluster for these GPUs is kept."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return folder / f"rankplan-clusters-{os.getuid()}" / mark


def _use_own_token() -> None:
    """Show this user's token, with which Ray protects local clusters.

    Ray does it by itself only for an address that it has looked for.
    """
    try:
        from ray._private.authentication import authentication_token_setup
    except ImportError:
        return
    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        # A Ray client's address, or "auto": Ray itself finds out.
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS):
            return True
    except OSError:
        return False
