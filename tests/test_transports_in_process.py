"""Links and transports on the in-process backend: the same plans, carried out by copies."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ray.exceptions import ActorDiedError

from planner.call_requests import Route
from planner.failure_policy import Domain, FailurePolicy
from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import PerRank
from runtime import RayWorkerBuilder, RayWorkerGroup
from runtime.errors import WorkerGroupError
from runtime.links import link_of
from runtime.testing import InProcessCluster, NothingWillHappenError
from runtime.transports import link
from tests.transport_workers import TensorWorker

WORKER = "tests.transport_workers.TensorWorker"
RANKS = FailurePolicy(domain=Domain.RANK, first_pause=0.0)
Groups = tuple[RayWorkerGroup, RayWorkerGroup]


def _started(cluster: InProcessCluster, name: str, bundles: list[int]) -> RayWorkerGroup:
    return RayWorkerGroup(
        cluster,
        RayWorkerBuilder(WORKER),
        bundle_indices_list=[(0, [bundle]) for bundle in bundles],
        name_prefix=name,
        sharding_annotations=NamedSharding(range(len(bundles)), ["data_parallel"]),
        tensor_transport="gloo",
        failure_policy=RANKS,
    )


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """One node."""
    with InProcessCluster([6]) as made:
        yield made


@pytest.fixture
def groups(cluster: InProcessCluster) -> Iterator[Groups]:
    """Three ranks that produce, and two that consume."""
    with (
        _started(cluster, "generator", [0, 1, 2]) as generator,
        _started(cluster, "trainer", [3, 4]) as trainer,
    ):
        yield generator, trainer


def test_the_same_program_runs_without_a_transport(groups: Groups) -> None:
    """With the same plan as on Ray."""
    generator, trainer = groups
    batch = {"ids": torch.arange(5), "words": list("abcde")}

    with link(generator, trainer):
        first = generator.using(transport="gloo").call(TensorWorker.same, batch)
        held = first.held()
        second = trainer.call(TensorWorker.same, held.as_argument())

        assert first.plan.transport == "gloo"
        assert {each.route for each in second.plan.arguments[0].payloads} == {Route.DIRECT}
        assert second.result()["ids"].tolist() == [0, 1, 2, 3, 4]
        assert held.fetch()["words"] == list("abcde")
        assert first.result()["words"] == list("abcde")


def test_an_ended_link_leaves_the_store(groups: Groups) -> None:
    """What was held in its time goes through it; new calls are refused, new links made."""
    generator, trainer = groups
    calls = generator.using(transport="gloo")
    with link(generator, trainer) as made:
        held = calls.call(TensorWorker.twice, torch.ones(4)).held()
        assert link_of(held.homes) == made.plan.name

    after = trainer.call(TensorWorker.total, held.as_argument())

    assert (after.result(), link_of(held.homes)) == (8.0, "")
    assert "held for gloo, and the group is in no link" in after.plan.reason
    with pytest.raises(PlanError, match="the group is in no link; link the groups first"):
        calls.call(TensorWorker.twice, torch.ones(4)).held()
    assert (
        calls.using(transport="object store").call(TensorWorker.total, torch.ones(3)).result() == 3
    )
    with link(trainer, generator) as again:
        assert again.is_up
    assert made.end()


def test_a_rank_that_was_started_again_is_not_in_the_link(groups: Groups) -> None:
    """Until the groups are linked anew."""
    generator, trainer = groups
    made = link(generator, trainer)
    generator.abort([1])
    generator.recover()

    with pytest.raises(PlanError, match=f"rank 1 started after the link '{made.plan.name}'"):
        generator.using(transport="gloo").plan_call(TensorWorker.twice, torch.ones(3))
    assert made.end()
    with link(generator, trainer):
        held = generator.using(transport="gloo").call(TensorWorker.twice, torch.ones(3)).held()
        assert trainer.call(TensorWorker.total, held.as_argument()).result() == 6.0


def test_errors_tell_of_dead_members_of_other_groups(groups: Groups) -> None:
    """For Ray ends a receiver together with its sender."""
    generator, trainer = groups
    with link(generator, trainer):
        generator.abort([1])
        with pytest.raises(WorkerGroupError) as raised:
            trainer.call("fail", on=0).by_rank(timeout=60)

    told = "linked worker group 'generator': rank 1 dead (rank 1 (data_parallel=1)"
    assert told in str(raised.value)
    assert "end the link, recover the groups, and link them again" in str(raised.value)


def test_what_is_no_group_is_refused(groups: Groups) -> None:
    """A part of one too; and what is no time."""
    generator, _ = groups

    with pytest.raises(PlanError) as raised:
        link(generator.at(data_parallel=0), 3, timeout=0)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="transport: 'nccl' is not offered"):
        generator.using(transport="nccl")

    assert [each.path for each in raised.value.findings] == ["timeout", "groups[0]", "groups[1]"]


def test_groups_of_two_clusters_are_not_linked(groups: Groups) -> None:
    """Nothing goes from one to the other."""
    with (
        InProcessCluster([1]) as other,
        _started(other, "far", [0]) as far,
        pytest.raises(PlanError, match="they are on different clusters"),
    ):
        link(groups[0], far)


def test_results_of_an_ended_group_are_refused(groups: Groups) -> None:
    """Before the first message; the link says which group is gone, and the other one goes on."""
    generator, trainer = groups
    with link(generator, trainer) as made:
        held = generator.using(transport="gloo").call(TensorWorker.twice, torch.ones(4)).held()
        assert generator.shutdown()

        with pytest.raises(PlanError, match="those who hold it were ended; its results are lost"):
            trainer.call(TensorWorker.total, held.as_argument()).result()
        with pytest.raises(ActorDiedError) as raised:
            held.fetch()

        assert isinstance(raised.value, WorkerGroupError)
        assert not made.is_up
        assert "without 'generator', which was ended" in repr(made)
        calls = trainer.using(transport="gloo")
        again = calls.call(TensorWorker.twice, torch.ones(4)).held()
        assert trainer.call(TensorWorker.total, again.as_argument()).result() == 8.0


@pytest.mark.parametrize("recovers", [False, True])
def test_results_of_a_rank_that_is_gone_are_refused(groups: Groups, recovers: bool) -> None:
    """Also when another one has taken its place; those of the others are not given alone."""
    generator, trainer = groups
    with link(generator, trainer):
        held = generator.using(transport="gloo").call(TensorWorker.twice, torch.ones(4)).held()
        assert held.fetch().tolist() == [2.0] * 4
        generator.abort([1])
        if recovers:
            generator.recover()

        with pytest.raises(PlanError, match=r"its results are lost \(slice 1 of 3\)"):
            trainer.call(TensorWorker.total, held.as_argument()).result()


def test_results_in_the_store_outlive_their_makers(groups: Groups) -> None:
    """Where they are not cut they are given as ever."""
    generator, trainer = groups
    held = generator.call(TensorWorker.twice, torch.ones(2)).held()
    held.fetch()
    generator.shutdown()

    assert trainer.call(TensorWorker.total, held.as_argument()).result() == 4.0


def test_a_linked_group_that_nobody_holds_is_ended(cluster: InProcessCluster) -> None:
    """At once, and the link with the last of its groups."""
    generator, trainer = _started(cluster, "generator", [0]), _started(cluster, "trainer", [1])
    made = link(generator, trainer)
    link_name, backend = made.plan.name, cluster.backend

    del generator
    assert [name for name in backend.names() if not name.startswith("trainer")] == []
    assert not made.is_up

    del made
    assert backend.direct.holds(link_name)
    del trainer
    assert (backend.names(), backend.direct.holds(link_name)) == (frozenset(), False)


def test_a_held_result_is_no_argument_without_its_batch(groups: Groups) -> None:
    """However it is given; nothing is sent."""
    generator, trainer = groups
    with link(generator, trainer):
        held = generator.using(transport="gloo").call(TensorWorker.twice, torch.ones(3)).held()
        one, several = held.references[0], list(held.references[:2])
        told = "results that are held for gloo; give the held batch itself"
        by_rank = {"on": PerRank()}

        with pytest.raises(PlanError, match=told):
            trainer.call("total", one)
        with pytest.raises(PlanError, match=told):
            trainer.call("total", several)
        with pytest.raises(PlanError, match=told):
            trainer.call("fail", on=one)
        with pytest.raises(PlanError, match=told):
            trainer.using(roles=by_rank).call("fail", on=[0, one])
        with pytest.raises(PlanError, match=told):
            trainer.run_all_workers_single_data("fail", on=one)


@pytest.mark.parametrize("transport", ["gloo", "object store"])
def test_fetching_raises_as_a_call_does(groups: Groups, transport: str) -> None:
    """With the group, the method and the rank, and of the cause's own type too."""
    generator, trainer = groups
    with link(generator, trainer):
        calls = generator.using(transport=transport)
        held = calls.call(TensorWorker.failing, torch.ones(3)).held()

        with pytest.raises(KeyError) as raised:
            held.fetch()

    assert isinstance(raised.value, WorkerGroupError)
    assert "worker group 'generator', failing(), held in 3 slices: 1 of 3" in str(raised.value)
    assert raised.value.report.failed == (0,)


