"""What a failed call means for its group: who is dead or stuck, and which calls are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.failure_causes import Death, DeathCause
from planner.failure_judgement import (
    Judgement,
    judge_failure,
    refusal,
    stale_ranks,
    watched_ranks,
)
from planner.failure_policy import Domain, FailurePolicy, Survivors, domain_of, fate_of
from planner.launch import LaunchPlan, plan_launch
from planner.mesh import NamedSharding
from planner.outcomes import FailureReport, RankFailure, RankIdentity, fold_failures
from tests.strategies import host_facts, spec_of

PLAN = plan_launch(
    spec_of(
        [4, 4],
        bundle_indices_list=[(node, [first, first + 1]) for node in (0, 1) for first in (0, 2)],
        mesh=NamedSharding([[0, 1], [2, 3], [4, 5], [6, 7]], ["data_parallel", "tensor_parallel"]),
    ),
    host_facts([4, 4]),
)
"""Four engines of two ranks each, on two nodes."""

LOST = Death(cause=DeathCause.SIGNAL, detail="its process was ended by SIGKILL")
UNREACHED = Death(cause=DeathCause.UNAVAILABLE, detail="it cannot be reached now")


def report_of(
    raised: dict[int, Death | None], finished: tuple[int, ...] = (), called: LaunchPlan = PLAN
) -> FailureReport:
    """A call of all ranks, some of which raised, or died."""
    failures = [
        RankFailure(
            rank=rank,
            error_type="ValueError" if death is None else "ActorDiedError",
            message="bad batch\nin row 7" if death is None else death.detail,
            death=death,
        )
        for rank, death in raised.items()
    ]
    return fold_failures("group 'g', train()", failures, range(called.world_size), finished)


@pytest.mark.parametrize(
    ("domain", "stuck"),
    [
        (Domain.RANK, ()),
        (Domain.TIED_GROUP, (5,)),
        (Domain.REPLICA, (5,)),
        (Domain.GROUP, (0, 1, 2, 3, 5, 6, 7)),
    ],
)
def test_those_who_share_the_fate_are_stuck(domain: Domain, stuck: tuple[int, ...]) -> None:
    """Until they have left the call; a rank that only raised is none of them."""
    judged = judge_failure(
        PLAN,
        report_of({4: None}),
        FailurePolicy(domain=domain),
        waiting=[rank for rank in range(8) if rank != 4],
    )
    assert (judged.dead, judged.stuck, judged.abort) == ((), stuck, ())
    assert judged.is_harmless == (not stuck)
    assert judged.why == ("group 'g', train(): rank 4: ValueError: bad batch" if stuck else "")


def test_the_dead_are_dead_whatever_the_domain() -> None:
    """A rank out of reach counts among them: nobody knows whether the call still runs there."""
    report = report_of({2: LOST, 6: UNREACHED, 0: None}, finished=(1, 3, 4, 5, 7))
    judged = judge_failure(PLAN, report, FailurePolicy(domain=Domain.RANK), waiting=())
    assert judged == Judgement(
        dead=(2, 6),
        why="group 'g', train(): rank 2: ActorDiedError: its process was ended by SIGKILL",
    )


def test_survivors_are_ended_where_the_policy_says_so() -> None:
    """Those of the struck domains, and no others; they count as dead from then on."""
    policy = FailurePolicy(domain=Domain.TIED_GROUP, survivors=Survivors.ABORT, stacks=True)
    judged = judge_failure(PLAN, report_of({4: None, 6: LOST}), policy, waiting=[0, 1, 5, 7])
    assert (judged.abort, judged.dead, judged.stuck) == ((5, 7), (5, 6, 7), ())
    assert judged.stacks == (0, 1, 5, 7)


def test_a_call_that_is_only_late_strikes_nobody() -> None:
    """Its stacks are shown all the same, where they are wanted."""
    late = fold_failures("call", [], range(8), finished=(0, 1))
    for stacks, shown in ((False, ()), (True, (2, 3))):
        policy = FailurePolicy(survivors=Survivors.ABORT, stacks=stacks)
        assert judge_failure(PLAN, late, policy, waiting=[2, 3]) == Judgement(stacks=shown)


def test_former_ranks_change_nothing() -> None:
    """Who was given up, or started again since, is neither dead nor stuck; the reason skips it."""
    report = report_of({0: LOST, 2: UNREACHED, 4: LOST}, finished=(6, 7))
    policy = FailurePolicy(survivors=Survivors.ABORT, stacks=True)
    judged = judge_failure(PLAN, report, policy, waiting=[1, 3, 5], absent={0, 1}, stale={4, 5})
    assert (judged.dead, judged.abort, judged.stacks) == ((2, 3), (3,), (3,))
    assert judged.why == "group 'g', train(): rank 2: ActorDiedError: it cannot be reached now"
    only = judge_failure(PLAN, report_of({0: LOST}), policy, waiting=[1], absent={0, 1})
    assert only == Judgement()


def test_the_reason_is_that_of_those_who_are_dead_or_stuck() -> None:
    """Not of a rank that raised by itself, left nobody behind and is well."""
    report = report_of({1: None, 2: LOST})
    judged = judge_failure(PLAN, report, FailurePolicy(domain=Domain.RANK), waiting=[0, 3])
    assert (judged.dead, judged.stuck) == ((2,), ())
    dead = "rank 2: ActorDiedError: its process was ended by SIGKILL"
    assert judged.why == f"group 'g', train(): {dead}"
    both = judge_failure(PLAN, report, FailurePolicy(domain=Domain.TIED_GROUP), waiting=[0, 3, 5])
    assert (both.dead, both.stuck) == ((2,), (0, 3))
    assert both.why == f"group 'g', train(): rank 1: ValueError: bad batch; {dead}"
    same = report_of({0: None, 1: None, 4: None})
    only = judge_failure(PLAN, same, FailurePolicy(domain=Domain.TIED_GROUP), waiting=[5])
    assert only.why == "group 'g', train(): ranks 0-1, 4: ValueError: bad batch"


@pytest.mark.parametrize(
    ("domain", "watched"),
    [
        (Domain.RANK, ()),
        (Domain.TIED_GROUP, (3,)),
        (Domain.REPLICA, (3,)),
        (Domain.GROUP, (0, 1, 3, 4, 6)),
    ],
)
def test_whose_death_ends_a_wait_for_others(domain: Domain, watched: tuple[int, ...]) -> None:
    """Those who share the fate of who is waited for; neither those themselves nor former ones."""
    policy = FailurePolicy(domain=domain)
    assert watched_ranks(PLAN, policy, [2, 7], absent={5}, stale={7}) == tuple(
        rank for rank in watched if rank != 7
    )
    assert watched_ranks(PLAN, policy, [5, 9], absent={5}) == ()
    assert watched_ranks(PLAN, policy, []) == ()


def test_ranks_that_the_group_does_not_have_are_left_out() -> None:
    """As those that a caller's own list of futures may name."""
    report = report_of({9: LOST})
    assert judge_failure(PLAN, report, FailurePolicy(), waiting=[8]) == Judgement()


