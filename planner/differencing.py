"""Weights dealt to slices by differencing: the most uneven partial results cancel out."""

# Karmarkar and Karp (1982), for any number of slices. A state is a partial result; it starts as one
# weight (one weight per slice where counts must be equal). The two states with the largest spread
# are merged, the heaviest slice of one onto the lightest of the other, until one is left.
# A state lists only slices that hold something, with their loads above the lightest slice; most
# states hold one or two weights, so most merges just put two short lists together.

from heapq import heapify, heappop, heapreplace
from operator import itemgetter

import numpy as np
import numpy.typing as npt

__all__ = ["differenced"]

_Node = tuple[int, int]
"""What a part is made of: two part numbers, or a weight's position and -1."""
_State = list[tuple[int, int]]
"""Load above the lightest slice, and part number, of each slice in use; heaviest first."""


def differenced(
    heavy: npt.NDArray[np.int64], slices: int, *, equal_counts: bool
) -> npt.NDArray[np.int64]:
    """The slice of every weight.

    Args:
        heavy: The weights, from the heaviest down.
        slices: How many slices, 2 or more.
        equal_counts: Whether the numbers of weights per slice differ by at most one.
    """
    nodes: list[_Node] = [(position, -1) for position in range(heavy.size)]
    singles = list(enumerate(heavy.tolist()))
    together = slices if equal_counts else 1
    states = [
        _levelled([(load, part) for part, load in singles[start : start + together]], slices)
        for start in range(0, len(singles), together)
    ]
    # The order of arrival breaks ties of equal spread.
    heap = [(-state[0][0], arrival, state) for arrival, state in enumerate(states)]
    heapify(heap)
    for arrival in range(len(heap), 2 * len(heap) - 1):
        merged = _merged(heappop(heap)[2], heap[0][2], slices, nodes)
        heapreplace(heap, (-merged[0][0], arrival, merged))
    return _unrolled(heap[0][2], nodes, heavy.size)


def _merged(first: _State, second: _State, slices: int, nodes: list[_Node]) -> _State:
    # The second state lies backwards: its heaviest slice onto the first one's last place.
    alone, also_alone = slices - len(second), slices - len(first)
    state = first[:alone] + second[:also_alone]
    met = zip(first[alone:], reversed(second[also_alone:]), strict=True)
    for (load, part), (other_load, other_part) in met:
        state.append((load + other_load, len(nodes)))
        nodes.append((part, other_part))
    state.sort(key=itemgetter(0), reverse=True)
    return _levelled(state, slices)


def _levelled(state: _State, slices: int) -> _State:
    """The state with loads counted from its lightest slice."""
    lightest = state[-1][0]
    if len(state) < slices or not lightest:
        return state
    return [(load - lightest, part) for load, part in state]


def _unrolled(state: _State, nodes: list[_Node], weights: int) -> npt.NDArray[np.int64]:
    slice_of = [0] * weights
    open_parts = [(part, index) for index, (_, part) in enumerate(state)]
    while open_parts:
        part, index = open_parts.pop()
        left, right = nodes[part]
        if right < 0:
            slice_of[left] = index
        else:
            open_parts += ((left, index), (right, index))
    return np.array(slice_of, dtype=np.int64)
