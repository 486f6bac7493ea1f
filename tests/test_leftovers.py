"""What runs leave: told from others' by name, and removed only where nobody uses it."""

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray.util.placement_group import placement_group, remove_placement_group

from planner.findings import PlanError
from planner.leftovers import (
    DriverState,
    Leftover,
    checked_removal,
    driver_state,
    name_in_run,
    run_of,
)
from runtime import RayVirtualCluster
from runtime.leftovers import leftovers, remove_leftovers

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


def left(run: str, driver: DriverState, part: str = "node0") -> Leftover:
    """A placement group of a run."""
    return Leftover(
        run=run,
        placement_group=name_in_run("policy", part, run),
        placement_group_id="00",
        state="CREATED",
        bundles=8,
        driver=driver,
        job="02000000",
        node="10.0.0.7",
        pid=4711,
    )


OLD = (left("0000000a", DriverState.GONE), left("0000000a", DriverState.GONE, "node1"))
BUSY = left("0000000b", DriverState.RUNNING)
THERE = (*OLD, BUSY)


@given(
    cluster=st.text(min_size=1).filter(lambda name: "\n" not in name),
    part=st.integers(0, 5000).map(lambda node: f"node{node}") | st.just("unified"),
    run=st.text("0123456789abcdef", min_size=8, max_size=8),
)
def test_run_ids_are_read_back_from_names(cluster: str, part: str, run: str) -> None:
    """Whatever the cluster is called; its own name stays first."""
    name = name_in_run(cluster, part, run)
    assert run_of(name) == run
    assert name.startswith(cluster)


@pytest.mark.parametrize(
    "name",
    [
        "theirs-deadbeef-node1",
        "rankplan-deadbeef-node1",
        "policy-deadbeef-unified",
        "node0-rankplan-deadbeef",
        "policy-node0-rankplan-deadbeef2",
        "policy-node-rankplan-deadbeef",
        "policy-node0-rankplan-DEADBEEF",
        "",
    ],
)
def test_names_of_others_have_no_run_id(name: str) -> None:
    """Eight hexadecimal digits and a node do not make a name ours."""
    assert run_of(name) is None


def test_what_nobody_uses_may_be_removed() -> None:
    """All of a run, and nothing of the others."""
    assert checked_removal(["0000000a"], THERE) == OLD
    assert checked_removal((), THERE) == ()


def test_a_running_program_keeps_what_it_has() -> None:
    """Unless one says so; everything wrong is told at once, and nothing is removed."""
    with pytest.raises(PlanError, match="2 problems") as raised:
        checked_removal(["0000000a", "0000000b", "0000000c"], THERE)
    first, second = raised.value.findings
    assert (first.path, first.problem, first.remedy) == (
        "runs[1]",
        (
            "the program of run '0000000b' still runs (job 02000000, pid 4711 on node 10.0.0.7), "
            "and removing its placement groups ends its workers"
        ),
        "end that program, or give end_running=True",
    )
    assert (second.path, second.problem) == (
        "runs[2]",
        "nothing of run '0000000c' is on the cluster",
    )
    assert checked_removal(["0000000b"], THERE, end_running=True) == (BUSY,)


@pytest.mark.parametrize("runs", ["deadbeef", "", None, 7, {"0000000a"}])
def test_what_is_no_list_is_one_error(runs: object) -> None:
    """A run id is no list of letters."""
    with pytest.raises(PlanError) as raised:
        checked_removal(runs, THERE)
    (finding,) = raised.value.findings
    assert (finding.path, finding.problem) == ("runs", f"{runs!r} is not a list of run ids")


def test_wrong_arguments_are_refused() -> None:
    """Not a truth value, not an id."""
    with pytest.raises(PlanError) as raised:
        checked_removal([b"0000000a"], THERE, end_running="yes")
    assert [finding.path for finding in raised.value.findings] == ["end_running", "runs[0]"]


def test_a_driver_is_gone_with_its_job_and_its_actor() -> None:
    """A detached actor that reserved something outlives its job."""
    states = [
        driver_state(job_has_ended=ended, actor_lives=lives)
        for ended, lives in ((False, False), (False, True), (True, True), (True, False))
    ]
    assert states == [DriverState.RUNNING] * 3 + [DriverState.GONE]


def test_nothing_is_removed_of_no_runs() -> None:
    """Without asking any cluster."""
    assert remove_leftovers([]) == ()


_ENDS = """
import sys
import ray
from ray.util.placement_group import placement_group

ray.init(sys.argv[1], namespace="left", logging_level="ERROR", log_to_driver=False)
alone = placement_group([{"CPU": 1}], name=sys.argv[2], lifetime="detached")
ray.get(alone.ready())


@ray.remote(num_cpus=0)
class Controller:
    def reserve(self, name):
        self.group = placement_group([{"CPU": 1}], name=name)
        ray.get(self.group.ready())


controller = Controller.options(name="controller", lifetime="detached").remote()
ray.get(controller.reserve.remote(sys.argv[3]))
"""


def test_programs_that_have_ended_are_told_from_those_that_run(cluster_of_nodes: "Cluster") -> None:
    """A driver that is gone, one whose detached actor goes on, this one; and somebody else's."""
    theirs = placement_group([{"CPU": 1}], name="theirs-deadbeef-node1")
    gone, kept = (name_in_run("old", "node0", run) for run in ("0000000a", "0000000b"))
    subprocess.run(
        [sys.executable, "-c", _ENDS, cluster_of_nodes.address, gone, kept], check=True, timeout=60
    )
    with RayVirtualCluster([1], use_gpus=False, name="new") as cluster:
        cluster.get_placement_groups()
        ends = time.monotonic() + 10
        while leftovers("0000000a")[0].driver is DriverState.RUNNING and time.monotonic() < ends:
            time.sleep(0.02)
        found = {each.placement_group.partition("-")[0]: each for each in leftovers()}
        states = [(each.run[:7], each.driver) for each in leftovers() if each is not found["new"]]
        assert states[:2] == [("0000000", DriverState.GONE), ("0000000", DriverState.RUNNING)]
        assert (found["new"].driver, found["new"].pid) == (DriverState.RUNNING, os.getpid())
        assert "theirs" not in found
        with pytest.raises(PlanError, match=r"runs\[1\]: the program of run '0000000b' still runs"):
            remove_leftovers(["0000000a", "0000000b"])
        assert [each.placement_group for each in remove_leftovers(["0000000a"])] == [gone]
        assert leftovers("0000000a") == ()
        assert [each.placement_group for each in leftovers("0000000b")] == [kept]
    ray.kill(ray.get_actor("controller", namespace="left"))
    remove_placement_group(theirs)
