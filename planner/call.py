"""The plan of a call on whole batches: from roles and facts to who gets what, and who returns."""

from collections.abc import Iterable, Mapping
from typing import assert_never

import attrs
import numpy as np

from planner.call_requests import (
    ArgumentFacts,
    ArgumentPlan,
    CallPlan,
    CallRequest,
    Given,
    Payload,
    Route,
)
from planner.dispatch import DUMMY, DispatchPlan, Transport, choose_transport, plan_sharded
from planner.findings import Findings, PlanError
from planner.mesh import NamedSharding, unknown_axis
from planner.resharding import Receiver, ReshardPlan, RowSpan, plan_resharding
from planner.roles import (
    AllByRank,
    Common,
    Concatenate,
    First,
    PerRank,
    PerShard,
    Reduce,
    Replicate,
    Result,
    Role,
    Shard,
)
from planner.slicing import SlicePlan, plan_slices

__all__ = ["plan_call"]


def plan_call(request: CallRequest) -> CallPlan:
    """Who is called with what, and whose results come back.

    Raises:
        PlanError: Roles, rows or counts do not fit; all of it is said.
    """
    findings = Findings(f"worker group {request.group!r}, {request.method}()")
    roles = dict(request.roles.arguments)
    free = _known_axes("free", request.roles.free, request.mesh, findings)
    _check_roles(request, roles, free, findings)
    findings.check()
    called = _cut(request, ())
    plans: dict[str, ArgumentPlan] = {}
    for facts in _in_order(request.arguments, roles):
        role = roles.get(facts.name, Common())
        planned = _argument(request, facts, role, called, plans, findings)
        if planned is not None:
            plans[facts.name] = planned
    findings.check()
    shards = {name: role for name, role in roles.items() if isinstance(role, Shard)}
    result = request.roles.returns or _default_result(request, plans, shards)
    source = _result_of(result, plans, shards, findings)
    axes = shards[source].axes if source else _all_axes(request.mesh, shards.values())
    findings.check()
    direct = request.transport != "object store"
    return CallPlan(
        group=request.group,
        method=request.method,
        ranks=called.ranks,
        returns=_returns(request, result, called, axes),
        arguments=tuple(plans[facts.name] for facts in request.arguments),
        result=result,
        result_of=source,
        transport=request.transport,
        reason=(
            "asked for: tensors go from worker to worker"
            if direct
            else "every kind of value goes through it"
        ),
    )


def _check_roles(
    request: CallRequest, roles: Mapping[str, object], free: tuple[str, ...], findings: Findings
) -> None:
    for name, role in roles.items():
        path = f"roles[{name!r}]"
        if not isinstance(role, Shard | Replicate | PerRank | Common):
            findings.add(path, f"{role!r} is not a role", "use Shard, Replicate, PerRank or Common")
        elif isinstance(role, Shard):
            for axis in _known_axes(f"{path}.axes", role.axes, request.mesh, findings):
                if axis in free:
                    findings.add(f"{path}.axes", f"axis {axis!r} is free", "name it in one of both")
            if role.like and not isinstance(roles.get(role.like), Shard):
                findings.add(f"{path}.like", f"{role.like!r} is not sharded", "name one that is")
            elif role.like and role.like == name:
                findings.add(f"{path}.like", "it names itself", "name another argument")
    returns: object = request.roles.returns
    results = Concatenate | PerShard | First | AllByRank | Reduce | None
    if not isinstance(returns, results):
        findings.add(
            "returns",
            f"{returns!r} is not a way to combine results",
            "use Concatenate, PerShard, First, AllByRank or Reduce",
        )
    if request.streams and isinstance(returns, Concatenate | Reduce):
        findings.add(
            "returns",
            f"{type(returns).__name__} needs one result from each rank, and the method streams",
            "use PerShard, First or AllByRank: they say which ranks' values come back",
        )


def _known_axes(
    path: str, axes: Iterable[str], mesh: NamedSharding, findings: Findings
) -> tuple[str, ...]:
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


def _cut(request: CallRequest, axes: tuple[str, ...]) -> DispatchPlan:
    """Everyone who is called, with the number of the slice over some axes."""
    free = request.roles.free
    others = [name for name in request.mesh.names if name not in axes and name not in free]
    # The axes are known; the planner of dispatches would raise what else was found so far.
    nothing = Findings(f"worker group {request.group!r}, {request.method}()")
    return plan_sharded(
        request.mesh, axes, others, others, nothing, dummy_calls=request.roles.dummy_calls
    )


def _in_order(
    arguments: tuple[ArgumentFacts, ...], roles: Mapping[str, Role]
) -> list[ArgumentFacts]:
    """Those whose rows go with another's come last."""

    def follows(facts: ArgumentFacts) -> bool:
        role = roles.get(facts.name)
        return isinstance(role, Shard) and bool(role.like)

    return sorted(arguments, key=follows)


