"""The plan of a call on whole batches: from roles and facts to who gets what, and who returns."""

from collections.abc import Iterable, Mapping
from typing import assert_never

import attrs

from planner.call_requests import (
    ArgumentFacts,
    ArgumentPlan,
    CallPlan,
    CallRequest,
    Given,
    Payload,
    Route,
)
from planner.call_roles import check_roles, known_axes
from planner.call_routes import payload_of, reason_of, resharded
from planner.dispatch import DUMMY, DispatchPlan, plan_sharded
from planner.findings import Findings, PlanError
from planner.mesh import NamedSharding
from planner.padding import check_pads, check_pads_fit
from planner.roles import (
    AllByRank,
    Common,
    Concatenate,
    First,
    MicroBatches,
    PerRank,
    PerShard,
    Reduce,
    Replicate,
    Result,
    Role,
    Shard,
)
from planner.slicing import SlicePlan, plan_slices
from planner.transports import OBJECT_STORE, check_keeps, check_lost, why_not_direct

__all__ = ["plan_call"]


def plan_call(request: CallRequest) -> CallPlan:
    """Who is called with what, and whose results come back.

    Raises:
        PlanError: Roles, rows or counts do not fit; all of it is said.
    """
    findings = Findings(f"worker group {request.group!r}, {request.method}()")
    roles = dict(request.roles.arguments)
    free = known_axes("free", request.roles.free, request.mesh, findings)
    check_roles(request, roles, free, findings)
    check_keeps(
        request.transport, request.link, findings, streams=request.streams, timed=request.timed
    )
    for facts in request.arguments:
        if facts.held is not None:
            check_lost(facts.name, facts.lost, facts.held.real_sizes, findings)
    findings.check()
    called = _cut(request, ())
    plans: dict[str, ArgumentPlan] = {}
    for facts in _in_order(request.arguments, roles):
        role = roles.get(facts.name, Common())
        planned = _argument(request, facts, role, called, plans, findings)
        if planned is not None:
            plans[facts.name] = planned
    findings.check()
    filled = _filled(request, roles, plans)
    shards = {name: role for name, role in roles.items() if isinstance(role, Shard)}
    result = request.roles.returns or _default_result(request, plans, shards)
    source = _result_of(result, plans, shards, findings)
    axes = shards[source].axes if source else _all_axes(request.mesh, shards.values())
    findings.check()
    arguments = (*(plans[facts.name] for facts in request.arguments), *filled)
    return CallPlan(
        group=request.group,
        method=request.method,
        ranks=called.ranks,
        returns=_returns(request, result, called, axes),
        arguments=arguments,
        result=result,
        result_of=source,
        transport=request.transport or OBJECT_STORE,
        reason=reason_of(arguments, request.transport),
    )


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
            leaders = ranks[:1] if share else ranks
            payload = payload_of(facts.given, facts.size, leaders, len(called.ranks))
            return ArgumentPlan(
                name=facts.name, role=role, payloads=(payload,), chosen=chosen, share=share
            )
        case MicroBatches(of=of):
            findings.add(facts.name, f"it is filled from the slices of {of!r}", "leave it out")
            return None
        case _:
            assert_never(role)


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
        payloads=tuple(
            payload_of(facts.given, size, (rank,), count)
            for size, rank in zip(_sizes(facts, count), called.ranks, strict=True)
        ),
        chosen=tuple(range(count)),
    )


def _sizes(facts: ArgumentFacts, count: int) -> list[int | None]:
    """The bytes of each of some values."""
    if facts.row_bytes is None:
        return [None] * count
    known = facts.row_bytes.tolist()
    return [*known] if len(known) == count else [known[0]] * count


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
        _check_unused(facts, findings)
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
    if facts.fields is not None:
        check_pads_fit(dict(role.pads), facts.fields, facts.name, findings)
    if slices is None:
        return None
    if facts.held is not None:
        refusal = ""
        if facts.held_for:
            refusal = why_not_direct(facts.held_for, facts.held_link, request.link)
        return resharded(planned, facts.held, slices, leaders, facts.held_for, refusal)
    sizes = slices.slice_bytes or (None,) * slices.slices
    payloads = tuple(
        payload_of(facts.given, size, ranks, len(cut.ranks))
        for size, ranks in zip(sizes, leaders, strict=True)
    )
    return attrs.evolve(planned, payloads=payloads, slices=slices)


def _check_unused(facts: ArgumentFacts, findings: Findings) -> None:
    for path, given in (("weights", facts.weights), ("groups", facts.groups)):
        if given is not None:
            findings.add(f"{facts.name}.{path}", "its slices are cut already", "leave them out")


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
        pads = Findings(facts.name)
        check_pads(dict(role.pads), pads)
        findings.include(PlanError(facts.name, pads.found), facts.name)
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


def _filled(
    request: CallRequest, roles: Mapping[str, Role], plans: Mapping[str, ArgumentPlan]
) -> tuple[ArgumentPlan, ...]:
    """The arguments that the plan itself fills, each rank's with what belongs to its slice."""
    filled = []
    for name, role in roles.items():
        if not isinstance(role, MicroBatches) or role.of not in plans:
            continue
        batch = plans[role.of]
        cut = _cut(request, batch.role.axes if isinstance(batch.role, Shard) else ())
        known = batch.slices.micro_batches if batch.slices else ()
        payloads = tuple(
            payload_of(Given.VALUE, 16 + 16 * len(sizes), ranks, len(cut.ranks))
            for sizes, ranks in zip(known or ((),) * cut.slice_count, cut.receivers, strict=True)
        )
        filled.append(
            ArgumentPlan(
                name=name, role=role, payloads=payloads, chosen=cut.slices, slices=batch.slices
            )
        )
    return tuple(filled)


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
    if isinstance(result, AllByRank) or (isinstance(result, Reduce) and not axes):
        pairs = zip(called.ranks, called.slices, strict=True)
        return tuple(rank for rank, number in pairs if number != DUMMY)
    per_shard = _cut(request, axes).returns
    return per_shard[:1] if isinstance(result, First) else per_shard
