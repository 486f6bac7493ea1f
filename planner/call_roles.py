"""The roles of a call, checked against its mesh and against each other."""

from collections.abc import Iterable, Mapping
from typing import get_args

from planner.call_requests import CallRequest
from planner.findings import Findings
from planner.mesh import NamedSharding, unknown_axis
from planner.roles import (
    REDUCTIONS,
    Concatenate,
    MicroBatches,
    Reduce,
    Result,
    Role,
    Shard,
)
from planner.signatures import nearest

__all__ = ["check_roles", "known_axes"]


def check_roles(
    request: CallRequest, roles: Mapping[str, object], free: tuple[str, ...], findings: Findings
) -> None:
    """Record the roles and results that are none, or that do not fit the mesh or each other."""
    for name, role in roles.items():
        path = f"roles[{name!r}]"
        if not isinstance(role, Role):
            known = ", ".join(kind.__name__ for kind in get_args(Role))
            findings.add(path, f"{role!r} is not a role", f"use one of {known}")
        elif isinstance(role, MicroBatches):
            if not isinstance(roles.get(role.of), Shard):
                findings.add(f"{path}.of", f"{role.of!r} is not sharded", "name one that is")
        elif isinstance(role, Shard):
            for axis in known_axes(f"{path}.axes", role.axes, request.mesh, findings):
                if axis in free:
                    findings.add(f"{path}.axes", f"axis {axis!r} is free", "name it in one of both")
            if role.like and not isinstance(roles.get(role.like), Shard):
                findings.add(f"{path}.like", f"{role.like!r} is not sharded", "name one that is")
            elif role.like and role.like == name:
                findings.add(f"{path}.like", "it names itself", "name another argument")
    returns: object = request.roles.returns
    if not isinstance(returns, Result | None):
        known = ", ".join(kind.__name__ for kind in get_args(Result))
        findings.add(
            "returns", f"{returns!r} is not a way to combine results", f"use one of {known}"
        )
    if isinstance(returns, Reduce) and not request.folds and returns.function not in REDUCTIONS:
        findings.add(
            "returns.function",
            f"there is no function {returns.function!r} to reduce with",
            f"{nearest(str(returns.function), REDUCTIONS)} (a function of your own: "
            "using(returns=function))",
        )
    if request.streams and isinstance(returns, Concatenate | Reduce):
        findings.add(
            "returns",
            f"{type(returns).__name__} needs one result from each rank, and the method streams",
            "use PerShard, First or AllByRank: they say which ranks' values come back",
        )


def known_axes(
    path: str, axes: Iterable[str], mesh: NamedSharding, findings: Findings
) -> tuple[str, ...]:
    """The axes that the mesh has; the others are recorded."""
    known: list[str] = []
    for axis in axes:
        if axis in known:
            findings.add(path, f"axis {axis!r} occurs twice", "name it once")
        elif axis in mesh.names:
            known.append(axis)
        else:
            unknown = unknown_axis(path, axis, mesh.names)
            findings.add(unknown.path, unknown.problem, unknown.remedy)
    return tuple(known)
