"""Whether to reserve, to look again or to give up; and which running cluster to join."""

import pytest
from attrs import evolve

from planner.amounts import Amounts
from planner.findings import Finding, ResourceInsufficientError
from planner.inventory import Inventory
from planner.local_cluster import GPU_MARK_LABEL, gpu_mark, may_join
from planner.requests import GroupRequest, virtual_cluster_request
from planner.reservation import plan_reservation
from planner.waiting import (
    PROGRESS_SECONDS,
    LookAgain,
    Looks,
    Reserve,
    first_step,
    next_report,
    progress_text,
    still_waiting,
)
from tests.places_cases import small_nodes

REQUEST = virtual_cluster_request([2, 2], name="train")


def _busy() -> Inventory:
    free = Amounts(milli_cpus=64_000, gpu_share=10_000)
    return Inventory(evolve(node, free=free) for node in small_nodes(2, 2).nodes)


def test_busy_is_reserved_and_waited_for() -> None:
    """What others hold comes back: Ray is asked at once."""
    plan = plan_reservation([REQUEST], _busy())
    assert first_step(plan, plan, Looks(), 6, 180.0) == Reserve()


def test_crowding_is_looked_at_again_before_it_is_taken() -> None:
    """What was given back a moment ago may still be counted as held on one of the nodes."""
    request = evolve(REQUEST, apart=True)
    nodes = small_nodes(2, 4)
    first = evolve(nodes.nodes[0], free=Amounts(milli_cpus=64_000))
    held = Inventory([first, nodes.nodes[1]])
    plan, roomy = plan_reservation([request], held), plan_reservation([request], nodes)
    step = first_step(plan, roomy, Looks(), 6, 180.0)
    assert isinstance(step, LookAgain)
    assert step.why == "it has room on 1 node now, and on 2 once they are free"
    assert step.pause < 1
    assert first_step(plan, roomy, Looks(crowded=4), 6, 180.0) == Reserve()
    assert first_step(roomy, roomy, Looks(), 6, 180.0) == Reserve()


def test_impossible_is_looked_at_again_with_growing_pauses() -> None:
    """Nodes may still be joining; the last look raises."""
    plan = plan_reservation([REQUEST], small_nodes(2, 1))
    steps = [first_step(plan, plan, Looks(lacking=look), 3, 180.0) for look in range(2)]
    assert [each.pause for each in steps if isinstance(each, LookAgain)] == [1.0, 2.0]
    assert all("missing on" in each.why for each in steps if isinstance(each, LookAgain))
    with pytest.raises(ResourceInsufficientError, match="1 GPU"):
        first_step(plan, plan, Looks(lacking=2), 3, 180.0)


def test_looks_at_crowding_leave_those_at_what_is_lacking() -> None:
    """A node that leaves after a crowded start may still come back, as often as without it."""
    request = evolve(REQUEST, apart=True)
    nodes = small_nodes(2, 4)
    first = evolve(nodes.nodes[0], free=Amounts(milli_cpus=64_000))
    crowded = plan_reservation([request], Inventory([first, nodes.nodes[1]]))
    roomy = plan_reservation([request], nodes)
    lacking = plan_reservation([REQUEST], small_nodes(2, 1))
    made, pauses = Looks(), []
    for plan in (crowded, crowded, lacking, crowded, crowded, lacking):
        step = first_step(plan, roomy, made, 3, 180.0)
        assert isinstance(step, LookAgain)
        made = step.made
        pauses.append(step.pause)
    assert pauses == [0.1, 0.2, 1.0, 0.4, 0.8, 2.0]
    assert made == Looks(lacking=2, crowded=4)
    assert first_step(crowded, roomy, made, 3, 180.0) == Reserve()
    with pytest.raises(ResourceInsufficientError, match="1 GPU"):
        first_step(lacking, roomy, made, 3, 180.0)


def test_impossible_is_not_looked_at_again_past_the_deadline() -> None:
    """A look that would come later than may be waited is not made: the error comes now."""
    plan = plan_reservation([REQUEST], small_nodes(2, 1))
    assert isinstance(first_step(plan, plan, Looks(lacking=1), 6, 2.0), LookAgain)
    with pytest.raises(ResourceInsufficientError, match="1 GPU"):
        first_step(plan, plan, Looks(lacking=1), 6, 1.9)


def test_a_rule_that_leaves_no_node_is_the_reason() -> None:
    """While looking again, and in the end."""
    plan = plan_reservation([REQUEST], Inventory([]))
    why = Finding("exclude_nodes", "it leaves out all 3 nodes: a, b, c", "name fewer of them")
    step = first_step(plan, plan, Looks(), 6, 180.0, why)
    assert isinstance(step, LookAgain)
    assert step.why == "exclude_nodes: it leaves out all 3 nodes: a, b, c"
    with pytest.raises(ResourceInsufficientError) as caught:
        first_step(plan, plan, Looks(lacking=5), 6, 180.0, why)
    assert caught.value.findings == (why,)


def test_a_wait_tells_soon_and_then_now_and_then() -> None:
    """The first report comes at once, the next ones seldom, none after the deadline."""
    assert 0 < next_report(0, 180.0) < 1
    assert next_report(1, 180.0) == next_report(7, 180.0) == PROGRESS_SECONDS
    assert next_report(0, 0.1) == 0.1
    assert next_report(3, 4.0) == 4.0
    assert next_report(3, -0.5) == 0


def test_only_what_is_missing_is_waited_for() -> None:
    """Placement groups that are ready are asked for no more; a unified one is whole or not."""
    uneven = evolve(REQUEST, bundles_per_node=(2, 0, 3))
    left = still_waiting(uneven, [True, False])
    assert left is not None
    assert left.bundles_per_node == (3,)
    assert still_waiting(REQUEST, [True, True]) is None
    unified: GroupRequest = evolve(REQUEST, unified=True)
    assert still_waiting(unified, [False]) == unified


def test_progress_names_what_is_busy_and_where() -> None:
    """The text says how far it is, what is missing, on which node."""
    told = progress_text("train", plan_reservation([REQUEST], _busy()), [False, False], 20.4, 180.0)
    assert told.startswith(
        "virtual cluster 'train': 2 of 2 placement groups are not ready after 20 of 180 s: "
    )
    assert "it fits on node 10.0.0.1 once 1 GPU more is free there" in told
    fits = plan_reservation([REQUEST], small_nodes(2, 2))
    assert "Ray should place it soon" in progress_text("train", fits, [False], 1.0, 2.0)


@pytest.mark.parametrize(
    ("environment", "mark"),
    [
        ({}, "all"),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, "0_1"),
        ({"CUDA_VISIBLE_DEVICES": "10,2"}, "2_10"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "none"),
        ({"HIP_VISIBLE_DEVICES": "3"}, "3"),
    ],
)
def test_mark_says_which_gpus_a_driver_sees(environment: dict[str, str], mark: str) -> None:
    """Their order does not matter, and none is not all."""
    assert gpu_mark(environment) == mark


def test_local_cluster_is_joined_by_its_like_only() -> None:
    """A marked cluster wants the same GPUs; one that nobody marked must be announced."""
    assert may_join([{GPU_MARK_LABEL: "0_1"}], "0_1", announced=False)
    assert not may_join([{GPU_MARK_LABEL: "0_1"}], "0", announced=True)
    assert may_join([{}, {"zone": "a"}], "0", announced=True)
    assert not may_join([{}, {"zone": "a"}], "0", announced=False)
