"""How a failure is told: folded by cause, first in time first, with every rank accounted for."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.failure_causes import Death, DeathCause
from planner.outcomes import (
    NOTICE_SECONDS,
    Aside,
    FailureReport,
    Held,
    RankFailure,
    RankIdentity,
    failure_text,
    fold_failures,
    ranks_of_lost_nodes,
    ranks_text,
    slowest_first,
    standing_text,
    still_waiting_text,
)

WHO = {
    rank: RankIdentity(
        rank=rank,
        coordinates=(("dp", rank // 2), ("tp", rank % 2)),
        node="10.0.0.1",
        gpus=(str(rank),),
        pid=100 + rank,
    )
    for rank in range(6)
}


def failed(rank: int, message: str = "boom", at: float | None = None) -> RankFailure:
    """A failure of one rank."""
    return RankFailure(rank=rank, error_type="ValueError", message=message, raised_at=at)


def test_an_identity_reads_like_a_sentence() -> None:
    """Only what is known is shown."""
    assert str(WHO[3]) == "rank 3 (dp=1, tp=1) on node 10.0.0.1, GPU 3, pid 103"
    assert str(RankIdentity(rank=3)) == "rank 3"
    assert str(RankIdentity(rank=3, pid=9)) == "rank 3 pid 9"
    assert str(RankIdentity(rank=3, gpus=("0", "1"))) == "rank 3 GPU 0,1"


def test_the_first_failure_in_time_comes_first() -> None:
    """Not the first to arrive; those without a clock come last, as they arrived."""
    report = fold_failures(
        "train()",
        [
            failed(0, "late", 9.0),
            failed(2, "none"),
            failed(1, "early", 1.0),
            failed(3, "late", 8.0),
        ],
        called=range(6),
        finished=[5],
    )
    assert report == FailureReport(
        subject="train()",
        causes=(
            (failed(1, "early", 1.0), (1,)),
            (failed(3, "late", 8.0), (0, 3)),
            (failed(2, "none"), (2,)),
        ),
        finished=(5,),
        running=(4,),
    )
    assert report.first == failed(1, "early", 1.0)
    assert report.failed == (0, 1, 2, 3)


def test_a_death_counts_from_before_it_was_noticed() -> None:
    """Peers raise because of it, and are seen sooner; a rank out of reach may live."""
    gone = Death(cause=DeathCause.SIGNAL, detail="")
    away = Death(cause=DeathCause.UNAVAILABLE, detail="")
    peer = failed(0, "connection lost", 5.0)
    noticed = 5.0 + 0.9 * NOTICE_SECONDS
    dead = evolve(failed(1, "ended", noticed), death=gone)
    later = evolve(failed(2, "much later", 5.0 + 2 * NOTICE_SECONDS), death=gone)
    unseen = evolve(failed(3, "out of reach", noticed), death=away)
    report = fold_failures("f()", [peer, dead, later, unseen], range(4), [])
    assert [ranks for _, ranks in report.causes] == [(1,), (0,), (3,), (2,)]


def test_those_that_were_not_waited_for_are_told_as_such() -> None:
    """One had returned, one was not called at all; the others are still in the call."""
    returned = evolve(failed(1, "gone", 2.0), aside=Aside.RETURNED)
    outside = evolve(failed(4, "gone", 3.0), aside=Aside.OUTSIDE)
    report = fold_failures("f()", [returned, outside], [0, 1, 2], [1])
    assert (report.failed, report.outside, report.running) == ((1, 4), (4,), (0, 2))
    assert failure_text(report, {}).splitlines() == [
        "f(): 1 of 3 ranks failed, and 1 that is not in it; first rank 1",
        "  rank 1, after it had returned: ValueError: gone",
        "  rank 4, not in this call: ValueError: gone",
        "  returned: rank 1",
        "  no answer yet: ranks 0, 2",
    ]
    only = fold_failures("f()", [outside, evolve(outside, rank=5)], [0], [])
    assert failure_text(only, {}).splitlines()[:2] == [
        "f(): 2 ranks failed that are not in it; first rank 4",
        "  ranks 4-5, not in this call: ValueError: gone",
    ]


def test_the_text_says_who_what_and_how_the_others_stood() -> None:
    """One line per cause."""
    report = fold_failures(
        "worker group 'g', train()",
        [failed(3, at=2.0), failed(1, at=1.0), failed(2, "other", 3.0)],
        called=range(6),
        finished=[0],
    )
    assert failure_text(report, WHO) == (
        "worker group 'g', train(): 3 of 6 ranks failed; first rank 1 (dp=0, tp=1) on node "
        "10.0.0.1, GPU 1, pid 101\n"
        "  ranks 1, 3: ValueError: boom\n"
        "  rank 2: ValueError: other\n"
        "  returned: rank 0\n"
        "  no answer yet: ranks 4-5\n"
        "    waiting for rank 4 (dp=2, tp=0) on node 10.0.0.1, GPU 4, pid 104\n"
        "    waiting for rank 5 (dp=2, tp=1) on node 10.0.0.1, GPU 5, pid 105"
    )


def test_a_failure_says_who_has_not_begun_and_since_when() -> None:
    """A rank that an earlier call holds is told first; its time is that call's."""
    held = Held(method="save", ranks=(5,), seconds=61.24)
    report = fold_failures("f()", [failed(1)], range(6), [0], seconds=2.0, held=[held])
    assert failure_text(report, WHO).splitlines()[2:] == [
        "  returned: rank 0",
        "  no answer yet: ranks 2-5, after 2.0 s",
        "    waiting for rank 5 (dp=2, tp=1) on node 10.0.0.1, GPU 5, pid 105",
        "    waiting for rank 2 (dp=1, tp=0) on node 10.0.0.1, GPU 2, pid 102",
        "    waiting for rank 3 (dp=1, tp=1) on node 10.0.0.1, GPU 3, pid 103",
        "    waiting for rank 4 (dp=2, tp=0) on node 10.0.0.1, GPU 4, pid 104",
        "  not begun: rank 5, still in save(), called 61.2 s ago",
    ]
    unknown = fold_failures("f()", [], [0, 1], [0], held=[Held(method="save", ranks=(1,))])
    assert failure_text(unknown, {}).splitlines()[-1] == "  not begun: rank 1, still in save()"


