"""What lives on a Ray cluster: actors, placement groups, worker processes, used bundles."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import state
from ray.util.placement_group import PlacementGroup, placement_group_table

from runtime.observe import observe_held

__all__ = ["Census"]

_PAUSE = 0.05

_RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of a node that run nothing of anybody."""


class Census:
    """Counts what is on the cluster that this process is connected to.

    What is there when it is made belongs to others, and is left out from then on.

    Args:
        groups: The placement groups whose bundles are looked at.
    """

    def __init__(self, groups: Sequence[PlacementGroup]) -> None:
        self._groups = list(groups)
        self._before = frozenset(self._there(()))

    def left(self, named: Collection[str], per_bundle: int, wait: float) -> tuple[str, ...]:
        """What is there beside some named actors, once it does not become less any more.

        Args:
            named: The actors that should be there.
            per_bundle: How many workers should be in each bundle.
            wait: Seconds in which the rest may go.
        """
        ends = time.monotonic() + wait
        while True:
            left = {*self._there(named)} - self._before
            left.update(self._crowded(per_bundle))
            if not left or time.monotonic() > ends:
                return tuple(sorted(left))
            time.sleep(_PAUSE)

    def _there(self, named: Collection[str]) -> Iterator[str]:
        """Everything but some named actors."""
        known: set[int] = set()
        for actor_id, actor in _actors():
            if actor["Name"] in named:
                known.add(actor["Pid"])
            else:
                yield f"actor {actor['Name'] or actor_id} ({actor['ActorClassName']})"
        for process, title in _processes():
            if process not in known:
                yield f"process {process} {title}"
        for group in placement_group_table().values():
            if group["state"] != "REMOVED":
                yield f"placement group {group['name']} {group['placement_group_id']}"

    def _crowded(self, per_bundle: int) -> Iterator[str]:
        for (group, bundle), count in sorted(observe_held(self._groups).items()):
            if count != per_bundle:
                yield f"{count} in bundle {bundle} of placement group {group}"


def _actors() -> Iterator[tuple[str, Any]]:
    for actor_id, actor in state.actors().items():
        if actor["State"] != "DEAD":
            yield actor_id, actor


def _processes() -> Iterator[tuple[int, str]]:
    """The worker processes of this session that are not idle."""
    session = f"--session-name={ray.get_runtime_context().get_session_name()}"
    raylets = {
        process
        for process, words, _ in _table()
        if words and words[0].endswith("raylet/raylet") and session in words
    }
    for process, words, parent in _table():
        title = " ".join(words).strip()
        if parent in raylets and title.startswith("ray::") and not title.startswith(_RAYS_OWN):
            yield process, title


def _table() -> Iterator[tuple[int, list[str], int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in {"Z", "X"}:
                    yield int(entry.name), words, int(fields[1])
