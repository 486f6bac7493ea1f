"""The four kinds of call on a live group: who is called with what, and what comes back."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray

from planner.findings import PlanError
from planner.mesh import NamedSharding
from runtime import (
    MultiWorkerFuture,
    RayVirtualCluster,
    RayWorkerBuilder,
    RayWorkerGroup,
    WorkerGroupError,
)
from tests.workers import CountedPickle, NotPicklable

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# Slices follow coordinates, not ranks: shard 0 is on ranks 2 and 3.
PERMUTED = NamedSharding([[2, 3], [0, 1]], ["data_parallel", "tensor_parallel"])
DATA = ["data_parallel"]
TENSOR = ["tensor_parallel"]


@pytest.fixture(scope="module")
def places(cluster_of_nodes: "Cluster") -> Iterator[RayVirtualCluster]:
    """Four bundles without GPUs."""
    with RayVirtualCluster([4], use_gpus=False, name="calls") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def group(places: RayVirtualCluster) -> Iterator[RayWorkerGroup]:
    """Four plain workers in a permuted layout."""
    with RayWorkerGroup(
        places,
        RayWorkerBuilder("tests.workers.Recorder"),
        name_prefix="plain",
        sharding_annotations=PERMUTED,
    ) as made:
        yield made


def results(group: RayWorkerGroup, method: str, **options: Any) -> list[Any]:
    """The results of a sharded call."""
    future = group.run_all_workers_sharded_data(method, **options)
    return group.get_all_worker_results(future)


def calls_so_far(group: RayWorkerGroup) -> list[list[Any]]:
    """What every rank was told since it was asked last."""
    told: list[list[Any]] = ray.get(group.run_all_workers_single_data("told"))
    return told


def test_one_worker(group: RayWorkerGroup) -> None:
    """Only that worker is called; its future is given."""
    calls_so_far(group)
    future = group.run_single_worker_single_data("tell", 2, data="d", common="c")
    assert ray.get(future) == (2, "d", "c")
    assert ray.get(group.run_single_worker_single_data(worker_idx=1, method_name="rank")) == 1
    assert calls_so_far(group) == [[], [], [("d", "c")], []]


def test_the_same_data_for_all_or_for_the_first_of_an_axis(group: RayWorkerGroup) -> None:
    """Futures in rank order; an axis that is named is called at coordinate 0 only."""
    everyone = group.run_all_workers_single_data("tell", data=1)
    assert ray.get(everyone) == [(rank, 1, "nothing") for rank in range(4)]
    leaders = group.run_all_workers_single_data("rank", run_rank_0_only_axes=TENSOR)
    assert ray.get(leaders) == [0, 2]
    first = group.run_all_workers_single_data("rank", run_rank_0_only_axes=DATA + TENSOR)
    assert ray.get(first) == [2]
    assert len(group.run_all_workers_single_data("rank", run_rank_0_only_axes=[])) == 4
    calls_so_far(group)


def test_each_called_worker_gets_its_own_data(group: RayWorkerGroup) -> None:
    """One value per called worker in rank order, beside what is common to all."""
    told = group.run_all_workers_multiple_data(
        "tell", data=["a", "b", "c", "d"], common_kwargs={"common": 7}
    )
    assert ray.get(told) == [(0, "a", 7), (1, "b", 7), (2, "c", 7), (3, "d", 7)]
    first = group.run_all_workers_multiple_data("tell", run_rank_0_only_axes=TENSOR, data=range(2))
    assert ray.get(first) == [(0, 0, "nothing"), (2, 1, "nothing")]
    calls_so_far(group)


def test_slices_and_results_follow_the_coordinates(group: RayWorkerGroup) -> None:
    """Shard 0 goes to the ranks at coordinate 0, and its result comes first."""
    assert results(
        group,
        "tell",
        in_sharded_axes=DATA,
        replicate_on_axes=TENSOR,
        output_is_replicated=TENSOR,
        common_kwargs={"common": "c"},
        data=["first", "second"],
    ) == [(2, "first", "c"), (0, "second", "c")]
    assert calls_so_far(group) == [
        [("second", "c")],
        [("second", "c")],
        [("first", "c")],
        [("first", "c")],
    ]


def test_results_of_replicas_stay_together(group: RayWorkerGroup) -> None:
    """Without output_is_replicated every called rank returns: by shard, then by layout."""
    found = results(
        group, "tell", in_sharded_axes=DATA, replicate_on_axes=TENSOR, data=["first", "second"]
    )
    assert found == [
        (2, "first", "nothing"),
        (3, "first", "nothing"),
        (0, "second", "nothing"),
        (1, "second", "nothing"),
    ]
    calls_so_far(group)


def test_levels_of_nested_lists_follow_the_order_of_the_axes(group: RayWorkerGroup) -> None:
    """``value[c1][c2]`` in the order of in_sharded_axes, not of the layout."""
    data = [["t0d0", "t0d1"], ["t1d0", "t1d1"]]
    found = results(group, "tell", in_sharded_axes=TENSOR + DATA, data=data)
    assert [(rank, value) for rank, value, _ in found] == [
        (2, "t0d0"),
        (0, "t0d1"),
        (3, "t1d0"),
        (1, "t1d1"),
    ]
    calls_so_far(group)


def test_free_axes_are_called_at_their_first_coordinate(group: RayWorkerGroup) -> None:
    """The others are left alone, or get a dummy call that does not return."""
    options: dict[str, Any] = {"in_sharded_axes": DATA, "data": ["first", "second"]}
    options["common_kwargs"] = {"common": "real"}
    assert results(group, "tell", **options) == [(2, "first", "real"), (0, "second", "real")]
    assert calls_so_far(group) == [[("second", "real")], [], [("first", "real")], []]
    found = results(group, "tell", make_dummy_calls_to_free_axes=True, **options)
    assert found == [(2, "first", "real"), (0, "second", "real")]
    assert calls_so_far(group) == [
        [("second", "real")],
        [(None, "real")],
        [("first", "real")],
        [(None, "real")],
    ]


def test_empty_slices_and_none_travel(group: RayWorkerGroup) -> None:
    """A shard without rows is a shard like any other."""
    found = results(group, "tell", in_sharded_axes=DATA, data=[[], None])
    assert [value for _, value, _ in found] == [[], None]
    calls_so_far(group)


def test_arguments_of_any_name_arrive(group: RayWorkerGroup) -> None:
    """Also those that the machinery in between might take for its own."""
    names = {"method": 1, "args": 2, "name": 4, "num_returns": 5, "rank": 6, "kwargs": 7}
    future = group.run_single_worker_single_data("echo", 0, **names)
    assert ray.get(future) == ((), names)
    assert ray.get(group.workers[0].echo.remote(1, **names)) == ((1,), names)


def test_references_are_resolved_at_the_top_only(group: RayWorkerGroup) -> None:
    """In every kind of call; a reference inside a list arrives as it is."""
    held = ray.put("held")
    assert ray.get(group.run_single_worker_single_data("tell", 0, data=held))[1] == "held"
    everyone = ray.get(group.run_all_workers_single_data("tell", data=held))
    assert {value for _, value, _ in everyone} == {"held"}
    each = ray.get(
        group.run_all_workers_multiple_data(
            "tell", data=[held, 1, 2, ray.put(3)], common_kwargs={"common": held}
        )
    )
    assert [(value, common) for _, value, common in each] == [
        ("held", "held"),
        (1, "held"),
        (2, "held"),
        (3, "held"),
    ]
    sharded = results(group, "tell", in_sharded_axes=DATA, data=[held, "here"])
    assert [value for _, value, _ in sharded] == ["held", "here"]
    (nested,) = ray.get(group.run_single_worker_single_data("tell", 0, data=[held]))[1]
    assert ray.get(nested) == "held"
    calls_so_far(group)


def test_each_distinct_value_is_pickled_once(group: RayWorkerGroup) -> None:
    """However many ranks receive it, in every kind of call."""
    same, common, first, second = (CountedPickle() for _ in range(4))
    found = ray.get(group.run_all_workers_single_data("tell", data=same))
    assert [value for _, value, _ in found] == ["pickled 1"] * 4
    results(
        group,
        "tell",
        in_sharded_axes=DATA,
        replicate_on_axes=TENSOR,
        data=[first, second],
        common_kwargs={"common": common},
    )
    assert [each.times for each in (same, common, first, second)] == [1, 1, 1, 1]
    alone = CountedPickle()
    ray.get(group.run_single_worker_single_data("tell", 1, data=alone))
    assert alone.times == 1
    calls_so_far(group)


def test_a_large_value_arrives_whole_on_every_rank(group: RayWorkerGroup) -> None:
    """Whatever way it travels."""
    sizes = ray.get(group.run_all_workers_single_data("size_of", data=bytes(3_000_000)))
    assert sizes == [3_000_000] * 4
    slices = [bytes(10), bytes(200_000)]
    found = results(group, "size_of", in_sharded_axes=DATA, replicate_on_axes=TENSOR, data=slices)
    assert found == [10, 10, 200_000, 200_000]


def test_what_cannot_be_pickled_leaves_no_call_half_sent(group: RayWorkerGroup) -> None:
    """The value of rank 3 stops the call of rank 0."""
    calls_so_far(group)
    with pytest.raises(PlanError) as caught:
        group.run_all_workers_multiple_data("tell", data=[0, 1, 2, NotPicklable()])
    assert "data[3]" in str(caught.value)
    assert "this object stays where it is" in str(caught.value)
    with pytest.raises(PlanError, match=r"common: "):
        results(
            group,
            "tell",
            in_sharded_axes=DATA,
            data=[1, 2],
            common_kwargs={"common": NotPicklable()},
        )
    with pytest.raises(PlanError, match=r"data: "):
        group.run_single_worker_single_data("tell", 0, data=NotPicklable())
    assert calls_so_far(group) == [[], [], [], []]


def test_a_rank_that_does_not_return_still_fails_the_call(group: RayWorkerGroup) -> None:
    """Its result is not sent, its error is."""
    options: dict[str, Any] = {"in_sharded_axes": [], "replicate_on_axes": DATA + TENSOR}
    options["output_is_replicated"] = DATA + TENSOR
    assert results(group, "rank", **options) == [2]
    with pytest.raises(KeyError) as caught:
        results(group, "fail_on", common_kwargs={"ranks": [1]}, **options)
    assert isinstance(caught.value, WorkerGroupError)
    text = str(caught.value)
    assert "worker group 'plain', fail_on(): 1 of 4 ranks failed; first rank 1" in text
    assert "(data_parallel=1, tensor_parallel=1)" in text
    assert "KeyError: 'it broke'" in text


def test_equal_failures_are_told_once(group: RayWorkerGroup) -> None:
    """With all their ranks, and those that returned."""
    future = MultiWorkerFuture(group.run_all_workers_single_data("fail_on", ranks=[0, 2, 3]))
    with pytest.raises(WorkerGroupError) as caught:
        future.get_results(group)
    assert caught.value.report.failed == (0, 2, 3)
    assert caught.value.report.finished == (1,)
    assert "ranks 0, 2-3: KeyError: 'it broke'" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    assert sorted(caught.value.errors) == [0, 2, 3]


def test_a_failure_that_cannot_be_unpickled_is_still_told(group: RayWorkerGroup) -> None:
    """Its type and text arrive, with the ranks."""
    future = MultiWorkerFuture(group.run_all_workers_single_data("fail_oddly"))
    with pytest.raises(WorkerGroupError, match="out of luck") as caught:
        future.get_results(group)
    assert caught.value.report.failed == (0, 1, 2, 3)


def test_a_deadline_says_who_has_not_answered(group: RayWorkerGroup) -> None:
    """The others' answers are counted."""
    future = group.run_all_workers_sharded_data(
        "pause",
        replicate_on_axes=DATA + TENSOR,
        common_kwargs={"seconds": 1.5, "rank": 3},
    )
    with pytest.raises(TimeoutError) as caught:
        group.get_all_worker_results(future, timeout=0.5)
    text = str(caught.value)
    assert "pause(): 1 of 4 ranks did not answer" in text
    assert "no answer yet: rank 3" in text
    assert "returned: ranks 0-2" in text
    assert group.get_all_worker_results(future) == [2, 3, 0, 1]


