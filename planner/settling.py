"""Slices levelled by exact exchanges: heavy ones give to light ones until nothing is gained."""

# The heaviest and the lightest slice put a few weights each into one pool, and the subset of the
# pool that comes nearest to the wanted sum is found exactly: the sums of all subsets of each half,
# one side sorted, give the best pair (Horowitz and Sahni 1974). 16 weights have 65,536 subsets, so
# a difference of one unit is nearly always found, and each exchange brings one of the two slices to
# the mean: about one exchange per slice levels all. An exchange is made only if it narrows the
# pair's gap, so the heaviest load never grows and the search ends.

from bisect import insort
from functools import cache

import numpy as np
import numpy.typing as npt
from attrs import define

__all__ = ["loads_of", "settled"]

_OFFERED = 8
"""Weights that each side of an exchange puts into the pool: 2 ** (2 x 8) subsets."""
_MOVABLE = 64
"""Weights of a slice that may move at all: enough to choose from, and quick at any size."""
_PARTNERS = 3
"""Light slices that the heaviest one tries before it counts as settled."""
_SAMPLES = 4
"""Samples of its weights that the heaviest slice tries before it counts as settled."""
_TURNS = 4
"""Exchanges per slice at most."""


def settled(
    heavy: npt.NDArray[np.int64],
    slice_of: npt.NDArray[np.int64],
    slices: int,
    *,
    equal_counts: bool,
    enough: int,
) -> npt.NDArray[np.int64]:
    """The slice of every weight after levelling; the heaviest slice is no heavier than before.

    Args:
        heavy: The weights, from the heaviest down.
        slice_of: The slice of each weight to begin with.
        slices: How many slices.
        equal_counts: Whether every slice keeps its number of weights.
        enough: Stop as soon as no slice is heavier than this.
    """
    loads = loads_of(heavy, slice_of, slices).tolist()
    ranking = sorted(zip(loads, range(slices), strict=True))
    if _done(ranking, enough):
        return slice_of
    levels = _Levels(heavy, ranking, sum(loads), _pools(slice_of, slices), equal_counts)
    for turn in range(_TURNS * slices):
        if not levels.exchange(turn) or _done(ranking, enough):
            break
    result = slice_of.copy()
    for index, pool in enumerate(levels.pools):
        result[pool] = index
    return result


def loads_of(
    heavy: npt.NDArray[np.int64], slice_of: npt.NDArray[np.int64], slices: int
) -> npt.NDArray[np.int64]:
    """The sum of the weights in each slice."""
    loads = np.zeros(slices, dtype=np.int64)
    np.add.at(loads, slice_of, heavy)
    return loads


def _done(ranking: list[tuple[int, int]], enough: int) -> bool:
    return ranking[-1][0] <= enough or ranking[-1][0] - ranking[0][0] <= 1


def _pools(slice_of: npt.NDArray[np.int64], slices: int) -> list[list[int]]:
    """The weights of each slice that may move: its lightest, and others spread over the rest."""
    by_slice = np.argsort(slice_of, kind="stable")
    ends = np.cumsum(np.bincount(slice_of, minlength=slices))[:-1]
    return [_movable(members) for members in np.split(by_slice, ends)]


def _movable(members: npt.NDArray[np.int64]) -> list[int]:
    listed: list[int] = members.tolist()
    if len(listed) <= _MOVABLE:
        return listed
    half = _MOVABLE // 2
    return [*listed[: -half : -(-len(listed) // half)], *listed[-half:]]


@define
class _Levels:
    """The slices while they are levelled.

    Attributes:
        heavy: The weights, from the heaviest down.
        ranking: Load and index of each slice that can still be helped, ascending.
        total: The sum of these loads.
        pools: The weights that may move, of every slice.
        equal_counts: Whether every slice keeps its number of weights.
    """

    heavy: npt.NDArray[np.int64]
    ranking: list[tuple[int, int]]
    total: int
    pools: list[list[int]]
    equal_counts: bool

    def exchange(self, turn: int) -> bool:
        """Level the heaviest slice with a light one; False when nothing is gained any more."""
        load, giver = self.ranking.pop()
        if len(self.pools[giver]) == 1:
            # A single weight that outweighs the others cannot be helped: level the rest.
            self.total -= load
            return len(self.ranking) > 1
        # Where a slice has more weights than it offers at once, other samples may do better.
        tries = _SAMPLES if len(self.pools[giver]) > _OFFERED else 1
        if any(self._level(load, giver, turn + sample) for sample in range(tries)):
            return True
        self.ranking.append((load, giver))
        return False

    def _level(self, load: int, giver: int, turn: int) -> bool:
        """Level a slice, taken out of the ranking, with one of the lightest."""
        count = len(self.ranking) + 1
        for place, (light, taker) in enumerate(self.ranking[:_PARTNERS]):
            least = min(load * count - self.total, self.total - light * count) // count
            moved = self._moved((giver, taker), max(1, least), load - light, turn)
            if moved:
                del self.ranking[place]
                insort(self.ranking, (load - moved, giver))
                insort(self.ranking, (light + moved, taker))
                return True
        return False

    def _moved(self, pair: tuple[int, int], amount: int, gap: int, turn: int) -> int:
        """Exchange weights so that about the amount moves; 0 when none narrows the gap."""
        giver, taker = pair
        given, taken = _sample(self.pools[giver], turn), _sample(self.pools[taker], turn)
        offered = [*given, *taken]
        weights = self.heavy[offered]
        before = int(weights[: len(given)].sum())
        # A large number added to each weight makes the count part of the sum: the subset nearest
        # to the goal then has as many weights as before.
        extra = 2 * int(weights.sum()) + gap + 1 if self.equal_counts else 0
        kept = _best_subset(weights + extra, before - amount + extra * len(given))
        moved = before - int(weights[kept].sum())
        if not 0 < moved < gap:
            return 0
        stay = {position for position, stays in zip(offered, kept.tolist(), strict=True) if stays}
        leave = set(offered) - stay
        self.pools[giver] = sorted((set(self.pools[giver]) | stay) - leave)
        self.pools[taker] = sorted((set(self.pools[taker]) | leave) - stay)
        return moved


def _sample(pool: list[int], turn: int) -> list[int]:
    stride = -(-len(pool) // _OFFERED)
    return pool[turn % stride :: stride] if stride > 1 else pool


def _best_subset(weights: npt.NDArray[np.int64], goal: int) -> npt.NDArray[np.bool_]:
    """Which weights make the sum nearest to the goal, as a mask; exact."""
    left_bits, right_bits = _subsets((weights.size + 1) // 2), _subsets(weights.size // 2)
    left_sums, right_sums = left_bits @ weights[::2], right_bits @ weights[1::2]
    order = np.argsort(right_sums, kind="stable")
    ascending = right_sums[order]
    wanted = goal - left_sums
    above = np.minimum(np.searchsorted(ascending, wanted), ascending.size - 1)
    below = np.maximum(above - 1, 0)
    over, under = ascending[above] - wanted, wanted - ascending[below]
    nearer = np.where(np.abs(under) <= np.abs(over), below, above)
    best = int(np.argmin(np.abs(ascending[nearer] - wanted)))
    mask = np.zeros(weights.size, dtype=np.bool_)
    mask[::2] = left_bits[best]
    mask[1::2] = right_bits[order[nearer[best]]]
    return mask


@cache
def _subsets(size: int) -> npt.NDArray[np.int64]:
    """Every subset of ``size`` things, one per line of zeros and ones."""
    bits: npt.NDArray[np.int64] = (np.arange(1 << size)[:, None] >> np.arange(size)) & 1
    return bits
