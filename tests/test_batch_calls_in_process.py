"""Calls on whole batches on the in-process backend: names, roles and results."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from planner import NamedSharding
from planner.call_requests import traffic
from planner.findings import PlanError
from planner.roles import MicroBatches, PerRank, PerShard, Reduce, Shard
from planner.slice_policies import Balanced, Padded
from runtime import RayWorkerBuilder, RayWorkerGroup
from runtime.call_results import ResultError
from runtime.testing import InProcessCluster
from tests.batch_workers import BatchWorker


@pytest.fixture(scope="module")
def group() -> Iterator[RayWorkerGroup]:
    """Two replicas of two ranks."""
    with (
        InProcessCluster([2, 2]) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder("tests.batch_workers.BatchWorker"),
            name_prefix="policy",
            sharding_annotations=NamedSharding(
                [[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"]
            ),
        ) as made,
    ):
        yield made


def test_nothing_reaches_a_worker_when_a_name_is_wrong(group: RayWorkerGroup) -> None:
    """Names in the declaration, in roles, weights, groups and reductions."""
    batch, weighted = [1, 2, 3], {"batch": Shard("data_parallel", Balanced())}

    with pytest.raises(PlanError, match=r"@dispatch\(bacth=\.\.\.\).*did you mean 'batch'"):
        _ = group.call(BatchWorker.misspelt, batch)
    with pytest.raises(PlanError, match=r"roles\['bacth'\].*did you mean 'batch'"):
        group.using(roles={"bacth": Shard("data_parallel")}).call(BatchWorker.same, batch)
    with pytest.raises(PlanError, match=r"weights\['bacth'\].*did you mean 'batch'"):
        group.using(roles=weighted, weights={"bacth": [1, 1, 1]}).call(BatchWorker.same, batch)
    with pytest.raises(PlanError, match=r"groups\['bacth'\].*did you mean 'batch'"):
        group.using(roles=weighted, groups={"bacth": [1, 1, 1]}).call(BatchWorker.same, batch)
    with pytest.raises(PlanError, match="no function 'maen' to reduce with; did you mean 'mean'"):
        _ = group.call(BatchWorker.misreduced, np.ones(3))
    with pytest.raises(PlanError, match=r"give PerShard\(\.\.\.\)"):
        group.using(returns=PerShard)  # type: ignore[arg-type]

    assert group.call(BatchWorker.take_kept).by_rank() == {0: [], 1: [], 2: [], 3: []}


def test_a_function_of_the_callers_reduces(group: RayWorkerGroup) -> None:
    """In place of a name that nobody knows; a name given later takes its place again."""
    largest = group.using(returns=max)

    assert largest.call(BatchWorker.misreduced, np.ones(3)).result() == 2.0
    assert largest.using(returns=Reduce("min")).call(BatchWorker.total, np.ones(3)).result() == 1.0
    group.call(BatchWorker.take_kept).by_rank()


def test_without_slices_the_results_of_all_ranks_are_reduced(group: RayWorkerGroup) -> None:
    """There is nothing else that could be meant."""
    values = group.using(roles={"value": PerRank()}, returns=sorted)
    found = values.call("tell", [7, 5, 6, 4]).result()
    assert found == [(0, 7, ""), (1, 5, ""), (2, 6, ""), (3, 4, "")]


def test_results_of_another_size_are_refused(group: RayWorkerGroup) -> None:
    """With the ranks that gave them; what each slice gave is there to take."""
    future = group.call(BatchWorker.twice, [1, 2, 3, 4])

    with pytest.raises(ResultError, match=r"slice 0 \(rank 0\): 4 rows .* slice 1 \(rank 2\): 4"):
        future.result()
    assert future.per_shard() == [[1, 3, 1, 3], [2, 4, 2, 4]]


def test_each_rank_knows_its_micro_batches(group: RayWorkerGroup) -> None:
    """Also for staged batches; nobody gives the sizes himself."""
    batch = {"lengths": [9, 2, 3, 5, 5, 8, 1, 7]}

    called = group.call(BatchWorker.packed, batch)
    staged = next(group.stage(BatchWorker.packed, "batch", [batch]))

    assert called.plan.slices is not None
    assert [len(each) for each in called.per_shard()] == [
        len(each) for each in called.plan.slices.micro_batches
    ]
    assert sum(map(sum, called.per_shard())) == 40
    assert group.call(BatchWorker.packed, staged.as_argument()).per_shard() == called.per_shard()
    with pytest.raises(PlanError, match="sizes: it is filled from the slices of 'batch'"):
        _ = group.call(BatchWorker.packed, batch, [1])
    with pytest.raises(PlanError, match=r"roles\['sizs'\].*did you mean 'sizes'"):
        group.using(roles={"sizs": MicroBatches("batch")}).call("packed", batch)


def test_a_batch_that_can_not_be_cut_is_refused_as_a_plan(group: RayWorkerGroup) -> None:
    """By the rule for padding that names no field."""
    pads: Any = {"idz": -1}
    calls = group.using(roles={"batch": Shard("data_parallel", Padded(), pads=pads)})

    with pytest.raises(PlanError) as raised:
        calls.call(BatchWorker.same, {"ids": [1, 2, 3]})

    assert [each.path for each in raised.value.findings] == [
        "batch.pads['idz']",
        "batch.pads['idz']",
    ]


def test_nodes_come_from_the_groups_plan(group: RayWorkerGroup) -> None:
    """So that a call's traffic is told by node."""
    node_of = {worker.rank: worker.node_id for worker in group.plan.workers}

    told = traffic(group.plan_call(BatchWorker.double, np.zeros(4)), node_of)

    assert [each.calls for each in told] == [2, 2]


def test_traffic_of_held_results_counts_their_parts(group: RayWorkerGroup) -> None:
    """The second of four slices needs a part of both sources, the others one."""
    held = group.call(BatchWorker.double, np.arange(10.0)).held()
    group.add_mesh("wide", NamedSharding(range(4), ["data_parallel"]))

    plan = group.using(mesh="wide").plan_call(BatchWorker.double, held.as_argument())
    told = traffic(plan, dict.fromkeys(range(4), "node"))

    assert plan.arguments[0].resharding is not None
    assert [(each.objects, each.parts, each.unknown) for each in told] == [(5, 5, 5)]
    assert plan.cuts == 2