def test_streams_come_in_order_from_those_that_return(group: RayWorkerGroup) -> None:
    """Replicas run theirs too, and send nothing."""
    options: dict[str, Any] = {"in_sharded_axes": DATA, "replicate_on_axes": TENSOR}
    options["output_is_replicated"] = TENSOR
    found = results(group, "count", number=[2, 3], **options)
    assert found == [(2, 0), (2, 1), (0, 0), (0, 1), (0, 2)]
    before = ray.get(group.run_all_workers_single_data("taken_so_far"))
    assert results(group, "take", number=[2, 3], **options) == [0, 1, 0, 1, 2]
    after = ray.get(group.run_all_workers_single_data("taken_so_far"))
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 3, 2, 2]


def test_streams_run_at_the_same_time(group: RayWorkerGroup, tmp_path: Path) -> None:
    """None is drained to its end before the next one starts: each step needs all four."""
    found = results(
        group,
        "meet",
        replicate_on_axes=DATA + TENSOR,
        common_kwargs={"folder": str(tmp_path), "parties": 4, "steps": 3},
    )
    assert found == [0, 1, 2] * 4


def test_a_stream_that_breaks_off_names_its_rank(group: RayWorkerGroup) -> None:
    """Whether it returns or not."""
    for breaks in (0, 1):
        with pytest.raises(LookupError, match=f"rank {breaks} has no value 2") as caught:
            results(
                group,
                "breaks_off",
                replicate_on_axes=DATA + TENSOR,
                output_is_replicated=TENSOR,
                common_kwargs={"rank": breaks, "after": 2},
            )
        assert isinstance(caught.value, WorkerGroupError)
        assert caught.value.report.failed == (breaks,)


