"""What is left on each node while bundles are put there, of all it has and of what is free now."""

from collections.abc import Sequence

from planner.label_selectors import LabelRule, matches, parse_rule
from planner.nodes import Node
from planner.pools import Pool
from planner.verdicts import Fits, FitsWhenFree, NeverFits

__all__ = ["Ledger", "rules_of"]


def rules_of(pool: Pool) -> tuple[LabelRule, ...]:
    """The label rules of a pool's selector."""
    rules = (parse_rule(label, expression) for label, expression in pool.selector)
    return tuple(rule for rule in rules if rule is not None)


class Ledger:
    """Counts down what pools take from nodes; one is made for each way that is tried.

    Args:
        nodes: The nodes, in the order in which they should be used.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._all = [dict(node.total.items()) for node in nodes]
        self._has = [dict(each) for each in self._all]
        self._now = [dict(node.free_now.items()) for node in nodes]
        self._used = [False for _ in nodes]
        self._closed = [False for _ in nodes]

    def candidates(self, pool: Pool) -> list[int]:
        """The nodes that a pool may use; those without GPUs first when it needs none."""
        rules = rules_of(pool)
        able = [
            index
            for index, node in enumerate(self._nodes)
            if not self._closed[index]
            and not (pool.exclusive and self._used[index])
            and matches(rules, node.labels)
        ]
        if pool.needs.gpu_share:
            return able
        return sorted(able, key=lambda index: bool(self._nodes[index].gpus))

    def node_id(self, index: int) -> str:
        """The id of a node."""
        return self._nodes[index].node_id

    def place(self, index: int) -> tuple[str, int] | None:
        """The NVLink domain and topology rank of a node, when both are known."""
        node = self._nodes[index]
        if node.nvlink_domain is None or node.topology_rank is None:
            return None
        return node.nvlink_domain, node.topology_rank

    def capacities(self, pool: Pool, candidates: Sequence[int], *, now: bool) -> list[int]:
        """How many bundles of a pool each candidate holds beside what is there already."""
        most = sum(pool.units)
        needs = pool.needs.items()
        beside = pool.beside.items()
        extra = dict(beside)
        capacities: list[int] = []
        for index in candidates:
            left = self._now[index] if now else self._all[index]
            room = most
            for resource, amount in needs:
                room = min(room, (left.get(resource, 0) - extra.get(resource, 0)) // amount)
            if any(left.get(resource, 0) < amount for resource, amount in beside):
                room = 0
            capacities.append(max(room, 0))
        return capacities

    def take(self, pool: Pool, index: int, count: int) -> None:
        """Put all bundles that a pool has on a node there, and what runs beside them."""
        for left in (self._all[index], self._now[index]):
            for resource, amount in pool.needs.items():
                left[resource] = left.get(resource, 0) - amount * count
            for resource, amount in pool.beside.items():
                left[resource] = left.get(resource, 0) - amount
        self._used[index] = True

    def close(self, indices: Sequence[int]) -> None:
        """Keep nodes for the pool that uses them now."""
        for index in indices:
            self._closed[index] = True

    def verdict(self, pool: Pool, index: int, before: int) -> Fits | FitsWhenFree:
        """Whether one more bundle fits on a node now, after ``before`` of the same pool.

        To be asked before any of them is taken.
        """
        left = self._now[index]
        beside = dict(pool.beside.items())
        needs = dict(pool.needs.items())
        missing: list[tuple[str, int]] = []
        for resource in dict.fromkeys((*needs, *beside)):
            one, once = needs.get(resource, 0), beside.get(resource, 0)
            short = once + one * (before + 1) - max(left.get(resource, 0), 0)
            if short > 0:
                missing.append((resource, min(short, one + once)))
        if missing:
            return FitsWhenFree(node_id=self.node_id(index), missing=tuple(missing))
        return Fits(node_id=self.node_id(index))

    def shortfall(self, pool: Pool, candidates: Sequence[int], mine: set[int]) -> NeverFits:
        """What the candidate that comes closest lacks for one more bundle.

        Args:
            pool: Whose bundle.
            candidates: The nodes it may lie on.
            mine: Those where the pool has bundles already.
        """
        best: tuple[tuple[int, float], NeverFits] | None = None
        for index in candidates:
            lacks = self._lacks(pool, index, first=index not in mine)
            if not lacks:
                continue
            resource, short, _ = lacks[0]
            score = (len(lacks), sum(short / wanted for _, short, wanted in lacks))
            if best is None or score < best[0]:
                verdict = NeverFits(
                    resource=resource,
                    missing=short,
                    closest=self.node_id(index),
                    has=self._has[index].get(resource, 0),
                    left=max(self._all[index].get(resource, 0), 0),
                )
                best = (score, verdict)
        if best is None:
            return NeverFits(resource="node", missing=1, closest=None, has=len(mine), left=0)
        return best[1]

    def _lacks(self, pool: Pool, index: int, *, first: bool) -> list[tuple[str, int, int]]:
        wanted = dict(pool.needs.items())
        for resource, amount in pool.beside.items() if first else ():
            wanted[resource] = wanted.get(resource, 0) + amount
        left = self._all[index]
        return [
            (resource, amount - max(left.get(resource, 0), 0), amount)
            for resource, amount in wanted.items()
            if left.get(resource, 0) < amount
        ]
