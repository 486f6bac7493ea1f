"""Direct transports: results that go from worker to worker, past the object store."""

# A group is started for a transport, linked with others once, and asked per call. What may go
# directly is decided here, from facts; runtime/transports.py makes the links.

from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from planner.findings import Findings
from planner.options import JsonObject, json_object
from planner.outcomes import ranks_text

__all__ = [
    "GroupAbility",
    "LinkFacts",
    "LinkPlan",
    "OBJECT_STORE",
    "TRANSPORTS",
    "WorkerAbility",
    "check_keeps",
    "check_lost",
    "check_transport",
    "held_apart_text",
    "plan_link",
    "started_for",
    "why_not_direct",
    "with_transport",
]

OBJECT_STORE = "object store"
"""How everything travels that goes by no direct transport."""

TRANSPORTS = ("gloo",)
"""The direct transports that are offered."""

_NOT_OFFERED = {
    "nccl": "it moves tensors between GPUs",
    "cuda_ipc": "it shares the tensors of one GPU",
    "nixl": "it needs a library of its own",
}
_OFFER = "use 'gloo', for tensors on the CPU, or leave it out: the object store takes everything"
_START = "start it with RayWorkerGroup(..., tensor_transport={!r})"
_LINK = "link the groups first: runtime.transports.link(sender, receiver)"


@frozen(kw_only=True)
class LinkFacts:
    """How a group stands to direct transports when a call is planned.

    Attributes:
        started_for: The transport that it was started for; empty for none.
        link: The link that it is in; empty for none.
        is_broken: Whether the link has ended by itself, as it does when a transfer fails.
        missing: Its ranks that are not in the link, for they were started after it.
    """

    started_for: str = ""
    link: str = ""
    is_broken: bool = False
    missing: tuple[int, ...] = ()


@frozen(kw_only=True)
class WorkerAbility:
    """What a worker's process says of itself.

    Attributes:
        rank: Which.
        problem: Why torch can't be imported there; empty when it can.
        has_gloo: Whether its torch has gloo.
    """

    rank: int
    problem: str = ""
    has_gloo: bool = True


@frozen(kw_only=True)
class GroupAbility:
    """What must be known of a group before it is linked.

    Attributes:
        group: Its name.
        address: The address of the node of its first rank that serves.
        ranks: Its ranks that serve.
        started_for: The transport that it was started for; empty for none.
        link: The link that it is in; empty for none.
        cluster: The number of its cluster among those that are asked about.
        workers: What each worker says; empty when they have not been asked.
    """

    group: str
    address: str
    ranks: tuple[int, ...]
    started_for: str = ""
    link: str = ""
    cluster: int = 0
    workers: tuple[WorkerAbility, ...] = ()


@frozen(kw_only=True)
class LinkPlan:
    """Which workers reach each other directly.

    Attributes:
        name: The link's name.
        transport: How their tensors go.
        address: Where they meet: the node of the first.
        members: Group and rank of each, in the order of their numbers in the link.
    """

    name: str
    transport: str
    address: str
    members: tuple[tuple[str, int], ...]


def check_transport(path: str, given: object, findings: Findings) -> str:
    """The transport that was asked for; empty for the object store, and for what is none."""
    if given is None or given == OBJECT_STORE:
        return ""
    if isinstance(given, str) and given in TRANSPORTS:
        return given
    known = _NOT_OFFERED.get(given) if isinstance(given, str) else None
    problem = f"{given!r} is not a direct transport"
    if known is not None:
        problem = f"{given!r} is not offered: {known}, and was never seen to work with this library"
    findings.add(path, problem, _OFFER)
    return ""


def with_transport(
    options: JsonObject,
    given: object,
    findings: Findings,
    notes: list[str],
    *,
    asynchronous: bool = False,
) -> JsonObject:
    """The options of a group's hosts, with the transport that it is started for.

    Args:
        options: The others.
        given: What was asked for.
        findings: Where problems are recorded.
        notes: Where the cost is told.
        asynchronous: Whether the hosts run on an event loop.
    """
    transport = check_transport("tensor_transport", given, findings)
    if not transport:
        return options
    where = ": methods run beside the main thread, where nobody can set a signal handler"
    notes.append(f"started for the direct transport {transport!r}{'' if asynchronous else where}")
    return json_object("options", {**options.value(), "tensor_transport": transport}, findings)


def started_for(options: JsonObject) -> str:
    """The transport that hosts with these options are started for; empty for none."""
    return str(options.value().get("tensor_transport") or "")