def test_where_the_first_failure_was_raised_is_told_once() -> None:
    """With where that was called from; the report has it for the others too."""
    first = evolve(failed(0, "a", 1.0), frames=("lib/train.py:41 in step", "lib/run.py:7 in go"))
    other = evolve(failed(1, "b", 2.0), frames=("lib/other.py:1 in f",))
    report = fold_failures("f()", [first, other], [0, 1], [])
    assert failure_text(report, {}).splitlines()[1:] == [
        "  rank 0: ValueError: a",
        "    raised at lib/train.py:41 in step, from lib/run.py:7 in go",
        "  rank 1: ValueError: b",
    ]
    assert report.causes[1][0].frames == ("lib/other.py:1 in f",)


def test_a_long_wait_says_for_whom() -> None:
    """How long, how many have answered, the slowest in full and the others by number."""
    who = {rank: RankIdentity(rank=rank, node="n", pid=rank) for rank in range(64)}
    text = still_waiting_text("f()", range(32, 64), 64, 60.2, who)
    assert text == (
        "f(): still waiting for ranks 32-63 after 60 s; 32 of 64 have answered; "
        "rank 32 on node n, pid 32; rank 33 on node n, pid 33; rank 34 on node n, pid 34; "
        "rank 35 on node n, pid 35; rank 36 on node n, pid 36; and 27 more: ranks 37-63"
    )
    held = [Held(method="save", ranks=(1, 3), seconds=300.0)]
    text = still_waiting_text("f()", [0, 1, 3], 4, 60.0, who, held, streams=True)
    assert text == (
        "f(): still waiting for values of ranks 0-1, 3 after 60 s; 1 of 4 has ended; "
        "rank 1 on node n, pid 1; rank 3 on node n, pid 3; rank 0 on node n, pid 0; "
        "not begun: ranks 1, 3, still in save(), called 300.0 s ago"
    )


def test_those_that_have_not_begun_are_the_slowest() -> None:
    """Whoever runs may be waiting for them."""
    assert slowest_first([4, 2, 3], []) == [2, 3, 4]
    held = [Held(method="f", ranks=(4,)), Held(method="g", ranks=(3, 9))]
    assert slowest_first([2, 3, 4], held) == [3, 4, 2]


def test_how_another_call_stood_is_one_line() -> None:
    """Who returned, who failed, who is waited for and since when."""
    report = fold_failures("f()", [failed(1)], range(4), [0], seconds=3.0)
    assert standing_text(report, {3: RankIdentity(rank=3, pid=7)}) == (
        "f(): rank 0 returned; rank 1 failed; ranks 2-3 had not answered after 3.0 s: rank 3 pid 7"
    )
    done = fold_failures("f()", [], range(2), range(2), seconds=3.0)
    assert standing_text(done, {}) == "f(): ranks 0-1 returned"


def test_a_deadline_names_whom_it_waited_for() -> None:
    """Nothing failed; the first five that are missing are shown in full."""
    report = fold_failures("train()", [], called=range(8), finished=[0])
    lines = failure_text(report, WHO).splitlines()
    assert lines[:3] == [
        "train(): 7 of 8 ranks did not answer",
        "  returned: rank 0",
        "  no answer yet: ranks 1-7",
    ]
    assert lines[3] == "    waiting for rank 1 (dp=0, tp=1) on node 10.0.0.1, GPU 1, pid 101"
    assert lines[7] == "    waiting for rank 5 (dp=2, tp=1) on node 10.0.0.1, GPU 5, pid 105"
    assert lines[8:] == ["    and 2 more: ranks 6-7"]
    assert report.first is None


