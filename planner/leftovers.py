"""What runs leave on a cluster: how it is told from others', and what of it may be removed."""

import re
from collections.abc import Sequence
from enum import Enum

from attrs import frozen

from planner.findings import Findings

__all__ = ["DriverState", "Leftover", "checked_removal", "driver_state", "name_in_run", "run_of"]

_NAME = re.compile(r".+-(?:node\d+|unified)-rankplan-([0-9a-f]{8})")


def name_in_run(cluster: str, part: str, run: str) -> str:
    """The name of a placement group: its cluster, its part of it, and whose it is.

    Args:
        cluster: What people call the cluster.
        part: ``node`` with its number, or ``unified``.
        run: The run's id.
    """
    return f"{cluster}-{part}-rankplan-{run}"


def run_of(placement_group: str) -> str | None:
    """The run id in a placement group's name; None for one that rankplan did not make."""
    found = _NAME.fullmatch(placement_group)
    return found[1] if found else None


class DriverState(Enum):
    """Whether the program that reserved something is still there."""

    RUNNING = "running"
    GONE = "gone"


def driver_state(*, job_has_ended: bool, actor_lives: bool) -> DriverState:
    """The state of what made a placement group.

    Args:
        job_has_ended: Whether the job has in which it was made.
        actor_lives: Whether it was made by an actor that is still there. A detached one outlives
            its job.
    """
    return DriverState.GONE if job_has_ended and not actor_lives else DriverState.RUNNING


@frozen(kw_only=True)
class Leftover:
    """A placement group that some run of rankplan made and that is still there.

    Attributes:
        run: The run's id; it is in the placement group's name.
        placement_group: The name.
        placement_group_id: Ray's id.
        state: Ray's word for its state.
        bundles: How many bundles it holds.
        driver: Whether the program that made it still runs.
        job: Ray's id of the job in which it was made.
        node: The address of the node where that program runs, or ran; empty when not known.
        pid: Its process there: the job's driver, or an actor; None when not known.
    """

    run: str
    placement_group: str
    placement_group_id: str
    state: str
    bundles: int
    driver: DriverState
    job: str = ""
    node: str = ""
    pid: int | None = None


def checked_removal(
    runs: object, there: Sequence[Leftover], *, end_running: object = False
) -> tuple[Leftover, ...]:
    """What is to be removed of some runs.

    Args:
        runs: Their ids.
        there: What is on the cluster.
        end_running: Whether runs may be removed whose program still runs.

    Raises:
        PlanError: Something of it may not be removed; every finding is in the error.
    """
    findings = Findings("leftovers")
    if not isinstance(end_running, bool):
        findings.add("end_running", f"{end_running!r} is not a truth value", "give True or False")
    if isinstance(runs, str) or not isinstance(runs, Sequence):
        remedy = f"give [{runs!r}]" if isinstance(runs, str) else "give a list, as ['0123abcd']"
        findings.fail("runs", f"{runs!r} is not a list of run ids", remedy)
    by_run: dict[str, list[Leftover]] = {}
    for each in there:
        by_run.setdefault(each.run, []).append(each)
    known = ", ".join(sorted(by_run))
    for index, run in enumerate(runs):
        mine = by_run.get(run, []) if isinstance(run, str) else []
        busy = [each for each in mine if each.driver is DriverState.RUNNING]
        if not mine:
            findings.add(
                f"runs[{index}]",
                f"nothing of run {run!r} is on the cluster",
                f"the runs there are {known}" if known else "there is nothing to remove",
            )
        elif busy and end_running is not True:
            findings.add(
                f"runs[{index}]",
                f"the program of run {run!r} still runs{_whose(busy[0])}, and removing its "
                "placement groups ends its workers",
                "end that program, or give end_running=True",
            )
    findings.check()
    chosen = set(runs)
    return tuple(each for each in there if each.run in chosen)


def _whose(left: Leftover) -> str:
    if left.pid is None:
        return f" (job {left.job})" if left.job else ""
    return f" (job {left.job}, pid {left.pid} on node {left.node})"
