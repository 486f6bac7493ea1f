"""Which node each bundle of each pool goes to, and what stands in the way.

A pool's bundles are identical, so a node holds a number of them, and placing is counting
(``placing``). Pools differ from each other; they are placed one after the other, and when that
leaves something out, again with the most demanding first.
"""

from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from planner.label_selectors import matches
from planner.ledger import Ledger, rules_of
from planner.nodes import Node
from planner.placing import fill, fit_apart, fit_units, one_each, round_robin
from planner.pools import Pool
from planner.requests import Strategy
from planner.topology import whole_segments
from planner.verdicts import FitsWhenFree, NeverFits, Verdict

__all__ = ["Units", "assign"]

Units = tuple[tuple[Verdict, ...], ...]
"""A verdict per bundle, by placement group."""

_Homes = list[list[int | None]]


@frozen
class _Way:
    """One way of trying: pools in which order, which nodes to prefer."""

    demanding_first: bool
    now_first: bool
    in_order: bool


_WAYS = (
    _Way(demanding_first=False, now_first=True, in_order=True),
    _Way(demanding_first=True, now_first=True, in_order=False),
    _Way(demanding_first=True, now_first=False, in_order=False),
)


def assign(pools: Sequence[Pool], nodes: Sequence[Node]) -> tuple[Units, ...]:
    """The verdicts of each pool, by placement group and bundle.

    The first way in which everything fits now; else the one that leaves the fewest bundles
    without a place, then the fewest that must wait.
    """
    demanding = _demanding(pools, nodes)
    best: tuple[tuple[int, int], tuple[Units, ...]] | None = None
    for way in _WAYS:
        order = demanding if way.demanding_first else range(len(pools))
        ledger = Ledger(nodes)
        found = {index: _place_pool(pools[index], ledger, way) for index in order}
        units = tuple(found[index] for index in range(len(pools)))
        score = _score(units)
        if best is None or score < best[0]:
            best = (score, units)
        if score == (0, 0):
            break
    return () if best is None else best[1]


def _score(pools: Sequence[Units]) -> tuple[int, int]:
    kinds = Counter(type(verdict) for units in pools for unit in units for verdict in unit)
    return kinds[NeverFits], kinds[FitsWhenFree]


def _demanding(pools: Sequence[Pool], nodes: Sequence[Node]) -> list[int]:
    def ease(index: int) -> tuple[bool, bool, int, int, int]:
        pool = pools[index]
        rules = rules_of(pool)
        eligible = sum(1 for node in nodes if matches(rules, node.labels))
        together = max(pool.units) if pool.strategy is Strategy.STRICT_PACK else 1
        size = together * max(pool.needs.gpu_share, 1)
        return (not pool.needs.gpu_share, pool.segment_size is None, eligible, -size, index)

    return sorted(range(len(pools)), key=ease)


def _place_pool(pool: Pool, ledger: Ledger, way: _Way) -> Units:
    candidates = ledger.candidates(pool)
    rooms = ledger.capacities(pool, candidates, now=False)
    free = ledger.capacities(pool, candidates, now=True) if way.now_first else rooms
    homes = _homes(pool, ledger, candidates, free, in_order=way.in_order)
    if way.now_first and any(None in unit for unit in homes):
        homes = _homes(pool, ledger, candidates, rooms, in_order=way.in_order)
    if pool.strategy is Strategy.STRICT_PACK and not pool.flexible and not pool.segment_size:
        _crowd(homes, rooms)
    verdicts = _verdicts(pool, ledger, candidates, homes)
    used = Counter(home for unit in homes for home in unit if home is not None)
    for home, count in used.items():
        ledger.take(pool, candidates[home], count)
    if pool.exclusive:
        ledger.close([candidates[home] for home in used])
    reasons = _Reasons(pool, ledger, candidates, used)
    return tuple(
        tuple(reasons.of(homes[index]) if each is None else each for each in unit)
        for index, unit in enumerate(verdicts)
    )


