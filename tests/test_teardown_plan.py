"""Teardown as a plan: who is asked, in what order ranks are ended, and what is reported."""

import pytest

from planner.findings import PlanError
from planner.group import GroupArguments, plan_group
from planner.launch import HostFacts, LaunchPlan, plan_launch
from planner.liveness import WorkerSeen, WorkerState, plan_statuses, status_text
from planner.outcomes import RankIdentity
from planner.teardown import (
    INTERRUPTED,
    TeardownReport,
    plan_teardown,
    report_of_lost_session,
    teardown_text,
    why_over,
    with_clean_up,
)


def _plan() -> LaunchPlan:
    spec = plan_group(
        GroupArguments(worker_class="t.Trainer", bundle_counts=(3,), name_prefix="policy")
    )
    return plan_launch(
        spec, [HostFacts(node_id="n0", address="10.0.0.1", port=1) for _ in range(3)]
    )


def test_rank_zero_goes_last() -> None:
    """It holds the rendezvous store; all are asked at the same time."""
    plan = plan_teardown(_plan(), cleanup="close")
    assert plan.asked == (0, 1, 2)
    assert plan.waves == ((1, 2), (0,))
    assert plan.names == ("policy-0-0", "policy-0-1", "policy-0-2")
    assert plan.grace == 30.0


def test_nobody_asks_what_cannot_answer() -> None:
    """Dead, stopped and lost ranks are ended without being asked."""
    states = {0: WorkerState.STOPPED, 1: WorkerState.RUNNING, 2: WorkerState.OUT_OF_REACH}
    plan = plan_teardown(_plan(), states, cleanup="close")
    assert plan.asked == (1,)
    assert plan.not_asked == ((0, "stopped"), (2, "out of reach"))


def test_a_part_of_a_group() -> None:
    """Only some ranks; without a clean-up nobody is asked."""
    plan = plan_teardown(_plan(), ranks=[2, 1])
    assert (plan.asked, plan.waves) == ((), ((1, 2),))


def test_wrong_arguments_are_all_told() -> None:
    """A rank that is not there and a negative grace, in one error."""
    with pytest.raises(PlanError, match="2 problems") as caught:
        plan_teardown(_plan(), ranks=[7], grace=-1.0)
    assert [finding.path for finding in caught.value.findings] == ["ranks", "grace"]


def test_the_report_tells_everything() -> None:
    """Clean-ups, failures, and what is left."""
    report = TeardownReport(
        group="policy",
        cleaned=(0,),
        failed=((1, "ValueError: no"),),
        late=(2,),
        ended=(0, 1, 2),
        names_held=("policy-0-2",),
        processes_left=(2,),
    )
    assert teardown_text(report) == (
        "worker group 'policy': 3 ranks ended\n"
        "  cleaned up: rank 0\n"
        "  rank 1: clean-up failed: ValueError: no\n"
        "  clean-up not finished in time: rank 2\n"
        "  names not free again: policy-0-2\n"
        "  processes still there: rank 2"
    )
    assert not report.is_clean


def test_a_report_is_printed_for_people() -> None:
    """What it is made of is in its ``repr``."""
    report = TeardownReport(group="policy", ended=(0, 1))
    assert str(report) == teardown_text(report) == "worker group 'policy': 2 ranks ended"
    assert "bundles_held=()" in repr(report)


def test_an_end_that_was_interrupted_asks_nobody_twice() -> None:
    """Whoever has an outcome keeps it; whoever was ended without being asked is dead."""
    first = plan_teardown(_plan(), {0: WorkerState.STOPPED}, cleanup="close")
    nothing = TeardownReport(group="policy")
    before = with_clean_up(nothing, first, unanswered=[2], is_interrupted=True)
    assert before == TeardownReport(
        group="policy", cleaned=(1,), failed=((2, INTERRUPTED),), not_asked=((0, "stopped"),)
    )
    again = plan_teardown(_plan(), cleanup="close", before=before)
    assert (again.asked, again.not_asked, again.waves) == ((), (), ((1, 2), (0,)))
    killed = TeardownReport(group="policy", ended=(0, 1, 2))
    late = plan_teardown(_plan(), cleanup="close", before=killed)
    assert (late.asked, late.not_asked) == ((), ((0, "dead"), (1, "dead"), (2, "dead")))


def test_what_a_clean_up_came_to_is_added_to_what_was_known() -> None:
    """In rank order; who is out of time is late."""
    known = TeardownReport(group="policy", cleaned=(2,), failed=((0, INTERRUPTED),))
    plan = plan_teardown(_plan(), cleanup="close", before=known)
    assert plan.asked == (1,)
    assert with_clean_up(known, plan).cleaned == (1, 2)
    assert with_clean_up(known, plan, unanswered=[1]).late == (1,)
    failed = with_clean_up(known, plan, failed=[(1, "OSError: no")])
    assert failed.failed == ((0, INTERRUPTED), (1, "OSError: no"))


def test_of_a_lost_session_nothing_is_known() -> None:
    """But what an interrupted end has done before."""
    before = TeardownReport(group="policy", cleaned=(1,), ended=(1,))
    plan = plan_teardown(_plan(), cleanup="close", before=before)
    report = report_of_lost_session(plan, before)
    assert (report.cleaned, report.ended, report.processes_unseen) == ((1,), (1,), (0, 1, 2))
    assert report.not_asked == ((0, "out of reach"), (2, "out of reach"))
    assert str(report) == (
        "worker group 'policy': the Ray session in which its workers ran is over: nothing was "
        "asked or ended here, and nobody can tell what is left of ranks 0-2"
    )
    assert (report.is_clean, report.went_well) == (False, False)
    assert report_of_lost_session(plan_teardown(_plan()), TeardownReport(group="p")).went_well


def test_why_a_group_does_nothing_any_more() -> None:
    """Ended, without a session, or in another one; what would work is told."""
    assert why_over(has_ended=False, began_in="a", is_in="a") is None
    told = [
        why_over(has_ended=True, began_in="a", is_in="b"),
        why_over(has_ended=False, began_in="a", is_in=""),
        why_over(has_ended=False, began_in="a", is_in="b"),
    ]
    assert list(map(str, told)) == [
        "group: it has ended; start a new group: an ended one takes no calls",
        (
            "group: the Ray session in which its workers ran is over; call ray.init() or "
            "init_ray(), then start a new cluster and a new group"
        ),
        (
            "group: the Ray session in which its workers ran is over; start a new cluster and a "
            "new group in this one"
        ),
    ]


def test_states_of_workers() -> None:
    """From the kernel's letter and the page that the worker shows."""
    who = [RankIdentity(rank=rank, node="10.0.0.1", pid=40 + rank) for rank in range(5)]
    seen = {
        0: WorkerSeen(state="S", seconds=3.0),
        1: WorkerSeen(state="R", running=1, method="train", seconds=12.5),
        2: WorkerSeen(state="T", running=1, method="train", seconds=1.0),
        3: WorkerSeen(state=""),
    }
    assert status_text(plan_statuses(who, seen)) == (
        "rank 0 on node 10.0.0.1, pid 40: idle, 3.0 s\n"
        "rank 1 on node 10.0.0.1, pid 41: running in train(), 12.5 s\n"
        "rank 2 on node 10.0.0.1, pid 42: stopped in train(), 1.0 s\n"
        "rank 3 on node 10.0.0.1, pid 43: dead\n"
        "rank 4 on node 10.0.0.1, pid 44: out of reach"
    )
