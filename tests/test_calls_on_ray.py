"""Calls on whole batches, on real workers."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from tensordict import TensorDict

from planner.call_requests import traffic
from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import AllByRank, Concatenate, First, PerShard, Shard
from planner.slice_policies import Interleaved, Uneven
from runtime import (
    DeadlineError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    wait_all,
)
from runtime.call_future import Standing
from runtime.call_results import ResultError
from runtime.call_sending import HalfSentError
from runtime.calls import Sender
from runtime.errors import WorkerGroupError
from runtime.ray_backend import RayBackend
from tests.batch_workers import AsyncWorker, BatchWorker

WORKER = "tests.batch_workers.BatchWorker"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers hand batches on."""
    return tmp_path_factory.mktemp("handed")


@pytest.fixture(scope="module")
def cluster(cluster_of_nodes: object) -> Iterator[RayVirtualCluster]:
    """Eight bundles without GPUs."""
    reserved = RayVirtualCluster([8], use_gpus=False)
    yield reserved
    reserved.shutdown()


@pytest.fixture(scope="module")
def group(cluster: RayVirtualCluster, folder: Path) -> Iterator[RayWorkerGroup]:
    """Two replicas of two ranks."""
    with RayWorkerGroup(
        cluster,
        RayWorkerBuilder(WORKER),
        workers_per_node=4,
        name_prefix="policy",
        sharding_annotations=NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"]),
        env_vars={"HAND_ON": str(folder)},
    ) as started:
        started.add_mesh("wide", NamedSharding([3, 2, 1, 0], ["data_parallel"]))
        yield started