def _argument(
    request: CallRequest,
    facts: ArgumentFacts,
    role: Role,
    called: DispatchPlan,
    plans: Mapping[str, ArgumentPlan],
    findings: Findings,
) -> ArgumentPlan | None:
    match role:
        case Shard():
            return _sharded(request, facts, role, plans, findings)
        case PerRank():
            return _per_rank(facts, role, called, findings)
        case Replicate() | Common():
            everyone = isinstance(role, Common)
            chosen = tuple(0 if everyone or each != DUMMY else DUMMY for each in called.slices)
            ranks = tuple(
                rank for rank, each in zip(called.ranks, chosen, strict=True) if each != DUMMY
            )
            share = role.share if isinstance(role, Replicate) else ""
            if facts.given not in {Given.VALUE, Given.REFERENCE}:
                findings.add(facts.name, "it is held in slices", "give it the role Shard")
            payload = _payload(facts, facts.size, ranks[:1] if share else ranks, len(called.ranks))
            return ArgumentPlan(
                name=facts.name, role=role, payloads=(payload,), chosen=chosen, share=share
            )
        case _:
            assert_never(role)


def _payload(facts: ArgumentFacts, size: int | None, ranks: tuple[int, ...], calls: int) -> Payload:
    if facts.given is not Given.VALUE:
        return Payload(ranks=ranks, route=Route.REFERENCE, size=size)
    inline = choose_transport(size, len(ranks), calls) is Transport.INLINE
    return Payload(ranks=ranks, route=Route.INLINE if inline else Route.OBJECT, size=size)


def _per_rank(
    facts: ArgumentFacts, role: PerRank, called: DispatchPlan, findings: Findings
) -> ArgumentPlan | None:
    count = len(called.ranks)
    if facts.count != count:
        found = f"a value of type {facts.kind}" if facts.count is None else f"{facts.count} values"
        findings.add(facts.name, f"{found} for {count} ranks", f"give a list of {count}, by rank")
        return None
    return ArgumentPlan(
        name=facts.name,
        role=role,
        payloads=tuple(_payload(facts, None, (rank,), 1) for rank in called.ranks),
        chosen=tuple(range(count)),
    )


def _sharded(
    request: CallRequest,
    facts: ArgumentFacts,
    role: Shard,
    plans: Mapping[str, ArgumentPlan],
    findings: Findings,
) -> ArgumentPlan | None:
    cut = _cut(request, role.axes)
    leaders = tuple(ranks[:1] if role.share else ranks for ranks in cut.receivers)
    planned = ArgumentPlan(
        name=facts.name, role=role, payloads=(), chosen=cut.slices, share=role.share
    )
    if facts.given is Given.REFERENCES:
        if facts.count != cut.slice_count:
            found = f"{facts.count} references for {cut.slice_count} slices"
            findings.add(facts.name, found, "give one for each slice")
        sent = tuple(Payload(ranks=ranks, route=Route.REFERENCE) for ranks in leaders)
        return attrs.evolve(planned, payloads=sent)
    rows = facts.rows if facts.held is None else facts.held.rows - len(facts.held.dropped)
    if facts.is_cut and facts.held is not None and facts.held.slices == cut.slice_count:
        sent = tuple(Payload(ranks=ranks, route=Route.REFERENCE) for ranks in leaders)
        return attrs.evolve(planned, payloads=sent, slices=facts.held)
    if rows is None or facts.given is Given.REFERENCE or facts.is_cut:
        _refuse(facts, cut, findings)
        return None
    slices = _slices(facts, role, rows, cut, plans, findings)
    if slices is None:
        return None
    if facts.held is not None:
        return _resharded(planned, facts.held, slices, leaders)
    sizes = slices.slice_bytes or (None,) * slices.slices
    payloads = tuple(
        _payload(facts, size, ranks, len(cut.ranks))
        for size, ranks in zip(sizes, leaders, strict=True)
    )
    return attrs.evolve(planned, payloads=payloads, slices=slices)


def _refuse(facts: ArgumentFacts, cut: DispatchPlan, findings: Findings) -> None:
    if facts.given is Given.REFERENCE:
        problem = "one reference can't be cut without fetching it"
        remedy = f"give {cut.slice_count} references, one for each slice, or use Replicate"
    elif facts.held is not None:
        problem = f"it was cut into {facts.held.slices} slices for {cut.slice_count}"
        remedy = "stage it for this call"
    else:
        problem = f"a value of type {facts.kind} has no rows"
        remedy = "give a list, an array, a tensor or a mapping of these, or another role"
    findings.add(facts.name, problem, remedy)


