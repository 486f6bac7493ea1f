"""10,000 small calls to a group, side by side with the raw ``.remote()`` loop.

Run ``python -m benchmarks.many_calls``. Each round makes the same calls with the same arguments
both ways and waits for each call's results before the next; the order changes from round to round.
"""

import time
from collections.abc import Callable

import ray

from benchmarks.measure import Expectation, arguments, compare, show
from benchmarks.measured_worker import MeasuredWorker
from planner import NamedSharding
from planner.roles import AllByRank
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

CALLS = 10_000
WORKERS = 8
ROUNDS = 10


def timed(run: Callable[[], object], times: int) -> Callable[[], float]:
    """Seconds for so many runs."""

    def measured() -> float:
        began = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - began

    return measured


def main() -> None:
    """Measure and print."""
    options = arguments(str(__doc__).splitlines()[0], repeats=ROUNDS).parse_args()
    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    raw_class = ray.remote(MeasuredWorker)
    raw = [raw_class.options(num_cpus=0).remote() for _ in range(WORKERS)]
    ray.get([actor.__ray_ready__.remote() for actor in raw])
    with (
        RayVirtualCluster([WORKERS], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("benchmarks.measured_worker.MeasuredWorker"),
            sharding_annotations=NamedSharding(
                [[0, 1], [2, 3], [4, 5], [6, 7]], ["data_parallel", "tensor_parallel"]
            ),
        ) as group,
    ):
        calls = group.using(returns=AllByRank())
        times = max(1, CALLS // options.repeats)
        found = compare(
            f"{times} calls of step(number, text) to {WORKERS} workers, all results fetched",
            {
                "raw .remote() loop": timed(
                    lambda: ray.get([actor.step.remote(number=1, text="x") for actor in raw]),
                    times,
                ),
                "group.call": timed(
                    lambda: calls.call(MeasuredWorker.step, number=1, text="x").by_rank(), times
                ),
                "run_all_workers_single_data": timed(
                    lambda: ray.get(group.run_all_workers_single_data("step", number=1, text="x")),
                    times,
                ),
            },
            options.repeats,
        )
    ray.shutdown()
    show(
        [found],
        "raw .remote() loop",
        [Expectation(name="group.call", to="raw .remote() loop", at_most=1.1)],
        per=f"{times} calls",
    )


if __name__ == "__main__":
    main()
