"""A LaunchPlan for a reader: who runs where, and what each rank is told."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from rich.console import Group
from rich.table import Table

from planner.accelerators import GpuVisibility
from planner.amounts import GPU_UNIT
from planner.findings import CoordinateError, Finding
from planner.interpreter import describe_interpreter
from planner.launch import LaunchPlan, WorkerPlan, environment_of
from planner.mesh import NamedSharding
from planner.show.rendering import (
    MANY,
    WIDTH,
    FittingTable,
    as_text,
    cell,
    middle_left_out,
    new_table,
    runs,
)

__all__ = ["environment_table", "environment_view", "launch_table", "launch_view"]


_SPARE = ("share", "bundle", "node rank", "leader", "local rank", "name", "tied group")
"""What a table of ranks may leave out where it has no room, the least useful first."""


def launch_table(plan: LaunchPlan, width: int = WIDTH, *, colour: bool = False) -> str:
    """The group, then one row per rank; one per node when there are more than 64 ranks.

    Where rows would not fit into the width, columns of less use are left out and named below.
    """
    return as_text(launch_view(plan), width, colour=colour)


def environment_table(
    plan: LaunchPlan, rank: int, width: int = WIDTH, *, colour: bool = False
) -> str:
    """Every variable that a rank is given, with where its value comes from.

    Raises:
        CoordinateError: (an ``IndexError``) There is no such rank.
    """
    return as_text(environment_view(plan, rank), width, colour=colour)


def launch_view(plan: LaunchPlan) -> Group:
    """The same as ``launch_table``, for a rich console."""
    few = plan.world_size <= MANY
    return Group(_header(plan), _rank_rows(plan) if few else _node_rows(plan))


def environment_view(plan: LaunchPlan, rank: int) -> Table:
    """The same as ``environment_table``, for a rich console."""
    if not 0 <= rank < plan.world_size:
        known = f"the group has ranks 0 to {plan.world_size - 1}"
        finding = Finding("rank", f"there is no rank {rank}", known)
        raise CoordinateError(f"worker group {plan.group!r}", [finding])
    words = ("name", "value", "from")
    title = f"environment of rank {rank}, {plan.workers[rank].name}"
    table = new_table(title, *words, left=words)
    for each in environment_of(plan, rank):
        merged = "".join(f" + {origin.value}" for origin in each.merged)
        value = "<redacted>" if each.value is None else each.value
        table.add_row(cell(each.name), cell(value), cell(each.origin.value + merged))
    return table


def _header(plan: LaunchPlan) -> Table:
    port = plan.rendezvous.port
    meeting = f"{plan.rendezvous.address}:{'(known when rank 0 is up)' if port is None else port}"
    lines = [
        ("class", plan.worker_class + (" (on an event loop)" if plan.asynchronous else "")),
        ("interpreter", describe_interpreter(plan.interpreter)),
        ("rendezvous", meeting),
        ("GPUs", _gpus_text(plan)),
        ("axes", _axes_text(plan.mesh)),
        ("leaders", _leaders_text(plan)),
        ("environment", _environment_text(plan)),
    ]
    lines += [(f"{axis}", f"keeps to {each.value}") for axis, each in plan.localities]
    lines += [("note", note) for note in plan.notes]
    size = f"{_count(plan.world_size, 'rank')} on {_count(plan.node_count, 'node')}"
    table = Table.grid(padding=(0, 3))
    table.title, table.title_justify = cell(f"worker group {plan.group!r}: {size}"), "left"
    for name, text in lines:
        table.add_row(cell(name), cell(text))
    return table


def _gpus_text(plan: LaunchPlan) -> str:
    if not any(worker.gpus for worker in plan.workers):
        return "none"
    match plan.gpu_visibility:
        case GpuVisibility.ISOLATED:
            return "isolated: each worker sees its own, as device 0"
        case GpuVisibility.SHARED:
            return "shared: each worker sees the group's on its node, LOCAL_RANK picks its own"
        case GpuVisibility.UNMASKED:
            return "unmasked: each worker sees all of its node, LOCAL_RANK picks its own"
        case _:
            assert_never(plan.gpu_visibility)


def _axes_text(mesh: NamedSharding | None) -> str:
    if mesh is None:
        return "none"
    text = " x ".join(f"{name} {size:,}" for name, size in mesh.shape.items())
    return text if mesh.ranks == tuple(range(mesh.size)) else f"{text}, ranks permuted"


def _leaders_text(plan: LaunchPlan) -> str:
    """The ranks in the order of the shards that they lead."""
    leaders = plan.leaders
    in_order = list(leaders) == sorted(leaders)
    noun = "rank" if len(leaders) == 1 else "ranks"
    ranks = runs(leaders) if in_order or len(leaders) > MANY else ", ".join(map(str, leaders))
    return f"{_count(len(leaders), 'data-parallel shard')}, led by {noun} {ranks}"


def _environment_text(plan: LaunchPlan) -> str:
    shared = plan.environment
    secrets = sum(1 for each in shared.variables if each.is_secret)
    parts = [f"{_count(len(shared.variables), 'variable')} for all ranks"]
    if secrets:
        parts.append(f"{secrets} of them redacted")
    if shared.before_python:
        parts.append(f"set before Python starts: {', '.join(shared.before_python)}")
    if shared.withheld:
        parts.append(f"not handed on: {', '.join(shared.withheld)}")
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _rank_rows(plan: LaunchPlan) -> FittingTable:
    axes = [] if plan.mesh is None else plan.mesh.names
    tied = any(not worker.is_leader for worker in plan.workers)
    name_of = _node_names(plan)
    columns = ["node", "node rank", "local rank", "bundle", "GPU", "share", "name"]
    columns += ["tied group", "leader"] if tied else []
    before = 1 + len(axes)
    rows: list[tuple[object, ...]] = []
    for worker in plan.workers:
        coords = [] if plan.mesh is None else plan.mesh.get_worker_coords(worker.rank).values()
        row: list[object] = [worker.rank, *coords, name_of[worker.node_id]]
        row += [worker.node_rank, worker.local_rank, _bundle(worker), ",".join(worker.gpus)]
        row += [_share(worker), worker.name]
        row += [worker.tied_group, "yes" if worker.is_leader else ""] if tied else []
        rows.append(tuple(row))
    return FittingTable(
        columns=("rank", *axes, *columns),
        rows=tuple(rows),
        words=("node", "name", "leader"),
        spare=tuple(before + columns.index(name) for name in _SPARE if name in columns),
        shorten=tuple(range(1, before)),
    )


def _node_names(plan: LaunchPlan) -> dict[str, str]:
    """Node id to what a reader knows the node by: its address, and its id where that is shared."""
    addresses = {worker.node_id: worker.address for worker in plan.workers}
    shared = len(set(addresses.values())) < len(addresses)
    return {
        node_id: f"{address} ({node_id[:12]})" if shared else address
        for node_id, address in addresses.items()
    }


def _bundle(worker: WorkerPlan) -> str:
    return f"{worker.placement_group}:{worker.bundle}"


def _share(worker: WorkerPlan) -> str:
    return f"{worker.gpu_share / GPU_UNIT:g}"


def _node_rows(plan: LaunchPlan) -> Table:
    nodes: list[list[WorkerPlan]] = [[] for _ in range(plan.node_count)]
    for worker in plan.workers:
        nodes[worker.node_rank].append(worker)
    words = ("node", "ranks", "bundles", "GPUs", "leaders")
    columns = ("node rank", "node", "ranks", "bundles", "GPUs", "share", "leaders")
    table = new_table("", *columns, left=words)
    names = _node_names(plan)
    first, left_out, last = middle_left_out(nodes)
    for workers in first:
        table.add_row(*map(cell, _node_row(plan, workers, names)))
    if left_out:
        table.add_row(cell("..."), cell(f"{left_out:,} more"))
    for workers in last:
        table.add_row(*map(cell, _node_row(plan, workers, names)))
    return table


def _node_row(
    plan: LaunchPlan, workers: Sequence[WorkerPlan], names: Mapping[str, str]
) -> list[object]:
    one, leaders = workers[0], frozenset(plan.leaders)
    bundles: dict[int, list[int]] = {}
    for worker in workers:
        bundles.setdefault(worker.placement_group, []).append(worker.bundle)
    shares = sorted({_share(worker) for worker in workers})
    gpus = [gpu for worker in workers for gpu in worker.gpus]
    whole = all(gpu.isdigit() for gpu in gpus)
    return [
        one.node_rank,
        names[one.node_id],
        runs(worker.rank for worker in workers),
        "; ".join(f"{group}:{runs(each)}" for group, each in bundles.items()),
        runs(map(int, gpus)) if whole else ", ".join(gpus),
        ", ".join(shares),
        runs(worker.rank for worker in workers if worker.rank in leaders),
    ]
