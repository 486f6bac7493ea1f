"""What earlier runs left on a Ray cluster: found by run id, removed by run id, nobody else's."""

from collections.abc import Sequence

from attrs import frozen
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from planner.findings import Findings
from planner.teardown import run_of

__all__ = ["Leftover", "leftovers", "remove_leftovers"]


@frozen(kw_only=True)
class Leftover:
    """A placement group that some run of rankplan made and that is still there.

    Attributes:
        run: The run's id; it is in the placement group's name.
        placement_group: The name.
        placement_group_id: Ray's id.
        state: Ray's word for its state.
        bundles: How many bundles it holds.
    """

    run: str
    placement_group: str
    placement_group_id: str
    state: str
    bundles: int


def leftovers(run: str | None = None) -> tuple[Leftover, ...]:
    """The placement groups of rankplan's runs that are still there, sorted by run and name.

    Running programs are among them: their run ids are in the names of their placement groups.

    Args:
        run: Only those of this run.
    """
    found = (
        Leftover(
            run=name,
            placement_group=each["name"],
            placement_group_id=each["placement_group_id"],
            state=each["state"],
            bundles=len(each["bundles"]),
        )
        for each in placement_group_table().values()
        if each["state"] != "REMOVED" and (name := run_of(each["name"]))
    )
    return tuple(
        sorted(
            (each for each in found if run in {None, each.run}),
            key=lambda each: (each.run, each.placement_group),
        )
    )


def remove_leftovers(runs: Sequence[str]) -> tuple[Leftover, ...]:
    """Remove everything of some runs; Ray ends the workers in their bundles.

    Returns:
        What was removed.

    Raises:
        PlanError: There is nothing of one of the runs; nothing was removed.
    """
    findings = Findings("leftovers")
    there = leftovers()
    known = sorted({each.run for each in there})
    for index, run in enumerate(runs):
        if run not in known:
            findings.add(
                f"runs[{index}]",
                f"nothing of run {run!r} is on the cluster",
                f"the runs there are {', '.join(known)}" if known else "there is nothing to remove",
            )
    findings.check()
    mine = tuple(each for each in there if each.run in set(runs))
    for each in mine:
        group_id = PlacementGroupID.from_hex(each.placement_group_id)
        remove_placement_group(PlacementGroup(group_id))
    return mine
