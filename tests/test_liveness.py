"""What the states of workers mean for those who ask them, replace them, or end them."""

import pytest

from planner.liveness import (
    DEAF,
    WorkerSeen,
    WorkerState,
    WorkerStatus,
    deaf_ranks,
    known_states,
    plan_statuses,
    responding,
    stack_texts,
)
from planner.outcomes import RankIdentity
from planner.recovery import failed_ranks, lost_nodes
from planner.teardown import plan_teardown
from tests.strategies import launched

STATUSES = tuple(
    WorkerStatus(identity=RankIdentity(rank=rank), state=state)
    for rank, state in enumerate(WorkerState)
)
"""One rank in every state: idle, running, stopped, dead, out of reach."""


def test_who_responds() -> None:
    """A process that is there and runs on."""
    assert responding(STATUSES) == {0: True, 1: True, 2: False, 3: False, 4: False}
    assert deaf_ranks(STATUSES) == (2, 3, 4)


@pytest.mark.parametrize("state", WorkerState)
def test_a_ping_a_recovery_and_an_end_agree(state: WorkerState) -> None:
    """Whoever does not respond is not asked at the end, and is replaced by a recovery."""
    statuses = (WorkerStatus(identity=RankIdentity(rank=0), state=state),)
    plan = plan_teardown(launched([1]), known_states(statuses, []), cleanup="close")
    deaf = state in DEAF
    assert responding(statuses) == {0: not deaf}
    assert plan.asked == (() if deaf else (0,))
    assert failed_ranks(statuses, (), ()) == ((0,) if deaf else ())


def test_what_is_known_at_the_end() -> None:
    """What was seen just now, else the ranks whose death has been noticed."""
    assert known_states(None, [1, 3]) == {1: WorkerState.DEAD, 3: WorkerState.DEAD}
    seen = plan_statuses([RankIdentity(rank=0), RankIdentity(rank=1)], {0: WorkerSeen(state="S")})
    assert known_states(seen, [0]) == {0: WorkerState.IDLE, 1: WorkerState.OUT_OF_REACH}


def test_whom_a_recovery_is_about() -> None:
    """Who is gone, and who is still in a failed call; not who was given up."""
    assert failed_ranks(STATUSES, broken=[1, 3], absent={4}) == (1, 2, 3)


def test_everyone_who_was_asked_for_has_stacks_or_a_reason() -> None:
    """In the order in which they were asked for."""
    found = stack_texts([3, 1, 2], {1: "in train"}, lost=[3], seconds=2.0)
    assert list(found.items()) == [
        (3, "(its node is lost)"),
        (1, "in train"),
        (2, "(its node did not answer in 2 s)"),
    ]


def test_which_nodes_are_lost() -> None:
    """Only those of failed ranks."""
    nodes = {0: "a", 1: "b", 2: "b", 3: "c"}
    assert lost_nodes(nodes, failed=[1, 2, 3], live={"a", "c"}) == ("b",)
    assert lost_nodes(nodes, failed=[3], live=set()) == ("c",)