def _slices(
    facts: ArgumentFacts,
    role: Shard,
    rows: int,
    cut: DispatchPlan,
    plans: Mapping[str, ArgumentPlan],
    findings: Findings,
) -> SlicePlan | None:
    if role.like:
        other = plans.get(role.like)
        like = None if other is None else other.slices
        if like is None:
            findings.add(facts.name, f"{role.like!r} is not cut in this call", "give its rows too")
            return None
        if (like.rows, like.slices) != (rows, cut.slice_count):
            findings.add(
                facts.name,
                f"{rows} rows over {cut.slice_count} slices, and {role.like} has {like.rows} "
                f"over {like.slices}",
                "give both as many rows, over the same axes",
            )
            return None
        return attrs.evolve(like, slice_bytes=None, pads=role.pads)
    row_bytes = facts.row_bytes
    try:
        return plan_slices(
            role.policy,
            rows=rows,
            slices=cut.slice_count,
            weights=None if facts.weights is None else facts.weights.array,
            groups=None if facts.groups is None else facts.groups.array,
            row_bytes=None
            if row_bytes is None
            else row_bytes[0]
            if len(row_bytes) == 1
            else row_bytes.array,
            pads=dict(role.pads),
        )
    except PlanError as error:
        findings.include(error, facts.name)
        return None


def _resharded(
    planned: ArgumentPlan,
    held: SlicePlan,
    wanted: SlicePlan,
    leaders: tuple[tuple[int, ...], ...],
) -> ArgumentPlan:
    # Rows that the source dropped are no rows of its results: the rest are counted anew.
    kept = held if not held.dropped else _without_dropped(held)
    plan = plan_resharding(kept, wanted)
    payloads = tuple(
        Payload(
            ranks=ranks,
            route=Route.PARTS
            if padding or not _as_it_is(plan, receiver, held)
            else Route.REFERENCE,
        )
        for receiver, ranks, padding in zip(plan.receivers, leaders, wanted.padding, strict=True)
    )
    return attrs.evolve(planned, payloads=payloads, slices=wanted, resharding=plan)


def _without_dropped(held: SlicePlan) -> SlicePlan:
    kept = np.setdiff1d(np.arange(held.rows), np.array(held.dropped, dtype=np.int64))
    order = np.searchsorted(kept, held.order.array)
    return attrs.evolve(
        held, rows=int(kept.size), dropped=(), order=type(held.order).of(order.astype(np.int64))
    )


def _as_it_is(plan: ReshardPlan, receiver: Receiver, held: SlicePlan) -> bool:
    """Whether a receiver's slice is one source's results, whole and without padding."""
    if len(receiver.parts) != 1 or receiver.order is not None:
        return False
    part = receiver.parts[0]
    whole = isinstance(part, RowSpan) and len(part) == plan.source_sizes[part.source]
    return whole and not held.padding[part.source]


def _default_result(
    request: CallRequest, plans: Mapping[str, ArgumentPlan], shards: Mapping[str, Shard]
) -> Result:
    if not any(name in plans for name in shards):
        return AllByRank()
    return PerShard() if request.streams else Concatenate()


def _result_of(
    result: Result,
    plans: Mapping[str, ArgumentPlan],
    shards: Mapping[str, Shard],
    findings: Findings,
) -> str:
    """The sharded argument whose slices the results belong to; empty where there is none."""
    cut = [name for name in plans if name in shards]
    if isinstance(result, Concatenate) and result.like:
        if result.like not in cut:
            findings.add("returns.like", f"{result.like!r} is not sharded", f"use one of {cut}")
            return ""
        return result.like
    slicings = {name: plans[name].slices for name in cut}
    orders = {name: None if each is None else each.order for name, each in slicings.items()}
    several = {(shards[name].axes, orders[name]) for name in cut}
    if len(several) > 1 and isinstance(result, Concatenate):
        findings.add(
            "returns",
            f"{', '.join(cut)} are cut differently: whose rows are the results?",
            f"say so: Concatenate(like={cut[0]!r})",
        )
    if len({shards[name].axes for name in cut}) != 1:
        return ""
    return next((name for name in cut if slicings[name] is not None), cut[0])


def _all_axes(mesh: NamedSharding, shards: Iterable[Shard]) -> tuple[str, ...]:
    used = {axis for each in shards for axis in each.axes}
    return tuple(name for name in mesh.names if name in used)


def _returns(
    request: CallRequest,
    result: Result,
    called: DispatchPlan,
    axes: tuple[str, ...],
) -> tuple[int, ...]:
    if isinstance(result, AllByRank):
        pairs = zip(called.ranks, called.slices, strict=True)
        return tuple(rank for rank, number in pairs if number != DUMMY)
    per_shard = _cut(request, axes).returns
    return per_shard[:1] if isinstance(result, First) else per_shard
