"""Links: groups whose workers hand results to each other past the object store.

A group is started for it, linked with others once, and asked per call::

    with link(generator, trainer):
        batch = generator.using(transport="gloo").call("generate", prompts).held()
        trainer.call("train_step", batch.as_argument()).result()
"""

import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from attrs import evolve, frozen

from planner.findings import Findings
from planner.launch_plan import LaunchPlan
from planner.mesh import NamedSharding
from planner.outcomes import ranks_text
from planner.times import seconds_of
from planner.transports import GroupAbility, LinkFacts, LinkPlan, WorkerAbility, plan_link
from runtime.backend import Actor, Backend, Reference
from runtime.calls import Sender
from runtime.errors import WorkerGroupError
from runtime.gather import add_text, gather, late_error_of
from runtime.roster import Listener, Roster

__all__ = ["Link", "Linkable", "LinkState", "link", "link_facts", "link_of"]

_log = logging.getLogger("rankplan")

LINK_SECONDS = 60.0
"""How long linking groups may take, and how long their workers may take to give a link up."""

ABORT_SECONDS = 2.5
"""How long Ray may take to notice that a transfer has failed, for which it looks every second."""

_NUMBERS = itertools.count(1)
_LINKING = threading.Lock()
_LIVE: "list[Link]" = []


class LinkState:
    """What a group remembers of direct transports.

    Args:
        started_for: The transport that it was started for; empty for none.
    """

    def __init__(self, started_for: str = "") -> None:
        self.started_for = started_for
        self.link: Link | None = None


@runtime_checkable
class Linkable(Protocol):
    """What a link needs of a worker group."""

    @property
    def name(self) -> str:
        """The name of the group."""

    @property
    def plan(self) -> LaunchPlan:
        """What was carried out."""

    @property
    def backend(self) -> Backend:
        """Where it runs."""

    @property
    def identities(self) -> Roster:
        """Who the ranks are."""

    @property
    def _sender(self) -> Sender:
        """What sends to them."""

    @property
    def _whole_mesh(self) -> NamedSharding:
        """Its ranks that serve."""

    @property
    def _link_state(self) -> LinkState:
        """What it remembers of links."""

    @property
    def _ended(self) -> bool:
        """Whether it was ended."""

    def _check_alive(self) -> None:
        """Raise unless it takes calls."""


