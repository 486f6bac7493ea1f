"""What the results of a call become: one batch, one value, or one for each slice or rank."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from planner.call_requests import CallPlan
from planner.roles import REDUCTIONS, AllByRank, Concatenate, First, PerShard, Reduce
from runtime.batches import BatchError
from runtime.errors import ExecutionError
from runtime.remote_batches import joined_in_order

__all__ = ["FOLDS", "Fold", "ResultError", "combine"]

Fold = Callable[[Sequence[Any]], Any]
"""Makes one value of the results of all slices, which come in the order of the slices."""


class ResultError(ExecutionError, ValueError):
    """The results of a call do not combine as its roles say."""


def combine(plan: CallPlan, values: Sequence[Any], fold: Fold | None = None) -> Any:
    """One result, from those of ``plan.returns`` in that order.

    Raises:
        ResultError: They do not combine, or the call gives one result for each slice or rank.
    """
    subject = f"worker group {plan.group!r}, {plan.method}()"
    match plan.result:
        case First():
            return values[0]
        case Reduce(function=name):
            chosen = fold or FOLDS.get(name)
            if chosen is None:
                raise ResultError(f"{subject}: no function {name!r} was given to reduce with")
            return chosen(values)
        case Concatenate():
            if all(value is None for value in values):
                return None
            try:
                return joined_in_order(plan.slices, values, plan.returns)
            except BatchError as error:
                raise ResultError(f"{subject}: its results: {error}") from error
        case PerShard():
            raise ResultError(f"{subject} gives one result per slice: take per_shard()")
        case AllByRank():
            raise ResultError(f"{subject} gives one result per rank: take by_rank()")


def _by_field(fold: Callable[[Sequence[Any]], Any]) -> Fold:
    def folded(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, Mapping):
            return {key: folded([value[key] for value in values]) for key in first}
        return fold(values)

    return folded


def _sum(values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _mean(values: Sequence[Any]) -> Any:
    return _sum(values) / len(values)


_FUNCTIONS: tuple[Fold, ...] = (_sum, _mean, min, max, all, any)
FOLDS: Mapping[str, Fold] = {
    name: _by_field(function) for name, function in zip(REDUCTIONS, _FUNCTIONS, strict=True)
}
"""The functions that ``Reduce`` knows by name."""
