"""Recovery as a plan: whom to keep, end and start, and what is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.actor_names import base_name
from planner.failure_causes import DeathCause, Remains, death_of, tail_lines
from planner.findings import PlanError
from planner.group import GroupArguments, plan_group
from planner.inventory import BundleFacts
from planner.launch import HostFacts, LaunchPlan, plan_launch
from planner.mesh import NamedSharding
from planner.recovery import (
    Domain,
    FailurePolicy,
    RecoveryFacts,
    awaited_text,
    domain_of,
    gone_groups,
    plan_recovery,
    recovery_text,
)

END_OF_FILE = "Worker unexpectedly exits with a connection error code 2. End of file."


def _plan(nodes: int = 2, per_node: int = 4, tied: int = 2) -> LaunchPlan:
    groups = [
        (node, list(range(first, first + tied)))
        for node in range(nodes)
        for first in range(0, per_node, tied)
    ]
    spec = plan_group(
        GroupArguments(
            worker_class="engines.Engine",
            bundle_counts=(per_node,) * nodes,
            bundle_indices_list=groups,
            name_prefix="rollout",
            mesh=NamedSharding(
                [[g * tied + member for member in range(tied)] for g in range(len(groups))],
                ["data_parallel", "tensor_parallel"],
            ),
        )
    )
    facts = [
        HostFacts(node_id=f"n{slot.node}", address=f"10.0.0.{slot.node}", port=7000 + index)
        for index, slot in enumerate(spec.slots)
    ]
    return plan_launch(spec, facts)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (Domain.RANK, (5,)),
        (Domain.TIED_GROUP, (4, 5)),
        (Domain.REPLICA, (4, 5)),
        (Domain.GROUP, tuple(range(8))),
    ],
)
def test_domains(domain: Domain, expected: tuple[int, ...]) -> None:
    """Who shares the fate of rank 5."""
    assert domain_of(_plan(), 5, domain) == expected


def test_one_engine_is_started_again_in_its_slot() -> None:
    """New names, the same bundles; everybody else is kept and need not be told."""
    facts = RecoveryFacts(failed=(5,))
    plan = plan_recovery(_plan(), facts, FailurePolicy(domain=Domain.TIED_GROUP), 1)
    assert (
        str(plan)
        == recovery_text(plan)
        == (
            "worker group 'rollout', generation 1\n"
            "  keep: ranks 0-3, 6-7\n"
            "  end: ranks 4-5\n"
            "  start: rank 4 as 'rollout-grp2-0.g1' in bundle 0 of placement group 1\n"
            "  start: rank 5 as 'rollout-grp2-1.g1' in bundle 1 of placement group 1"
        )
    )


def test_rank_zero_brings_a_new_rendezvous() -> None:
    """Those who go on must be told: their environment is stale."""
    policy = FailurePolicy(domain=Domain.TIED_GROUP)
    plan = plan_recovery(_plan(), RecoveryFacts(failed=(1,)), policy, 1)
    assert plan.new_rendezvous
    assert plan.tell == (2, 3, 4, 5, 6, 7)


def test_a_lost_node_moves_to_free_bundles_of_one_node() -> None:
    """Its ranks stay together, on the first node that has room for all of them."""
    free = ((5, 0, "n7"), *((6, bundle, "n8") for bundle in range(4)))
    facts = RecoveryFacts(lost_nodes=("n1",), free_slots=free)
    plan = plan_recovery(_plan(), facts, FailurePolicy(domain=Domain.TIED_GROUP), 2)
    assert plan.end == (4, 5, 6, 7)
    assert [(each.placement_group, each.bundle) for each in plan.start] == [
        (6, bundle) for bundle in range(4)
    ]
    assert plan.is_possible


def test_what_is_missing_is_counted() -> None:
    """A lost node without a spare: the plan says how many bundles, and for whom."""
    facts = RecoveryFacts(lost_nodes=("n1",), free_slots=((5, 0, "n7"),))
    plan = plan_recovery(_plan(), facts, FailurePolicy(domain=Domain.TIED_GROUP), 1)
    assert plan.missing == (
        (
            "4 bundles for ranks 4-7: node 10.0.0.1 is lost, and 1 bundle of other nodes is "
            "free: add a node, or end another group"
        ),
    )
    facts = RecoveryFacts(lost_nodes=("n1",))
    plan = plan_recovery(_plan(per_node=1, tied=1), facts, FailurePolicy(domain=Domain.RANK), 1)
    assert plan.missing[0].startswith("1 bundle for rank 1: node 10.0.0.1 is lost, and 0 bundles ")


def test_a_placement_group_that_was_removed_is_missing() -> None:
    """It is told of ranks that failed only, and no free bundle makes up for it."""
    landed = [BundleFacts(placement_group=0, bundle=0, node_id="n0", address="")]
    assert gone_groups(_plan(), landed) == (1,)
    assert gone_groups(_plan(), ()) == (0, 1)
    policy = FailurePolicy(domain=Domain.TIED_GROUP)
    for lost in ((), ("n1",)):
        facts = RecoveryFacts(
            failed=(1, 4, 5, 6, 7), lost_nodes=lost, gone_groups=(1,), free_slots=((1, 0, "n7"),)
        )
        plan = plan_recovery(_plan(), facts, policy, 1)
        assert plan.missing == (
            (
                "4 bundles for ranks 4-7: placement group 1 was removed from the cluster: end the "
                "group, and start one on a cluster that is reserved again"
            ),
        )
        assert [each.rank for each in plan.start] == [0, 1]
    facts = RecoveryFacts(failed=(1,), gone_groups=(1,))
    assert plan_recovery(_plan(), facts, policy, 1).is_possible


def test_which_bundles_are_awaited() -> None:
    """With their ranks, and the node that is lost."""
    assert awaited_text(_plan(), [(1, 1), (1, 2)]) == (
        "the cluster to give 2 bundles of lost node 10.0.0.1 to others, for ranks 5-6"
    )


def test_only_what_starts_something_makes_a_generation() -> None:
    """Nothing failed, or only who was given up: the group keeps its names and its generation."""
    for facts in (RecoveryFacts(), RecoveryFacts(failed=(3,), absent=(2, 3))):
        made = plan_recovery(_plan(), facts, FailurePolicy(domain=Domain.TIED_GROUP), 5)
        assert (made.generation, made.end, made.start) == (4, (), ())
    made = plan_recovery(_plan(), RecoveryFacts(failed=(3,)), FailurePolicy(), 5)
    assert made.generation == 5
    assert {each.name.rpartition(".")[2] for each in made.start} == {"g5"}


def test_budget_and_pauses() -> None:
    """The first recovery does not wait, later ones twice as long each, up to a limit."""
    policy = FailurePolicy(budget=9, first_pause=1.0, longest_pause=5.0)
    assert [policy.pause_before(attempt) for attempt in range(6)] == [0, 1, 2, 4, 5, 5]
    plan = plan_recovery(_plan(), RecoveryFacts(failed=(0,), attempt=9), policy, 10)
    assert plan.missing == (
        (
            "the budget of 9 recoveries is spent: give the group a larger one, as with "
            "group.failure_policy = attrs.evolve(group.failure_policy, budget=10), or start a new "
            "group"
        ),
    )


def test_ranks_must_exist() -> None:
    """A failed rank that is not in the group is the caller's error."""
    with pytest.raises(PlanError, match=r"failed\[1\]: 8 is not one of 8"):
        plan_recovery(_plan(), RecoveryFacts(failed=(1, 8)), FailurePolicy(), 1)