def test_an_unknown_rank_is_still_told() -> None:
    """Identities may be incomplete."""
    report = fold_failures("train()", [failed(9)], called=[9], finished=[])
    assert failure_text(report, {}) == (
        "train(): 1 of 1 ranks failed; first rank 9\n  rank 9: ValueError: boom"
    )


def test_the_ranks_of_a_lost_node_are_waited_for() -> None:
    """Not those of other nodes, and not the neighbours of a process that was killed by itself."""
    nodes = {0: "a", 1: "a", 2: "b", 3: "b", 4: "c"}

    def dead(rank: int, cause: DeathCause) -> RankFailure:
        return evolve(failed(rank), death=Death(cause=cause, detail=""))

    lost = [dead(0, DeathCause.NODE_LOST), failed(2)]
    assert ranks_of_lost_nodes(lost, [1, 3, 4], nodes) == (1,)
    assert ranks_of_lost_nodes([dead(3, DeathCause.UNAVAILABLE)], [1, 2], nodes) == (2,)
    assert ranks_of_lost_nodes([dead(0, DeathCause.SIGNAL)], [1], nodes) == ()
    assert ranks_of_lost_nodes(lost, [1, 5], {}) == ()


def test_ranks_are_folded_into_runs() -> None:
    """And a long list is cut, with a count."""
    assert ranks_text([3]) == "rank 3"
    assert ranks_text([2, 0, 1, 7]) == "ranks 0-2, 7"
    assert ranks_text(range(0, 40, 2)) == (
        "ranks 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 8 more"
    )
    runs = [*range(0, 24, 2), *range(25, 64)]
    assert ranks_text(runs).endswith("20, 22 and 39 more")


@given(st.lists(st.integers(0, 30), unique=True), st.data())
def test_every_rank_is_accounted_for_once(called: list[int], data: st.DataObject) -> None:
    """Failed, finished or running."""
    state = {rank: data.draw(st.sampled_from(["failed", "finished", "running"])) for rank in called}
    failures = [
        failed(rank, data.draw(st.sampled_from("ab")), data.draw(st.none() | st.just(1.0)))
        for rank in called
        if state[rank] == "failed"
    ]
    finished = [rank for rank in called if state[rank] == "finished"]
    report = fold_failures("x", failures, called, finished)
    assert sorted([*report.failed, *report.finished, *report.running]) == sorted(called)
    messages = [cause.message for cause, _ in report.causes]
    assert len(messages) == len(set(messages))


def test_a_long_message_is_cut_in_the_text_and_whole_in_the_report() -> None:
    """The text says how much more there is."""
    message = "\n".join(["a" * 300] * 30)
    report = fold_failures("f()", [failed(0, message), failed(1, "b\n" * 40)], [0, 1], [])
    lines = failure_text(report, {}).splitlines()
    assert sum(len(line.strip()) for line in lines if "aaa" in line) < 2_100
    assert f"({len(message) - 2_000:,} more characters)" in lines[7]
    assert [line.strip() for line in lines[9:-1]] == ["b"] * 18
    assert report.causes[0][0].message == message


def test_what_a_worker_has_cut_counts() -> None:
    """Its own note of it is not told twice, nor counted as text."""
    cut = "b" * 3_000 + "... (2,997,000 more characters)"
    short = "b" * 10 + "... (5 more characters)"
    report = fold_failures("f()", [failed(0, cut), failed(1, f"{short!r}")], [0, 1], [])
    lines = failure_text(report, {}).splitlines()
    assert lines[1] == f"  rank 0: ValueError: {'b' * 2_000}... (2,998,000 more characters)"
    assert lines[2] == f"  rank 1: ValueError: '{'b' * 10}... (5 more characters)"
    within = "1. A: x... (7 more characters)\n2. B: y"
    told = fold_failures("f()", [failed(0, within)], [0], [])
    assert failure_text(told, {}).endswith("x... (7 more characters)\n    2. B: y")


def test_many_causes_are_told_in_part() -> None:
    """The ranks of the others are named; the report has all."""
    report = fold_failures("f()", [failed(rank, f"on {rank}") for rank in range(64)], range(64), [])
    lines = failure_text(report, {}).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "  and 56 more causes on ranks 8-63"
    assert len(report.causes) == 64
    nine = fold_failures("f()", [failed(rank, f"on {rank}") for rank in range(9)], range(9), [])
    assert failure_text(nine, {}).endswith("\n  and 1 more cause on rank 8")
