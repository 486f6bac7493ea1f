"""How long it takes until 16 workers are up: ours, and the ways it is commonly done.

Run ``python -m benchmarks.startup``. Every run gets a placement group of its own that is reserved
before the clock starts, and starts when no worker process is left from before. The clock stops
when every constructor has returned.
"""

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from benchmarks.measure import Expectation, arguments, compare, show
from benchmarks.measured_worker import MeasuredWorker
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

WORKER = "benchmarks.measured_worker.MeasuredWorker"
GONE_SECONDS = 60.0


class ImportHelper:
    """Imports a worker's class where the driver cannot, and creates workers of it."""

    def __init__(self, full_name: str) -> None:
        module, _, name = full_name.rpartition(".")
        self._worker_class: Any = ray.remote(getattr(importlib.import_module(module), name))

    def create(self, options: Mapping[str, Any]) -> object:
        """Create one worker; gives its handle."""
        return self._worker_class.options(**options).remote()


def ours(workers: int) -> float:
    """A worker group."""
    with reserved(workers) as cluster:
        start = time.perf_counter()
        group = RayWorkerGroup(cluster, RayWorkerBuilder(WORKER))
        taken = time.perf_counter() - start
        group.shutdown(force=True)
    return taken


def raw_actors(workers: int) -> float:
    """Ray actors of the class itself, with no environment, no names and no ranks."""
    with reserved(workers) as cluster:
        group = cluster.get_placement_groups()[0]
        start = time.perf_counter()
        worker_class = ray.remote(MeasuredWorker)
        actors = [
            worker_class.options(num_cpus=0, scheduling_strategy=in_bundle(group, bundle)).remote()
            for bundle in range(workers)
        ]
        wait_until_up(actors)
        taken = time.perf_counter() - start
        end(actors)
    return taken


def environment_per_worker(workers: int) -> float:
    """Ray actors of the class itself, each with a runtime environment of its own."""
    with reserved(workers) as cluster:
        group = cluster.get_placement_groups()[0]
        start = time.perf_counter()
        worker_class = ray.remote(MeasuredWorker)
        actors = [
            worker_class.options(**options_of(group, rank, workers)).remote()
            for rank in range(workers)
        ]
        wait_until_up(actors)
        taken = time.perf_counter() - start
        end(actors)
    return taken


def helpers(workers: int, *, one_for_all: bool) -> float:
    """Workers with an environment each, created by import helpers: one for each, or one for all."""
    with reserved(workers) as cluster:
        group = cluster.get_placement_groups()[0]
        start = time.perf_counter()
        options = [options_of(group, rank, workers) for rank in range(workers)]
        helper_class = ray.remote(ImportHelper)
        if one_for_all:
            made = [helper_class.options(num_cpus=0).remote(WORKER)]
        else:
            made = [
                helper_class.options(num_cpus=0, runtime_env=each["runtime_env"]).remote(WORKER)
                for each in options
            ]
        created = [made[rank % len(made)].create.remote(each) for rank, each in enumerate(options)]
        actors = ray.get(created)
        wait_until_up(actors)
        taken = time.perf_counter() - start
        end([*actors, *made])
    return taken


def options_of(group: PlacementGroup, rank: int, workers: int) -> dict[str, Any]:
    """The options of a rank's actor, its environment given to Ray."""
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }
    return {
        "num_cpus": 0,
        "scheduling_strategy": in_bundle(group, rank),
        "runtime_env": {"env_vars": environment},
    }


def in_bundle(group: PlacementGroup, bundle: int) -> PlacementGroupSchedulingStrategy:
    """Ray's words for a place in a placement group."""
    return PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=bundle
    )


def wait_until_up(actors: list[ActorHandle[Any]]) -> None:
    """Wait until every constructor has returned."""
    ray.get([actor.__ray_ready__.remote() for actor in actors])


def end(actors: list[ActorHandle[Any]]) -> None:
    """End actors at once."""
    for actor in actors:
        ray.kill(actor)


@contextmanager
def reserved(workers: int) -> Iterator[RayVirtualCluster]:
    """A placement group of one bundle per worker on a cluster without any worker process."""
    with RayVirtualCluster([workers], use_gpus=False) as cluster:
        cluster.get_placement_groups()
        wait_until_no_workers()
        yield cluster
    wait_until_no_workers()


def wait_until_no_workers() -> None:
    """Wait until Ray has no worker process left, idle ones included."""
    deadline = time.monotonic() + GONE_SECONDS
    while left := worker_processes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} worker processes are left: {sorted(left)}")
        time.sleep(0.1)


def worker_processes() -> set[int]:
    """The worker processes of this program's own Ray cluster."""
    parents: dict[int, int] = {}
    workers: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(status.rpartition(")")[2].split()[1])
        if is_worker(command):
            workers.add(pid)
    return {pid for pid in workers if os.getpid() in ancestors(pid, parents)}


def is_worker(command: bytes) -> bool:
    """Whether a command line is that of a worker process: idle, taken, or still starting."""
    if command.startswith(b"ray::"):
        return b"Agent" not in command
    scripts = (b"default_worker.py", b"setup_worker.py")
    return any(word.endswith(scripts) for word in command.split(b"\0")[:4])


def ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """The processes above a process, nearest first."""
    while pid in parents:
        pid = parents[pid]
        yield pid


def main() -> None:
    """Print the times of all."""
    parser = arguments(str(__doc__).splitlines()[0], repeats=3)
    parser.add_argument("--workers", type=int, default=16, choices=range(1, 65), metavar="1..64")
    options = parser.parse_args()
    workers: int = options.workers
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    raw_actors(workers)  # the first start reads Python's files from disk
    comparison = compare(
        f"{workers} workers up",
        {
            "ours": partial(ours, workers),
            "raw actors": partial(raw_actors, workers),
            "environment per worker": partial(environment_per_worker, workers),
            "one helper": partial(helpers, workers, one_for_all=True),
            "helper per worker": partial(helpers, workers, one_for_all=False),
        },
        options.repeats,
        warm_up=False,
    )
    show(
        [comparison],
        "ours",
        [
            Expectation(name="ours", to="raw actors", at_most=1.3),
            Expectation(name="helper per worker", to="ours", at_least=3.5),
        ],
        per="start",
    )


if __name__ == "__main__":
    main()
