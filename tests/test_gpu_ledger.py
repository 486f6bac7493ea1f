"""Who holds which share of the GPU of each bundle."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.gpu_ledger import BundleShare, GpuLedger, bundle_shares
from planner.group import GroupArguments, WorkerOverrides, plan_group
from tests.strategies import planned


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
    assert [name for name, _ in again.holders] == ["policy", "reward", "teacher"]
    assert ledger.without_group("nobody") == ledger


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


@given(st.integers(1, 40), st.integers(0, 60))
def test_as_many_groups_fit_as_the_cluster_was_made_for(colocated: int, extra: int) -> None:
    """Never one less, never one more."""
    share = 10_000 // colocated
    ledger = GpuLedger(colocated=colocated)
    for index in range(colocated):
        ledger = ledger.with_group(f"g{index}", on(0, 1, share=share))
    assert len(ledger.holders) == colocated
    assert planned(lambda: ledger.with_group(f"x{extra}", on(1, share=share))) is None
