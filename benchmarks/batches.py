"""Whole batches: 256 MB to 2 x 4 ranks and back, and results that go from 4 ranks to 2 others.

The latter once more with tensors: through the object store, and past it by gloo.

Run ``python -m benchmarks.batches``. The raw side are Ray actors of the same class, called as
programs without a data plane do: slices by value for each rank, all results fetched.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray.actor import ActorHandle

from benchmarks.batch_worker import BatchWorker, Rows
from benchmarks.measure import Comparison, Expectation, arguments, compare, show
from planner import NamedSharding
from planner.roles import Reduce, Shard
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup
from runtime.transports import link

BATCH_BYTES = 256 * 1024**2
MOVED_BYTES = 128 * 1024**2
COLUMNS = 1024
REPLICAS, REPLICA_RANKS = 2, 4
PRODUCERS, CONSUMERS = 4, 2
REST_SECONDS = 0.5
STORE_BYTES = 6 * 1024**3

WORKER = "benchmarks.batch_worker.BatchWorker"
Actors = list[ActorHandle[Any]]


def timed(run: Callable[[], object]) -> float:
    """Seconds that a run takes; then a moment for Ray to free its objects, off the clock."""
    start = time.perf_counter()
    run()
    taken = time.perf_counter() - start
    time.sleep(REST_SECONDS)
    return taken


def rows_of(size: int) -> Rows:
    """A batch of so many bytes."""
    return np.ones((size // 8 // COLUMNS, COLUMNS))


def there_and_back_by_value(actors: Actors, batch: Rows) -> float:
    """Every rank is sent its slice by value; all results come back, one per replica is kept."""

    def run() -> Rows:
        slices = np.array_split(batch, REPLICAS)
        results = ray.get(
            [actor.step.remote(slices[rank // REPLICA_RANKS]) for rank, actor in enumerate(actors)]
        )
        return np.concatenate(results[::REPLICA_RANKS])

    return timed(run)


def there_and_back_put_once(actors: Actors, batch: Rows) -> float:
    """Every slice is put once by hand; one result per replica is fetched, all are stored."""

    def run() -> Rows:
        slices = [ray.put(each) for each in np.array_split(batch, REPLICAS)]
        results = [
            actor.step.remote(slices[rank // REPLICA_RANKS]) for rank, actor in enumerate(actors)
        ]
        ray.wait(results, num_returns=len(results), fetch_local=False)
        return np.concatenate(ray.get(results[::REPLICA_RANKS]))

    return timed(run)


def there_and_back(group: RayWorkerGroup, batch: Rows) -> float:
    """One call."""
    calls = group.using(roles={"batch": Shard("data_parallel")})
    return timed(lambda: calls.call(BatchWorker.step, batch).result())


def moved_through_the_driver(producers: Actors, consumers: Actors, batch: Rows) -> float:
    """The results are fetched, put together, cut, and sent on by value."""
    slices = [ray.put(each) for each in np.array_split(batch, PRODUCERS)]

    def run() -> float:
        results = ray.get([a.step.remote(b) for a, b in zip(producers, slices, strict=True)])
        parts = np.array_split(np.concatenate(results), CONSUMERS)
        answers = ray.get([a.read.remote(b) for a, b in zip(consumers, parts, strict=True)])
        return float(sum(answers))

    return timed(run)


def moved_past_the_driver(
    producers: RayWorkerGroup,
    consumers: RayWorkerGroup,
    batch: Rows,
    transport: str = "object store",
) -> float:
    """The results stay, and their parts go from worker to worker."""
    roles = {"batch": Shard("data_parallel")}
    staged = next(producers.using(roles=roles).stage(BatchWorker.step, "batch", [batch]))
    calls = producers.using(roles=roles, transport=transport)

    def run() -> float:
        first = calls.call(BatchWorker.step, staged.as_argument())
        second = consumers.using(roles=roles, returns=Reduce("sum"))
        return second.call(BatchWorker.read, first.held().as_argument()).result()

    return timed(run)


def moved_tensors(cluster: RayVirtualCluster, repeats: int) -> Comparison:
    """Results that are tensors, between two linked groups: by gloo, and through the store."""
    tensors: Any = torch.from_numpy(rows_of(MOVED_BYTES))
    axes = ["data_parallel"]
    with (
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder(WORKER),
            workers_per_node=PRODUCERS,
            name_prefix="produce",
            sharding_annotations=NamedSharding(range(PRODUCERS), axes),
            tensor_transport="gloo",
        ) as producers,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder(WORKER),
            bundle_indices_list=[(0, [4]), (0, [5])],
            name_prefix="consume",
            sharding_annotations=NamedSharding(range(CONSUMERS), axes),
            tensor_transport="gloo",
        ) as consumers,
        link(producers, consumers),
    ):
        moved = partial(moved_past_the_driver, producers, consumers, tensors)
        return compare(
            f"tensors of {MOVED_BYTES >> 20} MB from {PRODUCERS} ranks to {CONSUMERS} others",
            {"held() by gloo": partial(moved, "gloo"), "held() by the store": moved},
            repeats,
        )


def main() -> None:
    """Print the times of all."""
    options = arguments(str(__doc__).splitlines()[0], repeats=7).parse_args()
    ranks = REPLICAS * REPLICA_RANKS
    ray.init(
        address="local",
        num_cpus=ranks,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    worker_class = ray.remote(BatchWorker)
    actors = [worker_class.options(num_cpus=0).remote() for _ in range(ranks)]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    axes = ["data_parallel", "tensor_parallel"]
    builder = RayWorkerBuilder(WORKER)
    batch = rows_of(BATCH_BYTES)
    with RayVirtualCluster([ranks], use_gpus=False) as cluster:
        with RayWorkerGroup(
            cluster,
            builder,
            sharding_annotations=NamedSharding(
                np.arange(ranks).reshape(REPLICAS, REPLICA_RANKS), axes
            ),
        ) as group:
            whole = compare(
                f"{BATCH_BYTES >> 20} MB to dp {REPLICAS} x tp {REPLICA_RANKS} and back",
                {
                    "group.call": partial(there_and_back, group, batch),
                    "by value, fetch all": partial(there_and_back_by_value, actors, batch),
                    "put once by hand": partial(there_and_back_put_once, actors, batch),
                },
                options.repeats,
            )
        part = rows_of(MOVED_BYTES)
        with (
            RayWorkerGroup(
                cluster,
                builder,
                workers_per_node=PRODUCERS,
                name_prefix="produce",
                sharding_annotations=NamedSharding(range(PRODUCERS), axes[:1]),
            ) as producers,
            RayWorkerGroup(
                cluster,
                builder,
                bundle_indices_list=[(0, [4]), (0, [5])],
                name_prefix="consume",
                sharding_annotations=NamedSharding(range(CONSUMERS), axes[:1]),
            ) as consumers,
        ):
            moved = compare(
                f"results of {MOVED_BYTES >> 20} MB from {PRODUCERS} ranks to {CONSUMERS} others",
                {
                    "held()": partial(moved_past_the_driver, producers, consumers, part),
                    "through the driver": partial(
                        moved_through_the_driver, actors[:PRODUCERS], actors[-CONSUMERS:], part
                    ),
                },
                options.repeats,
            )
        tensors = moved_tensors(cluster, options.repeats)
    show(
        [whole],
        "by value, fetch all",
        [Expectation(name="by value, fetch all", to="group.call", at_least=1.5)],
    )
    show(
        [moved],
        "through the driver",
        [Expectation(name="through the driver", to="held()", at_least=1.5)],
    )
    show([tensors], "held() by the store")
    ray.shutdown()


if __name__ == "__main__":
    main()