@pytest.mark.parametrize("first", [0, 0.5])
def test_those_who_have_not_given_a_link_up_are_asked_again(
    cluster: InProcessCluster, groups: Groups, caplog: pytest.LogCaptureFixture, first: float
) -> None:
    """One that stands still has not, however often it is asked, until it goes on or is ended."""
    generator, trainer = groups
    made = link(generator, trainer)
    cluster.stop_worker(trainer, 1)

    assert not made.end(first)
    assert not made.is_up
    caplog.clear()
    assert not made.end(1.0)
    assert caplog.messages == [f"link {made.plan.name!r}: not given up by trainer rank 1"]
    with pytest.raises(NothingWillHappenError):
        made.end(None)
    cluster.kill_worker(trainer, 1)
    assert made.end(0)


def test_the_end_of_a_link_keeps_its_time(cluster: InProcessCluster, groups: Groups) -> None:
    """Waiting for Ray to end those who sent to a dead member is part of it."""
    generator, trainer = groups
    made = link(generator, trainer)
    cluster.kill_worker(trainer, 0)
    cluster.stop_worker(trainer, 1)
    begun = cluster.now

    assert not made.end(1.5)
    assert cluster.now - begun == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("timeout", ["x", -1, float("nan"), True])
def test_a_link_is_not_ended_in_what_is_no_time(groups: Groups, timeout: Any) -> None:
    """It stays up."""
    generator, trainer = groups
    with link(generator, trainer) as made:
        with pytest.raises(PlanError, match=f"link {made.plan.name!r}: timeout: .* is not a time"):
            made.end(timeout)
        assert made.is_up
        assert link_of([]) == ""
