"""What planning costs for 1,000, 10,000 and 100,000 ranks, beside a search for every worker.

Run ``python -m benchmarks.planning``. It needs no Ray. The search is how a layout is commonly
used: for every worker, on every call, find its id in the whole array to know its coordinates.
"""

import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.measure import arguments, compare, describe_machine
from planner import LaunchPlan, NamedSharding, environment_of
from planner.dispatch import DispatchPlan, plan_sharded
from planner.findings import Findings
from planner.group import GroupArguments, plan_group
from planner.launch import HostFacts, plan_launch
from planner.signatures import Method, Parameter, ParameterKind
from runtime.calls import Sender
from runtime.ray_backend import RAY

NAMES = ["pipeline_parallel", "data_parallel", "context_parallel", "tensor_parallel"]
SIZES = {1_000: (5, 25, 2, 4), 10_000: (5, 125, 2, 8), 100_000: (10, 625, 2, 8)}
GPUS_PER_NODE = 8
SLOW_SEARCH = 100_000
LOOK_UPS = 10_000


def launch_plan(axes: NamedSharding, facts: tuple[HostFacts, ...]) -> LaunchPlan:
    """The whole way from a caller's arguments and the hosts' reports to a plan."""
    spec = plan_group(
        GroupArguments(
            worker_class="models.Policy",
            bundle_counts=(GPUS_PER_NODE,) * (axes.size // GPUS_PER_NODE),
            mesh=axes,
            gpu_share=10_000,
        )
    )
    return plan_launch(spec, facts)


def host_facts(ranks: int) -> tuple[HostFacts, ...]:
    """Reports of hosts on full nodes."""
    return tuple(
        HostFacts(
            node_id=f"{rank // GPUS_PER_NODE:056x}",
            address=f"10.{rank >> 19}.{rank >> 11 & 255}.{rank // GPUS_PER_NODE & 255}",
            gpus=(str(rank % GPUS_PER_NODE),),
            pid=1000 + rank % GPUS_PER_NODE,
            port=20_000 + rank % GPUS_PER_NODE,
        )
        for rank in range(ranks)
    )


def all_environments(plan: LaunchPlan) -> int:
    """The environment of every rank."""
    return sum(len(environment_of(plan, rank)) for rank in range(plan.world_size))


def dispatch_plan(axes: NamedSharding) -> DispatchPlan:
    """Slices over data parallelism, the same to all others, one answer per slice."""
    others = [name for name in NAMES if name != "data_parallel"]
    return plan_sharded(axes, ["data_parallel"], others, others, Findings("benchmark"))


def search_for_every_worker(layout: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The slice of every worker and who answers, each found by a search of the whole layout."""
    slices: list[int] = []
    returning: list[int] = []
    for worker in range(layout.size):
        found = np.where(layout == worker)
        coords = {name: int(places[0]) for name, places in zip(NAMES, found, strict=True)}
        slices.append(coords["data_parallel"])
        if all(coord == 0 for name, coord in coords.items() if name != "data_parallel"):
            returning.append(worker)
    return slices, returning


def sender_of(axes: NamedSharding) -> Sender:
    """What a group's calls go through, without actors: only its look-ups are used."""
    batch = Parameter(name="batch", kind=ParameterKind.POSITIONAL_OR_KEYWORD, required=True)
    return Sender(
        group="policy",
        worker_class="models.Policy",
        mesh=axes,
        methods={"train": Method(name="train", parameters=(batch,))},
        actors=(),
        backend=RAY,
    )


def look_up(sender: Sender, axes: NamedSharding) -> DispatchPlan:
    """What a call does before it sends: check the method, find the plan."""
    sender.method("train", 0, ("batch",))
    return sender.plan("train", ("sharded", ("data_parallel",)), lambda _: dispatch_plan(axes))


def seconds_of(run: Callable[[], object], times: int = 1) -> float:
    """Seconds that one of several runs takes."""
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def memory_of(run: Callable[[], object]) -> tuple[float, float]:
    """Megabytes that the result holds, and the most that was held on the way to it."""
    tracemalloc.start()
    result = run()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return held / 1e6, peak / 1e6


def rows_of(ranks: int, repeats: int) -> list[list[str]]:
    """The lines of one number of ranks."""
    axes = NamedSharding(np.arange(ranks).reshape(SIZES[ranks]), NAMES)
    facts = host_facts(ranks)
    plan = launch_plan(axes, facts)
    layout = axes.layout
    expected = dispatch_plan(axes)
    sender = sender_of(axes)
    work: dict[str, Callable[[], object]] = {
        "LaunchPlan": partial(launch_plan, axes, facts),
        "environment of every rank": partial(all_environments, plan),
        "DispatchPlan": partial(dispatch_plan, axes),
    }
    measured = compare(
        f"{ranks:,} ranks",
        {name: partial(seconds_of, run) for name, run in work.items()}
        | {"its look-up": partial(seconds_of, partial(look_up, sender, axes), LOOK_UPS)},
        repeats,
    )
    search = compare(
        f"{ranks:,} ranks",
        {"search for every worker": partial(seconds_of, partial(search_for_every_worker, layout))},
        1 if ranks >= SLOW_SEARCH else min(repeats, 3),
        warm_up=False,
    )
    slices, returning = search_for_every_worker(layout) if ranks < SLOW_SEARCH else ([], [])
    if slices and (slices, sorted(returning)) != (list(expected.slices), sorted(expected.returns)):
        raise AssertionError("the search and the plan disagree")
    own = measured.median("DispatchPlan")
    lines: list[list[str]] = []
    for name in (*measured.seconds, *search.seconds):
        median = (measured if name in measured.seconds else search).median(name)
        held, peak = memory_of(work[name]) if name in work else (0.0, 0.0)
        lines.append(
            [
                f"{ranks:,}" if not lines else "",
                name,
                f"{median * 1e3:,.4f}" if median < 1e-4 else f"{median * 1e3:,.1f}",
                f"{held:,.1f}" if name in work else "-",
                f"{peak:,.1f}" if name in work else "-",
                f"{median / own:,.5f}" if median < own / 10 else f"{median / own:,.1f}",
            ]
        )
    return lines


def main() -> None:
    """Print one block of lines per number of ranks."""
    parser = arguments(str(__doc__).splitlines()[0], repeats=5)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=list(SIZES), choices=list(SIZES), metavar="RANKS"
    )
    options = parser.parse_args()
    table = Table(title=describe_machine())
    table.add_column("ranks", justify="right")
    table.add_column("plan")
    for heading in ("median ms", "holds MB", "peak MB", "to DispatchPlan"):
        table.add_column(heading, justify="right")
    for ranks in options.ranks:
        for line in rows_of(ranks, options.repeats):
            table.add_row(*line)
        table.add_section()
    Console(width=110, highlight=False).print(table)


if __name__ == "__main__":
    main()
