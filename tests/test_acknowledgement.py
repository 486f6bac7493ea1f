"""What hosts say once their workers are made, judged against what the plan counts on."""

import pytest
from attrs import evolve

from planner.acknowledgement import (
    Acknowledgement,
    judge_affinity,
    judge_answers,
    judge_class,
    memory_notes,
)
from planner.affinity import Affinity
from planner.class_source import AssumedClass
from planner.launch import LaunchPlan, identity_of
from planner.outcomes import RankIdentity
from planner.signatures import Method, MethodKind
from tests.strategies import launched, spec_of

READ = "read from its source"
PLAIN = AssumedClass(configures=False, found=READ)
ASKED = AssumedClass(configures=True, found=READ)
SAID = Acknowledgement(digest="a", configures=False)
PLAN = launched([2, 1])
BOUND = Affinity(cores=(0, 1), numa_node=0, binds_memory=True)


def who(plan: LaunchPlan = PLAN) -> dict[int, RankIdentity]:
    """The ranks of a plan."""
    return {rank: identity_of(plan, rank) for rank in range(plan.world_size)}


def of_class(
    *said: Acknowledgement, assumed: AssumedClass = PLAIN, plan: LaunchPlan = PLAN, kind: str = ""
) -> list[str]:
    """The findings about a class with one method."""
    method = Method(name="run", kind=MethodKind(kind or "plain"))
    acknowledged = dict(enumerate(said))
    return [str(each) for each in judge_class(plan, assumed, {"run": method}, acknowledged, who())]


def test_a_class_that_is_as_it_was_taken() -> None:
    """Nothing is found."""
    assert of_class(SAID, SAID, SAID) == []
    assert of_class(*[evolve(SAID, configures=True)] * 3, assumed=ASKED) == []


def test_versions_that_differ() -> None:
    """The first rank that differs from rank 0 is named, the others are counted."""
    other = evolve(SAID, digest="b")
    assert of_class(SAID, other, other) == [
        (
            "package.Worker: it has other methods on rank 1 on node 10.0.0.1, GPU 1 and 1 more "
            "ranks than on rank 0 on node 10.0.0.1, GPU 0: the nodes hold different versions of "
            "it; bring the same version to every node"
        )
    ]


@pytest.mark.parametrize("kind", ["async", "async generator"])
def test_hidden_async_methods(kind: str) -> None:
    """They are refused on a host without an event loop, and only there."""
    assert of_class(SAID, SAID, SAID, kind=kind) == [
        (
            "package.Worker: it has async methods that its source does not show (run); start the "
            "group with asynchronous=True"
        )
    ]
    assert of_class(SAID, kind=kind, plan=evolve(PLAN, asynchronous=True)) == []
    assert of_class(SAID, kind="generator") == []


def test_configure_worker_that_was_not_seen() -> None:
    """What was taken, how it was found, where it is otherwise, what would work."""
    assert of_class(SAID, SAID, evolve(SAID, configures=True)) == [
        (
            "package.Worker: it was taken (read from its source) for a class without "
            "configure_worker, so nobody asked what its workers need, and it has one on rank 2 on "
            "node 10.0.0.2, GPU 0; define configure_worker in the body of the class or of a base, "
            "where its source shows it, and bring the same version to every node"
        )
    ]


def test_configure_worker_that_is_not_there() -> None:
    """Its answers are in the plan of a class that has other needs, or none."""
    expected = (
        "package.Worker: it was taken (read from its source) for a class with configure_worker, "
        "and it has none on {}; bring the same version to every node"
    )
    there = evolve(SAID, configures=True)
    assert of_class(there, SAID, there, assumed=ASKED) == [
        expected.format("rank 1 on node 10.0.0.1, GPU 1")
    ]
    found = judge_answers(spec_of([1]), ASKED, [], "n7")
    assert [str(each) for each in found] == [expected.format("node n7, where it was asked")]
    assert judge_answers(spec_of([1]), ASKED, [({}, {}, {})], "n7") == ()


def test_everything_about_a_class_is_found_at_once() -> None:
    """Three findings for one class."""
    other = evolve(SAID, digest="b", configures=True)
    assert len(of_class(SAID, other, SAID, kind="async")) == 3


def bound(*said: Acknowledgement) -> list[str]:
    """The findings about a group of which rank 1 is to be bound."""
    workers = tuple(evolve(w, affinity=BOUND if w.rank == 1 else None) for w in PLAN.workers)
    found = judge_affinity(evolve(PLAN, workers=workers), dict(enumerate(said)), who())
    return [str(each) for each in found]


def test_cores_are_read_back() -> None:
    """Those of ranks that the plan binds must be the plan's."""
    assert bound(SAID, evolve(SAID, cores=(0, 1)), evolve(SAID, cores=(5,))) == []
    remedy = "something else on its node limits it; start the group with numa_binding=False"
    rank = "rank 1 on node 10.0.0.1, GPU 1: it should run on cores (0, 1) and"
    assert bound(SAID, evolve(SAID, cores=(0,)), SAID) == [f"{rank} runs on (0,): {remedy}"]
    assert bound(SAID, SAID, SAID) == [f"{rank} is bound to none: {remedy}"]


def test_only_ranks_that_have_spoken_are_judged() -> None:
    """At a restart the others go on."""
    assert bound(SAID) == []


def test_memory_that_is_not_bound_is_only_told() -> None:
    """By the rank and the reason."""
    said = {0: SAID, 1: evolve(SAID, memory_problem="set_mempolicy: no")}
    assert memory_notes(said, who()) == (
        "the memory of rank 1 on node 10.0.0.1, GPU 1 is not bound: set_mempolicy: no",
    )
