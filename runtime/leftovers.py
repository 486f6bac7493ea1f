"""What earlier runs left on a Ray cluster: found by run id, removed by run id, nobody else's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray._private import state
from ray._raylet import PlacementGroupID
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, remove_placement_group

from planner.leftovers import DriverState, Leftover, checked_removal, driver_state, run_of
from runtime.ray_session import check_up

__all__ = ["DriverState", "Leftover", "leftovers", "remove_leftovers"]


def leftovers(run: str | None = None) -> tuple[Leftover, ...]:
    """The placement groups of rankplan's runs that are still there, sorted by run and name.

    Those of programs that still run are among them; ``driver`` tells.

    Args:
        run: Only those of this run.

    Raises:
        ExecutionError: This process is not connected to Ray.
    """
    check_up("leftovers")
    found = [
        (name, each)
        for each in _placement_groups()
        if _state_of(each) != "REMOVED" and (name := run_of(each.name)) and run in {None, name}
    ]
    drivers = {str(each["JobID"]): each for each in state.jobs()} if found else {}
    return tuple(
        sorted(
            (_leftover(name, each, drivers) for name, each in found),
            key=lambda each: (each.run, each.placement_group),
        )
    )


def remove_leftovers(runs: Sequence[str], *, end_running: bool = False) -> tuple[Leftover, ...]:
    """Remove everything of some runs; Ray ends the workers in their bundles.

    Args:
        runs: Their ids; with none of them nothing is removed.
        end_running: Whether runs may be removed whose program still runs; its workers end.

    Returns:
        What was removed.

    Raises:
        PlanError: There is nothing of one of the runs, or its program still runs; nothing was
            removed.
        ExecutionError: This process is not connected to Ray.
    """
    there = leftovers() if runs else ()
    mine = checked_removal(runs, there, end_running=end_running)
    for each in mine:
        group_id = PlacementGroupID.from_hex(each.placement_group_id)
        remove_placement_group(PlacementGroup(group_id))
    return mine


def _placement_groups() -> Iterator[PlacementGroupTableData]:
    # What ray.util tells of a placement group lacks who made it and whether that one lives.
    for each in state.state._connect_and_get_accessor().get_placement_group_table():
        yield PlacementGroupTableData.FromString(each)


def _state_of(group: PlacementGroupTableData) -> str:
    return PlacementGroupTableData.PlacementGroupState.Name(group.state)


def _leftover(
    run: str, group: PlacementGroupTableData, drivers: Mapping[str, Mapping[str, Any]]
) -> Leftover:
    job, actor_id = group.creator_job_id.hex(), group.creator_actor_id.hex()
    by_actor = bool(actor_id.strip("f"))
    lives = by_actor and not group.creator_actor_dead
    actor, driver = state.actors(actor_id) if lives else None, drivers.get(job)
    node, pid = ("", None) if driver is None else (driver["DriverIPAddress"], driver["DriverPid"])
    if actor:
        node, pid = actor["Address"]["IPAddress"], actor["Pid"]
    return Leftover(
        run=run,
        placement_group=group.name,
        placement_group_id=group.placement_group_id.hex(),
        state=_state_of(group),
        bundles=len(group.bundles),
        driver=driver_state(job_has_ended=group.creator_job_dead, actor_lives=lives),
        job=job,
        node=node,
        pid=pid,
    )
