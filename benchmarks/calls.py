"""What a call of a whole worker group costs beyond a plain loop over Ray actors.

Run ``python -m benchmarks.calls``. The workers of both sides are of the same class and take the
same arguments. One measurement is many calls of all workers; *submit* is the time until the last
call is sent, *round trip* ends when all results are here.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from attrs import frozen
from ray.actor import ActorHandle

from benchmarks.measure import Comparison, Expectation, arguments, compare, show
from benchmarks.measured_worker import MeasuredWorker
from planner import NamedSharding
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

SLICE = list(range(64))
TENSOR_PARALLEL = 4


@frozen
class Way:
    """One way to call all workers.

    Attributes:
        send: Sends one call to every worker; gives what stands for the results.
        collect: Waits for the results.
    """

    send: Callable[[], Any]
    collect: Callable[[Any], object]


def submit(way: Way, calls: int) -> float:
    """Seconds to send one call to all; the results are waited for off the clock."""
    start = time.perf_counter()
    sent = [way.send() for _ in range(calls)]
    taken = time.perf_counter() - start
    for each in sent:
        way.collect(each)
    return taken / calls


def round_trip(way: Way, calls: int) -> float:
    """Seconds from sending one call to all until every result is here."""
    start = time.perf_counter()
    for _ in range(calls):
        way.collect(way.send())
    return (time.perf_counter() - start) / calls


def loop_of(actors: list[ActorHandle[Any]], method: str, **kwargs: object) -> Way:
    """Ray's own calls, one after the other, all with the same arguments."""
    methods = [getattr(actor, method) for actor in actors]
    return Way(lambda: [each.remote(**kwargs) for each in methods], ray.get)


def sharded_loop(actors: list[ActorHandle[Any]], slices: list[list[int]]) -> Way:
    """Ray's own calls, each with the slice of its data-parallel coordinate."""
    methods = [getattr(actor, "rows") for actor in actors]  # noqa: B009  # as in loop_of
    replicas = len(slices)
    each_gets = [slices[rank * replicas // len(actors)] for rank in range(len(actors))]
    return Way(
        lambda: [each.remote(rows=rows) for each, rows in zip(methods, each_gets, strict=True)],
        ray.get,
    )


def sharded(group: RayWorkerGroup, slices: list[list[int]]) -> Way:
    """The same call of a worker group."""
    return Way(
        lambda: group.run_all_workers_sharded_data(
            "rows",
            in_sharded_axes=["data_parallel"],
            replicate_on_axes=["tensor_parallel"],
            rows=slices,
        ),
        group.get_all_worker_results,
    )


def same(group: RayWorkerGroup, method: str, **kwargs: Any) -> Way:
    """The same arguments for all workers of a group."""
    return Way(lambda: group.run_all_workers_single_data(method, **kwargs), ray.get)


def main() -> None:
    """Print the times of all."""
    parser = arguments(str(__doc__).splitlines()[0], repeats=100)
    parser.add_argument("--workers", type=int, default=16, choices=range(4, 65, 4), metavar="4..64")
    parser.add_argument("--calls", type=int, default=5, help="calls in one measurement")
    options = parser.parse_args()
    workers: int = options.workers
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    replicas = workers // TENSOR_PARALLEL
    axes = NamedSharding(
        [
            list(range(start, start + TENSOR_PARALLEL))
            for start in range(0, workers, TENSOR_PARALLEL)
        ],
        ["data_parallel", "tensor_parallel"],
    )
    worker_class = ray.remote(MeasuredWorker)
    actors = [worker_class.options(num_cpus=0).remote() for _ in range(workers)]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    with (
        RayVirtualCluster([workers], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("benchmarks.measured_worker.MeasuredWorker"),
            sharding_annotations=axes,
        ) as group,
    ):
        slices = [SLICE] * replicas
        small = {"number": 1, "text": "abc"}
        ways = {
            "no argument": (loop_of(actors, "nothing"), same(group, "nothing")),
            "two small arguments": (loop_of(actors, "step", **small), same(group, "step", **small)),
            f"slices over {replicas} x {TENSOR_PARALLEL} ranks": (
                sharded_loop(actors, slices),
                sharded(group, slices),
            ),
        }
        comparisons: list[Comparison] = []
        for title, (raw, own) in ways.items():
            for what, run in (("submit", submit), ("round trip", round_trip)):
                comparisons.append(
                    compare(
                        f"{title}: {what}",
                        {
                            "raw loop": partial(run, raw, options.calls),
                            "worker group": partial(run, own, options.calls),
                        },
                        options.repeats,
                    )
                )
        show(
            comparisons,
            "raw loop",
            [Expectation(name="worker group", to="raw loop", at_most=1.1)],
            per=f"call of {workers}",
        )


if __name__ == "__main__":
    main()