def plan_link(name: str, groups: Sequence[GroupAbility], lacking: str = "") -> LinkPlan:
    """Link all workers of some groups, if they can be.

    Args:
        name: The link's name.
        groups: The groups, and what their workers say once they have been asked.
        lacking: Why the caller's process can't take part; empty when it can.

    Raises:
        PlanError: They can't be linked; all of it is said.
    """
    findings = Findings("link")
    if lacking:
        findings.add("driver", f"it {lacking}", "install torch where the program runs")
    if not groups:
        findings.add("groups", "there is none", "give the groups that hand results on")
    twice = sorted(group for group, count in Counter(e.group for e in groups).items() if count > 1)
    for group in twice:
        findings.add(group, "it is given twice", "give each group once")
    for each in groups:
        if not each.started_for:
            findings.add(
                each.group,
                "it was not started for a direct transport",
                _START.format(TRANSPORTS[0]),
            )
        if each.link:
            findings.add(
                each.group,
                f"it is in the link {each.link!r} already",
                "end that one, and link all groups that hand results to each other at once",
            )
        _check_workers(each, findings)
    if len({each.cluster for each in groups}) > 1:
        findings.add("groups", "they are on different clusters", "start them on one")
    kinds = sorted({each.started_for for each in groups} - {""})
    if len(kinds) > 1:
        findings.add("groups", f"they were started for {', '.join(kinds)}", "start all for one")
    findings.check()
    return LinkPlan(
        name=name,
        transport=kinds[0],
        address=groups[0].address,
        members=tuple((each.group, rank) for each in groups for rank in each.ranks),
    )


def _check_workers(group: GroupAbility, findings: Findings) -> None:
    problems: dict[str, list[int]] = {}
    for worker in group.workers:
        if worker.problem:
            problems.setdefault(f"can't import torch ({worker.problem})", []).append(worker.rank)
        elif not worker.has_gloo:
            problems.setdefault("has a torch without gloo", []).append(worker.rank)
    for problem, ranks in problems.items():
        findings.add(
            group.group,
            f"{ranks_text(ranks)} {problem}",
            "install torch with gloo in the workers' interpreter, or use the object store",
        )


def check_keeps(
    transport: str, link: LinkFacts, findings: Findings, *, streams: bool, timed: bool
) -> None:
    """Record why the results of a call can't stay with their makers for a transport.

    Args:
        transport: What the call asks for; empty for the object store.
        link: How the group stands to it.
        findings: Where problems are recorded.
        streams: Whether the method gives a stream of values.
        timed: Whether workers report times beside the result.
    """
    if not transport:
        return
    if streams:
        findings.add(
            "transport",
            f"the method streams, and {transport} takes calls with one result",
            "leave transport out: the values of a stream go by the object store",
        )
    if timed:
        findings.add(
            "transport",
            f"{transport} takes calls with one result, and times are a second one",
            "leave out transport or timed",
        )
    missing = _missing(transport, link)
    if missing:
        findings.add("transport", *missing)


def check_lost(path: str, lost: Sequence[int], sizes: Sequence[int], findings: Findings) -> None:
    """Record that results which were held are gone with their makers.

    Args:
        path: The argument.
        lost: The slices whose makers are gone.
        sizes: How many rows each slice has.
        findings: Where problems are recorded.
    """
    missed = [str(each) for each in lost if sizes[each]]
    if missed:
        findings.add(
            path,
            "those who hold it were ended; its results are lost "
            f"(slice{'s' * (len(missed) > 1)} {', '.join(missed)} of {len(sizes)})",
            "call the method again that makes them",
        )


def held_apart_text(transport: str) -> tuple[str, str]:
    """Why a reference to a result that is held for a transport is no argument, and what is one."""
    return f"results that are held for {transport}", "give the held batch itself"


def why_not_direct(transport: str, held_link: str, link: LinkFacts) -> str:
    """Why results that are held for a transport can't go to a group by it; empty when they can.

    Args:
        transport: What they are held for.
        held_link: The link in which those who hold them are; empty for none.
        link: How the group that gets them stands to transports.
    """
    missing = _missing(transport, link)
    if missing:
        return missing[0]
    return "" if held_link == link.link else "those who hold it are not in one link with it"


def _missing(transport: str, link: LinkFacts) -> tuple[str, str] | None:
    """What a group lacks for a transport, and what would help."""
    if link.started_for != transport:
        return f"the group was not started for {transport}", _START.format(transport)
    if not link.link:
        return "the group is in no link", _LINK
    if link.is_broken:
        return (
            f"its link {link.link!r} has ended by itself: a transfer has failed",
            "end the link, recover the groups, and link them again",
        )
    if link.missing:
        return (
            f"{ranks_text(link.missing)} started after the link {link.link!r} was made",
            "end the link, and link the groups again",
        )
    return None
