"""Putting identical bundles onto nodes, as whole numbers: how many, and how many each node holds.

Nodes are given by their capacity in bundles, in the order in which they should be used. Every
answer is deterministic: ties go to the earlier node.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

__all__ = [
    "best_fit",
    "exact_fit",
    "fill",
    "first_fit",
    "fit_apart",
    "fit_units",
    "one_each",
    "round_robin",
]

_SEARCH_BUDGET = 2_000_000


def fill(count: int, capacities: Sequence[int]) -> list[int]:
    """The node of each bundle, on as few nodes as can hold them, one node after the other.

    Exact: fewer than ``count`` come back only when the capacities sum to less.
    """
    largest_first = sorted(range(len(capacities)), key=lambda node: (-capacities[node], node))
    chosen: list[int] = []
    held = 0
    for node in largest_first:
        if held >= count:
            break
        chosen.append(node)
        held += capacities[node]
    placed: list[int] = []
    for node in sorted(chosen):
        placed.extend([node] * min(capacities[node], count - len(placed)))
    return placed


def round_robin(count: int, capacities: Sequence[int]) -> list[int]:
    """The node of each bundle, one node after the other in turn.

    Exact: fewer than ``count`` come back only when the capacities sum to less.
    """
    placed: list[int] = []
    turn = [node for node, capacity in enumerate(capacities) if capacity > 0]
    level = 0
    while turn and len(placed) < count:
        level += 1
        placed.extend(turn[: count - len(placed)])
        turn = [node for node in turn if capacities[node] > level]
    return placed


def one_each(count: int, capacities: Sequence[int]) -> list[int]:
    """The node of each bundle, every one on a node of its own; exact."""
    able = [node for node, capacity in enumerate(capacities) if capacity > 0]
    return able[:count]


def first_fit(sizes: Sequence[int], capacities: Sequence[int]) -> list[int | None]:
    """For each unit of bundles that must share a node, the first node that has room.

    Exact when all sizes are equal.
    """
    left = list(capacities)
    # Room only shrinks: a node too small for a size stays too small for it.
    start: dict[int, int] = {}
    homes: list[int | None] = []
    for size in sizes:
        node = start.get(size, 0)
        while node < len(left) and left[node] < size:
            node += 1
        start[size] = node
        if node == len(left):
            homes.append(None)
            continue
        left[node] -= size
        homes.append(node)
    return homes


def fit_apart(sizes: Sequence[int], capacities: Sequence[int]) -> list[int | None] | None:
    """For each unit a node of its own; None when there are not enough with room.

    Equal sizes take the nodes in order; of mixed ones each takes the node that it fills most.
    """
    homes: list[int | None] = [None] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda unit: (-sizes[unit], unit))
    mixed = len(set(sizes)) > 1
    nodes = [node for node, room in enumerate(capacities) if room >= min(sizes, default=0)]
    if mixed:
        nodes.sort(key=lambda node: (capacities[node], node))
    for size in sorted(set(sizes), reverse=True):
        units = [unit for unit in order if sizes[unit] == size]
        able = [node for node in nodes if capacities[node] >= size]
        if len(able) < len(units):
            return None
        for unit, node in zip(units, able[: len(units)], strict=True):
            homes[unit] = node
        taken = set(able[: len(units)])
        nodes = [node for node in nodes if node not in taken]
    return homes


def best_fit(sizes: Sequence[int], capacities: Sequence[int]) -> list[int | None]:
    """For each unit, largest first, the fullest node that has room for it."""
    by_room: dict[int, list[int]] = {}
    for node, room in enumerate(capacities):
        by_room.setdefault(room, []).append(node)
    rooms = sorted(by_room)
    for nodes in by_room.values():
        heapify(nodes)
    homes: list[int | None] = [None] * len(sizes)
    for unit in sorted(range(len(sizes)), key=lambda unit: (-sizes[unit], unit)):
        at = bisect_left(rooms, sizes[unit])
        if at == len(rooms):
            continue
        room = rooms[at]
        node = heappop(by_room[room])
        if not by_room[room]:
            del by_room[room], rooms[at]
        rest = room - sizes[unit]
        if rest not in by_room:
            by_room[rest] = []
            insort(rooms, rest)
        heappush(by_room[rest], node)
        homes[unit] = node
    return homes


def exact_fit(sizes: Sequence[int], capacities: Sequence[int]) -> list[int | None] | None:
    """A home for every unit, by search; None when there is none, or none is found in time."""
    if sum(sizes) > sum(capacities) or max(sizes, default=0) > max(capacities, default=0):
        return None
    order = sorted(range(len(sizes)), key=lambda unit: (-sizes[unit], unit))
    left = list(capacities)
    homes: list[int | None] = [None] * len(sizes)
    dead_ends: set[tuple[int, tuple[int, ...]]] = set()
    steps = _SEARCH_BUDGET // (len(capacities) + 1)
    depth = 0
    choices: list[list[int]] = []
    while depth < len(order):
        size = sizes[order[depth]]
        if len(choices) == depth:
            choices.append(_choices(size, left, (depth, tuple(sorted(left))), dead_ends))
        steps -= 1
        if steps < 0:
            return None
        if choices[depth]:
            node = choices[depth].pop()
            left[node] -= size
            homes[order[depth]] = node
            depth += 1
            continue
        dead_ends.add((depth, tuple(sorted(left))))
        choices.pop()
        depth -= 1
        if depth < 0:
            return None
        back = homes[order[depth]]
        if back is not None:
            left[back] += sizes[order[depth]]
    return homes


def _choices(
    size: int,
    left: Sequence[int],
    state: tuple[int, tuple[int, ...]],
    dead_ends: set[tuple[int, tuple[int, ...]]],
) -> list[int]:
    """One node of each distinct room, the fullest last, for popping."""
    if state in dead_ends:
        return []
    rooms: dict[int, int] = {}
    for node, room in enumerate(left):
        if room >= size:
            rooms.setdefault(room, node)
    return [rooms[room] for room in sorted(rooms, reverse=True)]


def fit_units(
    sizes: Sequence[int], capacities: Sequence[int], *, in_order: bool
) -> list[int | None]:
    """The node of each unit of bundles that must share one; None for those left over.

    Tries the plain ways first and searches only when they fail, so it is exact for equal sizes
    and for as many mixed ones as the search can settle.

    Args:
        sizes: The bundles of each unit.
        capacities: How many bundles each node holds.
        in_order: Whether to prefer node order over filling nodes up.
    """
    ways: tuple[Callable[[Sequence[int], Sequence[int]], list[int | None] | None], ...] = (
        (first_fit, best_fit, exact_fit) if in_order else (best_fit, first_fit, exact_fit)
    )
    best: list[int | None] = [None] * len(sizes)
    most = -1
    for way in ways:
        homes = way(sizes, capacities)
        if homes is None:
            continue
        placed = sum(size for size, home in zip(sizes, homes, strict=True) if home is not None)
        if placed > most:
            best, most = homes, placed
        if None not in homes:
            break
    return best
