"""Whether the bundles of a group that was ended are free: the judgement, from counts alone."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.gpu_ledger import BundleShare, GpuLedger
from planner.group import GroupArguments, plan_group
from planner.launch import HostFacts, plan_launch
from planner.teardown import (
    CHILDREN_SECONDS,
    GONE_SECONDS,
    Bundle,
    BundlesBefore,
    BundlesFound,
    TeardownPlan,
    TeardownReport,
    judge_bundles,
    plan_teardown,
    teardown_text,
)

A, B, C = (0, 0), (0, 1), (0, 2)


def _plan() -> TeardownPlan:
    spec = plan_group(GroupArguments(worker_class="t.Trainer", bundle_counts=(3,)))
    hosts = [HostFacts(node_id="n0", address="10.0.0.1", port=1) for _ in range(3)]
    return plan_teardown(plan_launch(spec, hosts))


PLAN = _plan()


def before(
    *held: int, beside: dict[Bundle, int] | None = None, dead: tuple[int, ...] = ()
) -> BundlesBefore:
    """What was in the three bundles."""
    counts = dict(zip((A, B, C), held, strict=True))
    return BundlesBefore(held=counts, beside=beside or {}, dead=frozenset(dead))


def test_empty_bundles_are_free_at_once() -> None:
    """There is nothing to wait for."""
    assert judge_bundles(PLAN, before(1, 1, 1), {A: 0, B: 0, C: 0}, {}) == BundlesFound()


def test_a_worker_that_still_holds_its_bundle_is_waited_for() -> None:
    """Ray reports what is free a little late."""
    found = judge_bundles(PLAN, before(1, 1, 1), {A: 0, B: 1, C: 0}, {})
    assert found == BundlesFound(held=(B,), patience=GONE_SECONDS)


def test_what_was_started_beside_the_workers_is_waited_for_less() -> None:
    """Children go soon after their worker; a stranger stays, and nobody waits long for it."""
    found = judge_bundles(PLAN, before(1, 3, 1), {A: 0, B: 2, C: 0}, {})
    assert found == BundlesFound(held=(B,), patience=CHILDREN_SECONDS)
    both = judge_bundles(PLAN, before(1, 3, 1), {A: 1, B: 2, C: 0}, {})
    assert both == BundlesFound(held=(A, B), patience=GONE_SECONDS)


def test_what_came_after_the_kill_counts_as_a_worker_of_the_group() -> None:
    """It was not there before: nothing explains it, so the long wait is right."""
    found = judge_bundles(PLAN, before(1, 1, 1), {A: 0, B: 0, C: 1}, {})
    assert found.patience == GONE_SECONDS


def test_a_bundle_that_nobody_can_look_at_is_not_called_free() -> None:
    """Nor is it waited for."""
    assert judge_bundles(PLAN, before(1, 1, 1), {A: 0}, {}) == BundlesFound(unseen=(B, C))


def test_workers_of_other_groups_may_stay() -> None:
    """In each bundle as many as they have there."""
    shared = before(2, 2, 1, beside={A: 1, B: 1})
    assert judge_bundles(PLAN, shared, {A: 1, B: 1, C: 0}, {A: 1, B: 1}) == BundlesFound()
    found = judge_bundles(PLAN, shared, {A: 1, B: 2, C: 1}, {A: 1, B: 1})
    assert found == BundlesFound(held=(B, C), patience=GONE_SECONDS)


def test_children_of_other_groups_may_stay_beside_them() -> None:
    """An engine's own workers are not its group's; what was theirs before is theirs after."""
    shared = before(4, 2, 1, beside={A: 1, B: 1})
    assert judge_bundles(PLAN, shared, {A: 3, B: 1, C: 0}, {A: 1, B: 1}) == BundlesFound()
    found = judge_bundles(PLAN, shared, {A: 4, B: 1, C: 0}, {A: 1, B: 1})
    assert found == BundlesFound(held=(A,), patience=GONE_SECONDS)


def test_a_rank_that_was_dead_before_held_nothing() -> None:
    """So what was in its bundle was all of the other group."""
    shared = before(3, 2, 2, beside={A: 1, B: 1, C: 1}, dead=(0,))
    now = {A: 3, B: 1, C: 1}
    assert judge_bundles(PLAN, shared, now, {A: 1, B: 1, C: 1}) == BundlesFound()
    alive = evolve(shared, dead=frozenset())
    assert judge_bundles(PLAN, alive, now, {A: 1, B: 1, C: 1}).held == (A,)


def test_groups_may_come_and_go_meanwhile() -> None:
    """The claims of now count, not those of before."""
    alone = before(1, 1, 1)
    assert judge_bundles(PLAN, alone, {A: 1, B: 0, C: 0}, {A: 1}) == BundlesFound()
    shared = before(2, 2, 2, beside={A: 1, B: 1, C: 1})
    assert judge_bundles(PLAN, shared, {A: 0, B: 0, C: 0}, {}) == BundlesFound()


counts = st.lists(st.integers(0, 3), min_size=3, max_size=3)


@given(workers=counts, children=counts, dead=st.frozensets(st.integers(0, 2)), stuck=counts)
def test_free_means_that_the_groups_workers_are_gone(
    workers: list[int], children: list[int], dead: frozenset[int], stuck: list[int]
) -> None:
    """Whoever else is there: a bundle is held exactly where something of the group is left.

    Except for what the group itself started in a bundle that others share: nobody can tell it
    from theirs.
    """
    places = (A, B, C)
    beside = {place: count for place, count in zip(places, workers, strict=True) if count}
    theirs = [w + (c if w else 0) for w, c in zip(workers, children, strict=True)]
    mine = [int(rank not in dead) for rank in range(3)]
    left = [min(s, m) for s, m in zip(stuck, mine, strict=True)]
    was = before(*map(sum, zip(theirs, mine, strict=True)), beside=beside, dead=tuple(dead))
    now = dict(zip(places, map(sum, zip(theirs, left, strict=True)), strict=True))
    found = judge_bundles(PLAN, was, now, beside)
    assert found.held == tuple(place for place, each in zip(places, left, strict=True) if each)
    assert found.patience == (GONE_SECONDS if any(left) else 0.0)


def test_the_ledger_knows_who_else_is_in_a_bundle() -> None:
    """Also workers that take nothing of a GPU."""
    ledger = GpuLedger(colocated=3, budget=0)
    for name, bundles in (("a", (0, 1)), ("b", (1, 2)), ("c", (1,))):
        ledger = ledger.with_group(name, [BundleShare(0, bundle, 0) for bundle in bundles])
    assert ledger.workers_beside("a") == {B: 2, C: 1}
    assert ledger.workers_beside("nobody") == {A: 1, B: 3, C: 1}
    assert ledger.without_group("b").workers_beside("a") == {B: 1}


def test_the_report_tells_of_bundles() -> None:
    """Held ones make it unclean; of unseen ones it only says so."""
    held = TeardownReport(group="policy", ended=(0, 1), bundles_held=((0, 1), (0, 2), (1, 0)))
    assert teardown_text(held) == (
        "worker group 'policy': 2 ranks ended\n"
        "  not free again: bundles 1-2 of placement group 0; bundle 0 of placement group 1"
    )
    unseen = TeardownReport(group="policy", ended=(0,), bundles_unseen=((1, 3),))
    assert teardown_text(unseen) == (
        "worker group 'policy': 1 ranks ended\n"
        "  nobody can tell whether they are free: bundle 3 of placement group 1"
    )
    assert (held.is_clean, unseen.is_clean) == (False, True)
    assert (held.went_well, unseen.went_well) == (True, True)