def test_generators_as_proxies(group: RayWorkerGroup) -> None:
    """One per returning worker, in shard order, for the caller to consume."""
    future = group.run_all_workers_sharded_data(
        "count",
        in_sharded_axes=DATA,
        replicate_on_axes=TENSOR,
        output_is_replicated=TENSOR,
        number=[2, 3],
    )
    first, second = group.get_all_worker_results(future, return_generators_as_proxies=True)
    assert ray.get(list(second)) == [(0, 0), (0, 1), (0, 2)]
    assert ray.get(list(first)) == [(2, 0), (2, 1)]


def test_the_axes_can_be_sent_to_workers(group: RayWorkerGroup) -> None:
    """Real programs give the NamedSharding to their workers."""
    sent = ray.get(group.run_single_worker_single_data("tell", 0, data=PERMUTED))[1]
    assert sent == PERMUTED
    assert sent.get_worker_coords(1) == {"data_parallel": 1, "tensor_parallel": 1}
    calls_so_far(group)


def test_two_returns_through_a_group(group: RayWorkerGroup) -> None:
    """A method with num_returns=2 gives two objects per worker."""
    two = group.run_single_worker_single_data("pair", 2, data=5)
    assert ray.get(two) == [2, 5]
    everyone = group.run_all_workers_single_data("pair")
    assert [ray.get(each) for each in everyone] == [[0, 0], [1, 0], [2, 0], [3, 0]]
    found = results(group, "pair", in_sharded_axes=DATA, replicate_on_axes=TENSOR, data=[7, 8])
    assert found == [[2, 7], [3, 7], [0, 8], [1, 8]]


