"""Which bundles become workers, in which tied groups and under which names."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from attrs import evolve, frozen

from planner.actor_names import base_name, group_names, groups_watched
from planner.findings import Findings
from planner.whole_numbers import whole_number

__all__ = ["Slot", "choose_prefix", "plan_slots", "plan_tied_slots", "whole"]


@frozen(kw_only=True)
class Slot:
    """One place for a worker: a bundle of a placement group, and its part in a tied group.

    Attributes:
        tied_group: Which tied group the worker belongs to, counted from 0.
        member: Its place in the tied group; 0 is the leader.
        node: The node index in the caller's terms: the placement group's, or what
            ``bundle_indices_list`` says. A tied group that spans nodes has its first node's.
        placement_group: The placement group's index.
        bundle: The bundle's index in the placement group.
        tied_bundles: The bundles of the whole tied group, leader first.
        is_alone: Whether it is one worker outside any group, whose name is given as a whole.
    """

    tied_group: int
    member: int
    node: int
    placement_group: int
    bundle: int
    tied_bundles: tuple[int, ...]
    is_alone: bool = False

    @property
    def is_leader(self) -> bool:
        """Whether this worker leads its tied group."""
        return self.member == 0

    def name(self, prefix: str) -> str:
        """The worker's name: unique in its group, readable, the same on every run."""
        if self.is_alone:
            return prefix
        if len(self.tied_bundles) > 1:
            return f"{prefix}-grp{self.tied_group}-{self.member}"
        return f"{prefix}-{self.node}-{self.bundle}"


def plan_slots(
    workers_per_node: object, bundle_counts: Sequence[int], findings: Findings
) -> tuple[Slot, ...]:
    """One worker per bundle, each a tied group of its own.

    Args:
        workers_per_node: None for every bundle, a whole number for that many on every placement
            group, or a list with one number per placement group.
        bundle_counts: How many bundles each placement group has.
        findings: Where problems are recorded; nothing is planned for a faulty entry.

    Returns:
        Slots by placement group, then bundle.
    """
    wanted = _wanted(workers_per_node, bundle_counts, findings)
    pairs = (
        (group, bundle)
        for group, count in enumerate(wanted)
        for bundle in range(min(count, bundle_counts[group]))
    )
    slots = tuple(
        Slot(
            tied_group=index,
            member=0,
            node=group,
            placement_group=group,
            bundle=bundle,
            tied_bundles=(bundle,),
        )
        for index, (group, bundle) in enumerate(pairs)
    )
    if not slots and not findings:
        findings.add("workers_per_node", "the group has no worker", "ask for at least one")
    return slots


def _wanted(given: object, bundle_counts: Sequence[int], findings: Findings) -> list[int]:
    if given is None:
        return list(bundle_counts)
    if whole_number(given) is not None:
        counts: list[object] = [given] * len(bundle_counts)
        paths = ["workers_per_node"] * len(bundle_counts)
    elif isinstance(given, list | tuple):
        counts = list(given)
        paths = [f"workers_per_node[{index}]" for index in range(len(counts))]
    else:
        findings.add(
            "workers_per_node",
            f"{given!r} is of type {type(given).__name__}",
            "give None (every bundle), a whole number, or a list with one per placement group",
        )
        return []
    if len(counts) != len(bundle_counts):
        findings.add(
            "workers_per_node",
            f"{len(counts)} entries for {len(bundle_counts)} placement groups",
            "give one number per placement group",
        )
        return []
    wanted: list[int] = []
    for group, (path, asked, room) in enumerate(zip(paths, counts, bundle_counts, strict=True)):
        count = whole(asked)
        if count is None:
            findings.add(path, f"{asked!r} is not a number of workers", "give 0 or more")
            wanted.append(0)
            continue
        if count > room:
            findings.add(
                path,
                f"{count} workers for {room} bundle{'s'[: room != 1]} of placement group {group}",
                f"ask for {room} at most, or reserve more bundles",
            )
        wanted.append(count)
    return wanted


def plan_tied_slots(
    bundle_indices_list: object, bundle_counts: Sequence[int], findings: Findings
) -> tuple[Slot, ...]:
    """The workers of explicit tied groups, in the caller's order.

    Args:
        bundle_indices_list: ``[(node_idx, [bundle, ...]), ...]``, one entry per tied group.
        bundle_counts: How many bundles each placement group has. With a single (unified)
            placement group, ``node_idx`` is a label only.
        findings: Where problems are recorded; a faulty entry gives no slots.
    """
    entries = bundle_indices_list
    if not isinstance(entries, list | tuple) or not entries:
        findings.add(
            "bundle_indices_list",
            f"{entries!r} names no tied group",
            "give [(node_idx, [bundle, ...]), ...]",
        )
        return ()
    slots: list[Slot] = []
    for index, entry in enumerate(entries):
        slots.extend(_tied(index, entry, bundle_counts, findings))
    used = Counter((slot.placement_group, slot.bundle) for slot in slots)
    for (group, bundle), times in sorted(used.items()):
        if times > 1:
            findings.add(
                "bundle_indices_list",
                f"bundle {bundle} of placement group {group} occurs {times} times",
                "give each bundle to one worker of the group",
            )
    return tuple(slots)


