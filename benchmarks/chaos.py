"""Faults on a real Ray cluster of several nodes: what is detected, when, and what is left.

    python -m benchmarks.chaos 200
    python -m benchmarks.chaos 10 "driver killed"  # ten of this kind only

Every fault is made with a signal from outside the program: nothing cooperates. The table says per
kind of fault how many there were, how long it took until the caller knew (median and worst), for
how many the error named exactly the ranks that were struck, and what was left afterwards. A stopped
or hanging process is known by a deadline only: there the time counts from the deadline on. A fault
that is not over after ``HANG_SECONDS`` ends the run with the stacks of all threads.
"""

import faulthandler
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from attrs import evolve, field, frozen
from ray.cluster_utils import Cluster
from ray.util import list_named_actors

from planner.liveness import WorkerState
from planner.recovery import Domain, FailurePolicy
from runtime import (
    DeadlineError,
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
from runtime.companion import state_of
from runtime.leftovers import leftovers

__all__ = ["KINDS", "Chaos", "Row", "table"]

WORKER = "tests.fault_workers.Worker"
SLOW = "tests.fault_workers.SlowStart"
POLICY = FailurePolicy(domain=Domain.RANK, budget=1_000_000, first_pause=0.0)
GONE_SECONDS = 20.0

HANG_SECONDS = 180.0
"""How long one fault may take, from before it to after its mending; longer is a hang."""

CALL_SECONDS = 2.5
"""The deadline of calls whose ranks are stopped; the others return long before."""


@frozen(kw_only=True)
class Row:
    """One fault.

    Attributes:
        kind: Which.
        seconds: From the fault, or the deadline, to the moment in which the caller knew.
        right: Whether the error named exactly the ranks that were struck.
        left: What was left afterwards.
        whole: How long everything took, making and mending included.
    """

    kind: str
    seconds: float
    right: bool
    left: tuple[str, ...] = ()
    whole: float = 0.0


@frozen(eq=False)
class Chaos:
    """Makes faults on the cluster that this process is connected to.

    Attributes:
        reservation: Where groups run; two bundles on each of two nodes.
        cluster: The cluster itself, for faults of nodes; None where nodes are left alone.
        address: For further drivers.
        source: Whom to strike is drawn from it.
    """

    reservation: RayVirtualCluster
    cluster: Cluster | None
    address: str
    source: random.Random = field(factory=lambda: random.Random(0))  # noqa: S311  # only a choice of victims
    _groups: list[RayWorkerGroup] = field(factory=list, init=False)

    def run(self, kind: str) -> Row:
        """Make one fault, look, and mend."""
        strike = getattr(self, f"_{kind.replace(' ', '_')}")
        begun = time.monotonic()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            row: Row = strike(kind)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return evolve(row, whole=time.monotonic() - begun)

    def close(self) -> None:
        """End what the faults are made on."""
        while self._groups:
            self._groups.pop().shutdown(force=True)

    @property
    def _group(self) -> RayWorkerGroup:
        """A group that is used again as long as its faults can be mended."""
        if not self._groups:
            builder = RayWorkerBuilder(WORKER)
            self._groups.append(
                RayWorkerGroup(
                    self.reservation, builder, name_prefix="chaos", failure_policy=POLICY
                )
            )
        return self._groups[0]

    def _victims(self) -> list[int]:
        return sorted(self.source.sample(range(4), self.source.choice([1, 1, 2])))

    def _strike(self, ranks: Sequence[int], number: int) -> float:
        for rank in ranks:
            pid = self._group.identities[rank].pid
            os.kill(int(pid or 0), number)
        return time.monotonic()

    def _begun(self, method: str, arguments: Mapping[str, Any]) -> list[Any]:
        """A call on all ranks, in which all of them are; a busy machine takes several attempts."""
        for _ in range(10):
            if self._comes_true(lambda name: not name, GONE_SECONDS):
                futures = self._group.run_all_workers_single_data(method, **arguments)
                if self._comes_true(lambda name: name == method, 3.0):
                    return futures
        raise RuntimeError("the ranks did not begin the call at the same time")

    def _comes_true(self, holds: Callable[[str], bool], seconds: float) -> bool:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if all(holds(each.method) for each in self._group.status()):
                return True
            time.sleep(0.01)
        return False

    # A call, or a stream, in which ranks are killed or stopped.

    def _kill_in_call(self, kind: str) -> Row:
        return self._killed(kind, "sleep", {"seconds": 1.2})

    def _kill_in_stream(self, kind: str) -> Row:
        return self._killed(kind, "drip", {"upto": 12, "seconds": 0.1})

    def _killed(self, kind: str, method: str, arguments: Mapping[str, Any]) -> Row:
        group, ranks = self._group, self._victims()
        futures = self._begun(method, arguments)
        shown = [group.identities.vitals[rank] for rank in ranks]
        began = self._strike(ranks, signal.SIGKILL)
        try:
            MultiWorkerFuture(futures, method_name=method).get_results(group, timeout=60)
        except WorkerGroupError as error:
            seconds, report = time.monotonic() - began, error.report
        else:
            return Row(kind=kind, seconds=0.0, right=False, left=("no error",))
        deaths = [failure.death for failure, _ in report.causes]
        named = all(death is not None and death.signal == "SIGKILL" for death in deaths)
        plan = group.recover()
        right = named and report.dead == report.failed == plan.end == tuple(ranks)
        return Row(kind=kind, seconds=seconds, right=right, left=_alive(shown))

    def _stop_in_call(self, kind: str) -> Row:
        return self._stopped(kind, "sleep", {"seconds": 1.2})

    def _stop_in_stream(self, kind: str) -> Row:
        return self._stopped(kind, "drip", {"upto": 12, "seconds": 0.1})

    def _stopped(self, kind: str, method: str, arguments: Mapping[str, Any]) -> Row:
        group, ranks = self._group, self._victims()
        futures = self._begun(method, arguments)
        shown = [group.identities.vitals[rank] for rank in ranks]
        began = self._strike(ranks, signal.SIGSTOP)
        try:
            MultiWorkerFuture(futures, method_name=method).get_results(group, timeout=CALL_SECONDS)
        except DeadlineError as error:
            seconds, report = time.monotonic() - began - CALL_SECONDS, error.report
        else:
            return Row(kind=kind, seconds=0.0, right=False, left=("no error",))
        stopped = [each for each in group.status(10.0) if each.state is WorkerState.STOPPED]
        found = tuple(each.rank for each in stopped)
        told = all(each.method == method for each in stopped)
        plan = group.recover()
        right = told and report.running == found == plan.end == tuple(ranks)
        return Row(kind=kind, seconds=seconds, right=right, left=_alive(shown))

    # The end of a group, in which ranks are killed or stopped.

    def _kill_in_shutdown(self, kind: str) -> Row:
        return self._struck_at_end(kind, signal.SIGKILL)

    def _stop_in_shutdown(self, kind: str) -> Row:
        return self._struck_at_end(kind, signal.SIGSTOP)

    def _struck_at_end(self, kind: str, number: int) -> Row:
        group, ranks = self._group, self._victims()
        shown = list(group.identities.vitals.values())
        pids = [int(group.identities[rank].pid or 0) for rank in ranks]

        def strike_all() -> None:
            for pid in pids:
                os.kill(pid, number)

        strike = threading.Timer(0.1, strike_all)
        strike.start()
        began = time.monotonic()
        report = group.end("close", timeout=2.0)
        seconds = time.monotonic() - began - 0.1
        strike.join()
        self._groups.clear()
        struck = report.late if number == signal.SIGSTOP else [rank for rank, _ in report.failed]
        right = sorted(struck) == ranks and report.is_clean
        return Row(kind=kind, seconds=seconds, right=right, left=_alive(shown) + _named("chaos"))

    # The start of a group.

    def _kill_in_start(self, kind: str) -> Row:
        return self._struck_at_start(kind, signal.SIGKILL)

    def _stop_in_start(self, kind: str) -> Row:
        return self._struck_at_start(kind, signal.SIGSTOP)

    def _struck_at_start(self, kind: str, number: int) -> Row:
        self.close()
        ranks, struck_at = self._victims(), [0.0]
        # A stopped rank is known by the deadline only; a killed one long before.
        seconds, limit = (10.0, 60.0) if number == signal.SIGKILL else (3.0, 8.0)
        with tempfile.TemporaryDirectory() as folder:

            def strike() -> None:
                while len(ready := [r for r in range(4) if Path(folder, str(r)).exists()]) < 4:
                    time.sleep(0.02)
                for rank in ready:
                    if rank in ranks:
                        os.kill(int(Path(folder, str(rank)).read_text()), number)
                struck_at[0] = time.monotonic()

            thread = threading.Thread(target=strike, daemon=True)
            thread.start()
            builder = RayWorkerBuilder(SLOW, folder=folder, seconds=seconds)
            try:
                RayWorkerGroup(self.reservation, builder, name_prefix="starts", start_timeout=limit)
            except WorkerGroupError as error:
                known, report = time.monotonic() - struck_at[0], error.report
            else:
                return Row(kind=kind, seconds=0.0, right=False, left=("no error",))
        named = report.dead if number == signal.SIGKILL else report.running
        return Row(kind=kind, seconds=known, right=named == tuple(ranks), left=_named("starts"))

    def _constructor_raises(self, kind: str) -> Row:
        self.close()
        began = time.monotonic()
        try:
            builder = RayWorkerBuilder("tests.fault_workers.Picky", 2)
            RayWorkerGroup(self.reservation, builder, name_prefix="raises")
        except KeyError as error:
            report = error.report  # type: ignore[attr-defined]
            return Row(
                kind=kind,
                seconds=time.monotonic() - began,
                right=report.failed == (2,),
                left=_named("raises"),
            )
        return Row(kind=kind, seconds=0.0, right=False, left=("no error",))

    def _constructor_hangs(self, kind: str) -> Row:
        self.close()
        limit, began = 5.0, time.monotonic()
        try:
            builder = RayWorkerBuilder("tests.fault_workers.Picky", 1, how="hang")
            RayWorkerGroup(self.reservation, builder, name_prefix="hangs", start_timeout=limit)
        except DeadlineError as error:
            return Row(
                kind=kind,
                seconds=time.monotonic() - began - limit,
                right=error.report.running == (1,),
                left=_named("hangs"),
            )
        return Row(kind=kind, seconds=0.0, right=False, left=("no error",))

    # A whole driver, and a whole node.

    def _driver_killed(self, kind: str) -> Row:
        return self._driver_ended(kind, signal.SIGKILL)

    def _driver_interrupted(self, kind: str) -> Row:
        return self._driver_ended(kind, signal.SIGINT)

    def _driver_ended(self, kind: str, number: int) -> Row:
        self.close()
        before = {each.run for each in leftovers()}
        driver = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _DRIVER, self.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = driver.stdout.readline() if driver.stdout else ""
        if not line:
            raise RuntimeError(f"the driver did not start: {driver.communicate()[1]}")
        shown = json.loads(line)
        there = {each.run for each in leftovers()} - before
        began = time.monotonic()
        driver.send_signal(number)
        driver.communicate(timeout=60)
        while time.monotonic() < began + GONE_SECONDS:
            runs = {each.run for each in leftovers()} - before
            if not runs and not any(state_of(each) for each in shown):
                break
            time.sleep(0.02)
        seconds = time.monotonic() - began
        left = tuple(sorted({each.run for each in leftovers()} - before))
        right = len(there) == 1
        return Row(kind=kind, seconds=seconds, right=right, left=left + _alive(shown, 0.0))

    def _raylet_killed(self, kind: str) -> Row:
        group = self._group
        if self.cluster is None:
            raise RuntimeError("this cluster's nodes are left alone")
        node_id = group.identities.nodes[3]
        struck = tuple(r for r, node in sorted(group.identities.nodes.items()) if node == node_id)
        shown = [group.identities.vitals[rank] for rank in struck]
        futures = group.run_all_workers_single_data("sleep", seconds=60.0)
        time.sleep(0.3)
        node = next(each for each in self.cluster.worker_nodes if each.node_id == node_id)
        began = time.monotonic()
        node.kill_raylet()
        try:
            MultiWorkerFuture(futures, method_name="sleep").get_results(group, timeout=60)
        except WorkerGroupError as error:
            seconds, report = time.monotonic() - began, error.report
        else:
            return Row(kind=kind, seconds=0.0, right=False, left=("no error",))
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(num_cpus=4, include_dashboard=False)
        # The others are still in their call.
        group.abort([rank for rank in range(4) if rank not in struck])
        while node_id in group.backend.live_nodes():
            time.sleep(0.1)
        plan = group.recover()
        right = report.failed == struck and plan.end == tuple(range(4))
        return Row(kind=kind, seconds=seconds, right=right, left=_alive(shown))


_DRIVER = """
import json, sys, time
import ray
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup
cluster = RayVirtualCluster([2], use_gpus=False, name="doomed")
group = RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"))
group.run_all_workers_single_data("sleep", seconds=600.0)
print(json.dumps([dict(each) for each in group.identities.vitals.values()]), flush=True)
time.sleep(600)
"""


def _alive(shown: Sequence[Mapping[str, Any]], wait: float = GONE_SECONDS) -> tuple[str, ...]:
    """The processes that are still there after a while."""
    ends = time.monotonic() + wait
    while any(state_of(each) for each in shown) and time.monotonic() < ends:
        time.sleep(0.02)
    return tuple(f"pid {each['pid']}" for each in shown if state_of(each))


def _named(prefix: str) -> tuple[str, ...]:
    return tuple(name for name in list_named_actors() if str(name).startswith(prefix))


KINDS: Mapping[str, float] = {
    "kill in call": 0.30,
    "stop in call": 0.21,
    "kill in stream": 0.12,
    "stop in stream": 0.05,
    "kill in shutdown": 0.06,
    "stop in shutdown": 0.05,
    "kill in start": 0.05,
    "stop in start": 0.03,
    "constructor raises": 0.05,
    "constructor hangs": 0.03,
    "driver killed": 0.03,
    "driver interrupted": 0.02,
    "raylet killed": 0.02,
}
"""Every kind of fault, and its part of a run."""


def table(rows: Sequence[Row]) -> str:
    """The rows, counted by kind, as a table in Markdown."""
    lines = [
        "| fault | times | known after (median) | (worst) | error right | leftovers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [row for row in rows if row.kind == kind]
        seconds = [row.seconds for row in mine]
        lines.append(
            f"| {kind} | {len(mine)} | {statistics.median(seconds):.3f} s | {max(seconds):.3f} s | "
            f"{sum(row.right for row in mine)} of {len(mine)} | "
            f"{sum(len(row.left) for row in mine)} |"
        )
    return "\n".join(lines)


def _main(faults: int, only: str = "") -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=4, include_dashboard=False)
    cluster.wait_for_nodes()
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    strike: Callable[[str], Row]
    rows: list[Row] = []
    began = time.monotonic()
    with RayVirtualCluster([2, 2], use_gpus=False, name="chaos") as reservation:
        chaos = Chaos(reservation, cluster, cluster.address)
        strike = chaos.run
        for kind, part in ({only: 1.0} if only else KINDS).items():
            for _ in range(max(1, round(part * faults))):
                row = strike(kind)
                rows.append(row)
                if not row.right or row.left:
                    print("WRONG", row, flush=True)
            print(table([row for row in rows if row.kind == kind]).splitlines()[-1], flush=True)
        chaos.close()
    print(table(rows))
    slowest = max(rows, key=lambda row: row.whole)
    print(
        f"{len(rows)} faults in {time.monotonic() - began:.0f} s; the longest ({slowest.kind}) "
        f"took {slowest.whole:.0f} s with its mending; more than {HANG_SECONDS:g} s would be a hang"
    )
    left = [*list_named_actors(), *leftovers()]
    print(f"named actors and placement groups left at the end: {left}")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, " ".join(sys.argv[2:]))
