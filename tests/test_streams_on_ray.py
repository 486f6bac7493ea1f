"""Streams of many workers at once: interleaved, held back, ended early, broken half way."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import Concatenate, PerShard
from runtime import DeadlineError, RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup
from runtime.streams import CallStream
from tests.batch_workers import BatchWorker
from tests.share_workers import AsyncSharer


@pytest.fixture(scope="module")
def group(cluster_of_nodes: object) -> Iterator[RayWorkerGroup]:
    """Two replicas of two ranks."""
    cluster = RayVirtualCluster([4], use_gpus=False)
    with RayWorkerGroup(
        cluster,
        RayWorkerBuilder("tests.batch_workers.BatchWorker"),
        name_prefix="streams",
        sharding_annotations=NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"]),
    ) as started:
        yield started
    cluster.shutdown()


def kept_by(group: RayWorkerGroup) -> dict[int, list[object]]:
    """What each rank's generator did; ranks answer when their generators have ended."""
    return group.using(timeout=30).call(BatchWorker.take_kept).by_rank()


def taken(stream: CallStream[int], count: int) -> list[tuple[int, int, int]]:
    """The first values: rank, number and value."""
    answers = iter(stream)
    return [(a.rank, a.sequence, a.value) for _, a in zip(range(count), answers, strict=False)]


def test_values_of_all_slices_come_with_rank_and_number(group: RayWorkerGroup) -> None:
    """One rank of each slice gives them; the replicas run along and give nothing."""
    stream = group.call(BatchWorker.tokens, [10, 11, 12, 20, 21])

    answers = list(stream)

    assert sorted((a.rank, a.sequence, a.value) for a in answers) == [
        (0, 0, 10),
        (0, 1, 11),
        (0, 2, 12),
        (2, 0, 20),
        (2, 1, 21),
    ]
    assert {dict(a.coordinates)["data_parallel"] for a in answers if a.rank == 2} == {1}
    assert stream.received == {0: 3, 2: 2}
    assert kept_by(group)[1] == [10, 11, 12, "closed"]


def test_streams_interleave(group: RayWorkerGroup) -> None:
    """No rank waits for another one's end, which never comes."""
    with group.using(buffer=2).call(BatchWorker.count, 0.01) as stream:
        ranks = Counter(rank for rank, _, _ in taken(stream, 40))

    assert sorted(ranks) == [0, 1, 2, 3]
    kept_by(group)


def test_a_stream_is_held_back(group: RayWorkerGroup) -> None:
    """A worker is at most so many values ahead of its consumer."""
    with (
        group.at(data_parallel=0, tensor_parallel=0)
        .using(buffer=3)
        .call(BatchWorker.count) as stream
    ):
        values = taken(stream, 2)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            pass

    numbers = [each for each in kept_by(group)[0] if isinstance(each, int)]
    assert [value for _, _, value in values] == [0, 1]
    assert max(numbers) <= 2 + 3
    with pytest.raises(PlanError, match="0 values hold nothing"):
        group.using(buffer=0)


def test_a_stream_is_held_back_unless_the_call_says_otherwise(group: RayWorkerGroup) -> None:
    """16 values; a stream that nobody holds any more runs to its end."""
    one = group.at(data_parallel=0, tensor_parallel=0)
    with one.call(BatchWorker.count) as stream:
        taken(stream, 40)
    assert max(each for each in kept_by(group)[0] if isinstance(each, int)) <= 40 + 16
    stream = group.using(buffer=math.inf).call(BatchWorker.tokens, list(range(200)))
    assert len(kept_by(group)[0]) == 101
    assert len(stream.by_rank()[0]) == 100
    stream = group.call(BatchWorker.tokens, list(range(200)))
    taken(stream, 1)
    del stream
    assert len(kept_by(group)[0]) == 101


def test_async_workers_are_held_back(cluster_of_nodes: object) -> None:
    """And take other calls meanwhile."""
    with (
        RayVirtualCluster([2], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster, RayWorkerBuilder("tests.share_workers.AsyncSharer"), name_prefix="engine"
        ) as engine,
        engine.using(buffer=3).call(AsyncSharer.count) as stream,
    ):
        for _ in range(8):
            next(iter(stream))
        made = [engine.using(timeout=30).call(AsyncSharer.how_many).by_rank() for _ in range(20)]
        assert max(max(each.values()) for each in made) <= 8 + 3


