"""From a worker's death to the caller's error: rankplan beside the same program on raw Ray.

    python -m benchmarks.death_to_error 20

Four workers are in a call; one is killed from outside. Raw Ray's caller waits with ``ray.get`` on
all four futures. Both are told the time at which the signal left.
"""

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

from planner.recovery import Domain, FailurePolicy
from runtime import (
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)

POLICY = FailurePolicy(domain=Domain.RANK, budget=10_000, first_pause=0.0)


@ray.remote(num_cpus=0)
class _Plain:
    def pid(self) -> int:
        return os.getpid()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _until_error(pid: int, wait: Callable[[], object], error: type[Exception]) -> tuple[float, str]:
    time.sleep(0.2)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    try:
        wait()
    except error as caught:
        return time.monotonic() - began, str(caught)
    raise SystemExit("there was no error")


def _raw() -> tuple[float, str]:
    plain: Any = _Plain
    actors = [plain.remote() for _ in range(4)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    futures = [actor.sleep.remote(2.0) for actor in actors]
    found = _until_error(pids[2], lambda: ray.get(futures), ray.exceptions.RayActorError)
    for actor in actors:
        ray.kill(actor)
    return found


def _ours(group: RayWorkerGroup) -> tuple[float, str]:
    futures = group.run_all_workers_single_data("sleep", seconds=2.0)
    future = MultiWorkerFuture(futures, method_name="sleep")
    pid = int(group.identities[2].pid or 0)
    found = _until_error(pid, lambda: future.get_results(group), WorkerGroupError)
    group.recover()
    ray.wait(futures, num_returns=4, timeout=10)
    return found


def _main(times: int) -> None:
    ray.init(address="local", num_cpus=8, logging_level="ERROR", log_to_driver=False)
    raw = [_raw() for _ in range(times)]
    with (
        RayVirtualCluster([4], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster, RayWorkerBuilder("tests.fault_workers.Worker"), failure_policy=POLICY
        ) as group,
    ):
        ours = [_ours(group) for _ in range(times)]
    print("| | median | worst |\n| --- | --- | --- |")
    for name, found in (("raw Ray", raw), ("rankplan", ours)):
        seconds = [each for each, _ in found]
        print(f"| {name} | {statistics.median(seconds):.3f} s | {max(seconds):.3f} s |")
    print(f"\nraw Ray says:\n{raw[0][1]}\n\nrankplan says:\n{ours[0][1]}")
    ray.shutdown()


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
