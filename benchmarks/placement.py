"""Planning a launch of 1,000 nodes with 8 GPUs each, from the reservation to the dispatch plan.

Run: ``python -m benchmarks.placement``. No cluster is needed. Every figure is the median of several
runs in this process.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from planner.difference import difference
from planner.dispatch import plan_sharded
from planner.findings import Findings
from planner.group import GroupArguments
from planner.group_places import PlaceArguments
from planner.mesh import NamedSharding
from planner.prediction import predict_launch
from planner.requests import Strategy
from planner.reservation import plan_reservation
from planner.shapes import gb200_racks, h100_nodes
from planner.virtual_cluster import plan_cluster, reservation_request

AXES = ("pipeline_parallel", "data_parallel", "context_parallel", "tensor_parallel")


def _measured(make: Callable[[], object], times: int) -> tuple[float, float]:
    """Median seconds, and the most memory that one more run took, in MiB."""
    taken: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        make()
        taken.append(time.perf_counter() - begun)
    tracemalloc.start()
    make()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return statistics.median(taken), most / 2**20


def _cases(nodes: int) -> dict[str, Callable[[], object]]:
    h100, racks = h100_nodes(nodes), gb200_racks(-(-nodes // 18))
    ranks = 8 * nodes
    mesh = NamedSharding(np.arange(ranks).reshape(4, -1, 1, 8), AXES)
    spec = plan_cluster(bundle_ct_per_node_list=[8] * nodes, name="train")
    whole = 16 * (nodes // 18)
    segments = plan_cluster(bundle_ct_per_node_list=[4] * whole, segment_size=16)
    plain = GroupArguments(worker_class="my_project.Worker", mesh=mesh)
    places = PlaceArguments(
        localities={"tensor_parallel": "same_node"}, ports_per_worker=4, numa_binding=True
    )
    full = GroupArguments(worker_class="my_project.Worker", mesh=mesh, places=places)
    request = reservation_request(spec, unified=False, strategy=Strategy.PACK)
    in_segments = reservation_request(segments, unified=False, strategy=Strategy.PACK)
    first, second = predict_launch(spec, full, h100), predict_launch(spec, plain, h100)

    def dispatch() -> object:
        findings = Findings("dispatch")
        rest = ["pipeline_parallel", "context_parallel", "tensor_parallel"]
        return plan_sharded(mesh, ["data_parallel"], rest, rest, findings, dummy_calls=False)

    return {
        f"inventory of {nodes:,} nodes": lambda: h100_nodes(nodes),
        "reservation, per node": lambda: plan_reservation([request], h100),
        f"reservation, {whole} nodes in segments of 16": lambda: plan_reservation(
            [in_segments], racks
        ),
        "reservation and launch plan": lambda: predict_launch(spec, plain, h100),
        "the same, unified": lambda: predict_launch(spec, plain, h100, unified=True),
        "the same with localities, ports and NUMA": lambda: predict_launch(spec, full, h100),
        "dispatch plan": dispatch,
        "difference of two plans": lambda: difference(first, second),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1_000, help="nodes with 8 GPUs each")
    parser.add_argument("--times", type=int, default=3, help="runs of each case")
    given = parser.parse_args()
    table = Table(title=f"Planning for {given.nodes:,} nodes x 8 = {given.nodes * 8:,} ranks")
    for name in ("what", "seconds", "memory (MiB)"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name, make in _cases(given.nodes).items():
        seconds, memory = _measured(make, given.times)
        table.add_row(name, f"{seconds:.3f}", f"{memory:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
