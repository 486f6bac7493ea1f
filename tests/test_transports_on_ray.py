"""Results that go from worker to worker by gloo, past the object store, on real workers."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from ray.exceptions import ActorDiedError
from ray.experimental import get_local_object_locations

from planner.call_requests import Route
from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import AllByRank, Shard
from planner.slice_policies import Constant, Interleaved, Padded, Policy, Uneven
from runtime import (
    DeadlineError,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
from runtime.ray_backend import RayBackend
from runtime.transports import Link, link
from tests.batch_cases import MAKERS, same
from tests.transport_workers import TensorWorker

WORKER = "tests.transport_workers.TensorWorker"
AXES = ["data_parallel", "tensor_parallel"]
Groups = tuple[RayWorkerGroup, RayWorkerGroup]


def _started(
    cluster: RayVirtualCluster,
    name: str,
    bundles: list[int],
    layout: Any,
    tensor_transport: str | None = "gloo",
) -> RayWorkerGroup:
    return RayWorkerGroup(
        cluster,
        RayWorkerBuilder(WORKER),
        bundle_indices_list=[(0, [bundle]) for bundle in bundles],
        name_prefix=name,
        sharding_annotations=NamedSharding(layout, AXES[: np.ndim(layout)]),
        tensor_transport=tensor_transport,
    )


@pytest.fixture(scope="module")
def cluster(cluster_of_nodes: object) -> Iterator[RayVirtualCluster]:
    """Nine bundles without GPUs."""
    reserved = RayVirtualCluster([9], use_gpus=False)
    reserved.get_placement_groups()
    yield reserved
    reserved.shutdown()


@pytest.fixture(scope="module")
def unlinked(cluster: RayVirtualCluster) -> Iterator[Groups]:
    """Four ranks that produce, and two that consume, in an order of their own."""
    with (
        _started(cluster, "generator", [0, 1, 2, 3], range(4)) as generator,
        _started(cluster, "trainer", [4, 5], [[1], [0]]) as trainer,
    ):
        generator.add_mesh("pairs", NamedSharding([[0, 1], [2, 3]], AXES))
        yield generator, trainer


@pytest.fixture(scope="module")
def linked(unlinked: Groups) -> Iterator[Link]:
    """The link of the two."""
    with link(*unlinked) as made:
        yield made


@pytest.fixture
def groups(unlinked: Groups, linked: Link) -> Groups:
    """The two, linked."""
    assert linked.is_up
    return unlinked


@pytest.fixture(scope="module")
def aside(cluster: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """One rank that was started for no transport."""
    with _started(cluster, "aside", [6], [0], None) as group:
        yield group


@pytest.mark.parametrize("rows", [0, 1, 3, 7, 13])
def test_results_go_from_four_ranks_to_two(groups: Groups, rows: int) -> None:
    """The second group gets the slices of the whole, in its own layout's order."""
    generator, trainer = groups
    batch = torch.arange(float(rows))

    future = generator.using(transport="gloo").call(TensorWorker.twice, batch)
    held = future.held()
    went = trainer.call(TensorWorker.rows, held.as_argument())

    assert {each.route for each in went.plan.arguments[0].payloads} == {Route.DIRECT}
    assert (future.plan.transport, went.plan.transport) == ("gloo", "object store")
    half = -(-rows // 2)
    assert went.by_rank() == {1: (2 * batch[:half]).tolist(), 0: (2 * batch[half:]).tolist()}
    assert torch.equal(held.fetch(), 2 * batch)
    assert torch.equal(future.result(), 2 * batch)


def test_and_back_with_padding_and_in_another_order(groups: Groups) -> None:
    """Two tensors and a list; each receiver of a slice joins it itself."""
    generator, trainer = groups
    batch: dict[str, Any] = {
        "ids": torch.arange(5),
        "pairs": torch.arange(10).reshape(5, 2),
        "words": list("abcde"),
    }
    first = trainer.using(transport="gloo", roles={"batch": Shard("data_parallel", Interleaved())})
    pads = {"ids": Constant(-1)}
    second = generator.using(
        mesh="pairs", roles={"batch": Shard("data_parallel", Padded(), pads=pads)}
    )

    held = first.call(TensorWorker.same, batch).held()
    future = second.call(TensorWorker.told, held.as_argument())

    payloads = future.plan.arguments[0].payloads
    assert [(each.route, each.ranks) for each in payloads] == [
        (Route.DIRECT, (0, 1)),
        (Route.DIRECT, (2, 3)),
    ]
    assert future.per_shard() == [
        {
            "ids": ("torch.int64", [0, 1, 2]),
            "pairs": ("torch.int64", [0, 1, 2, 3, 4, 5]),
            "words": ("list", ["a", "b", "c"]),
        },
        {
            "ids": ("torch.int64", [3, 4, -1]),
            "pairs": ("torch.int64", [6, 7, 8, 9, 8, 9]),
            "words": ("list", ["d", "e", "e"]),
        },
    ]
    back = second.call(TensorWorker.same, held.as_argument()).result()
    assert back["words"] == batch["words"]
    assert torch.equal(back["pairs"], batch["pairs"])


def test_what_arrives_is_what_the_store_would_bring(groups: Groups) -> None:
    """Types, shapes and numbers; what has gradients or is no tensor goes with the object."""
    generator, trainer = groups
    batch = torch.arange(6.0)
    by_gloo = generator.using(transport="gloo").call(TensorWorker.kinds, batch)
    by_store = generator.call(TensorWorker.kinds, batch)

    told = [
        trainer.call(TensorWorker.told, each.held().as_argument()).per_shard()
        for each in (by_gloo, by_store)
    ]

    assert told[0] == told[1]
    assert told[0][0]["bfloat16"] == ("torch.bfloat16", [0, 1, 2])
    assert by_gloo.result()["gradient"].requires_grad
    assert by_gloo.result()["columns"].shape == (6, 3)


def test_the_store_holds_none_of_it(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the driver neither puts nor fetches any."""
    generator, trainer = groups
    seen: list[object] = []
    put = RayBackend.put

    def noted(self: RayBackend, value: object) -> object:
        seen.append(value)
        return put(self, value)

    monkeypatch.setattr(RayBackend, "put", noted)
    held = generator.using(transport="gloo").call(TensorWorker.twice, torch.ones(400_000)).held()
    seen.clear()

    total = trainer.call(TensorWorker.total, held.as_argument()).result()

    stored = get_local_object_locations([each.object for each in held.references])
    assert total == 800_000.0
    assert max(each["object_size"] for each in stored.values()) < 10_000
    assert not [each for each in seen if isinstance(each, torch.Tensor)]


def test_answers_are_taken_in_every_way(groups: Groups) -> None:
    """As they come, and in an event loop."""
    generator, _ = groups
    calls = generator.using(transport="gloo")

    async def waited() -> torch.Tensor:
        return await calls.call(TensorWorker.twice, torch.arange(4.0))

    future = calls.call(TensorWorker.twice, torch.arange(4.0))
    came = {each.rank: each.value.tolist() for each in future.as_completed(timeout=60)}

    assert came == {0: [0.0], 1: [2.0], 2: [4.0], 3: [6.0]}
    assert asyncio.run(waited()).tolist() == [0.0, 2.0, 4.0, 6.0]
    assert future.done()


def test_parts_reach_streams_and_arguments_without_names(groups: Groups) -> None:
    """They are joined in the call there too."""
    generator, trainer = groups
    held = generator.using(transport="gloo").call(TensorWorker.twice, torch.arange(6.0)).held()

    placed = trainer.call("placed", held.as_argument(), 10.0).by_rank()
    with trainer.call(TensorWorker.one_by_one, held.as_argument()) as stream:
        values: dict[int, list[float]] = {}
        for each in stream:
            values.setdefault(each.rank, []).append(each.value)

    assert placed == {1: 60.0, 0: 240.0}
    assert values == {1: [0.0, 2.0, 4.0], 0: [6.0, 8.0, 10.0]}


def test_results_go_on_inside_their_own_group(groups: Groups) -> None:
    """To other ranks, and to the rank that made them."""
    generator, _ = groups
    calls = generator.using(transport="gloo")
    held = calls.call(TensorWorker.twice, torch.arange(8.0)).held()
    shifted = generator.using(roles={"batch": Shard("data_parallel", Interleaved())})

    rows = shifted.call(TensorWorker.rows, held.as_argument()).by_rank()
    same = calls.call(TensorWorker.twice, held.as_argument()).held()

    assert rows == {0: [0.0, 8.0], 1: [2.0, 10.0], 2: [4.0, 12.0], 3: [6.0, 14.0]}
    assert same.fetch().tolist() == [4.0 * row for row in range(8)]


def test_results_can_be_asked_for_while_what_they_need_is_made(
    groups: Groups, tmp_path: Path
) -> None:
    """The copies wait outside of the lane by which that comes; so do those of a wait that ended."""
    generator, trainer = groups
    there = tmp_path / "there"
    roles = {"batch": Shard("data_parallel", Interleaved())}
    first = generator.using(transport="gloo", roles=roles)
    held = first.call(TensorWorker.twice_when, torch.arange(9.0), str(there)).held()

    future = trainer.using(transport="gloo").call(TensorWorker.twice, held.as_argument())
    with pytest.raises(DeadlineError, match="2 of 2 ranks did not answer"):
        future.result(timeout=0.5)
    with pytest.raises(DeadlineError, match="held in 2 slices: 2 of 2"):
        future.held().fetch(timeout=0.5)
    there.touch()

    assert future.result(timeout=30).tolist() == [4.0 * row for row in range(9)]
    assert held.fetch(timeout=30).tolist() == [2.0 * row for row in range(9)]


def test_a_wait_for_a_result_does_not_hold_up_others(groups: Groups, tmp_path: Path) -> None:
    """Of the same worker, which is busy with it."""
    generator, trainer = groups
    there = tmp_path / "there"
    calls = generator.using(transport="gloo")
    old = calls.call(TensorWorker.twice, torch.arange(8.0)).held()
    generator.call(TensorWorker.thread).by_rank()

    future = calls.call(TensorWorker.twice_when, torch.arange(8.0), str(there))
    with pytest.raises(DeadlineError):
        future.result(timeout=0.5)
    total = trainer.call(TensorWorker.total, old.as_argument()).result(timeout=30)
    there.touch()

    assert total == 56.0
    assert future.result(timeout=30).sum() == 56.0


def test_members_are_ready_for_their_first_transfer(groups: Groups) -> None:
    """Ray makes what it needs for one when it is first used, without a lock."""
    for group in groups:
        assert all(group.call("keeps_direct_objects").by_rank().values())


@pytest.mark.parametrize("rows", [4, 200_000])
def test_tensors_of_new_types_go_everywhere(
    groups: Groups, aside: RayWorkerGroup, rows: int
) -> None:
    """As arguments and results without a transport, small and large."""
    generator, _ = groups
    batch = {
        "fp8": torch.arange(rows).remainder(16).to(torch.float8_e5m2),
        "uint16": torch.arange(rows).remainder(1_000).to(torch.uint16),
    }

    for group in (generator, aside):
        got = group.call(TensorWorker.same, batch).result()
        assert {name: each.dtype for name, each in got.items()} == {
            "fp8": torch.float8_e5m2,
            "uint16": torch.uint16,
        }
        assert all(torch.equal(got[name].float(), batch[name].float()) for name in batch)


def test_a_held_result_is_no_argument_without_its_batch(groups: Groups) -> None:
    """Said before anything is sent, wherever it is given."""
    generator, trainer = groups
    held = generator.using(transport="gloo").call(TensorWorker.twice, torch.arange(8.0)).held()
    told = "results that are held for gloo; give the held batch itself"

    with pytest.raises(PlanError, match=told):
        trainer.call("total", list(held.references[:2]))
    with pytest.raises(PlanError, match=told):
        trainer.call("fail", on=held.references[0])
    with pytest.raises(PlanError, match=told):
        trainer.call("fail", on={"hidden": held.references[0]})
    with pytest.raises(PlanError, match=told):
        trainer.run_all_workers_single_data("fail", on=held.references[0])


@pytest.mark.parametrize("transport", ["gloo", "object store"])
def test_fetching_raises_as_a_call_does(groups: Groups, transport: str) -> None:
    """With the group, the method and the rank, and of the cause's own type too."""
    generator, _ = groups
    calls = generator.using(transport=transport)
    held = calls.call(TensorWorker.failing, torch.arange(4.0)).held()

    with pytest.raises(KeyError) as raised:
        held.fetch(timeout=60)

    assert isinstance(raised.value, WorkerGroupError)
    assert "worker group 'generator', failing(), held in 4 slices: 1 of 4" in str(raised.value)
    assert raised.value.report.failed == (0,)


def test_results_of_an_ended_group_are_refused(cluster: RayVirtualCluster) -> None:
    """Before the first message: Ray would end those who were to receive them."""
    with (
        _started(cluster, "source", [7], [0]) as source,
        _started(cluster, "sink", [8], [0]) as sink,
        link(source, sink) as made,
    ):
        held = source.using(transport="gloo").call(TensorWorker.twice, torch.ones(3)).held()
        assert held.fetch(timeout=60).sum() == 6.0
        other = source.using(transport="gloo").call(TensorWorker.twice, torch.ones(3)).held()
        assert source.shutdown(force=True)

        with pytest.raises(PlanError, match="those who hold it were ended; its results are lost"):
            sink.call(TensorWorker.total, held.as_argument()).result()
        with pytest.raises(ActorDiedError) as raised:
            other.fetch(timeout=60)

        assert isinstance(raised.value, WorkerGroupError)
        assert "worker group 'source', twice(), held in 1 slice: 1 of 1" in str(raised.value)
        assert not made.is_up
        assert sink.call(TensorWorker.total, torch.ones(3)).result(timeout=60) == 3.0


def _seen(
    transport: str,
    groups: tuple[RayWorkerGroup, RayWorkerGroup],
    meshes: tuple[str, str],
    policies: tuple[Policy, Policy],
    batch: Any,
) -> list[Any]:
    """What the ranks of the second group get of results of the first, and what comes back."""
    (maker, taker), (made_on, taken_on) = groups, meshes
    first, second = ({"batch": Shard("data_parallel", policy)} for policy in policies)
    calls = maker.using(transport=transport, mesh=made_on, roles=first)
    held = calls.call(TensorWorker.same, batch).held()
    takes = taker.using(mesh=taken_on, roles=second)
    got = takes.using(returns=AllByRank()).call(TensorWorker.same, held.as_argument())
    again = takes.using(transport=transport).call(TensorWorker.same, held.as_argument())
    direct = {each.route for each in got.plan.arguments[0].payloads} == {Route.DIRECT}
    assert direct == (transport == "gloo")
    return [again.held().fetch(timeout=60), got.by_rank(timeout=60), held.fetch(timeout=60)]


def test_gloo_brings_what_the_store_brings(groups: Groups) -> None:
    """Batches of many types, over meshes and policies drawn at random."""
    generator, trainer = groups
    draw = Random(20)  # noqa: S311  # a test
    meshes = {generator: ["", "pairs"], trainer: [""]}
    policies: list[Policy] = [Uneven(), Interleaved(), Padded(), Padded(multiple=3)]
    for _ in range(24):
        kind, rows = draw.choice(list(MAKERS)), draw.randrange(12)
        pair = draw.choice([(generator, trainer), (trainer, generator), (generator, generator)])
        over = draw.choice(meshes[pair[0]]), draw.choice(meshes[pair[1]])
        by = draw.choice(policies), draw.choice(policies)

        by_gloo, by_store = (
            _seen(transport, pair, over, by, MAKERS[kind](rows))
            for transport in ("gloo", "object store")
        )

        assert same(by_gloo, by_store), (kind, rows, pair, over, by)
        assert same(by_gloo[0], MAKERS[kind](rows)), (kind, rows, pair, over, by)


def test_a_group_that_is_not_linked_gets_it_through_the_store(
    groups: Groups, aside: RayWorkerGroup
) -> None:
    """The plan says why; every part is cut out of its maker's memory."""
    generator, _ = groups
    held = generator.using(transport="gloo").call(TensorWorker.twice, torch.arange(8.0)).held()

    future = aside.call(TensorWorker.total, held.as_argument())

    assert future.result() == 56.0
    assert {each.route for each in future.plan.arguments[0].payloads} == {Route.PARTS}
    assert "held for gloo, and the group was not started for gloo" in future.plan.reason


def test_a_producers_own_error_reaches_both(groups: Groups) -> None:
    """The caller of the producer and that of the consumer; the link stays."""
    generator, trainer = groups
    future = generator.using(transport="gloo").call(TensorWorker.failing, torch.arange(4.0))

    with pytest.raises(KeyError, match="rank 0 can't"):
        trainer.call(TensorWorker.total, future.held().as_argument()).result(timeout=60)
    with pytest.raises(KeyError, match="rank 0 can't"):
        future.result(timeout=60)
    outcomes = future.outcomes()
    assert [each.standing.value for each in outcomes.values()] == ["failed"] + ["returned"] * 3
    assert trainer.call(TensorWorker.total, torch.ones(4)).result(timeout=60) == 4.0


def test_a_worker_that_writes_to_its_result_changes_it(groups: Groups) -> None:
    """Nothing was copied: what the worker kept is what will be sent."""
    generator, trainer = groups
    held = generator.using(transport="gloo").call(TensorWorker.twice, torch.ones(4)).held()

    generator.call(TensorWorker.overwritten, torch.ones(4)).per_shard()

    assert trainer.call(TensorWorker.total, held.as_argument()).result() == -4.0


def test_what_a_transport_costs(groups: Groups, aside: RayWorkerGroup) -> None:
    """Methods leave the main thread; the default group of the process stays the worker's."""
    generator, _ = groups

    assert aside.call(TensorWorker.thread).by_rank() == {0: "MainThread"}
    assert "MainThread" not in generator.call(TensorWorker.thread).by_rank().values()
    assert not any(generator.call(TensorWorker.has_default_group).by_rank().values())
    assert generator.call(TensorWorker.make_default_group).by_rank() == dict.fromkeys(range(4), 4)


def test_calls_that_can_not_keep_their_results_are_refused(
    groups: Groups, aside: RayWorkerGroup
) -> None:
    """Before anything is sent, with everything that is wrong."""
    generator, _ = groups

    with pytest.raises(PlanError) as streams:
        generator.using(transport="gloo", timed=True).call("one_by_one", torch.ones(4))
    with pytest.raises(PlanError, match="the group was not started for gloo; start it with"):
        aside.using(transport="gloo").call("twice", torch.ones(4))

    assert [each.path for each in streams.value.findings] == ["transport", "transport"]


def test_a_group_is_in_one_link(groups: Groups, aside: RayWorkerGroup) -> None:
    """Everything that is wrong is said at once."""
    generator, _ = groups

    with pytest.raises(PlanError) as raised:
        link(generator, aside)

    assert [each.path for each in raised.value.findings] == ["generator", "aside"]


def test_a_link_that_takes_too_long_is_none(cluster: RayVirtualCluster, tmp_path: Path) -> None:
    """The error names who is busy; the same groups can be linked afterwards."""
    there = tmp_path / "there"
    with _started(cluster, "busy", [7, 8], range(2)) as group:
        waits = group.call("wait_if", on=1, path=str(there))
        with pytest.raises(DeadlineError, match="no answer yet: rank 1"):
            link(group, timeout=2.0)
        there.touch()
        assert waits.by_rank(timeout=60) == {0: 0, 1: 1}

        with link(group) as made:
            held = group.using(transport="gloo").call(TensorWorker.twice, torch.ones(2)).held()
            assert group.call(TensorWorker.total, held.as_argument()).result() == 4.0
        assert not made.is_up


def test_a_source_that_dies_in_a_transfer(cluster: RayVirtualCluster) -> None:
    """The call fails at once and names both ends; recovered groups are linked anew."""
    with (
        _started(cluster, "source", [7], [0]) as source,
        _started(cluster, "sink", [8], [0]) as sink,
    ):
        broken = link(source, sink)
        held = source.using(transport="gloo").call(TensorWorker.twice, torch.ones(2_000)).held()
        assert held.fetch(timeout=60).sum() == 4_000
        pid = source.identities[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        future = sink.call(TensorWorker.total, held.as_argument())
        with pytest.raises(DeadlineError, match="no answer yet: rank 0"):
            future.result(timeout=0.5)
        os.kill(pid, signal.SIGKILL)

        with pytest.raises(WorkerGroupError, match=r"1 of 1 ranks failed") as raised:
            future.result(timeout=30)
        assert broken.end()
        source.recover()
        sink.recover()
        with link(source, sink):
            anew = source.using(transport="gloo").call(TensorWorker.twice, torch.ones(3)).held()
            assert sink.call(TensorWorker.total, anew.as_argument()).result(timeout=60) == 6.0

    assert "linked worker group 'source': rank 0 dead" in str(raised.value)
    assert "end the link, recover the groups, and link them again" in str(raised.value)
