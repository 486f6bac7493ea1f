"""Makes a planned reservation on Ray, waits for it, and reports where it landed."""

import inspect
import logging
import os
import time
import uuid
from collections.abc import Sequence
from itertools import count

import ray
from attrs import evolve, frozen
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from planner.findings import Findings
from planner.inventory import BundleFacts, Inventory
from planner.node_choice import (
    RayFeatures,
    check_landed,
    chosen_nodes,
    hardware_order,
    named_by_id,
    why_no_node,
)
from planner.requests import GroupRequest, Strategy
from planner.reservation import plan_reservation
from planner.virtual_cluster import (
    TRIES_VARIABLE,
    BundleRequest,
    ClusterSpec,
    checked_tries,
    plan_bundles,
    reservation_request,
)
from planner.waiting import (
    LookAgain,
    Looks,
    first_step,
    next_report,
    progress_text,
    still_waiting,
)
from runtime.observe import observe_bundles, observe_inventory

__all__ = ["READY_SECONDS", "Reserved", "are_removed", "remove", "reserve"]

_log = logging.getLogger("rankplan")

READY_SECONDS = 180.0
"""How long placement groups that fit may take to become ready."""

REMOVED_SECONDS = 10.0
"""How long placement groups that were given back may take to go."""

FEATURES = RayFeatures(
    label_selectors="bundle_label_selector" in inspect.signature(placement_group).parameters,
    topology_strategy="topology_strategy" in inspect.signature(placement_group).parameters,
)
"""What the installed Ray can be told."""


@frozen(kw_only=True)
class Reserved:
    """A reservation that is there.

    Attributes:
        groups: The placement groups, in the order in which ranks are counted over them.
        facts: On which node each bundle landed.
        inventory: The nodes that may be used, as they were when it was made.
    """

    groups: tuple[PlacementGroup, ...]
    facts: tuple[BundleFacts, ...]
    inventory: Inventory


class _NodeGoneError(Exception):
    """A node that bundles name has left the cluster."""


def reserve(
    spec: ClusterSpec, *, unified: bool, strategy: Strategy, ready_timeout: float
) -> Reserved:
    """Reserve what was asked for, once it fits.

    Raises:
        ResourceInsufficientError: It can't fit; nothing is left behind.
        TimeoutError: It did not become ready in time; it was removed.
    """
    request = reservation_request(spec, unified=unified, strategy=strategy)
    begun = time.monotonic()
    ends = begun + ready_timeout
    while True:
        requests = _planned(spec, request, ends, unified=unified, strategy=strategy)
        groups: list[PlacementGroup] = []
        try:
            groups.extend(_submit(each) for each in requests)
            _wait(spec, request, requests, groups, begun, ready_timeout)
            return _landed(spec, groups, unified=unified)
        except _NodeGoneError as gone:
            _log.warning("virtual cluster %r is planned again: %s", spec.pool, gone)
            remove(groups)
        except BaseException:
            remove(groups)
            raise


def _planned(
    spec: ClusterSpec, request: GroupRequest, ends: float, *, unified: bool, strategy: Strategy
) -> tuple[BundleRequest, ...]:
    looks = checked_tries(os.environ.get(TRIES_VARIABLE, "6"), f"virtual cluster {spec.name!r}")
    made = Looks()
    while True:
        seen = observe_inventory()
        able = chosen_nodes(spec.nodes, seen)
        plan = plan_reservation([request], able)
        step = first_step(
            plan,
            plan_reservation([request], able.all_free()),
            made,
            looks,
            ends - time.monotonic(),
            why_no_node(spec.nodes, seen),
        )
        if isinstance(step, LookAgain):
            told = (spec.pool, step.why, step.pause)
            level = logging.INFO if step.is_brief else logging.WARNING
            _log.log(level, "virtual cluster %r: %s; looking again in %g s", *told)
            time.sleep(step.pause)
            made = step.made
            continue
        return plan_bundles(
            evolve(spec, nodes=named_by_id(spec.nodes, seen)),
            unified=unified,
            strategy=strategy,
            run=uuid.uuid4().hex[:8],
            plan=plan,
            features=FEATURES,
        )


