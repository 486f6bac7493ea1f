"""What large arguments and large results cost: a 64 MB argument for 8 ranks, 16 MB back from one.

Run ``python -m benchmarks.payloads``. The raw side are Ray actors of the same class. An argument
is another array in every run, so that no side can use what Ray still holds from before. Arguments
that the workers keep need fresh memory in Ray's store; those used once find memory that is there.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from benchmarks.measure import Expectation, arguments, compare, show
from benchmarks.measured_worker import MeasuredWorker
from planner import NamedSharding
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

RANKS = 8
ARGUMENT_BYTES = 64 * 1024**2
RESULT_BYTES = 16 * 1024**2
REST_SECONDS = 0.2
MOST_KEPT = 4
STORE_BYTES = 5 * 1024**3

_numbers = count(1)


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes; then a moment for Ray to free its objects, off the clock."""
    start = time.perf_counter()
    run()
    taken = time.perf_counter() - start
    time.sleep(REST_SECONDS)
    return taken


def array() -> Any:
    """An array of bytes that no run has had before."""
    return np.full(ARGUMENT_BYTES, next(_numbers) % 256, dtype=np.uint8)


def send_by_value(actors: list[ActorHandle[Any]], method: str) -> float:
    """The array itself as every call's argument."""
    value = array()
    calls = [getattr(actor, method) for actor in actors]
    return timed(lambda: ray.get([each.remote(array=value) for each in calls]))


def send_put_once(actors: list[ActorHandle[Any]], method: str) -> float:
    """The array put into Ray's store by hand, its reference as every call's argument."""
    value = array()
    calls = [getattr(actor, method) for actor in actors]

    def run() -> None:
        reference = ray.put(value)
        ray.get([each.remote(array=reference) for each in calls])

    return timed(run)


def send_ours(group: RayWorkerGroup, method: str) -> float:
    """The array as an argument of a group's call, the same for all ranks."""
    value = array()
    return timed(lambda: ray.get(group.run_all_workers_single_data(method, array=value)))


def senders(
    group: RayWorkerGroup, actors: list[ActorHandle[Any]], method: str
) -> dict[str, Callable[[], float]]:
    """The ways to send an array to all."""
    return {
        "worker group": partial(send_ours, group, method),
        "by value": partial(send_by_value, actors, method),
        "put once by hand": partial(send_put_once, actors, method),
    }


def fetch_all(actors: list[ActorHandle[Any]]) -> float:
    """Every result comes back; one is kept."""
    return timed(lambda: ray.get([actor.give.remote(size=RESULT_BYTES) for actor in actors])[0])


def fetch_one(actors: list[ActorHandle[Any]]) -> float:
    """All are waited for and one is fetched: every worker still stores its result."""

    def run() -> None:
        results = [actor.give.remote(size=RESULT_BYTES) for actor in actors]
        ray.wait(results, num_returns=len(results), fetch_local=False)
        ray.get(results[0])

    return timed(run)


def fetch_ours(group: RayWorkerGroup) -> float:
    """One rank returns; the others run the method and send nothing back."""

    def run() -> None:
        future = group.run_all_workers_sharded_data(
            "give",
            replicate_on_axes=["tensor_parallel"],
            output_is_replicated=["tensor_parallel"],
            common_kwargs={"size": RESULT_BYTES},
        )
        group.get_all_worker_results(future)

    return timed(run)


def main() -> None:
    """Print the times of all."""
    options = arguments(str(__doc__).splitlines()[0], repeats=15).parse_args()
    ray.init(
        address="local",
        num_cpus=RANKS,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    worker_class = ray.remote(MeasuredWorker)
    actors = [worker_class.options(num_cpus=0).remote() for _ in range(RANKS)]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    with (
        RayVirtualCluster([RANKS], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("benchmarks.measured_worker.MeasuredWorker"),
            sharding_annotations=NamedSharding(range(RANKS), ["tensor_parallel"]),
        ) as group,
    ):
        what = f"a {ARGUMENT_BYTES >> 20} MB argument for {RANKS} ranks"
        # First, while most of the store has never been written to.
        kept = compare(
            f"{what}, kept by them",
            senders(group, actors, "keep"),
            min(options.repeats, MOST_KEPT),
        )
        ray.get([actor.drop.remote() for actor in actors])
        ray.get(group.run_all_workers_single_data("drop"))
        time.sleep(1)
        sent = compare(f"{what}, used once", senders(group, actors, "take"), options.repeats)
        fetched = compare(
            f"a {RESULT_BYTES >> 20} MB result wanted from 1 of {RANKS} ranks",
            {
                "worker group": partial(fetch_ours, group),
                "fetch all": partial(fetch_all, actors),
                "wait for all, fetch one": partial(fetch_one, actors),
            },
            options.repeats,
        )
        show(
            [kept, sent, fetched],
            "worker group",
            [
                Expectation(name="by value", to="worker group", at_least=5),
                Expectation(name="fetch all", to="worker group", at_least=2),
            ],
            per="call",
        )


if __name__ == "__main__":
    main()