def test_who_is_not_who_was_called() -> None:
    """Another process has the rank, or none."""
    called = {rank: RankIdentity(rank=rank, pid=100 + rank) for rank in range(3)}
    now = {0: called[0], 1: RankIdentity(rank=1, pid=7)}
    assert stale_ranks(called, now) == {1, 2}


@given(
    raised=st.dictionaries(st.integers(0, 7), st.sampled_from([None, LOST, UNREACHED])),
    waiting=st.sets(st.integers(0, 7)),
    absent=st.sets(st.integers(0, 7)),
    stale=st.sets(st.integers(0, 7)),
    domain=st.sampled_from(Domain),
    survivors=st.sampled_from(Survivors),
)
def test_laws_of_judging(
    raised: dict[int, Death | None],
    waiting: set[int],
    absent: set[int],
    stale: set[int],
    domain: Domain,
    survivors: Survivors,
) -> None:
    """Nobody who is not there now is judged; only those who share a fate are stuck or ended."""
    waiting -= set(raised)
    policy = FailurePolicy(domain=domain, survivors=survivors)
    judged = judge_failure(
        PLAN, report_of(raised), policy, waiting=waiting, absent=absent, stale=stale
    )
    here = set(range(8)) - absent - stale
    told = {*judged.dead, *judged.stuck, *judged.abort}
    assert told <= here
    assert set(judged.abort) <= set(judged.dead)
    assert set(judged.abort) | set(judged.stuck) <= waiting
    struck = {each for rank in here & set(raised) for each in domain_of(PLAN, rank, domain)}
    assert told <= struck
    assert {rank for rank, death in raised.items() if death and rank in here} <= set(judged.dead)
    assert waiting & here & struck <= told
    assert bool(judged.why) == (not judged.is_harmless)


