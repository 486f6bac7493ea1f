"""Batches cut and stored ahead of the calls that need them."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from planner.findings import Findings
from runtime.call_arguments import payload_values
from runtime.call_sending import Prepared
from runtime.remote_batches import RemoteBatch

if TYPE_CHECKING:
    from runtime.call import Calls

__all__ = ["staged"]


def staged(
    calls: "Calls", method: Any, argument: str, batches: Sequence[Any], ahead: int | None
) -> Iterator[RemoteBatch[Any]]:
    """See ``Calls.stage``; every batch is planned before the first is stored."""
    if ahead is not None and ahead < 1:
        Findings("stage()").fail("ahead", f"{ahead} batches are none", "give 1 or more, or None")
    prepared = [calls._prepare_batch(method, argument, batch) for batch in batches]
    return _stored(calls, prepared, len(prepared) if ahead is None else ahead)


def _stored(calls: "Calls", prepared: Sequence[Prepared], ahead: int) -> Iterator[RemoteBatch[Any]]:
    waiting: deque[RemoteBatch[Any]] = deque(_store(calls, each) for each in prepared[:ahead])
    rest = iter(prepared[ahead:])
    while waiting:
        yield waiting.popleft()
        for each in rest:
            waiting.append(_store(calls, each))
            break


def _store(calls: "Calls", prepared: Prepared) -> RemoteBatch[Any]:
    target = calls._target
    argument = prepared.plan.arguments[0]
    values = payload_values(argument, prepared.values[argument.name])
    if argument.slices is None:
        target._sender.findings(prepared.plan.method).fail(
            argument.name, "it consists of references already", "give batches"
        )
    return RemoteBatch(
        references=tuple(target.backend.put(value) for value in values),
        slices=argument.slices,
        is_cut=True,
        homes=(),
        backend=target.backend,
    )
