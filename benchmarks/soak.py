"""A driver that runs for long: memory and file descriptors after many calls and groups.

    python -m benchmarks.soak 20000 500

Calls go to one group of two workers; then groups of one worker are started and ended. Numbers are
of the driver's process, after a warm-up and then after each tenth.
"""

import gc
import os
import sys
import time
from pathlib import Path

import ray

from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

BUILDER = RayWorkerBuilder("tests.fault_workers.Worker")


def _now(label: str) -> None:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = len(os.listdir("/proc/self/fd"))
    threads = len(os.listdir("/proc/self/task"))
    print(f"| {label} | {memory:.1f} MiB | {files} | {threads} |", flush=True)


def _calls(group: RayWorkerGroup, count: int) -> None:
    for number in range(count):
        futures = group.run_all_workers_single_data("echo", value=number)
        if ray.get(futures) != [number, number]:
            raise SystemExit("a wrong result")


def _groups(cluster: RayVirtualCluster, count: int) -> None:
    for _ in range(count):
        group = RayWorkerGroup(cluster, BUILDER, workers_per_node=1)
        if not group.end().is_clean:
            raise SystemExit("something was left")


def _main(calls: int, groups: int) -> None:
    ray.init(address="local", num_cpus=4, logging_level="ERROR", log_to_driver=False)
    print("| after | resident memory | open files | threads |\n| --- | --- | --- | --- |")
    began = time.monotonic()
    with RayVirtualCluster([2], use_gpus=False) as cluster:
        with RayWorkerGroup(cluster, BUILDER) as group:
            _calls(group, 500)
            _now("500 calls (warm-up)")
            for tenth in range(1, 11):
                _calls(group, calls // 10)
                _now(f"{tenth * (calls // 10)} calls")
        _groups(cluster, 5)
        _now("5 groups (warm-up)")
        for tenth in range(1, 11):
            _groups(cluster, groups // 10)
            _now(f"{tenth * (groups // 10)} groups")
    print(f"{time.monotonic() - began:.0f} s")
    ray.shutdown()


if __name__ == "__main__":
    _main(*(int(given) for given in sys.argv[1:3]) if len(sys.argv) > 2 else (20_000, 500))
