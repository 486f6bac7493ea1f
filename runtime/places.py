"""What of this process and of the cluster bears on a group's places, and the ports it holds."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import evolve

from planner.findings import PlanError
from planner.group import GroupSpec
from planner.group_places import PlaceArguments
from planner.inventory import BundleFacts
from planner.launch import LaunchPlan
from planner.ports import PortRange
from planner.prediction import port_ranges
from planner.preflight import lost_bundles
from planner.profiling import PROFILE_VARIABLE
from runtime.errors import ExecutionError

__all__ = ["NUMA_VARIABLE", "PORTS", "NodeLostError", "check_still_there", "place_arguments"]

NUMA_VARIABLE = "RANKPLAN_NUMA"
"""Set to 0 in the driver's environment, it turns every NUMA binding off."""


class NodeLostError(ExecutionError):
    """A node has left the cluster between the reservation and the launch."""


def place_arguments(
    *,
    localities: Mapping[str, object] | None,
    ports_per_worker: int,
    ports_per_engine: int,
    numa_binding: bool,
    profile: Mapping[str, Mapping[str, object]] | Sequence[str] | None,
) -> PlaceArguments:
    """What a group asks of its places, with what this process's environment says."""
    numa: object = numa_binding
    if numa is True and os.environ.get(NUMA_VARIABLE) == "0":
        numa = False
    return PlaceArguments(
        localities=localities,
        ports_per_worker=ports_per_worker,
        ports_per_engine=ports_per_engine,
        numa_binding=numa,
        profile=profile,
        profile_variable=os.environ.get(PROFILE_VARIABLE),
    )


def check_still_there(counts: Sequence[int], landed: Sequence[BundleFacts]) -> None:
    """Do nothing when every bundle is on a living node.

    Raises:
        NodeLostError: A node has left; nothing was started.
    """
    addresses: dict[int, list[str]] = {}
    for each in landed:
        addresses.setdefault(each.placement_group, []).append(each.address)
    findings = lost_bundles(counts, addresses)
    if findings:
        raise NodeLostError(str(PlanError("reservation", findings)))


class _Ports:
    """The ports that the live groups of this process hold."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: list[tuple[LaunchPlan, tuple[PortRange, ...]]] = []

    @contextmanager
    def planning(self, spec: GroupSpec) -> Iterator[GroupSpec]:
        """The group, told what others hold; nobody else plans ports meanwhile."""
        if not spec.places.wants_ports:
            yield spec
            return
        with self._lock:
            taken = tuple(each for _, ranges in self._held for each in ranges)
            yield evolve(spec, places=evolve(spec.places, ports_taken=taken))

    def note(self, plan: LaunchPlan) -> None:
        """Keep a group's ports for it; to be called while its ports are planned."""
        ranges = port_ranges(plan)
        if ranges:
            with self._lock:
                self._held.append((plan, ranges))

    def release(self, plan: LaunchPlan | None) -> None:
        """Give a group's ports back; one that holds none does nothing."""
        with self._lock:
            self._held = [each for each in self._held if each[0] is not plan]


PORTS = _Ports()
"""One for this process."""