@given(
    failed=st.sets(st.integers(0, 7)),
    lost=st.sets(st.sampled_from(["n0", "n1"])),
    domain=st.sampled_from(Domain),
    spares=st.integers(0, 10),
)
def test_laws_of_recovery(failed: set[int], lost: set[str], domain: Domain, spares: int) -> None:
    """Everybody is kept or ended; the ended are whole domains; no bundle is used twice."""
    plan = _plan()
    facts = RecoveryFacts(
        failed=tuple(sorted(failed)),
        lost_nodes=tuple(sorted(lost)),
        free_slots=tuple((9, bundle, "spare") for bundle in range(spares)),
    )
    made = plan_recovery(plan, facts, FailurePolicy(domain=domain), 1)
    assert sorted((*made.keep, *made.end)) == list(range(8))
    gone = failed | {worker.rank for worker in plan.workers if worker.node_id in lost}
    assert set(made.end) == {each for rank in gone for each in domain_of(plan, rank, domain)}
    places = [(each.placement_group, each.bundle) for each in made.start]
    places += [
        (worker.placement_group, worker.bundle)
        for worker in plan.workers
        if worker.rank in made.keep
    ]
    assert len(places) == len(set(places))
    if made.is_possible:
        assert [each.rank for each in made.start] == list(made.end)


def test_generations_replace_each_other() -> None:
    """A name has one generation at most."""
    assert [base_name(name) for name in ("a-0-1", "a-0-1.g12", "a.good-0-1")] == [
        "a-0-1",
        "a-0-1",
        "a.good-0-1",
    ]