def test_a_careless_decorator_loses_nothing(group: RayWorkerGroup) -> None:
    """Its arguments are whatever the call says."""
    assert ray.get(group.run_single_worker_single_data("wrapped", 1, value=2)) == (
        1,
        (),
        {"value": 2},
    )


def test_a_future_made_by_hand(group: RayWorkerGroup) -> None:
    """Any futures, any order of results."""
    futures = group.run_all_workers_single_data("rank")
    assert MultiWorkerFuture(futures).get_results(group) == [0, 1, 2, 3]
    assert MultiWorkerFuture(futures, [3, 1]).get_results(group) == [3, 1]
    some = MultiWorkerFuture(futures[2:], return_from_workers=[3], called_workers=[2, 3])
    assert group.get_all_worker_results(some) == [3]
    handles = MultiWorkerFuture([group.workers[3].rank.remote()], called_workers=[3])
    assert handles.get_results(group) == [3]
    assert MultiWorkerFuture([]).get_results(group) == []


def test_a_future_made_by_hand_must_not_contradict_itself(group: RayWorkerGroup) -> None:
    """Every problem at once."""
    futures = group.run_all_workers_single_data("rank")
    with pytest.raises(PlanError) as caught:
        MultiWorkerFuture(futures, return_from_workers=[0, 9], called_workers=[0, 1])
    assert str(caught.value) == (
        "MultiWorkerFuture: 2 problems\n"
        "  - called_workers: 2 ranks for 4 futures; give one rank per future\n"
        "  - return_from_workers: ranks [9] were not called; the ranks called are [0, 1]"
    )
    with pytest.raises(PlanError, match=r"called_workers: rank 1 occurs 2 times"):
        MultiWorkerFuture(futures, called_workers=[0, 1, 1, 2])
    with pytest.raises(PlanError, match=r"futures: a value of type ObjectRef"):
        MultiWorkerFuture(futures[0])
    with pytest.raises(PlanError, match="future_bundle: a value of type list"):
        group.get_all_worker_results(futures)  # type: ignore[arg-type]
