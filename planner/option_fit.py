"""Whether what a worker's actor options ask for is in the bundle that it runs in."""

from collections.abc import Mapping

from planner.findings import Findings
from planner.group import GroupSpec
from planner.options import JsonObject

__all__ = ["asked_of_bundle", "check_options_fit"]


def check_options_fit(
    spec: GroupSpec, bundles: Mapping[tuple[int, int], tuple[tuple[str, float], ...]]
) -> None:
    """Do nothing when every bundle of the group holds what its worker's options ask for.

    Args:
        spec: The group.
        bundles: By placement group and bundle, the resources that the bundle holds, as pairs of
            name and amount; bundles of which nothing is known are left out.

    Raises:
        PlanError: A worker could never be placed; the error says what would fit.
    """
    asked = asked_of_bundle(spec.options)
    if not asked:
        return
    findings = Findings(f"worker group {spec.name!r}")
    for path, resource, amount in asked:
        short: list[tuple[int, int]] = []
        least = amount
        for slot in spec.slots:
            place = (slot.placement_group, slot.bundle)
            held = dict(bundles[place]).get(resource, 0) if place in bundles else amount
            if held < amount:
                short.append(place)
                least = min(least, held)
        if short:
            group, bundle = short[0]
            more = f" and {len(short) - 1} more" if len(short) > 1 else ""
            wanted = f"{_shown(amount)} of {resource}"
            fits = f"ask for {_shown(least)} at most" if least else "leave it out"
            findings.add(
                path,
                f"each worker asks for {wanted}, and bundle {bundle} of placement group "
                f"{group}{more} holds {_shown(least)}",
                f"{fits}, or reserve bundles with {wanted}",
            )
    findings.check()


def _shown(amount: float) -> str:
    return str(int(amount)) if amount == int(amount) else f"{amount:g}"


def asked_of_bundle(options: JsonObject) -> list[tuple[str, str, float]]:
    """What options ask of a bundle: the option's path, Ray's name of the resource, the amount."""
    given = options.value()
    asked: list[tuple[str, str, float]] = []
    for option, resource in (
        ("num_cpus", "CPU"),
        ("memory", "memory"),
        ("object_store_memory", "object_store_memory"),
    ):
        amount = given.get(option)
        if isinstance(amount, int | float) and amount:
            asked.append((f"options.{option}", resource, amount))
    custom = given.get("resources")
    for name, amount in custom.items() if isinstance(custom, Mapping) else ():
        if isinstance(amount, int | float) and amount:
            asked.append((f"options.resources[{name!r}]", name, amount))
    return asked
