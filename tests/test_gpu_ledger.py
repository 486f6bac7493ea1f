"""Who holds which share of the GPU of each bundle."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.gpu_ledger import BundleShare, GpuLedger, bundle_shares, held_amounts
from planner.group import GroupArguments, WorkerOverrides, plan_group
from tests.strategies import planned, spec_of


def on(*bundles: int, share: int) -> list[BundleShare]:
    """The same share of the GPUs of some bundles of the first placement group."""
    return [BundleShare(0, bundle, share) for bundle in bundles]


def test_groups_share_a_gpu_until_it_is_spent() -> None:
    """Exact sums; the error names who holds what, and what would make room."""
    ledger = GpuLedger(colocated=3)
    for name in ("policy", "rollout", "reward"):
        ledger = ledger.with_group(name, on(0, 1, share=3333))
    with pytest.raises(PlanError) as caught:
        ledger.with_group("teacher", on(0, 1, share=3333))
    assert str(caught.value) == (
        "worker group 'teacher': cluster: its bundles are shared by at most 3 groups, and "
        "'policy', 'reward', 'rollout' hold 0.9999 of the GPU of bundle 0 of placement group 0 "
        "already, of which it wants 0.3333 (and so in 1 more bundles); end one of them, or make "
        "the cluster with max_colocated_worker_groups=4"
    )
    again = ledger.without_group("rollout").with_group("teacher", on(0, 1, share=3333))
    assert [each.group for each in again.holders] == ["policy", "reward", "teacher"]
    assert ledger.without_group("nobody") == ledger


def test_groups_of_one_name_are_told_apart_and_shown_by_it() -> None:
    """One of them ends; a message says the name, not what tells them apart."""
    ledger = GpuLedger(colocated=2)
    for key in ("W (#1)", "W (#2)"):
        ledger = ledger.with_group("W", on(0, share=5_000), key)
    with pytest.raises(PlanError, match="and 'W', 'W' hold 1 of the GPU of bundle 0"):
        ledger.with_group("X", on(0, share=5_000))
    assert [each.key for each in ledger.without_group("W (#1)").holders] == ["W (#2)"]
    assert ledger.workers_beside("W (#1)") == {(0, 0): 1}


def test_a_group_that_took_more_than_its_part_is_named() -> None:
    """It could take less; the number of groups was right."""
    ledger = GpuLedger(colocated=2).with_group("greedy", on(0, share=10_000))
    with pytest.raises(PlanError) as caught:
        ledger.with_group("second", on(0, share=5_000))
    assert str(caught.value) == (
        "worker group 'second': cluster: its bundles are shared by at most 2 groups, and 'greedy' "
        "holds 1 of the GPU of bundle 0 of placement group 0 already, of which it wants 0.5; end "
        "one of them, or have configure_worker of 'greedy' ask for num_gpus=0.5 at most"
    )


def test_bundles_are_counted_by_themselves() -> None:
    """Groups that take other bundles, or little, do not stand in each other's way."""
    ledger = GpuLedger(colocated=1).with_group("first", on(0, share=10_000))
    ledger = ledger.with_group("beside", on(1, share=10_000))
    ledger = ledger.with_group("elsewhere", [BundleShare(1, 0, 10_000)])
    small = GpuLedger(colocated=2)
    for name in "abcd":
        small = small.with_group(name, on(0, share=2_500))
    assert len(small.holders) == 4
    assert planned(lambda: ledger.with_group("again", on(0, 1, 2, share=1))) is None


def test_what_configure_worker_answered_counts() -> None:
    """A share of its own where one was asked for, the group's otherwise."""
    spec = plan_group(GroupArguments(worker_class="a.B", bundle_counts=(1, 2), gpu_share=5_000))
    usual = tuple(BundleShare(*place, 5_000) for place in ((0, 0), (1, 0), (1, 1)))
    assert bundle_shares(spec) == usual
    asked = (WorkerOverrides(gpu_share=10_000), WorkerOverrides(), WorkerOverrides(gpu_share=0))
    assert [each.share for each in bundle_shares(evolve(spec, overrides=asked))] == [
        10_000,
        5_000,
        0,
    ]


