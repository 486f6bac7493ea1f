"""Calls that are planned and carried out without a cluster."""

from collections.abc import Mapping
from typing import Any

from planner.call import plan_call
from planner.call_requests import ArgumentFacts, CallPlan, CallRequest
from planner.dispatch import DUMMY
from planner.findings import Findings
from planner.mesh import NamedSharding
from planner.roles import Common, Declaration, Result, Role
from runtime.batches import take
from runtime.call_arguments import RowFacts, facts_of, payload_values
from runtime.in_process_direct import InProcessDirect

__all__ = ["AXES", "Reference", "facts", "kept_rows", "planned", "received"]

AXES = ["data_parallel", "tensor_parallel"]


class Nowhere:
    """A backend that nothing is sent to: no value is a reference."""

    direct = InProcessDirect()

    def is_reference(self, value: object) -> bool:
        """Never."""
        return isinstance(value, Reference)


class Reference:
    """Stands for an object."""


def facts(name: str, value: Any, role: Role, weights: Any = None) -> ArgumentFacts:
    """What the plan is told of an argument."""
    findings = Findings("test")
    rows = RowFacts({} if weights is None else {name: weights})
    found = facts_of(Nowhere(), name, value, role, rows, findings)  # type: ignore[arg-type]
    findings.check()
    return found


def planned(
    mesh: NamedSharding,
    values: Mapping[str, Any],
    roles: Mapping[str, Role],
    returns: Result | None = None,
    *,
    free: tuple[str, ...] = (),
    dummy_calls: bool = False,
    weights: Any = None,
    streams: bool = False,
) -> CallPlan:
    """The plan of a call with these arguments."""
    declared = Declaration(
        arguments=tuple(roles.items()), returns=returns, free=free, dummy_calls=dummy_calls
    )
    return plan_call(
        CallRequest(
            group="policy",
            method="step",
            mesh=mesh,
            roles=declared,
            arguments=tuple(
                facts(name, value, roles.get(name, Common()), weights)
                for name, value in values.items()
            ),
            streams=streams,
        )
    )


def received(plan: CallPlan, values: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """What each rank gets."""
    payloads = {each.name: payload_values(each, values[each.name]) for each in plan.arguments}
    return {
        rank: {
            each.name: None
            if each.chosen[place] == DUMMY
            else payloads[each.name][each.chosen[place]]
            for each in plan.arguments
        }
        for place, rank in enumerate(plan.ranks)
    }


def kept_rows(batch: Any, plan: CallPlan) -> Any:
    """The batch without the rows that its policy drops."""
    slices = plan.slices
    assert slices is not None
    rows = [row for row in range(slices.rows) if row not in slices.dropped]
    return take(batch, rows)