@pytest.mark.parametrize(
    ("told", "tail", "cause", "signal", "code"),
    [
        (END_OF_FILE, (), DeathCause.SIGNAL, "SIGKILL", None),
        (END_OF_FILE, ("Fatal Python error: Aborted",), DeathCause.SIGNAL, "SIGABRT", None),
        (END_OF_FILE, ("x: *** SIGTRAP received at time=1",), DeathCause.SIGNAL, "SIGTRAP", None),
        (END_OF_FILE, ("*** SIGXCPU received at time=1",), DeathCause.SIGNAL, "SIGXCPU", None),
        (END_OF_FILE, ("rankplan: os._exit called with 3",), DeathCause.EXIT, "", 3),
        ("The process receives a SIGTERM.", (), DeathCause.SIGNAL, "SIGTERM", None),
        ("Worker exits with an exit code 4.", (), DeathCause.EXIT, "", 4),
        ("it was killed by `ray.kill`.", (), DeathCause.ENDED, "", None),
        ("The actor died because its node has died.", (), DeathCause.NODE_LOST, "", None),
        ("the node running low on memory", (), DeathCause.OUT_OF_MEMORY, "", None),
        ("is unavailable: x. It may or may not have", (), DeathCause.UNAVAILABLE, "", None),
        ("The actor is odd", (), DeathCause.UNKNOWN, "", None),
    ],
)
def test_causes_of_death(
    told: str, tail: tuple[str, ...], cause: DeathCause, signal: str, code: int | None
) -> None:
    """What Ray says and what the process wrote give one cause."""
    death = death_of(told, Remains(tail=tail))
    assert (death.cause, death.signal, death.exit_code) == (cause, signal, code)


def test_a_signal_that_nobody_saw_is_a_guess() -> None:
    """The likely one is told as such; what the process wrote itself is known."""
    assert death_of(END_OF_FILE, Remains()).detail == (
        "its process was ended by a signal that leaves no trace, most likely SIGKILL"
    )
    trapped = Remains(tail=("*** SIGTRAP received at time=1795275023 on cpu 0 ***",))
    assert death_of(END_OF_FILE, trapped).detail == "it crashed with SIGTRAP"
    told = Remains(tail=("*** SIGVTALRM received at time=1795275023 on cpu 0 ***",))
    assert death_of(END_OF_FILE, told).detail == "its process was ended by SIGVTALRM"


def test_the_tail_of_a_crash_begins_before_its_name() -> None:
    """The stacks after it are longer than the tail."""
    words = [f"step {number}" for number in range(20)]
    stack = [f'  File "train.py", line {number} in f' for number in range(40)]
    text = "\n".join([":job_id:1", *words, "Fatal Python error: Segmentation fault", "", *stack])
    tail = tail_lines(text)
    assert tail[:5] == (*words[-4:], "Fatal Python error: Segmentation fault")
    assert tail[5:] == tuple(stack[:7])
    assert death_of(END_OF_FILE, Remains(tail=tail)).signal == "SIGSEGV"
    assert tail_lines("\n".join(words)) == tuple(words[-12:])


def test_what_was_not_read_is_not_guessed() -> None:
    """On another machine a crash looks like a kill, until its standard error is read."""
    death = death_of(END_OF_FILE, Remains(log="/logs/a.err", was_read=False))
    assert (death.cause, death.signal) == (DeathCause.SIGNAL, "")
    assert death.detail == (
        "its process was killed or crashed; its standard error (/logs/a.err) could not be read"
    )


def test_the_kernel_ends_processes_for_lack_of_memory() -> None:
    """A kill without a trace, while the node's kernel counts kills, is told as such."""
    death = death_of(END_OF_FILE, Remains(oom_kills=2))
    assert death.cause is DeathCause.OUT_OF_MEMORY
    assert "has ended 2 for lack of memory" in death.detail


def test_what_a_process_without_memory_held_is_told() -> None:
    """In the words of Ray 2.60's memory monitor."""
    told = (
        "1 worker(s) were killed due to the node running low on memory. Memory on the node "
        "(IP: 10.0.0.2, ID: 6080) was 2.77GB used / 23.54GB limit (0.117493)\n"
        "Considered workers: [\nSelected to kill: (Actor(32e0): job ID=01000000, task name="
        "Eater-0-1:Host.__init__, pid=13616, actual memory used=1.99GB, worker ID=7ecd)\n"
        "(Actor(4136): job ID=01000000, pid=13617, actual memory used=0.08GB, worker ID=8)]"
    )
    death = death_of(told, Remains())
    assert death.cause is DeathCause.OUT_OF_MEMORY
    assert death.detail == (
        "Ray ended it for lack of memory: it held 1.99GB, and 2.77GB of its node's 23.54GB were "
        "in use"
    )


def test_the_tail_leaves_rays_marks_out() -> None:
    """Only what says something, and only the end."""
    text = ":job_id:01\n:actor_name:A\n\n" + "\n".join(f"line {n}" for n in range(40))
    assert tail_lines(text) == tuple(f"line {n}" for n in range(28, 40))