def test_bundles_without_gpus_give_none() -> None:
    """A worker that asks for one there would wait for ever; one that asks for none may start."""
    ledger = GpuLedger(colocated=1, budget=0)
    for name in ("plain", "decorated", "one"):
        ledger = ledger.with_group(name, on(0, share=0))
    assert len(ledger.holders) == 3
    with pytest.raises(PlanError) as caught:
        ledger.with_group("engine", on(0, share=10_000))
    assert str(caught.value) == (
        "worker group 'engine': cluster: its worker in bundle 0 of placement group 0 wants 1 of a "
        "GPU, and the cluster's bundles hold none; have its configure_worker ask for num_gpus=0, "
        "or make the cluster with use_gpus=True"
    )


def test_a_worker_that_wants_more_than_a_bundle_is_told_so() -> None:
    """Nobody else has anything to do with it."""
    ledger = GpuLedger(colocated=2).with_group("beside", on(1, share=5_000))
    with pytest.raises(PlanError) as caught:
        ledger.with_group("engine", on(0, share=20_000))
    assert str(caught.value) == (
        "worker group 'engine': cluster: its worker in bundle 0 of placement group 0 wants 2 of a "
        "GPU, and the bundle holds 1; have its configure_worker ask for num_gpus=0.5 at most"
    )


def test_what_options_ask_for_is_shared_too() -> None:
    """Two groups of two CPUs each in bundles of two would wait until the start's deadline."""
    ledger = GpuLedger(colocated=2, budget=0, others=held_amounts([("CPU", 2), ("nic", 0.5)]))
    asked = held_amounts([("CPU", 1.5), ("nic", 0.25)])
    shares = [BundleShare(0, bundle, 0, asked) for bundle in (0, 1)]
    ledger = ledger.with_group("policy", shares)
    with pytest.raises(PlanError) as caught:
        ledger.with_group("rollout", shares)
    assert str(caught.value) == (
        "worker group 'rollout': options, CPU: each worker asks for 1.5 of CPU, and of the 2 of "
        "bundle 0 of placement group 0 'policy' holds 1.5 already (and so in 1 more bundles); end "
        "one of them, have workers ask for less, or make the cluster with bundle_resources={'CPU': "
        "3}"
    )
    elsewhere = [BundleShare(0, 2, 0, asked)]
    assert ledger.with_group("rollout", elsewhere).without_group("policy").holders[0].shares == (
        elsewhere[0],
    )
    half = [BundleShare(0, 0, 0, held_amounts([("CPU", 0.5), ("nic", 0.25)]))]
    full = ledger.with_group("rollout", half)
    with pytest.raises(PlanError, match=r"of the 0.5 of .* 'policy' holds 0.25, 'rollout' holds"):
        full.with_group("third", [BundleShare(0, 0, 0, held_amounts([("nic", 0.01)]))])


def test_what_the_options_ask_for_is_in_each_share() -> None:
    """Not the GPU, of which each group has its part."""
    options = {"num_cpus": 2, "memory": 1 << 30, "num_gpus": 1, "resources": {"nic": 0.5}}
    shares = bundle_shares(spec_of([2], options=options))
    held = (("CPU", 20_000), ("memory", (1 << 30) * 10_000), ("nic", 5_000))
    assert [each.others for each in shares] == [held, held]


@given(st.integers(1, 40), st.integers(0, 60))
def test_as_many_groups_fit_as_the_cluster_was_made_for(colocated: int, extra: int) -> None:
    """Never one less, never one more."""
    share = 10_000 // colocated
    ledger = GpuLedger(colocated=colocated)
    for index in range(colocated):
        ledger = ledger.with_group(f"g{index}", on(0, 1, share=share))
    assert len(ledger.holders) == colocated
    assert planned(lambda: ledger.with_group(f"x{extra}", on(1, share=share))) is None