def _tied(
    index: int, entry: object, bundle_counts: Sequence[int], findings: Findings
) -> Iterable[Slot]:
    path = f"bundle_indices_list[{index}]"
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        findings.add(path, f"{entry!r} is not a pair", "give (node_idx, [bundle, ...])")
        return
    node, bundles = whole(entry[0]), entry[1]
    if node is None or (len(bundle_counts) > 1 and node >= len(bundle_counts)):
        findings.add(
            f"{path}[0]",
            f"{entry[0]!r} is not the index of one of {len(bundle_counts)} placement groups",
            f"give 0 to {len(bundle_counts) - 1}",
        )
        return
    group = node if len(bundle_counts) > 1 else 0
    if not isinstance(bundles, list | tuple) or not bundles:
        findings.add(f"{path}[1]", f"{bundles!r} holds no bundle", "give a list of bundle indices")
        return
    numbers = [whole(bundle) for bundle in bundles]
    good = [number for number in numbers if number is not None and number < bundle_counts[group]]
    if len(good) != len(numbers):
        wrong = [bundles[i] for i, number in enumerate(numbers) if number not in good]
        findings.add(
            f"{path}[1]",
            f"{wrong!r} are not bundles of placement group {group}, which has "
            f"{bundle_counts[group]}",
            f"give 0 to {bundle_counts[group] - 1}",
        )
        return
    for member, bundle in enumerate(good):
        yield Slot(
            tied_group=index,
            member=member,
            node=node,
            placement_group=group,
            bundle=bundle,
            tied_bundles=tuple(good),
        )


def whole(value: object) -> int | None:
    """A whole number of 0 or more, else None.

    numpy's integers count too: counts and bundle lists are often cut from arrays.
    """
    number = whole_number(value)
    return None if number is None or number < 0 else number


def regroup(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """The same single-worker slots, their tied groups counted in the order given."""
    return tuple(evolve(slot, tied_group=index) for index, slot in enumerate(slots))


_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/+-]*")
_LONGEST_PREFIX = 200


def choose_prefix(
    prefix: object,
    worker_class: str,
    slots: Sequence[Slot],
    taken: AbstractSet[str],
    findings: Findings,
) -> str:
    """The prefix of the group's worker names.

    An empty prefix becomes the class's own name, followed by ``-2``, ``-3`` ... when another
    group has it already, whatever its actors are called by now. A prefix that was asked for is
    never changed: taken names are a finding.
    """
    if not isinstance(prefix, str):
        findings.add("name_prefix", f"{prefix!r} is not a string", "give a string")
        return ""
    if not prefix:
        base = re.sub(r"\W", "-", worker_class.rpartition(".")[2], flags=re.ASCII).lstrip("_-")
        base = base[: _LONGEST_PREFIX // 2] or "worker"
        tries = [base, *(f"{base}-{number}" for number in range(2, 10_000))]
        if not taken:
            return base
        names = taken | {base_name(name) for name in taken}
        alone = any(slot.is_alone for slot in slots)
        groups = frozenset[str]() if alone else group_names(taken)
        return next(
            t for t in tries if t not in groups and not any(slot.name(t) in names for slot in slots)
        )
    if not _PREFIX.fullmatch(prefix) or len(prefix) > _LONGEST_PREFIX:
        findings.add(
            "name_prefix",
            f"{prefix!r} cannot be part of an actor's name",
            f"start with a letter or digit, use letters, digits and _ . : @ / + -, "
            f"{_LONGEST_PREFIX} characters at most",
        )
        return prefix
    if taken:
        _check_free(prefix, slots, taken, findings)
    return prefix


def _check_free(
    prefix: str, slots: Sequence[Slot], taken: AbstractSet[str], findings: Findings
) -> None:
    mine = {slot.name(prefix) for slot in slots}
    clashes = sorted(name for name in taken if name in mine or base_name(name) in mine)
    remedy = f"end the other group, or use another prefix, such as {prefix + '-2'!r}"
    if clashes:
        count = len({name if name in mine else base_name(name) for name in clashes})
        findings.add(
            "name_prefix",
            f"{count} of {len(slots)} names are taken by live actors, {clashes[0]!r} first",
            remedy,
        )
    elif prefix in groups_watched(taken) and not any(slot.is_alone for slot in slots):
        findings.add("name_prefix", f"a live group is called {prefix!r} already", remedy)
