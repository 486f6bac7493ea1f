"""Whether to reserve now, to look again, or to give up: from what fits, and how often it was asked.

A reservation that only has to wait for others is made at once, so that Ray serves it as soon as
it can; one that can never fit is not made at all. Nodes may still be joining, so the latter is
looked at a few times, within the time that may be waited, before it is an error. Ray tells of
freed resources a little late, so a reservation that would crowd onto fewer nodes than it could
have is looked at again, too.
"""

from collections.abc import Sequence

from attrs import evolve, frozen

from planner.findings import Finding, ResourceInsufficientError
from planner.requests import GroupRequest
from planner.reservation import NeverFits, ReservationPlan

__all__ = [
    "LookAgain",
    "Looks",
    "Reserve",
    "first_step",
    "next_report",
    "progress_text",
    "still_waiting",
]

FIRST_REPORT_SECONDS = 0.25
"""When a wait says for the first time what it waits for: what is free is there by then."""

PROGRESS_SECONDS = 10.0
"""How often it says so from then on."""


@frozen
class Reserve:
    """Every bundle fits, now or once what is busy becomes free."""


@frozen
class Looks:
    """How many times a cluster was looked at that was not good enough, for either reason.

    Attributes:
        lacking: Some bundle did not fit.
        crowded: All fitted, on fewer nodes than they could have.
    """

    lacking: int = 0
    crowded: int = 0


@frozen
class LookAgain:
    """Some bundle can't fit on the nodes that are there, or all would crowd onto few of them.

    Attributes:
        pause: Seconds until the next look.
        why: What is missing.
        made: The looks so far, with this one.
        is_brief: Whether it should pass in a moment, so that nobody need be told.
    """

    pause: float
    why: str
    made: Looks
    is_brief: bool = False


CROWDED_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds between looks at a cluster on which only fewer nodes than could be have room now."""


def first_step(
    plan: ReservationPlan,
    all_free: ReservationPlan,
    made: Looks,
    looks: int,
    left: float,
    unusable: Finding | None = None,
) -> Reserve | LookAgain:
    """What to do about a reservation that is not made yet.

    Args:
        plan: What fits where.
        all_free: The same, were everything free.
        made: How many times was looked before.
        looks: How many times bundles may be lacking before it is given up.
        left: Seconds that may still be waited.
        unusable: Why no node at all may be used; None when some may.

    Raises:
        ResourceInsufficientError: It can't fit, and it was looked at often enough, or the next
            look would come too late.
    """
    if plan.possible:
        now, wanted = len(_nodes(plan)), len(_nodes(all_free))
        if now < wanted and made.crowded < len(CROWDED_PAUSES):
            why = (
                f"it has room on {now} node{'s'[: now > 1]} now, and on {wanted} once they are free"
            )
            pause = CROWDED_PAUSES[made.crowded]
            after = evolve(made, crowded=made.crowded + 1)
            return LookAgain(pause=pause, why=why, made=after, is_brief=True)
        return Reserve()
    pause = float(2**made.lacking)
    if made.lacking + 1 >= looks or pause > left:
        if unusable is not None:
            raise ResourceInsufficientError("reservation", [unusable])
        plan.check()
    why = _verdicts(plan) if unusable is None else f"{unusable.path}: {unusable.problem}"
    return LookAgain(pause=pause, why=why, made=evolve(made, lacking=made.lacking + 1))


def _nodes(plan: ReservationPlan) -> set[str]:
    return {
        verdict.node_id
        for group in plan.placement_groups
        for verdict in group.verdicts
        if not isinstance(verdict, NeverFits)
    }


def still_waiting(request: GroupRequest, ready: Sequence[bool]) -> GroupRequest | None:
    """What is still asked for when some placement groups are there; None when nothing is.

    Args:
        request: Everything that was asked for.
        ready: For each placement group whether it is there.
    """
    if all(ready):
        return None
    if request.unified:
        return request
    counts = [count for count in request.bundles_per_node if count]
    left = tuple(count for count, there in zip(counts, ready, strict=True) if not there)
    # Segments were decided when it was reserved; the rest of one is no whole segment.
    return evolve(request, bundles_per_node=left, segment_size=None)


def next_report(reports: int, left: float) -> float:
    """Seconds until a wait says what it waits for, or has lasted long enough.

    Args:
        reports: How many times it has said so.
        left: Seconds that may still be waited.
    """
    return max(0.0, min(PROGRESS_SECONDS if reports else FIRST_REPORT_SECONDS, left))


def progress_text(
    name: str, plan: ReservationPlan, ready: Sequence[bool], elapsed: float, allowed: float
) -> str:
    """How far a reservation is and what it waits for.

    Args:
        name: The cluster.
        plan: What fits where of all that is not there yet.
        ready: For each placement group whether it is there.
        elapsed: Seconds waited.
        allowed: Seconds that may be waited.
    """
    missing = sum(1 for there in ready if not there)
    return (
        f"virtual cluster {name!r}: {missing} of {len(ready)} placement groups are not ready after "
        f"{elapsed:.0f} of {allowed:g} s: {_verdicts(plan)}"
    )


def _verdicts(plan: ReservationPlan) -> str:
    told = [f"{each.path}: {each.problem}" for each in plan.findings(now=True)]
    return "; ".join(told) or "everything it needs is free, so Ray should place it soon"