def _submit(request: BundleRequest) -> PlacementGroup:
    bundles = [{name: float(amount) for name, amount in bundle} for bundle in request.bundles]
    selectors = [dict(each) for each in request.selectors]
    if request.domain is not None:
        levels = {request.domain: "STRICT_PACK", "ray.io/node-id": request.strategy.value}
        return placement_group(
            bundles,
            name=request.name,
            topology_strategy=levels,
            bundle_label_selector=selectors or None,
        )
    if selectors:
        return placement_group(
            bundles,
            strategy=request.strategy.value,
            name=request.name,
            _soft_target_node_id=request.prefers,
            bundle_label_selector=selectors,
        )
    return placement_group(
        bundles,
        strategy=request.strategy.value,
        name=request.name,
        _soft_target_node_id=request.prefers,
    )


def _wait(
    spec: ClusterSpec,
    request: GroupRequest,
    requests: Sequence[BundleRequest],
    groups: Sequence[PlacementGroup],
    begun: float,
    allowed: float,
) -> None:
    signals = [group.ready() for group in groups]
    for reports in count():
        pause = next_report(reports, begun + allowed - time.monotonic())
        there, _ = ray.wait(signals, num_returns=len(signals), timeout=pause)
        ready = [signal in there for signal in signals]
        left = still_waiting(request, ready)
        if left is None:
            ray.get(signals)
            return
        seen = chosen_nodes(spec.nodes, observe_inventory())
        _check_named_nodes(requests, ready, seen)
        elapsed = time.monotonic() - begun
        plan = plan_reservation([left], seen)
        told = progress_text(spec.pool, plan, ready, elapsed, allowed)
        if elapsed >= allowed:
            raise TimeoutError(
                f"{told}. The placement groups were removed: end what holds the "
                "resources, or wait longer (ready_timeout)"
            )
        is_brief = plan.fits and not reports
        _log.log(logging.INFO if is_brief else logging.WARNING, "%s", told)


def _check_named_nodes(
    requests: Sequence[BundleRequest], ready: Sequence[bool], seen: Inventory
) -> None:
    there = {node.node_id for node in seen.nodes}
    for request, is_ready in zip(requests, ready, strict=True):
        gone = sorted(request.named_nodes - there)
        if gone and not is_ready:
            raise _NodeGoneError(f"node {gone[0]} has left the cluster")


def _landed(spec: ClusterSpec, groups: Sequence[PlacementGroup], *, unified: bool) -> Reserved:
    inventory = chosen_nodes(spec.nodes, observe_inventory())
    facts = observe_bundles(groups)
    findings = Findings(f"virtual cluster {spec.pool!r}")
    check_landed(spec.nodes, facts, inventory, findings)
    findings.check()
    ordered = list(groups)
    if not unified:
        ordered = [groups[index] for index in hardware_order(facts, inventory)]
        facts = observe_bundles(ordered)
    return Reserved(groups=tuple(ordered), facts=facts, inventory=inventory)


def remove(groups: Sequence[PlacementGroup]) -> None:
    """Give placement groups back; what runs in them is ended by Ray."""
    for group in groups:
        if ray.is_initialized():
            remove_placement_group(group)


def are_removed(groups: Sequence[PlacementGroup], name: str) -> bool:
    """Whether placement groups that were given back are gone; waits a while for it."""
    ends = time.monotonic() + REMOVED_SECONDS
    left = list(groups)
    while ray.is_initialized():
        left = [g for g in left if placement_group_table(g).get("state", "REMOVED") != "REMOVED"]
        if not left:
            break
        if time.monotonic() > ends:
            told = (name, len(left), REMOVED_SECONDS, ", ".join(each.id.hex() for each in left))
            _log.warning(
                "virtual cluster %r: %d placement groups still there after %g s: %s", *told
            )
            return False
        time.sleep(0.01)
    return True