def _homes(
    pool: Pool, ledger: Ledger, candidates: Sequence[int], rooms: Sequence[int], *, in_order: bool
) -> _Homes:
    """For each placement group and bundle the position of its candidate, or None."""
    if pool.segment_size is not None:
        return _in_segments(pool, ledger, candidates, rooms)
    if pool.strategy is Strategy.STRICT_PACK and not pool.flexible:
        apart = fit_apart(pool.units, rooms) if pool.apart else None
        homes = apart or fit_units(pool.units, rooms, in_order=in_order)
        return [[home] * size for home, size in zip(homes, pool.units, strict=True)]
    count = sum(pool.units)
    places = {
        Strategy.STRICT_PACK: fill,
        Strategy.PACK: fill,
        Strategy.SPREAD: round_robin,
        Strategy.STRICT_SPREAD: one_each,
    }[pool.strategy](count, rooms)
    if not pool.flexible:
        return [[*places, *(None for _ in range(count - len(places)))]]
    units: _Homes = [[home] * size for home, size in Counter(places).items()]
    return [*units, [None] * (count - len(places))] if len(places) < count else units


def _in_segments(
    pool: Pool, ledger: Ledger, candidates: Sequence[int], rooms: Sequence[int]
) -> _Homes:
    entries = [entry for entry in pool.entries if entry]
    position = {ledger.node_id(index): at for at, index in enumerate(candidates)}
    topology = {
        ledger.node_id(index): place
        for at, index in enumerate(candidates)
        if (place := ledger.place(index)) is not None and rooms[at] >= max(entries)
    }
    usable = whole_segments(topology, pool.segment_size or 1)
    nodes: list[int | None] = [position[node_id] for node_id in usable[: len(entries)]]
    nodes += [None] * (len(entries) - len(nodes))
    units: _Homes = [[home] * size for home, size in zip(nodes, entries, strict=True)]
    return [[home for unit in units for home in unit]] if pool.unified else units


def _crowd(homes: _Homes, rooms: Sequence[int]) -> None:
    """Put what fits of each homeless unit on the node that comes closest to holding it."""
    left = list(rooms)
    for unit in homes:
        if unit and unit[0] is not None:
            left[unit[0]] -= len(unit)
    for unit in homes:
        if left and unit and unit[0] is None:
            closest = max(range(len(left)), key=lambda at: (left[at], -at))
            count = min(left[closest], len(unit))
            unit[:count] = [closest] * count
            left[closest] -= count


def _verdicts(
    pool: Pool, ledger: Ledger, candidates: Sequence[int], homes: _Homes
) -> list[list[Verdict | None]]:
    before: Counter[int] = Counter()
    verdicts: list[list[Verdict | None]] = []
    for unit in homes:
        found: list[Verdict | None] = []
        for home in unit:
            if home is None:
                found.append(None)
                continue
            found.append(ledger.verdict(pool, candidates[home], before[home]))
            before[home] += 1
        verdicts.append(found)
    return verdicts


class _Reasons:
    """Why bundles have no place; found once for all that share the reason."""

    def __init__(
        self, pool: Pool, ledger: Ledger, candidates: Sequence[int], used: Counter[int]
    ) -> None:
        self._pool, self._ledger, self._candidates = pool, ledger, candidates
        self._mine = {candidates[home] for home in used}
        self._found: dict[int | None, NeverFits] = {}

    def of(self, unit: Sequence[int | None]) -> NeverFits:
        """Why the homeless bundles of a placement group are that."""
        # A unit that must share a node was put, as far as it goes, on the one that came closest.
        alone = self._pool.strategy is Strategy.STRICT_PACK and unit[0] is not None
        closest = unit[0] if alone else None
        if closest not in self._found:
            self._found[closest] = self._find(closest)
        return self._found[closest]

    def _find(self, closest: int | None) -> NeverFits:
        if self._pool.segment_size is not None:
            nodes = len(self._mine)
            whole = nodes // self._pool.segment_size
            return NeverFits(resource="segment", missing=1, closest=None, has=whole, left=0)
        among = self._candidates if closest is None else [self._candidates[closest]]
        if self._pool.strategy is Strategy.STRICT_SPREAD:
            among = [index for index in among if index not in self._mine]
        return self._ledger.shortfall(self._pool, among, self._mine)
