"""Links and transports on the in-process backend: the same plans, carried out by copies."""

from collections.abc import Iterator

import pytest
import torch

from planner.call_requests import Route
from planner.failure_policy import Domain, FailurePolicy
from planner.findings import PlanError
from planner.mesh import NamedSharding
from runtime import RayWorkerBuilder, RayWorkerGroup
from runtime.errors import WorkerGroupError
from runtime.testing import InProcessCluster
from runtime.links import link_of
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
