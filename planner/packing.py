"""Weights packed into as few micro-batches under a budget as can be found, evenly filled."""

# First-fit decreasing needs at most 11/9 of the fewest micro-batches plus one (Johnson 1973), but
# leaves its last ones nearly empty, and ranks then wait for each other. So balancing is tried with
# the fewest micro-batches that the total allows, then with counts up to that of first-fit
# decreasing, halving the range. Where it stays within the budget, the result needs no more
# micro-batches and fills them evenly.

import numpy as np
import numpy.typing as npt
from attrs import frozen

from planner.balancing import balanced
from planner.settling import loads_of

__all__ = ["Packing", "first_fit_decreasing", "packing"]


@frozen
class Packing:
    """Which micro-batch each weight is in; some may be empty.

    Attributes:
        batch_of: One micro-batch index per weight.
        batches: How many micro-batches there are.
    """

    batch_of: npt.NDArray[np.int64]
    batches: int


def packing(
    weights: npt.NDArray[np.int64], budget: int, *, multiple: int = 1, at_least: int = 0
) -> Packing:
    """The fewest micro-batches that were found, none heavier than the budget.

    Never more than by first-fit decreasing, rounded up to the multiple.

    Args:
        weights: Whole numbers from 0 to the budget.
        budget: The largest weight of a micro-batch.
        multiple: The number of micro-batches is a multiple of this.
        at_least: The number of micro-batches is this or more.
    """
    low = _up(max(_fewest(weights, budget), at_least), multiple)
    found = _even(weights, budget, low)
    if found:
        return found
    fitted = first_fit_decreasing(weights, budget)
    high = _up(max(fitted.batches, at_least), multiple)
    best = _even(weights, budget, high) if high > low else None
    if not best:
        return Packing(_none_empty(fitted.batch_of, high), high)
    while high - low > multiple:
        middle = low + _up((high - low) // 2, multiple)
        found = _even(weights, budget, middle)
        best = found or best
        low, high = (low, middle) if found else (middle, high)
    return best


def first_fit_decreasing(weights: npt.NDArray[np.int64], budget: int) -> Packing:
    """Each weight, heaviest first, in the first micro-batch that has room for it.

    A tree of the most room in each half of the micro-batches finds that one; as many equal weights
    as fit are placed at once.
    """
    order = np.argsort(-weights, kind="stable")
    values, counts = np.unique(-weights, return_counts=True)
    # Two neighbouring micro-batches are together over the budget, or the second were not open.
    enough = min(weights.size, 2 * int(weights.sum()) // budget + 2)
    leaves = 1 << max(enough - 1, 0).bit_length()
    room = [budget] * (2 * leaves)
    targets: list[int] = []
    takes: list[int] = []
    for value, count in zip((-values).tolist(), counts.tolist(), strict=True):
        left = count
        while left:
            leaf = _first_with_room(room, leaves, value)
            taken = min(left, room[leaf] // value) if value else left
            _take(room, leaf, taken * value)
            targets.append(leaf - leaves)
            takes.append(taken)
            left -= taken
    batch_of = np.empty_like(weights)
    batch_of[order] = np.repeat(np.array(targets, dtype=np.int64), takes)
    return Packing(batch_of, max(targets, default=-1) + 1)


def _first_with_room(room: list[int], leaves: int, value: int) -> int:
    node = 1
    while node < leaves:
        node *= 2
        if room[node] < value:
            node += 1
    return node


def _take(room: list[int], leaf: int, amount: int) -> None:
    room[leaf] -= amount
    node = leaf // 2
    while node:
        most = max(room[2 * node], room[2 * node + 1])
        if room[node] == most:
            return
        room[node] = most
        node //= 2


def _fewest(weights: npt.NDArray[np.int64], budget: int) -> int:
    """No packing has fewer: the total over the budget, or the weights of which no two fit."""
    alone = int(np.count_nonzero(weights * 2 > budget))
    return max(-(-int(weights.sum()) // budget), alone, min(1, weights.size))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _even(weights: npt.NDArray[np.int64], budget: int, batches: int) -> Packing | None:
    """Evenly filled micro-batches of that number, if they stay within the budget."""
    if not batches:
        return Packing(np.zeros_like(weights), 0) if not weights.size else None
    batch_of = balanced(weights, batches, enough=budget)
    if int(loads_of(weights, batch_of, batches).max()) > budget:
        return None
    return Packing(_none_empty(batch_of, batches), batches)


def _none_empty(batch_of: npt.NDArray[np.int64], batches: int) -> npt.NDArray[np.int64]:
    """Move weights from micro-batches with several to those with none, while there are both."""
    counts = np.bincount(batch_of, minlength=batches)
    empty = np.flatnonzero(counts == 0)
    if not empty.size:
        return batch_of
    by_batch = np.argsort(batch_of, kind="stable")
    starts = np.cumsum(counts) - counts
    spare = by_batch[np.arange(by_batch.size) > np.repeat(starts, counts)]
    chosen = spare[: empty.size]
    result = batch_of.copy()
    result[chosen] = empty[: chosen.size]
    return result