@pytest.fixture(scope="module")
def other(cluster: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """A second group, of two ranks."""
    with RayWorkerGroup(
        cluster,
        RayWorkerBuilder(WORKER),
        bundle_indices_list=[(0, [4]), (0, [5])],
        name_prefix="rollout",
        sharding_annotations=NamedSharding([0, 1], ["data_parallel"]),
    ) as started:
        yield started


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the driver puts into the object store."""
    seen: list[object] = []
    put = RayBackend.put

    def counted(self: RayBackend, value: object) -> object:
        seen.append(value)
        return put(self, value)

    monkeypatch.setattr(RayBackend, "put", counted)
    return seen


def test_a_whole_batch_goes_in_and_a_whole_result_comes_out(group: RayWorkerGroup) -> None:
    """By the class's own function, by its name, and as the group's own method."""
    batch = np.arange(7.0)

    by_function = group.call(BatchWorker.double, batch, offset=1.0).result()
    by_name = group.call("double", batch=batch, offset=1.0).result()
    as_method = getattr(group, "double")(batch, offset=1.0).result()  # noqa: B009

    for result in (by_function, by_name, as_method):
        assert result.tolist() == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0]
    assert "double" in dir(group)


def test_a_worker_gets_the_type_that_the_batch_has(group: RayWorkerGroup) -> None:
    """Tensors stay tensors, whole values whole; what comes back is in the original order."""
    batch = {"ids": torch.arange(5), "words": list("abcde"), "temperature": 0.7}

    back = group.call(BatchWorker.same, batch).result()

    assert isinstance(back["ids"], torch.Tensor)
    assert back["ids"].tolist() == [0, 1, 2, 3, 4]
    assert (back["words"], back["temperature"]) == (list("abcde"), 0.7)


def test_padding_reaches_the_worker_and_not_the_caller(group: RayWorkerGroup) -> None:
    """Its field's number stands in it."""
    back = group.call(BatchWorker.padded, {"ids": np.arange(5)}).result()

    kept = group.call(BatchWorker.take_kept).by_rank()
    assert back["ids"].tolist() == [0, 1, 2, 3, 4]
    slices: list[Any] = [kept[rank][0] for rank in (0, 2)]
    assert [each["ids"].tolist() for each in slices] == [[0, 1, 2], [3, 4, -1]]


def test_each_slice_becomes_one_object(group: RayWorkerGroup, puts: list[object]) -> None:
    """However many ranks receive it; the plan says so beforehand."""
    batch = np.arange(40_000.0)

    plan = group.plan_call(BatchWorker.double, batch)
    group.call(BatchWorker.double, batch).result()

    assert plan.objects == 2
    assert len(puts) == 2
    assert [each.size for each in traffic(plan, dict.fromkeys(range(4), "node"))] == [320_000]


def test_references_pass_through(group: RayWorkerGroup, puts: list[object]) -> None:
    """One for each slice; the driver neither fetches nor puts."""
    slices = [ray.put(np.arange(2.0)), ray.put(np.arange(3.0))]

    back = group.call("double", slices)

    assert [each.tolist() for each in back.per_shard()] == [[0.0, 2.0], [0.0, 2.0, 4.0]]
    assert puts == []


def test_weights_balance_the_slices(group: RayWorkerGroup) -> None:
    """By a field of the batch, or by what the caller gives."""
    batch = {"lengths": [5, 3, 2, 8, 1, 1]}

    assert group.call(BatchWorker.load, batch).per_shard() == [10, 10]
    calls = group.using(weights={"batch": [9, 1, 1, 1, 1, 5]})
    assert sorted(calls.call(BatchWorker.load, batch).per_shard()) == [5, 15]


def test_results_combine_as_declared_and_as_asked_for(group: RayWorkerGroup) -> None:
    """Folded by a name, by the caller's function, the first alone, one by one, or by rank."""
    batch = np.ones(5)

    assert group.call(BatchWorker.total, batch).result() == 5.0
    assert group.using(returns=max).call(BatchWorker.total, batch).result() == 3.0
    assert group.using(returns=First()).call(BatchWorker.total, batch).result() == 3.0
    each = group.using(returns=PerShard()).call(BatchWorker.total, batch)
    assert each.per_shard() == [3.0, 2.0]
    everyone = group.using(returns=AllByRank()).call(BatchWorker.total, batch)
    assert everyone.by_rank() == {0: 3.0, 1: 3.0, 2: 2.0, 3: 2.0}
    with pytest.raises(ResultError, match=r"one result per slice: take per_shard\(\)"):
        each.result()


def test_results_that_do_not_combine_say_what_to_do(group: RayWorkerGroup) -> None:
    """Nothing is dropped without a word."""
    future = group.using(returns=Concatenate()).call(BatchWorker.total, np.ones(5))

    with pytest.raises(ResultError, match="a value of type float has no rows"):
        future.result()


def test_roles_can_be_given_at_the_call(group: RayWorkerGroup) -> None:
    """For a class that declares nothing, or in place of what it declares."""
    calls = group.using(roles={"batch": Shard("tensor_parallel", Interleaved())})

    future = calls.call(BatchWorker.double, np.arange(4.0))

    assert future.plan.returns == (0, 1)
    assert future.result().tolist() == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(PlanError, match=r"roles\['bach'\]"):
        group.using(roles={"bach": Shard("data_parallel")}).call("double", [1])


def test_another_mesh_arranges_the_same_ranks(group: RayWorkerGroup) -> None:
    """Four slices over four ranks, in the other mesh's order."""
    calls = group.using(mesh="wide")

    future = calls.call(BatchWorker.double, np.arange(4.0))

    assert future.plan.returns == (3, 2, 1, 0)
    assert future.result().tolist() == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(PlanError, match="did you mean 'wide'"):
        group.using(mesh="wild")
    with pytest.raises(PlanError, match="arrange the group's ranks, 0 to 3"):
        group.add_mesh("small", NamedSharding([0, 1], ["data_parallel"]))


def test_a_part_of_the_group_is_called_alone(group: RayWorkerGroup) -> None:
    """Along the axes that are left."""
    part = group.at(tensor_parallel=1)

    assert part.call("tell", [5, 6]).by_rank() == {1: (1, 5, ""), 3: (3, 6, "")}
    assert part.call(BatchWorker.double, np.arange(2.0)).plan.returns == (1, 3)
    assert group.at(tensor_parallel=1, data_parallel=0).call("tell", [7]).by_rank() == {
        1: (1, 7, "")
    }
    with pytest.raises(IndexError, match="coordinate 2 is out of range"):
        group.at(tensor_parallel=2)


def test_dummy_calls_bring_what_is_common(group: RayWorkerGroup) -> None:
    """Ranks along the free axis take part with None."""
    answers = group.call(BatchWorker.lead, [1, 2, 3], 4).by_rank()

    kept = group.call(BatchWorker.take_kept).by_rank()
    assert answers == {0: (0, [1, 2], 4), 2: (2, [3], 4)}
    assert kept[1] == [(None, 4)]


def test_a_slice_is_handed_on_inside_the_group(group: RayWorkerGroup) -> None:
    """Only leaders are sent it; the others get it by the worker's own method."""
    future = group.call(BatchWorker.shared, [1, 2, 3])

    assert [payload.ranks for payload in future.plan.arguments[0].payloads] == [(0,), (2,)]
    assert future.by_rank() == {
        0: (True, [1, 2]),
        1: (False, [1, 2]),
        2: (True, [3]),
        3: (False, [3]),
    }
    group.call(BatchWorker.take_kept).by_rank()


def test_nothing_is_sent_when_something_is_wrong(group: RayWorkerGroup) -> None:
    """Names, signatures, rows, and values that can't be serialised: all before the first call."""
    group.call(BatchWorker.take_kept).by_rank()
    uneven = {"ids": np.arange(3), "mask": np.arange(4)}

    with pytest.raises(PlanError, match="did you mean 'padded'"):
        group.call("paded", uneven)
    with pytest.raises(PlanError, match="this argument is missing"):
        group.call("padded")
    with pytest.raises(PlanError, match=r"batch\.mask: it has 4 rows, and ids has 3"):
        group.call("padded", uneven)
    with pytest.raises(PlanError, match="can't be serialised"):
        group.call("padded", {"ids": [1, 2], "locks": [threading.Lock(), threading.Lock()]})
    assert group.call(BatchWorker.take_kept).by_rank() == {0: [], 1: [], 2: [], 3: []}


def test_sending_that_breaks_says_who_was_called(
    group: RayWorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks that got the call are known."""
    entries = Sender.entries

    def broken(*_: object, **__: object) -> object:
        raise ConnectionError("the network is gone")

    def entries_one_broken(*args: Any) -> list[Any]:
        usual = entries(*args)
        return [*usual[:2], broken, *usual[3:]]

    monkeypatch.setattr(Sender, "entries", entries_one_broken)

    with pytest.raises(HalfSentError, match="ranks 0-1 called, ranks 2-3 not") as raised:
        group.call("tell", [1, 2, 3, 4])

    assert (raised.value.sent, raised.value.not_sent) == ((0, 1), (2, 3))
    assert isinstance(raised.value.__cause__, ConnectionError)


def test_times_are_told_when_asked_for(group: RayWorkerGroup) -> None:
    """Per rank how long, and how far apart they began."""
    future = group.using(timed=True).call(BatchWorker.sleep, 0.05)

    timings = future.timings()

    assert sorted(timings.durations) == [0, 1, 2, 3]
    assert min(timings.durations.values()) >= 0.05
    assert timings.skew >= 0
    with pytest.raises(PlanError, match=r"call group\.using\(timed=True\)"):
        group.call("tell", [1, 2, 3, 4]).timings()


def test_every_rank_has_an_outcome(group: RayWorkerGroup, tmp_path: Path) -> None:
    """Returned, failed, or not there yet."""
    failing = group.call(BatchWorker.fail, 2)
    with pytest.raises(KeyError, match="rank 2 can't"):
        failing.result()
    waiting = group.call(BatchWorker.wait_if, 1, str(tmp_path / "go"))
    with pytest.raises(DeadlineError):
        waiting.by_rank(timeout=0.5)

    standings = {rank: each.standing for rank, each in waiting.outcomes().items()}
    assert [each.standing for each in failing.outcomes().values()] == [
        Standing.RETURNED,
        Standing.RETURNED,
        Standing.FAILED,
        Standing.RETURNED,
    ]
    assert standings[1] is Standing.MISSING
    assert set(standings.values()) == {Standing.MISSING, Standing.RETURNED}
    assert waiting.pending() == (1,)
    (tmp_path / "go").touch()
    assert waiting.by_rank() == {0: 0, 1: 1, 2: 2, 3: 3}
    assert waiting.done()


def test_a_deadline_tells_who_has_not_begun(group: RayWorkerGroup, tmp_path: Path) -> None:
    """The rank that an earlier call still holds."""
    first = group.call(BatchWorker.wait_if, 3, str(tmp_path / "go"))

    with pytest.raises(DeadlineError) as raised:
        group.using(timeout=0.5).call("tell", [1, 2, 3, 4]).by_rank()

    (tmp_path / "go").touch()
    assert "returned: ranks 0-2" in str(raised.value)
    assert "not begun: rank 3, still in wait_if()" in str(raised.value)
    first.by_rank()


def test_answers_come_as_they_are_ready(group: RayWorkerGroup, tmp_path: Path) -> None:
    """The slow rank does not hold the others back."""
    future = group.call(BatchWorker.wait_if, 0, str(tmp_path / "go"))
    answers = future.as_completed(timeout=30)

    early = [next(answers) for _ in range(3)]
    (tmp_path / "go").touch()
    late = list(answers)

    assert sorted(each.rank for each in early) == [1, 2, 3]
    assert [(each.rank, each.value, each.sequence) for each in late] == [(0, 0, 0)]
    assert dict(late[0].coordinates) == {"data_parallel": 0, "tensor_parallel": 0}


def test_a_call_is_awaited(group: RayWorkerGroup) -> None:
    """Several at once, without blocking the loop."""

    async def both() -> tuple[Any, Any]:
        one = group.call(BatchWorker.double, np.arange(2.0))
        two = group.call(BatchWorker.total, np.arange(3.0))
        return await asyncio.gather(_of(one), _of(two))

    async def _of(future: Any) -> Any:
        return await future

    one, two = asyncio.run(both())

    assert (one.tolist(), two) == ([0.0, 2.0], 3.0)


def test_two_groups_fail_together(
    group: RayWorkerGroup, other: RayWorkerGroup, tmp_path: Path
) -> None:
    """Defect 23: a wait on both ends when one fails, though the other hangs."""
    hangs = group.call(BatchWorker.wait_if, 0, str(tmp_path / "go"))
    fails = other.call(BatchWorker.fail, 1)

    began = time.monotonic()
    with pytest.raises(WorkerGroupError) as raised:
        wait_all(hangs, fails, timeout=60)
    took = time.monotonic() - began

    (tmp_path / "go").touch()
    assert took < 30
    assert isinstance(raised.value, KeyError)
    assert "worker group 'rollout', fail(): 1 of 2 ranks failed" in str(raised.value)
    assert "worker group 'policy', wait_if(): ranks 1-3 returned; rank 0 had not" in str(
        raised.value
    )
    hangs.by_rank()
    wait_all(hangs, other.call("tell", [1, 2]), timeout=60)


def test_batches_are_staged_ahead(group: RayWorkerGroup, puts: list[object]) -> None:
    """Cut and stored before the loop asks for them, as many as it allows."""
    batches = [np.arange(3.0) + number for number in range(4)]
    staged = group.stage(BatchWorker.double, "batch", batches, ahead=2)

    first = next(staged)
    stored = len(puts)
    results = [group.call(BatchWorker.double, batch.as_argument()).result() for batch in staged]

    assert stored == 4
    assert group.call(BatchWorker.double, first.as_argument()).result().tolist() == [0, 2, 4]
    assert [each.tolist() for each in results] == [[2, 4, 6], [4, 6, 8], [6, 8, 10]]
    assert len(puts) == 8
    with pytest.raises(PlanError, match="'offset' is not sharded"):
        group.stage(BatchWorker.double, "offset", [1])


def test_async_workers_are_called_alike(cluster: RayVirtualCluster) -> None:
    """Plain and streaming methods of a class on an event loop."""
    with RayWorkerGroup(
        cluster,
        RayWorkerBuilder("tests.batch_workers.AsyncWorker"),
        bundle_indices_list=[(0, [6]), (0, [7])],
        name_prefix="engine",
        sharding_annotations=NamedSharding([0, 1], ["data_parallel"]),
    ) as group:
        assert group.call(AsyncWorker.double, np.arange(3.0)).result().tolist() == [0, 2, 4]
        with group.call(AsyncWorker.count) as stream:
            values = [next(iter(stream)).value for _ in range(4)]
        deadline = time.monotonic() + 20
        while not all(group.call(AsyncWorker.was_closed).by_rank().values()):
            assert time.monotonic() < deadline
        with pytest.raises(WorkerGroupError, match="CancelledError: given up") as caught:
            group.call(AsyncWorker.give_up).result(timeout=20)
        assert caught.value.report.failed == (0, 1)

    assert len(values) == 4


def test_many_calls_do_not_fill_the_driver(group: RayWorkerGroup) -> None:
    """Equal calls share one plan, and calls that have returned are forgotten."""
    latest = group.call(BatchWorker.total, np.ones(5))
    for rows in range(1, 600):
        latest = group.call(BatchWorker.total, np.ones(rows))
    assert latest.result() == 599.0
    for _ in range(20):
        group.call(BatchWorker.total, np.ones(5)).result()

    assert len(group._call_state.plans) <= 512
    assert group._in_flight.count <= 20 * 4


def test_uneven_policies_keep_the_rows_of_a_view(group: RayWorkerGroup) -> None:
    """A strided view of a large tensor arrives as the rows that it shows."""
    large = torch.arange(1000).reshape(500, 2)

    back = group.using(roles={"batch": Shard("data_parallel", Uneven())}).call(
        BatchWorker.same, large[::100]
    )

    assert back.result().tolist() == large[::100].tolist()


def test_each_rank_knows_its_micro_batches(group: RayWorkerGroup) -> None:
    """As many on every rank, none over the budget, all of the batch."""
    batch = {"lengths": np.array([9, 2, 3, 5, 5, 8, 1, 7])}

    told = group.call(BatchWorker.packed, batch).per_shard()

    assert len({len(sizes) for sizes in told}) == 1
    assert max(size for sizes in told for size in sizes) <= 10
    assert sum(size for sizes in told for size in sizes) == 40


def test_a_tensordict_goes_in_and_comes_out(group: RayWorkerGroup) -> None:
    """Cut, sent, joined and, held, cut again."""
    batch = TensorDict({"ids": torch.arange(5), "mask": torch.ones(5, 2)}, batch_size=[5])

    held = group.call(BatchWorker.same, batch).held()
    back = group.using(mesh="wide").call(BatchWorker.same, held.as_argument()).result()

    assert isinstance(back, TensorDict)
    assert back["ids"].tolist() == [0, 1, 2, 3, 4]
    assert back["mask"].shape == (5, 2)
