"""A driver that runs for long: memory and file descriptors after many calls and groups.

    python -m benchmarks.soak 20000 500

Calls of every kind go to one group of two workers: by ``run_*``, whole calls, streams, through
handles, and some that fail; after each tenth a worker is killed and comes back. Then groups of one
worker are started and ended. Numbers are of the driver's process, after a warm-up and after each
tenth. The program fails when a result is wrong, something is left, or files or threads become more.
"""

import gc
import os
import sys
import time
from pathlib import Path

import ray

from planner import Domain, FailurePolicy
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError

_SLACK = 8
"""What may come and go by itself: Ray's connections to other processes."""

BUILDER = RayWorkerBuilder("tests.fault_workers.Worker")


def _now(label: str) -> tuple[int, int]:
    """Print how it stands; gives the numbers of open files and of threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = len(os.listdir("/proc/self/fd"))
    threads = len(os.listdir("/proc/self/task"))
    print(f"| {label} | {memory:.1f} MiB | {files} | {threads} |", flush=True)
    return files, threads


def _calls(group: RayWorkerGroup, count: int) -> None:
    for number in range(count):
        match number % 20:
            case 0:
                found: object = [*group.call("count", 3).by_rank().values()]
                wanted: object = [[0, 1, 2], [100, 101, 102]]
            case 1 | 2 | 3:
                found, wanted = group.call("echo", number).by_rank(), {0: number, 1: number}
            case 4:
                futures = [worker.echo.remote(number) for worker in group.workers]
                found, wanted = ray.get(futures), [number, number]
            case 5:
                found, wanted = _failed(group), (1,)
            case _:
                futures = group.run_all_workers_single_data("echo", value=number)
                found, wanted = ray.get(futures), [number, number]
        if found != wanted:
            raise SystemExit(f"call {number}: {found!r} in the place of {wanted!r}")


def _failed(group: RayWorkerGroup) -> object:
    try:
        return group.call("fail", [1]).by_rank()
    except WorkerGroupError as error:
        return error.report.failed


def _kill_and_recover(group: RayWorkerGroup) -> None:
    if group.abort([1]) != [1] or group.recover().end != (1,):
        raise SystemExit("a recovery went wrong")


def _groups(cluster: RayVirtualCluster, count: int) -> None:
    for _ in range(count):
        group = RayWorkerGroup(cluster, BUILDER, workers_per_node=1)
        if not group.end().is_clean:
            raise SystemExit("something was left")


def _judge(what: str, first: tuple[int, int], last: tuple[int, int]) -> None:
    if last[0] > first[0] + _SLACK or last[1] > first[1] + _SLACK:
        raise SystemExit(f"{what}: open files and threads grew from {first} to {last}")


def _main(calls: int, groups: int) -> None:
    ray.init(address="local", num_cpus=4, logging_level="ERROR", log_to_driver=False)
    print("| after | resident memory | open files | threads |\n| --- | --- | --- | --- |")
    began = time.monotonic()
    policy = FailurePolicy(domain=Domain.RANK, budget=1_000, first_pause=0.0)
    with RayVirtualCluster([2], use_gpus=False) as cluster:
        with RayWorkerGroup(cluster, BUILDER, failure_policy=policy) as group:
            _calls(group, 500)
            _kill_and_recover(group)
            first = last = _now("500 calls (warm-up)")
            for tenth in range(1, 11):
                _calls(group, calls // 10)
                _kill_and_recover(group)
                last = _now(f"{tenth * (calls // 10)} calls")
        _judge("calls", first, last)
        _groups(cluster, 5)
        first = last = _now("5 groups (warm-up)")
        for tenth in range(1, 11):
            _groups(cluster, groups // 10)
            last = _now(f"{tenth * (groups // 10)} groups")
        _judge("groups", first, last)
    print(f"{time.monotonic() - began:.0f} s")
    ray.shutdown()


if __name__ == "__main__":
    _main(*(int(given) for given in sys.argv[1:3]) if len(sys.argv) > 2 else (20_000, 500))
