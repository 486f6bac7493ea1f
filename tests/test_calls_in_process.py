"""``group.call`` on the in-process backend: waiting, sending, handing on, streams."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from planner import NamedSharding
from planner.findings import PlanError
from planner.roles import AllByRank, First, Replicate, Shard
from runtime import (
    CallFuture,
    DeadlineError,
    HalfSentError,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
    wait_all,
    wait_all_async,
)
from runtime.calls import Sender
from runtime.in_process_backend import World
from runtime.testing import InProcessCluster
from tests.share_workers import AsyncSharer, Sharer

AXES = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two nodes with two bundles each, for two groups."""
    with InProcessCluster([2, 2], max_colocated_worker_groups=2) as made:
        yield made


def _group(cluster: InProcessCluster, name: str, **more: Any) -> RayWorkerGroup:
    return RayWorkerGroup(
        cluster, RayWorkerBuilder(f"tests.{name}"), sharding_annotations=AXES, **more
    )


@pytest.fixture
def group(cluster: InProcessCluster) -> Iterator[RayWorkerGroup]:
    """Four ranks that fail, sleep and die as they are told."""
    with _group(cluster, "fault_workers.Worker", name_prefix="policy") as made:
        yield made


@pytest.fixture
def sharers(cluster: InProcessCluster) -> Iterator[RayWorkerGroup]:
    """Four ranks that hand arguments on."""
    with _group(cluster, "share_workers.Sharer", name_prefix="sharers") as made:
        yield made


async def _of(future: CallFuture[Any]) -> object:
    return await future


def _nothing_was_called(group: RayWorkerGroup) -> bool:
    return all(calls == [] for calls in group.call(Sharer.take_calls).by_rank().values())