@given(ranks=st.sets(st.integers(0, 7)), domain=st.sampled_from(Domain))
def test_the_fate_of_some_is_that_of_each(ranks: set[int], domain: Domain) -> None:
    """All domains together."""
    each = [domain_of(PLAN, rank, domain) for rank in ranks]
    assert fate_of(PLAN, ranks, domain) == {rank for some in each for rank in some}


REMEDY = ". Call recover() or end(); ranks that are only still in that call can be waited for"


def refused(domain: Domain, ranks: list[int] | None, **more: object) -> str | None:
    """What a call to some ranks is told, after rank 5 has died."""
    given: dict[str, object] = {"broken": (5,), "reasons": ["it died", "it left", "it died"]}
    policy = FailurePolicy(domain=domain)
    found = refusal(PLAN, policy, ranks=ranks, **{**given, **more})  # type: ignore[arg-type]
    return None if found is None else found.text


def test_whom_a_broken_group_refuses() -> None:
    """Calls to whoever shares the fate of the broken; all calls where all share it."""
    text = (
        "worker group 'g' refuses the call: rank 5: they are dead, or still in a call that failed: "
        f"it died; it left{REMEDY}"
    )
    assert refused(Domain.GROUP, [0]) == text
    assert refused(Domain.GROUP, None) == text
    assert refused(Domain.TIED_GROUP, [0, 4]) == text
    assert refused(Domain.TIED_GROUP, [0, 3, 6]) is None
    assert refused(Domain.TIED_GROUP, None) is None
    assert refused(Domain.RANK, [4]) is None
    assert refused(Domain.RANK, [5]) == text
    assert refused(Domain.GROUP, [0], broken=()) is None


def test_ranks_that_are_recovered_by_others_are_refused() -> None:
    """With that reason, though nothing is known to be broken; those beside them are called."""
    policy = FailurePolicy(domain=Domain.TIED_GROUP)
    refused = refusal(PLAN, policy, ranks=(0, 5), broken=(), mended=(4, 5))
    assert refused is not None
    assert refused.ranks == (4, 5)
    assert "ranks 4-5: they are being recovered: call again once recover()" in refused.text
    assert refusal(PLAN, policy, ranks=(0, 1), broken=(), mended=(4, 5)) is None
    assert refusal(PLAN, policy, ranks=None, broken=(), mended=(4, 5)) is None
    assert refusal(PLAN, FailurePolicy(), ranks=None, broken=(), mended=(4,)) is not None


def test_what_works_when_ranks_were_given_up() -> None:
    """A call that works is named, and how the ranks come back."""
    found = refusal(
        PLAN, FailurePolicy(), ranks=range(8), broken=(), absent=[0, 1, 6, 7], reasons=()
    )
    assert found is not None
    assert found.ranks == (0, 1, 6, 7)
    assert found.text == (
        "worker group 'g' refuses the call: ranks 0-1, 6-7: they were given up by resize(); call "
        "ranks that serve, as with group.at(data_parallel=1), or take them back with "
        "group.resize([0, 1, 2, 3])"
    )
    assert refused(Domain.RANK, [7], broken=(), absent=[0, 1, 6, 7]) == (
        "worker group 'g' refuses the call: rank 7: they were given up by resize(); call ranks "
        "that serve, or take them back with group.resize([1, 2, 3])"
    )
    assert refused(Domain.RANK, [2, 3], broken=(), absent=[0, 1, 6, 7]) is None


def test_a_refusal_tells_each_reason_once() -> None:
    """One death is seen in many calls, and what it makes others refuse says it again."""
    group = f"worker group {PLAN.group!r}"
    death = "rank 5: ActorDiedError: its process was ended by SIGKILL"
    inner = refused(Domain.GROUP, None, reasons=[f"{group}: {death}"])
    nested = f"restore() did not finish: InconsistentGroupError: {inner}"
    told = refused(
        Domain.GROUP,
        None,
        reasons=[f"{group}: {death}", f"{group}, train(): {death}", f"{group}, f(): odd", nested],
    )
    assert told is not None
    assert told.partition("that failed: ")[2] == (
        f"{group}, train(): {death}; {group}, f(): odd; restore() did not finish: a call was "
        f"refused{REMEDY}"
    )
    alone = refused(Domain.GROUP, None, reasons=[nested])
    assert alone is not None
    assert alone.endswith(f"restore() did not finish: a call was refused; {group}: {death}{REMEDY}")
