"""Groups and clusters that outlive the Ray session in which they were made."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import json
import ray
from planner.findings import PlanError
from runtime import ExecutionError, RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup
from runtime.leftovers import leftovers
from runtime.observe import observe_inventory

def connect():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)

def refused(wish):
    try:
        wish()
    except (PlanError, ExecutionError) as error:
        return str(error)

early = [refused(wish) for wish in (leftovers, observe_inventory)]
connect()
builder = RayWorkerBuilder("tests.fault_workers.Worker")
cluster = RayVirtualCluster([1], use_gpus=False)
first, second = RayWorkerGroup(cluster, builder), RayWorkerGroup(cluster, builder)
future = first.call("add", 1)
ray.shutdown()
told = {"early": early, "apart": [
    refused(lambda: first.call("add", 1)), refused(first.status), refused(future.result),
    refused(first.workers[0].total.remote), str(first.end("close", timeout=3.0)),
    first.shutdown(), ray.is_initialized(),
]}
connect()
told["elsewhere"] = [refused(second.recover), str(second.end("close")), second.end().is_clean]
with cluster, RayWorkerGroup(cluster, builder) as third:
    told["again"] = [third.call("add", 5).by_rank()[0][1], third.end().is_clean]
print(json.dumps(told), flush=True)
"""

OVER = "the Ray session in which its workers ran is over"
REPORT = f"{OVER}: nothing was asked or ended here, and nobody can tell what is left of rank 0"


@pytest.mark.ray
def test_what_was_started_in_another_session_is_left_alone() -> None:
    """Nothing is started, joined or sent; a cluster reserves anew."""
    environment = {
        **os.environ,
        "RAY_ADDRESS": "local",
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    connect = "this process is not connected to Ray; call ray.init() or init_ray() first"
    assert told["early"] == [f"leftovers: {connect}", f"inventory: {connect}"]
    call, status, result, handle, end, ended_well, is_up = told["apart"]
    for refusal in (call, status, handle):
        assert refusal == (
            f"worker group 'Worker': group: {OVER}; call ray.init() or init_ray(), then start a "
            "new cluster and a new group"
        )
    assert result.startswith("this process is not connected to Ray any more")
    assert (end, ended_well, is_up) == (f"worker group 'Worker': {REPORT}", True, False)
    refusal, end, is_clean = told["elsewhere"]
    assert f"{OVER}; start a new cluster and a new group in this one" in refusal
    assert (end, is_clean) == (f"worker group 'Worker-2': {REPORT}", False)
    assert told["again"] == [5, True]