def _break_at(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Let the message that comes at a place not leave."""
    entries = Sender.entries

    def broken(*_: object, **__: object) -> object:
        raise ConnectionError("the network is gone")

    def one_broken(sender: Sender, *args: Any) -> list[Callable[..., Any]]:
        made = list(entries(sender, *args))
        made[place] = broken
        return made

    monkeypatch.setattr(Sender, "entries", one_broken)


def test_awaiting_ends_when_one_rank_fails_and_others_hang(
    cluster: InProcessCluster, group: RayWorkerGroup
) -> None:
    """As ``result`` does: a moment later, with one error that names the others."""
    future = group.call("fail", ranks=[0], others=1e6)

    with pytest.raises(WorkerGroupError) as raised:
        asyncio.run(_of(future))

    assert isinstance(raised.value, ValueError)
    assert (raised.value.report.failed, raised.value.report.running) == ((0,), (1, 2, 3))
    assert cluster.now < 5
    assert group.broken == (1, 2, 3)


def test_awaiting_gives_the_result_and_keeps_the_deadline(group: RayWorkerGroup) -> None:
    """Of the call, in virtual time."""
    one = group.at(data_parallel=1, tensor_parallel=0).using(returns=First())
    assert asyncio.run(_of(one.call("sleep", 3.0))) == 2
    with pytest.raises(DeadlineError, match="4 of 4 ranks did not answer"):
        asyncio.run(_of(group.using(timeout=5).call("sleep", 100.0)))


def test_two_awaited_groups_fail_together(cluster: InProcessCluster, group: RayWorkerGroup) -> None:
    """One hangs because the other has failed."""

    async def both(other: RayWorkerGroup) -> None:
        await asyncio.gather(
            _of(group.call("sleep", 1e6)), _of(other.call("fail", ranks=[2], others=1e6))
        )

    with (
        _group(cluster, "fault_workers.Worker", name_prefix="rollout") as other,
        pytest.raises(WorkerGroupError, match="worker group 'rollout', fail"),
    ):
        asyncio.run(both(other))
    assert cluster.now < 5


@pytest.mark.parametrize("wait", [wait_all, lambda *f: asyncio.run(wait_all_async(*f))])
def test_waiting_for_all_ends_at_the_first_failure(
    cluster: InProcessCluster, group: RayWorkerGroup, wait: Callable[..., None]
) -> None:
    """Also in an event loop; the error says how the other group stands."""
    with _group(cluster, "fault_workers.Worker", name_prefix="rollout") as other:
        hangs = group.call("sleep", 1e6, ranks=[3])
        fails = other.call("fail", ranks=[2], others=1e6)
        with pytest.raises(ValueError, match=r"rollout.*1 of 4 ranks failed") as raised:
            wait(hangs, fails)
        assert "'policy', sleep(): ranks 0-2 returned; rank 3 had not answered" in str(raised.value)
        assert other.broken == (0, 1, 3)
    assert cluster.now < 5


def test_waiting_for_all_keeps_the_deadline_of_its_calls(
    cluster: InProcessCluster, group: RayWorkerGroup
) -> None:
    """The shortest of them; what is no future is said to be none."""
    with pytest.raises(DeadlineError):
        wait_all(group.call("echo", 1), group.using(timeout=4).call("sleep", 100.0))
    assert 4 <= cluster.now < 5
    sharded = group.run_all_workers_sharded_data("total", in_sharded_axes=["data_parallel"])
    stream = group.call("count", 1)
    with pytest.raises(PlanError) as caught:
        wait_all(sharded, stream)  # type: ignore[arg-type]
    assert [(each.path, each.problem) for each in caught.value.findings] == [
        ("futures[0]", "a value of type MultiWorkerFuture"),
        ("futures[1]", "a value of type CallStream"),
    ]


def test_waiting_and_looking_move_no_large_results(
    sharers: RayWorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones came by themselves, and are not fetched again."""
    fetched: list[int] = []
    get = World.get

    def counted(world: World, references: Sequence[Any], timeout: float | None) -> list[Any]:
        fetched.append(len(references))
        return get(world, references, timeout)

    monkeypatch.setattr(World, "get", counted)
    large = sharers.call(Sharer.give, 300_000)
    small = sharers.call(Sharer.give, 3)

    wait_all(large, small)
    outcomes = large.outcomes()

    assert {each.standing.value for each in outcomes.values()} == {"returned"}
    assert fetched == []
    assert small.by_rank() == dict.fromkeys(range(4), bytes(3))
    assert sum(fetched) == 0
    assert large.by_rank() == dict.fromkeys(range(4), bytes(300_000))
    assert sum(fetched) == 4


def test_sending_that_breaks_half_way_is_told_for_every_kind_of_call(
    group: RayWorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ranks, and what the calls gave; the group's limit counts them."""
    calls: list[Callable[[], object]] = [
        lambda: group.run_all_workers_single_data("echo", value=7),
        lambda: group.run_all_workers_multiple_data("echo", value=[7] * 4),
        lambda: group.run_all_workers_sharded_data(
            "echo",
            in_sharded_axes=["data_parallel"],
            replicate_on_axes=["tensor_parallel"],
            value=[7, 7],
        ),
        lambda: group.call("echo", 7),
    ]
    for call in calls:
        with monkeypatch.context() as patch:
            _break_at(patch, 2)
            with pytest.raises(HalfSentError, match="ranks 0-1 called, ranks 2-3 not") as raised:
                call()
        error = raised.value
        assert (error.sent, error.not_sent) == ((0, 1), (2, 3))
        assert isinstance(error.__cause__, ConnectionError)
        assert group._in_flight.count == 2
        assert group.backend.get(list(error.references.values()), 60.0) == [7, 7]
        assert group.call("echo", 1).by_rank() == dict.fromkeys(range(4), 1)
        group._in_flight._look_at_all()


def test_parts_that_can_not_be_sent_are_told_too(
    sharers: RayWorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rank was called then."""
    calls = sharers.using(roles={"batch": Shard("tensor_parallel")})
    rows = sharers.using(returns=_concatenate).call(Sharer.rows, [1, 2, 3, 4]).held()

    def broken(*_: object) -> object:
        raise ConnectionError("the network is gone")

    sharers.call(Sharer.take_calls).by_rank()
    monkeypatch.setattr("runtime.call_sending.send_parts", broken)
    with pytest.raises(HalfSentError, match="no rank called, ranks 0-3 not") as raised:
        calls.call(Sharer.rows, rows.as_argument()).result()
    assert (raised.value.sent, raised.value.references) == ((), {})
    assert _nothing_was_called(sharers)


def _concatenate(values: Sequence[list[int]]) -> list[int]:
    return [row for each in values for row in each]


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("keep", [1, 2, 3, threading.Lock()]),
        ("rows", [[1], [2], [3], [4, threading.Lock()]]),
        ("rows", {"x": [1, 2], "whole": threading.Lock()}),
    ],
)
def test_what_can_not_be_serialised_is_found_before_anything_leaves(
    sharers: RayWorkerGroup, method: str, value: object
) -> None:
    """Wherever in an argument it is."""
    with pytest.raises(PlanError, match=r"can't be serialised.*pickle"):
        sharers.call(method, value)
    assert _nothing_was_called(sharers)


def test_what_can_not_be_serialised_for_one_rank_is_a_finding_too(
    sharers: RayWorkerGroup,
) -> None:
    """Its only message is serialised as it leaves."""
    one = sharers.at(data_parallel=0, tensor_parallel=1)
    with pytest.raises(PlanError, match="value: a value of type lock can't be serialised"):
        one.using(roles={"value": Replicate()}).call(Sharer.keep, threading.Lock()).result()
    assert _nothing_was_called(sharers)


def test_values_for_each_rank_are_planned_by_their_size(sharers: RayWorkerGroup) -> None:
    """Small ones inside the calls, under one plan; large and unknown ones as objects."""
    small = sharers.plan_call("keep", [1, 2, 3, 4])
    assert small.objects == 0
    assert sharers.plan_call("keep", [5, 6, 7, 8]) is small
    mixed = sharers.plan_call("keep", [1, 2, 3, bytes(200_000)])
    assert mixed.objects == 1
    assert mixed.arguments[0].payloads[3].size == 200_000
    assert sharers.plan_call("keep", [1, 2, 3, object()]).objects == 4
    assert sharers.call("keep", [1, "two", 3.0, None]).by_rank() == {
        0: 1,
        1: "two",
        2: 3.0,
        3: None,
    }


def test_a_stream_has_no_times(sharers: RayWorkerGroup) -> None:
    """It is refused before a rank is called, and in a plan alone."""
    timed = sharers.using(timed=True)
    with pytest.raises(PlanError, match=r"timed: count\(\) streams its values"):
        timed.call(Sharer.count, 3)
    with pytest.raises(PlanError, match=r"timed: count\(\) streams its values"):
        timed.plan_call(Sharer.count, 3)
    assert _nothing_was_called(sharers)


def test_what_streams_is_handed_on_too(sharers: RayWorkerGroup) -> None:
    """Also where the values do not come back."""
    assert sharers.call(Sharer.tokens, [1, 2, 3]).by_rank() == {
        0: [1, 2],
        1: [-1],
        2: [3],
        3: [-1],
    }
    calls = sharers.call(Sharer.take_calls).by_rank()
    assert list(calls.values()) == [["hand_on"]] * 4


def test_what_has_no_name_is_handed_on_by_its_place(sharers: RayWorkerGroup) -> None:
    """A parameter that is positional-only."""
    assert sharers.call(Sharer.by_place, [1, 2, 3], scale=2).by_rank() == {
        0: [2, 4],
        1: [-2],
        2: [6],
        3: [-2],
    }


def test_async_workers_hand_on(cluster: InProcessCluster) -> None:
    """By a method that is awaited."""
    with _group(cluster, "share_workers.AsyncSharer") as group:
        wanted = {0: [1, 2], 1: [-1], 2: [3], 3: [-1]}
        assert group.call(AsyncSharer.rows, [1, 2, 3]).by_rank() == wanted
        assert group.call(AsyncSharer.tokens, [1, 2, 3]).by_rank() == wanted


@pytest.mark.parametrize(
    ("share", "problem"),
    [
        ("hand_onn", r"the workers have no method 'hand_onn'; did you mean 'hand_on'"),
        ("hand_on_one_by_one", r"hand_on_one_by_one\(\) streams its values"),
        ("hand_on_nothing", r"1 positional argument for 0 parameters"),
    ],
)
def test_a_method_that_can_not_hand_on_is_found_before_anything_leaves(
    sharers: RayWorkerGroup, share: str, problem: str
) -> None:
    """Its name, kind and parameters."""
    calls = sharers.using(roles={"batch": Shard("data_parallel", share=share)})
    with pytest.raises(PlanError, match=problem):
        calls.call(Sharer.rows, [1, 2]).result()
    assert _nothing_was_called(sharers)


@pytest.mark.parametrize(("buffer", "made"), [(None, 17), (3, 4), (math.inf, 100)])
def test_a_worker_is_held_back(
    cluster: InProcessCluster, sharers: RayWorkerGroup, buffer: float | None, made: int
) -> None:
    """It makes so many values more than were taken: 16, or as many as the call says."""
    calls = sharers.at(data_parallel=0, tensor_parallel=0).using(buffer=buffer)
    with calls.call(Sharer.count, 100) as stream:
        assert next(iter(stream)).value == 0
        cluster.pause(100)
    assert len(sharers.call(Sharer.take_calls).by_rank()[0]) == made


def test_an_async_worker_is_held_back(cluster: InProcessCluster) -> None:
    """And answers other calls meanwhile."""
    with _group(cluster, "share_workers.AsyncSharer") as group:
        with group.using(buffer=3).call(AsyncSharer.count) as stream:
            next(iter(stream))
            cluster.pause(100)
            made = group.call(AsyncSharer.how_many).by_rank()
        assert max(made.values()) == 4


@pytest.mark.parametrize("buffer", [0, 2.5, "many"])
def test_a_buffer_is_a_number_of_values(sharers: RayWorkerGroup, buffer: Any) -> None:
    """Or infinite."""
    with pytest.raises(PlanError, match=r"buffer: .*give 1 or more, or math\.inf for no limit"):
        sharers.using(buffer=buffer)


def test_a_deadline_tells_what_a_rank_is_still_in(
    cluster: InProcessCluster, group: RayWorkerGroup
) -> None:
    """Be it a call that nobody holds, one of the reference's, or a stream that is held back."""
    late = group.using(timeout=1, returns=AllByRank())
    behind: list[Callable[[], object]] = [
        lambda: group.run_all_workers_single_data("sleep", seconds=50.0, ranks=[1, 3]),
        lambda: group.call("sleep", 50.0, ranks=[1, 3]) and None,
    ]
    for make in behind:
        make()
        with pytest.raises(DeadlineError, match=r"not begun: ranks 1, 3, still in sleep\(\)"):
            late.call("total").by_rank()
        with pytest.raises(DeadlineError, match=r"not begun: ranks 1, 3, still in sleep\(\)"):
            wait_all(late.call("total"))
        future = group.run_all_workers_sharded_data("total", replicate_on_axes=AXES.names)
        with pytest.raises(DeadlineError, match=r"not begun: ranks 1, 3, still in sleep\(\)"):
            future.get_results(group, timeout=1)
        cluster.pause(100)
        late.call("total").by_rank()
    held_back = group.call("count", 100)
    with pytest.raises(DeadlineError, match=r"not begun: ranks 0-3, still in count\(\)"):
        late.call("total").by_rank()
    held_back.close()
    late.call("total").by_rank()


def test_errors_of_ranks_that_do_not_return_are_told_by_the_next_call(
    group: RayWorkerGroup,
) -> None:
    """When the caller takes the generators of the others by itself."""
    future = group.run_all_workers_sharded_data(
        "count",
        in_sharded_axes=["tensor_parallel"],
        replicate_on_axes=["data_parallel"],
        output_is_replicated=["data_parallel"],
        upto=[2, 2],
        fail_at=[-1, 1],
    )
    first, _ = future.get_results(group, return_generators_as_proxies=True)
    assert group.backend.get(list(first), 60.0) == [0, 1]
    group.backend.pause(1)
    with pytest.raises(ValueError, match=r"count\(\): 1 of 2 ranks failed; first rank 3") as raised:
        group.call("total")
    assert isinstance(raised.value, WorkerGroupError)
    assert group.call("total").by_rank() == dict.fromkeys(range(4), 0)


def test_who_has_begun_is_not_said_not_to_have(group: RayWorkerGroup) -> None:
    """The oldest call that a rank is in counts, and a later one does not."""
    slow = group.using(timeout=1).call("sleep", 50.0)
    group.call("total")
    with pytest.raises(DeadlineError) as raised:
        slow.by_rank()
    assert "not begun" not in str(raised.value)


def test_ranks_whose_values_do_not_come_back_run_along(sharers: RayWorkerGroup) -> None:
    """To their ends, without being held back."""
    rows = list(range(100))
    assert sharers.call(Sharer.count_rows, rows).by_rank() == {0: rows[:50], 2: rows[50:]}


def test_a_stream_by_rank_keeps_what_came_before_an_error(sharers: RayWorkerGroup) -> None:
    """And has a deadline."""
    stream = sharers.call(Sharer.count_rows, [1, 2, 3, 4, 5, 6], fail_at=3)
    with pytest.raises(ValueError, match="no row 3"):
        stream.by_rank()
    assert stream.collected[0] == [1, 2]
    stream.close()


def test_a_stream_by_rank_has_a_deadline(cluster: InProcessCluster, group: RayWorkerGroup) -> None:
    """For each next value."""
    stream = group.at(data_parallel=0, tensor_parallel=0).call("drip", 3, 10.0)
    with pytest.raises(DeadlineError, match="1 of 1 ranks did not answer"):
        stream.by_rank(timeout=5)
    assert 5 <= cluster.now < 6
    assert stream.by_rank(timeout=15) == {0: [0, 1, 2]}


def test_fetching_what_is_held_says_what_is_missing(
    cluster: InProcessCluster, sharers: RayWorkerGroup
) -> None:
    """Of which call, and who makes it."""
    cluster.pause(1)
    held = sharers.using(returns=_concatenate).call(Sharer.rows, [1, 2, 3]).held()
    with pytest.raises(DeadlineError, match=r"rows\(\), held in 2 slices: 2 of 2") as raised:
        held.fetch(timeout=0)
    assert "no answer yet: ranks 0, 2" in str(raised.value)
    assert "fetch it again with more time" in str(raised.value)
    assert held.fetch(timeout=5) == [1, 2, 3]
