"""Faults on a real Ray cluster of several nodes: what is detected, when, and what is left.

    python -m benchmarks.chaos 200
    python -m benchmarks.chaos 10 "driver killed"  # ten of this kind only

Every fault is made with a signal from outside the program: nothing cooperates. The table says per
kind of fault how many there were, how long it took until the caller knew (median and worst), for
how many the error was exactly right, and what was left afterwards: actors, worker processes,
placement groups and used bundles that should not be there, counted on the whole cluster after each
fault. A stopped or hanging process is known by a deadline only: there the time counts from the
deadline on. A driver that is struck can't be told anything: its time counts until all that it had
is gone. A fault that takes more than ``HANG_SECONDS`` ends the run with the stacks of all threads.
"""

import faulthandler
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

from benchmarks.census import Census
from planner.liveness import WorkerState
from planner.outcomes import FailureReport
from planner.recovery import Domain, FailurePolicy
from runtime import (
    DeadlineError,
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
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
        told: What the error said.
    """

    kind: str
    seconds: float = 0.0
    right: bool = False
    left: tuple[str, ...] = ()
    whole: float = 0.0
    told: str = ""


@frozen(eq=False)
class Chaos:
    """Makes faults on the cluster that this process is connected to.

    Attributes:
        reservation: Where groups run; two bundles on each of two nodes.
        cluster: The cluster itself, for faults of nodes; None where nodes are left alone.
        address: For further drivers.
        source: Whom to strike is drawn from it.
        census: Counts what is left.
    """

    reservation: RayVirtualCluster
    cluster: Cluster | None
    address: str
    source: random.Random = field(factory=lambda: random.Random(0))  # noqa: S311  # only a choice of victims
    _groups: list[RayWorkerGroup] = field(factory=list, init=False)
    census: Census = field(init=False)

    @census.default
    def _census(self) -> Census:
        return Census(self.reservation.get_placement_groups())

    def run(self, kind: str) -> Row:
        """Make one fault, look, and mend."""
        strike = getattr(self, f"_{kind.replace(' ', '_')}")
        begun = time.monotonic()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            row: Row = strike(kind)
        finally:
            faulthandler.cancel_dump_traceback_later()
        whole = time.monotonic() - begun
        return evolve(row, whole=whole, left=row.left + self._left())

    def _left(self, wait: float = GONE_SECONDS) -> tuple[str, ...]:
        """What there is beside the group that is used again, after a while."""
        named = [each.name for group in self._groups for each in group.plan.workers]
        starts = tuple(f"{group.name}.companion-" for group in self._groups)
        companions = [name for name in list_named_actors() if starts and name.startswith(starts)]
        # One for each of two nodes.
        return self.census.left({*named, *companions[:2]}, len(self._groups), wait)

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
        began = self._strike(ranks, signal.SIGKILL)
        try:
            MultiWorkerFuture(futures, method_name=method).get_results(group, timeout=60)
        except WorkerGroupError as error:
            seconds, report, told = time.monotonic() - began, error.report, str(error)
        else:
            return Row(kind=kind, left=("no error",))
        plan = group.recover()
        named = report.dead == report.failed == plan.end == tuple(ranks)
        right = named and _by_kill(report)
        return Row(kind=kind, seconds=seconds, right=right, told=told)

    def _stop_in_call(self, kind: str) -> Row:
        return self._stopped(kind, "sleep", {"seconds": 1.2})

    def _stop_in_stream(self, kind: str) -> Row:
        return self._stopped(kind, "drip", {"upto": 12, "seconds": 0.1})

    def _stopped(self, kind: str, method: str, arguments: Mapping[str, Any]) -> Row:
        group, ranks = self._group, self._victims()
        futures = self._begun(method, arguments)
        began = self._strike(ranks, signal.SIGSTOP)
        try:
            MultiWorkerFuture(futures, method_name=method).get_results(group, timeout=CALL_SECONDS)
        except DeadlineError as error:
            seconds = time.monotonic() - began - CALL_SECONDS
            report, told = error.report, str(error)
        else:
            return Row(kind=kind, left=("no error",))
        stopped = [each for each in group.status(10.0) if each.state is WorkerState.STOPPED]
        found = tuple(each.rank for each in stopped)
        methods = {each.method for each in stopped}
        plan = group.recover()
        right = methods == {method} and report.running == found == plan.end == tuple(ranks)
        return Row(kind=kind, seconds=seconds, right=right, told=told)

    # The end of a group, in which ranks are killed or stopped.

    def _kill_in_shutdown(self, kind: str) -> Row:
        return self._struck_at_end(kind, signal.SIGKILL)

    def _stop_in_shutdown(self, kind: str) -> Row:
        return self._struck_at_end(kind, signal.SIGSTOP)

    def _struck_at_end(self, kind: str, number: int) -> Row:
        group, ranks = self._group, self._victims()
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
        return Row(kind=kind, seconds=seconds, right=right, told=str(report))

    # The start of a group.

    def _kill_in_start(self, kind: str) -> Row:
        return self._struck_at_start(kind, signal.SIGKILL)

    def _stop_in_start(self, kind: str) -> Row:
        return self._struck_at_start(kind, signal.SIGSTOP)

    def _struck_at_start(self, kind: str, number: int) -> Row:
        self.close()
        ranks, struck_at = self._victims(), [0.0]
        # A stopped rank is known by the deadline only; a killed one long before.
        kills = number == signal.SIGKILL
        seconds, limit = (10.0, 60.0) if kills else (3.0, 15.0)
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
            ends = time.monotonic() + limit
            try:
                RayWorkerGroup(self.reservation, builder, name_prefix="starts", start_timeout=limit)
            except WorkerGroupError as error:
                known, report = time.monotonic() - (struck_at[0] if kills else ends), error.report
                told = str(error)
            else:
                return Row(kind=kind, left=("no error",))
        right = (report.dead if kills else report.running) == tuple(ranks)
        right = right and _by_kill(report) == kills
        return Row(kind=kind, seconds=known, right=right, told=told)

    def _constructor_raises(self, kind: str) -> Row:
        self.close()
        try:
            builder = RayWorkerBuilder("tests.fault_workers.Picky", 2)
            RayWorkerGroup(self.reservation, builder, name_prefix="raises")
        except KeyError as error:
            known, report = time.time(), error.report  # type: ignore[attr-defined]
            raised_at = report.causes[0][0].raised_at
            return Row(kind=kind, seconds=known - raised_at, right=report.failed == (2,))
        return Row(kind=kind, left=("no error",))

    def _constructor_hangs(self, kind: str) -> Row:
        self.close()
        limit, began = 15.0, time.monotonic()
        try:
            builder = RayWorkerBuilder("tests.fault_workers.Picky", 1, how="hang")
            RayWorkerGroup(self.reservation, builder, name_prefix="hangs", start_timeout=limit)
        except DeadlineError as error:
            return Row(
                kind=kind,
                seconds=time.monotonic() - began - limit,
                right=error.report.running == (1,),
                told=str(error),
            )
        return Row(kind=kind, left=("no error",))

    # A whole driver, and a whole node.

    def _driver_killed(self, kind: str) -> Row:
        return self._driver_ended(kind, signal.SIGKILL)

    def _driver_terminated(self, kind: str) -> Row:
        return self._driver_ended(kind, signal.SIGTERM)

    def _driver_interrupted(self, kind: str) -> Row:
        return self._driver_ended(kind, signal.SIGINT)

    def _driver_ended(self, kind: str, number: int) -> Row:
        """Whatever the driver does, it goes with all that it had."""
        self.close()
        with tempfile.TemporaryDirectory() as folder:
            phase = self.source.choice(["start", "call", "stream", "end"])
            driver = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", _DRIVER, self.address, phase, folder],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            line = driver.stdout.readline() if driver.stdout else ""
            if not line:
                raise RuntimeError(f"the driver did not start: {driver.communicate()[1]}")
            there = " ".join(self._left(0.0))
            began = time.monotonic()
            driver.send_signal(number)
            told = driver.communicate(timeout=60)[1]
        left = self._left()
        seconds = time.monotonic() - began
        # Python turns the one into an exception, Ray ends the process at the other.
        marks: dict[int, str] = {
            signal.SIGINT: "\nKeyboardInterrupt\n",
            signal.SIGTERM: "SIGTERM received",
        }
        by_it = (
            driver.returncode > 0 and marks[number] in told
            if number in marks
            else (driver.returncode == -number)
        )
        seen = all(kind in there for kind in ("actor", "process", "placement group"))
        right = seen and by_it
        return Row(kind=kind, seconds=seconds, right=right, left=left)

    def _raylet_killed(self, kind: str) -> Row:
        group = self._group
        if self.cluster is None:
            raise RuntimeError("this cluster's nodes are left alone")
        node_id = group.identities.nodes[3]
        struck = tuple(r for r, node in sorted(group.identities.nodes.items()) if node == node_id)
        futures = group.run_all_workers_single_data("sleep", seconds=60.0)
        time.sleep(0.3)
        node = next(each for each in self.cluster.worker_nodes if each.node_id == node_id)
        began = time.monotonic()
        node.kill_raylet()
        try:
            MultiWorkerFuture(futures, method_name="sleep").get_results(group, timeout=60)
        except WorkerGroupError as error:
            seconds, report, told = time.monotonic() - began, error.report, str(error)
        else:
            return Row(kind=kind, left=("no error",))
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(num_cpus=4, include_dashboard=False)
        # The others are still in their call.
        group.abort([rank for rank in range(4) if rank not in struck])
        while node_id in group.backend.live_nodes():
            time.sleep(0.1)
        plan = group.recover()
        right = report.failed == struck and plan.end == tuple(range(4))
        return Row(kind=kind, seconds=seconds, right=right, told=told)


_DRIVER = """
import os, sys, threading, time
import ray
_, address, phase, folder = sys.argv
ray.init(address, logging_level="ERROR", log_to_driver=False)
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

def say():
    print("there", flush=True)

def started():
    while len(os.listdir(folder)) < 2:
        time.sleep(0.01)
    say()

cluster = RayVirtualCluster([2], use_gpus=False, name="doomed")
if phase == "start":
    threading.Thread(target=started, daemon=True).start()
    builder = RayWorkerBuilder("tests.fault_workers.SlowStart", folder=folder, seconds=600.0)
    RayWorkerGroup(cluster, builder)
builder = RayWorkerBuilder("tests.fault_workers.SlowStart", folder=folder, seconds=0.0)
group = RayWorkerGroup(cluster, builder)
if phase == "call":
    call = group.call("close", 600.0)
    say()
    call.result()
if phase == "stream":
    stream = group.call("ticks", 0.01)
    next(iter(stream))
    say()
    list(stream)
threading.Timer(0.2, say).start()
group.end("linger", timeout=600)
"""


def _by_kill(report: FailureReport) -> bool:
    """Whether all that failed was ended by SIGKILL, and the error says so."""
    deaths = [failure.death for failure, _ in report.causes]
    return bool(deaths) and all(death and death.signal == "SIGKILL" for death in deaths)


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
    "driver terminated": 0.02,
    "driver interrupted": 0.02,
    "raylet killed": 0.02,
}
"""Every kind of fault, and its part of a run."""


def table(rows: Sequence[Row]) -> str:
    """The rows, counted by kind, as a table in Markdown."""
    lines = [
        "| fault | times | known after (median) | (worst) | right | leftovers |",
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
    wrong = [row for row in rows if not row.right or row.left]
    left = [*list_named_actors(), *leftovers()]
    print(f"{len(wrong)} rows wrong; named actors and placement groups left at the end: {left}")
    ray.shutdown()
    cluster.shutdown()
    if wrong or left:
        sys.exit(1)


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, " ".join(sys.argv[2:]))