def test_ending_a_stream_early_ends_the_workers_generators(group: RayWorkerGroup) -> None:
    """Their ``finally`` runs on every rank, also on those that return nothing."""
    calls = group.using(returns=PerShard(), roles={})

    with calls.call(BatchWorker.count, 0.005) as stream:
        values = taken(stream, 50)

    kept = kept_by(group)
    assert {rank for rank, _, _ in values} == {0}
    assert kept[0][-1] == "closed"
    # A rank that had not come to the call yet never begins it.
    assert all(not did or did[-1] == "closed" for did in kept.values())


def test_a_queued_stream_ends_when_its_turn_comes(group: RayWorkerGroup, tmp_path: Path) -> None:
    """Until then ``close`` says which rank has not come to it; the worker stays usable."""
    holds = group.call(BatchWorker.wait_if, 0, str(tmp_path / "go"))
    stream = group.at(data_parallel=0, tensor_parallel=0).call(BatchWorker.count, 0.01)

    with pytest.raises(DeadlineError, match="1 of 1 ranks did not answer"):
        stream.close(timeout=0.2)
    (tmp_path / "go").touch()
    stream.close(timeout=30)

    holds.by_rank()
    kept = kept_by(group)
    assert kept[0][0] == 0
    assert kept[0][-1] == "closed"


def test_a_stream_ended_at_once_leaves_its_workers_usable(group: RayWorkerGroup) -> None:
    """Ray loses count of a worker's calls when one is cancelled before it was sent."""
    for _ in range(5):
        group.call(BatchWorker.tokens, [1, 2, 3, 4]).close(timeout=30)
        group.using(returns=PerShard()).call(BatchWorker.count, 0.01).close(timeout=30)

    kept = kept_by(group)
    assert [kept[rank][-1] for rank in range(4)] == ["closed"] * 4


def test_an_error_does_not_lose_what_came_before(group: RayWorkerGroup) -> None:
    """The values first, then one error that names the rank and how the others stood."""
    stream = group.call(BatchWorker.tokens, list(range(8)), fail_at=2)
    values: list[int] = []

    with pytest.raises(RuntimeError, match="no more tokens") as raised:
        values.extend(answer.value for answer in stream)

    assert {0, 1} <= set(values)
    assert stream.received[0] == 2
    assert "first rank 0 (data_parallel=0, tensor_parallel=0)" in str(raised.value)
    assert re.search(r"raised at tests/batch_workers\.py:\d+ in \w+\n", str(raised.value))
    notes = "\n".join(getattr(raised.value.__cause__, "__notes__", []))
    assert notes.count("RuntimeError: no more tokens") == 1
    assert "\x1b" not in notes
    stream.close()
    assert kept_by(group)[0] == [0, 1, "closed"]


def test_the_next_value_has_a_deadline(group: RayWorkerGroup, tmp_path: Path) -> None:
    """The error says whose value did not come; the stream can go on."""
    stream = group.call(BatchWorker.one_until, str(tmp_path / "go"))
    ranks = sorted(rank for rank, _, _ in taken(stream, 4))

    with pytest.raises(DeadlineError, match="4 of 4 ranks did not answer"):
        next(stream.as_completed(timeout=0.05))

    (tmp_path / "go").touch()
    assert ranks == [0, 1, 2, 3]
    assert list(stream.as_completed(timeout=30)) == []


def test_all_values_by_rank(group: RayWorkerGroup) -> None:
    """For those who want them at the end."""
    assert group.call(BatchWorker.tokens, [1, 2, 3]).by_rank() == {0: [1, 2], 2: [3]}
    kept_by(group)


def test_a_stream_is_iterated_by_an_event_loop(group: RayWorkerGroup) -> None:
    """Other tasks go on while it waits."""

    async def collect() -> list[int]:
        stream = group.call(BatchWorker.tokens, [4, 5, 6])
        return sorted([answer.value async for answer in stream])

    assert asyncio.run(collect()) == [4, 5, 6]
    kept_by(group)


def test_a_stream_has_no_one_result(group: RayWorkerGroup) -> None:
    """Nothing was sent."""
    with pytest.raises(PlanError, match="and the method streams"):
        group.using(returns=Concatenate()).call(BatchWorker.tokens, [1, 2])
    assert kept_by(group) == {0: [], 1: [], 2: [], 3: []}
