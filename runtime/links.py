"""Links that are there: what calls ask of them, and what a group remembers of its own."""

import logging
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from planner.launch_plan import LaunchPlan
from planner.mesh import NamedSharding
from planner.outcomes import ranks_text
from planner.transports import LinkFacts, LinkPlan
from runtime.backend import Actor, Backend, Reference
from runtime.calls import Sender
from runtime.errors import WorkerGroupError
from runtime.gather import add_text, check_timeout, gather
from runtime.linking import REMEDY
from runtime.roster import Listener, Roster

__all__ = [
    "LINK_SECONDS",
    "Link",
    "LinkState",
    "Linkable",
    "ask_to_leave",
    "link_facts",
    "link_of",
    "lost_of",
    "serving_actors",
]

_log = logging.getLogger("rankplan")

LINK_SECONDS = 60.0
"""How long linking groups may take, and how long their workers may take to give a link up."""

ABORT_SECONDS = 2.5
"""How long Ray may take to notice that a transfer has failed, for which it looks every second."""

_LIVE: "weakref.WeakSet[Link]" = weakref.WeakSet()


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

    A link keeps no group alive: a group that nobody holds is ended, linked or not. The groups keep
    the link. When one of them is ended the others go on with each other.
    """

    def __init__(self, plan: LinkPlan, groups: Sequence[Linkable], actors: Sequence[Actor]) -> None:
        self._plan, self._actors = plan, tuple(actors)
        self._groups = {group.name: weakref.ref(group) for group in groups}
        self._backend = groups[0].backend
        self._ids = frozenset(_identity(actor) for actor in self._actors)
        self._listeners = {group.name: _tells(weakref.ref(self), group.name) for group in groups}
        self._ended = False
        self._left = dict(enumerate(self._actors))
        # When nobody holds it, its groups are ended.
        weakref.finalize(self, self._backend.direct.forget, plan.name).atexit = False

    @property
    def plan(self) -> LinkPlan:
        """Which workers are linked, and how."""
        return self._plan

    @property
    def is_up(self) -> bool:
        """Whether calls can use it, and none of its groups was ended."""
        return not (self._ended or self._gone()) and self._backend.direct.holds(self._plan.name)

    def holds(self, actors: Sequence[Actor]) -> bool:
        """Whether all of some actors are members."""
        return all(_identity(actor) in self._ids for actor in actors)

    def end(self, timeout: float | None = LINK_SECONDS) -> bool:
        """Give the link up; what is held goes through the object store from then on.

        When a member is dead, this waits until Ray has ended those who were sending to it. A
        second call asks those again who have not done so.

        Args:
            timeout: Seconds that all of it may take; None waits without end.

        Returns:
            Whether every member has done so; one that is dead counts as such.

        Raises:
            PlanError: ``timeout`` is not a time; nothing was done.
        """
        check_timeout(f"link {self._plan.name!r}", timeout)
        if not self._left:
            return True
        ends = math.inf if timeout is None else self._backend.now() + timeout
        self._ended = True
        self._let_ray_finish(ends)
        _LIVE.discard(self)
        self._backend.direct.forget(self._plan.name)
        for group in self._there():
            if group._link_state.link is self:
                group._link_state.link = None
            with suppress(ValueError):
                group.identities.listeners.remove(self._listeners[group.name])
        seconds = None if timeout is None else max(0.0, ends - self._backend.now())
        self._left = _leave_link(self._backend, self._plan.name, self._left, seconds)
        if self._left:
            late = [self._plan.members[number] for number in self._left]
            members = ", ".join(f"{group} rank {rank}" for group, rank in late)
            _log.warning("link %r: not given up by %s", self._plan.name, members)
        return not self._left

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
        gone = ", ".join(map(repr, self._gone()))
        held = self._backend.direct.holds(self._plan.name)
        state = "ended" if self._ended else "broken" if not held else "up"
        if gone and state == "up":
            state = f"without {gone}, which was ended"
        return f"<Link {self._plan.name!r} by {self._plan.transport}, {state}>"

    def adopt(self) -> None:
        """Let calls of the groups use it."""
        self._backend.direct.note(self._plan.name, self._plan.transport, self._actors)
        _LIVE.add(self)
        for group in self._there():
            group._link_state.link = self
            group.identities.listeners.append(self._listeners[group.name])

    def _there(self) -> Iterator[Linkable]:
        """Its groups that somebody holds and nobody has ended."""
        for reference in self._groups.values():
            group = reference()
            if group is not None and not group._ended:
                yield group

    def _gone(self) -> list[str]:
        """The names of its other groups."""
        there = {group.name for group in self._there()}
        return [name for name in self._groups if name not in there]

    def _let_ray_finish(self, latest: float) -> None:
        """Wait until Ray has ended those who were sending to a dead member, or has nothing to do.

        Whoever recovers the groups next would else lose again what was just started.
        """
        backend, ends = self._backend, min(latest, self._backend.now() + ABORT_SECONDS)
        going = {group.name for group in self._there()}
        pairs = zip(self._plan.members, self._actors, strict=True)
        watched = [actor for (group, _), actor in pairs if group in going]
        while any(backend.death(actor) is not None for actor in watched):
            if backend.now() >= ends or not backend.direct.holds(self._plan.name):
                return
            backend.pause(0.02)

    def _tell(self, own: str, error: WorkerGroupError) -> None:
        """Add to an error of one group which others were ended, and which of their ranks are dead.

        Args:
            own: The group's name.
            error: Its error.
        """
        told = [f"linked worker group {name!r} was ended" for name in self._gone() if name != own]
        for group in self._there():
            dead = {} if group.name == own else _dead(group)
            if dead:
                who = "; ".join(str(group.identities[rank]) for rank in dead)
                told.append(
                    f"linked worker group {group.name!r}: {ranks_text(list(dead))} dead ({who}): "
                    f"when a transfer fails, Ray ends both of its processes; {REMEDY}"
                )
        for text in told:
            add_text(error, f"\n  {text}")


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
    if not actors:
        return ""
    return next((each.plan.name for each in list(_LIVE) if each.holds(actors)), "")


def lost_of(backend: Backend, actors: Sequence[Actor]) -> tuple[int, ...]:
    """The places of those actors that are known to be gone, with all that they hold."""
    return tuple(
        place
        for place, actor in enumerate(actors)
        if backend.direct.was_ended(actor) or backend.death(actor) is not None
    )


def serving_actors(group: Linkable) -> dict[int, Actor]:
    """The actors of a group that serve, by rank."""
    actors = group._sender.actors
    return {rank: actors[rank] for rank in sorted(group._whole_mesh.ranks)}


def ask_to_leave(backend: Backend, name: str, members: Mapping[int, Actor]) -> dict[int, Reference]:
    """Ask members to give a link up, but for those that are gone."""
    return {
        number: actor.linked.remote(backend.direct.leave, name)
        for number, actor in members.items()
        if not lost_of(backend, [actor])
    }


def _leave_link(
    backend: Backend, name: str, members: Mapping[int, Actor], timeout: float | None
) -> dict[int, Actor]:
    """Have members give a link up; those that are alive and did not say that they have."""
    calls = ask_to_leave(backend, name, members)
    if not calls:
        return {}
    gathered = gather(backend, calls, timeout)
    failed = [n for n in gathered.errors if backend.death(members[n]) is None]
    return {n: members[n] for n in sorted([*gathered.pending, *failed])}


def _tells(link: "weakref.ref[Link]", own: str) -> Listener:
    """Has a link add what it knows to the errors of one of its groups."""

    def told(error: WorkerGroupError, waiting: Mapping[int, Reference], roster: Roster) -> None:
        del waiting, roster
        found = link()
        if found is not None:
            found._tell(own, error)

    return told


def _identity(actor: Actor) -> Any:
    return actor._actor_id


def _dead(group: Linkable) -> list[int]:
    death = group.backend.death
    return [rank for rank, actor in serving_actors(group).items() if death(actor) is not None]