class Link:
    """Some groups whose workers are linked; leaving the ``with`` block ends it.

    When a transfer fails, because a process at one of its ends has died or stands still, Ray ends
    the other process too, and the link for all. The error of the call says so. End the link,
    recover the groups and link them again.
    """

    def __init__(self, plan: LinkPlan, groups: Sequence[Linkable], actors: Sequence[Actor]) -> None:
        self._plan, self._groups, self._actors = plan, tuple(groups), tuple(actors)
        self._backend = groups[0].backend
        self._ids = frozenset(_identity(actor) for actor in self._actors)
        self._listeners = [(group, self._tells(group)) for group in groups]
        self._ended = False

    @property
    def plan(self) -> LinkPlan:
        """Which workers are linked, and how."""
        return self._plan

    @property
    def is_up(self) -> bool:
        """Whether calls can use it."""
        return not self._ended and self._backend.direct.holds(self._plan.name)

    def holds(self, actors: Sequence[Actor]) -> bool:
        """Whether all of some actors are members."""
        return all(_identity(actor) in self._ids for actor in actors)

    def end(self, timeout: float = LINK_SECONDS) -> bool:
        """Give the link up; what is held goes through the object store from then on.

        When a member is dead, this waits until Ray has ended those who were sending to it.

        Args:
            timeout: Seconds that the workers may take.

        Returns:
            Whether every member has done so; one that is dead counts as such.
        """
        if self._ended:
            return True
        self._ended = True
        self._let_ray_finish()
        _LIVE[:] = [each for each in _LIVE if each is not self]
        self._backend.direct.forget(self._plan.name)
        for group, listener in self._listeners:
            if group._link_state.link is self:
                group._link_state.link = None
            if listener in group.identities.listeners:
                group.identities.listeners.remove(listener)
        left = _leave(self._backend, self._plan, self._actors, timeout)
        if left:
            members = ", ".join(f"{group} rank {rank}" for group, rank in left)
            _log.warning("link %r: not given up by %s", self._plan.name, members)
        return not left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "up" if self.is_up else "broken"
        return f"<Link {self._plan.name!r} by {self._plan.transport}, {state}>"

    def _let_ray_finish(self) -> None:
        """Wait until Ray has ended those who were sending to a dead member, or has nothing to do.

        Whoever recovers the groups next would else lose again what was just started.
        """
        backend, ends = self._backend, self._backend.now() + ABORT_SECONDS
        going = {group.name for group in self._groups if not group._ended}
        pairs = zip(self._plan.members, self._actors, strict=True)
        watched = [actor for (group, _), actor in pairs if group in going]
        while any(backend.death(actor) is not None for actor in watched):
            if backend.now() >= ends or not backend.direct.holds(self._plan.name):
                return
            backend.pause(0.02)

    def _adopt(self) -> None:
        """Let calls of the groups use it."""
        self._backend.direct.note(self._plan.name, self._plan.transport, self._actors)
        _LIVE.append(self)
        for group, listener in self._listeners:
            group._link_state.link = self
            group.identities.listeners.append(listener)

    def _tells(self, own: Linkable) -> Listener:
        """Adds to an error of one group which ranks of the others are dead."""

        def told(error: WorkerGroupError, waiting: Mapping[int, Reference], roster: Roster) -> None:
            del waiting, roster
            for group in self._groups:
                dead = {} if group is own else _dead(group)
                if dead:
                    who = "; ".join(str(group.identities[rank]) for rank in dead)
                    add_text(
                        error,
                        f"\n  linked worker group {group.name!r}: {ranks_text(list(dead))} dead "
                        f"({who}): when a transfer fails, Ray ends both of its processes",
                    )

        return told


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
        meeting, size = (plan.address, port), len(members)
        joins = _on_all(
            members,
            lambda member, number: member.actor.linked.remote(
                direct.join, name, meeting, member.address, number, size, left
            ),
        )
        _answers(members, joins, left, "joins the link")
    except BaseException:
        _leave(backend, plan, [member.actor for member in members], 0.0)
        raise
    made = Link(plan, groups, [member.actor for member in members])
    made._adopt()
    return made


def link_facts(state: LinkState, backend: Backend, actors: Mapping[int, Actor]) -> LinkFacts:
    """How a group stands to direct transports now.

    Args:
        state: What it remembers.
        backend: Where it runs.
        actors: Its workers that serve, by rank.
    """
    found = state.link
    if found is None:
        return LinkFacts(started_for=state.started_for)
    return LinkFacts(
        started_for=state.started_for,
        link=found.plan.name,
        is_broken=not backend.direct.holds(found.plan.name),
        missing=tuple(rank for rank, actor in sorted(actors.items()) if not found.holds([actor])),
    )


def link_of(actors: Sequence[Actor]) -> str:
    """The link in which all of some actors are; empty for none."""
    return next((each.plan.name for each in list(_LIVE) if each.holds(actors)), "")


@frozen
class _Member:
    """A worker that is linked."""

    group: Linkable
    rank: int
    actor: Actor
    address: str


def _members(group: Linkable) -> list[_Member]:
    """The workers of a group that serve, by rank."""
    actors, workers = group._sender.actors, group.plan.workers
    return [
        _Member(group, rank, actors[rank], workers[rank].address)
        for rank in sorted(group._whole_mesh.ranks)
    ]


def _identity(actor: Actor) -> Any:
    return actor._actor_id


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


def _leave(
    backend: Backend, plan: LinkPlan, actors: Sequence[Actor], timeout: float
) -> list[tuple[str, int]]:
    """Have members give a link up; those that are alive and did not say that they have."""
    alive = {n: actor for n, actor in enumerate(actors) if backend.death(actor) is None}
    calls = {n: actor.linked.remote(backend.direct.leave, plan.name) for n, actor in alive.items()}
    if not calls or not timeout:
        return []
    gathered = gather(backend, calls, timeout)
    failed = [n for n in gathered.errors if backend.death(alive[n]) is None]
    return [plan.members[n] for n in sorted([*gathered.pending, *failed])]


def _dead(group: Linkable) -> list[int]:
    dead = group.backend.death
    return [each.rank for each in _members(group) if dead(each.actor) is not None]
