"""Links: groups whose workers hand results to each other past the object store.

A group is started for it, linked with others once, and asked per call::

    with link(generator, trainer):
        batch = generator.using(transport="gloo").call("generate", prompts).held()
        trainer.call("train_step", batch.as_argument()).result()
"""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from attrs import evolve, frozen

from planner.findings import Findings
from planner.times import seconds_of
from planner.transports import GroupAbility, WorkerAbility, plan_link
from runtime.backend import Actor, Backend, Reference
from runtime.gather import gather, late_error_of
from runtime.links import LINK_SECONDS, Link, Linkable, ask_to_leave, serving_actors

__all__ = ["Link", "Linkable", "link"]

_NUMBERS = itertools.count(1)
_LINKING = threading.Lock()


def link(*groups: Linkable, timeout: float = LINK_SECONDS) -> Link:
    """Link all workers of some groups, so that results held for a transport go between them.

    Args:
        groups: The groups; each was started with ``tensor_transport``.
        timeout: Seconds until all must be connected. A worker joins after the calls it was sent.

    Raises:
        PlanError: They can't be linked; nothing was done.
        WorkerGroupError: A worker failed; nothing is linked.
        DeadlineError: Not all were connected in time; nothing is linked.
    """
    findings = Findings("link")
    if seconds_of(timeout) in {None, 0}:
        findings.add("timeout", f"{timeout!r} is not a time", "give seconds, more than 0")
    given: tuple[object, ...] = groups
    for place, each in enumerate(given):
        if not isinstance(each, Linkable):
            problem = f"a value of type {type(each).__name__}"
            findings.add(f"groups[{place}]", problem, "give a RayWorkerGroup")
    findings.check()
    for group in groups:
        group._check_alive()
    with _LINKING:
        return _linked(groups, timeout)


def _linked(groups: Sequence[Linkable], timeout: float) -> Link:
    name = "-".join([*(group.name for group in groups), str(next(_NUMBERS))])
    members = [member for group in groups for member in _members(group)]
    lacking = groups[0].backend.direct.lacking() if groups else ""
    plan_link(name, _abilities(groups, members, {}), lacking)
    backend = groups[0].backend
    direct, ends = backend.direct, backend.now() + timeout
    asked = _on_all(members, lambda member, _: member.actor.linked.remote(direct.ability))
    said = _answers(members, asked, timeout, "asked whether it can be linked")
    plan = plan_link(name, _abilities(groups, members, said), lacking)
    try:
        left = max(0.001, ends - backend.now())
        first = {0: members[0].actor.linked.remote(direct.open_meeting, name, left)}
        port = _answers(members, first, left, "opens a meeting")[0]
        left = max(0.001, ends - backend.now())
        meeting = (plan.address, port)
        who = [f"{member.group.name} rank {member.rank}" for member in members]
        joins = _on_all(
            members,
            lambda member, number: member.actor.linked.remote(
                direct.join, name, meeting, member.address, number, who, left
            ),
        )
        _answers(members, joins, left, "joins the link")
    except BaseException:
        ask_to_leave(backend, name, {n: each.actor for n, each in enumerate(members)})
        raise
    made = Link(plan, groups, [member.actor for member in members])
    made.adopt()
    return made


@frozen
class _Member:
    """A worker that is linked."""

    group: Linkable
    rank: int
    actor: Actor
    address: str


def _members(group: Linkable) -> list[_Member]:
    """The workers of a group that serve, by rank."""
    workers = group.plan.workers
    return [
        _Member(group, rank, actor, workers[rank].address)
        for rank, actor in serving_actors(group).items()
    ]


def _abilities(
    groups: Sequence[Linkable], members: Sequence[_Member], said: Mapping[int, Mapping[str, Any]]
) -> list[GroupAbility]:
    clusters: list[Backend] = []
    made: list[GroupAbility] = []
    for group in groups:
        if not any(group.backend is each for each in clusters):
            clusters.append(group.backend)
        found = group._link_state.link
        mine = {n: each for n, each in enumerate(members) if each.group is group}
        made.append(
            GroupAbility(
                group=group.name,
                address=next(iter(mine.values())).address,
                ranks=tuple(each.rank for each in mine.values()),
                started_for=group._link_state.started_for,
                link="" if found is None else found.plan.name,
                cluster=next(n for n, each in enumerate(clusters) if each is group.backend),
                workers=tuple(
                    WorkerAbility(
                        rank=each.rank,
                        problem=said[number]["problem"],
                        has_gloo=said[number]["has_gloo"],
                    )
                    for number, each in mine.items()
                    if said
                ),
            )
        )
    return made


def _on_all(
    members: Sequence[_Member], send: Callable[[_Member, int], Reference]
) -> dict[int, Reference]:
    """Send to all members; each sees this at one place among the calls that it is sent."""
    groups = {each.group.name: each.group for each in members}
    with ExitStack() as locks:
        # Always in one order, so that two threads do not wait for each other.
        for name in sorted(groups):
            locks.enter_context(groups[name]._sender.lock)
        return {number: send(member, number) for number, member in enumerate(members)}


def _answers(
    members: Sequence[_Member], calls: Mapping[int, Reference], timeout: float, what: str
) -> Mapping[int, Any]:
    """What members answer, or one error that names ranks of one group."""
    gathered = gather(members[0].group.backend, calls, timeout)
    if gathered.is_complete:
        return gathered.values
    # One that has failed says more than those that wait for it.
    worst = next(iter([*gathered.errors, *gathered.pending]))
    group = members[worst].group
    ranks = {n: each.rank for n, each in enumerate(members) if each.group is group}
    part = evolve(
        gathered,
        values={ranks[n]: each for n, each in gathered.values.items() if n in ranks},
        errors={ranks[n]: each for n, each in gathered.errors.items() if n in ranks},
        pending=tuple(ranks[n] for n in gathered.pending if n in ranks),
        waiting={ranks[n]: each for n, each in gathered.waiting.items() if n in ranks},
    )
    subject = f"worker group {group.name!r}, {what}"
    raise late_error_of(subject, part, group.identities, lambda _: ())
