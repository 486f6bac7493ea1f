"""Results that stay on their workers and go on to another group, past the driver."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from planner.call_requests import Route
from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import AllByRank, Shard
from planner.slice_policies import Constant, Interleaved, Padded
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup
from runtime.ray_backend import RayBackend
from tests.batch_workers import BatchWorker


@pytest.fixture(scope="module")
def groups(cluster_of_nodes: object) -> Iterator[tuple[RayWorkerGroup, RayWorkerGroup]]:
    """Four ranks that produce, and two that consume."""
    cluster = RayVirtualCluster([6], use_gpus=False)
    builder = RayWorkerBuilder("tests.batch_workers.BatchWorker")
    with (
        RayWorkerGroup(
            cluster,
            builder,
            workers_per_node=4,
            name_prefix="produce",
            sharding_annotations=NamedSharding(range(4), ["data_parallel"]),
        ) as producers,
        RayWorkerGroup(
            cluster,
            builder,
            bundle_indices_list=[(0, [4]), (0, [5])],
            name_prefix="consume",
            sharding_annotations=NamedSharding([[1], [0]], ["data_parallel", "tensor_parallel"]),
        ) as consumers,
    ):
        yield producers, consumers
    cluster.shutdown()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every object that the driver puts or fetches."""
    seen: list[object] = []
    put, get = RayBackend.put, RayBackend.get

    def counted_put(self: RayBackend, value: object) -> object:
        seen.append(value)
        return put(self, value)

    def counted_get(self: RayBackend, references: Any, timeout: float | None) -> list[Any]:
        values = get(self, references, timeout)
        seen.extend(values)
        return values

    monkeypatch.setattr(RayBackend, "put", counted_put)
    monkeypatch.setattr(RayBackend, "get", counted_get)
    return seen


@pytest.mark.parametrize("rows", [0, 1, 3, 7, 8, 13])
def test_results_go_from_four_ranks_to_two(
    groups: tuple[RayWorkerGroup, RayWorkerGroup], rows: int
) -> None:
    """The second group gets the slices of the whole, in its own layout's order."""
    producers, consumers = groups
    batch = np.arange(float(rows))

    held = producers.call(BatchWorker.double, batch).held()
    future = consumers.call(BatchWorker.double, held.as_argument())

    assert held.rows == rows
    assert [each.tolist() for each in future.per_shard()] == [
        (4 * batch[: -(-rows // 2)]).tolist(),
        (4 * batch[-(-rows // 2) :]).tolist(),
    ]
    assert future.result().tolist() == (4 * batch).tolist()
    assert held.fetch().tolist() == (2 * batch).tolist()


def test_and_back_from_two_to_four(groups: tuple[RayWorkerGroup, RayWorkerGroup]) -> None:
    """Permuted rows, padding with a number of its own, tensors and words."""
    producers, consumers = groups
    batch = {"ids": torch.arange(5), "words": list("abcde")}
    first = consumers.using(roles={"batch": Shard("data_parallel", Interleaved())})
    pads = {"ids": Constant(-1)}
    second = producers.using(roles={"batch": Shard("data_parallel", Padded(), pads=pads)})

    held = first.call(BatchWorker.same, batch).held()
    future = second.call(BatchWorker.padded, held.as_argument())
    back = future.result()

    kept = producers.call(BatchWorker.take_kept).by_rank()
    slices: list[Any] = [kept[rank][0] for rank in range(4)]
    assert [each["ids"].tolist() for each in slices] == [[0, 1], [2, 3], [4, -1], [-1, -1]]
    assert back["ids"].tolist() == [0, 1, 2, 3, 4]
    assert back["words"] == list("abcde")


def test_the_driver_moves_none_of_it(
    groups: tuple[RayWorkerGroup, RayWorkerGroup], moved: list[object]
) -> None:
    """It plans, and passes references on."""
    producers, consumers = groups
    held = producers.call(BatchWorker.double, np.arange(100_000.0)).held()
    moved.clear()

    total = consumers.call(BatchWorker.total, held.as_argument()).result()

    largest = (
        max(each.nbytes for each in moved if isinstance(each, np.ndarray))
        if any(isinstance(each, np.ndarray) for each in moved)
        else 0
    )
    assert total == 100_000.0 * 99_999.0
    assert largest == 0
    assert {type(each).__name__ for each in moved} <= {"function", "float"}


def test_equal_slices_go_on_without_a_cut(groups: tuple[RayWorkerGroup, RayWorkerGroup]) -> None:
    """Nothing is cut or joined where the slices are those that are wanted."""
    producers, _ = groups
    held = producers.call(BatchWorker.double, np.arange(9.0)).held()

    plan = producers.plan_call(BatchWorker.total, held.as_argument())

    assert {each.route for each in plan.arguments[0].payloads} == {Route.REFERENCE}
    assert producers.call(BatchWorker.total, held.as_argument()).result() == 72.0


def test_the_plan_tells_what_will_move(groups: tuple[RayWorkerGroup, RayWorkerGroup]) -> None:
    """How many parts, before any of them is cut."""
    producers, consumers = groups
    held = producers.call(BatchWorker.double, np.arange(8.0)).held()

    plan = consumers.plan_call(BatchWorker.total, held.as_argument())

    resharding = plan.arguments[0].resharding
    assert resharding is not None
    assert resharding.objects == 4
    assert [receiver.rows for receiver in resharding.receivers] == [4, 4]


def test_a_failed_producer_fails_the_consumer(
    groups: tuple[RayWorkerGroup, RayWorkerGroup],
) -> None:
    """With the producer's own error, which says where it was raised."""
    producers, consumers = groups
    held = producers.call("double", np.array(["no", "numbers", "at", "all"])).held()

    with pytest.raises(TypeError) as raised:
        consumers.call(BatchWorker.total, held.as_argument()).result(timeout=60)

    notes: list[str] = getattr(raised.value.__cause__, "__notes__", [])
    assert any("in double()" in note for note in notes)


def test_results_without_rows_cannot_be_held(
    groups: tuple[RayWorkerGroup, RayWorkerGroup],
) -> None:
    """Only the rows of a batch that was cut can be cut again."""
    producers, _ = groups

    with pytest.raises(PlanError, match="hold the results of a call with a Shard argument"):
        producers.using(returns=AllByRank()).call("tell", [1, 2, 3, 4]).held()
