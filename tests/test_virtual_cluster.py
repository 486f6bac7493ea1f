"""What a virtual cluster asks Ray for, and who may share it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.requests import Strategy
from planner.virtual_cluster import (
    BundleRequest,
    ClusterSpec,
    GpuLedger,
    checked_strategy,
    checked_tries,
    plan_bundles,
    plan_cluster,
)
from tests.strategies import fresh, junk, planned


def cluster(**changes: Any) -> ClusterSpec:
    """A cluster of three nodes, the second one empty."""
    given_: dict[str, Any] = {
        "bundle_ct_per_node_list": [2, 0, 1],
        "use_gpus": True,
        "max_colocated_worker_groups": 1,
        "num_gpus_per_node": 8,
        "name": "train",
        "strategy": "SPREAD",
    }
    return plan_cluster(**{**given_, **changes})


def asked(spec: ClusterSpec, **how: Any) -> tuple[BundleRequest, ...]:
    """The placement groups of a cluster."""
    return plan_bundles(spec, **{"unified": False, "strategy": None, "run": "r", **how})


def test_one_placement_group_per_node_that_gives_bundles() -> None:
    """Each keeps to one machine, whatever the strategy for unified ones is."""
    bundle = (("CPU", 1), ("GPU", 1))
    assert asked(cluster()) == (
        BundleRequest(
            name="train-r-node0",
            strategy=Strategy.STRICT_PACK,
            bundles=(bundle, bundle),
            selectors=asked(cluster())[0].selectors,
        ),
        BundleRequest(
            name="train-r-node2",
            strategy=Strategy.STRICT_PACK,
            bundles=(bundle,),
            selectors=asked(cluster())[1].selectors,
        ),
    )


def test_one_unified_placement_group() -> None:
    """With the cluster's strategy, or the caller's."""
    (request,) = asked(cluster(max_colocated_worker_groups=3), unified=True)
    assert request.name == "train-r-unified"
    assert request.strategy is Strategy.SPREAD
    assert request.bundles == ((("CPU", 3), ("GPU", 1)),) * 3
    (packed,) = asked(cluster(), unified=True, strategy=Strategy.PACK)
    assert packed.strategy is Strategy.PACK


def test_without_gpus_and_without_a_name() -> None:
    """CPUs only, under the library's name."""
    (first, _) = asked(cluster(use_gpus=False, name=""))
    assert first.bundles == ((("CPU", 1),),) * 2
    assert first.name == "rankplan-r-node0"


def test_numbers_may_be_numpys() -> None:
    """Counts are often computed."""
    spec = cluster(
        bundle_ct_per_node_list=list(np.array([2, 2])), max_colocated_worker_groups=np.int64(2)
    )
    assert spec.bundle_counts == (2, 2)
    assert [type(count) for count in spec.bundle_counts] == [int, int]
    assert type(spec.max_colocated_worker_groups) is int


def test_strategies_by_name_or_member() -> None:
    """Anything else lists what there is."""
    assert checked_strategy("strategy", "PACK", fresh()) is Strategy.PACK
    assert checked_strategy("strategy", Strategy.SPREAD, fresh()) is Strategy.SPREAD
    for wrong in ("pack", "", None, 1, ["PACK"]):
        findings = fresh()
        checked_strategy("strategy", wrong, findings)
        assert [str(each) for each in findings.found] == [
            (
                f"strategy: {wrong!r} is not a strategy; use one of PACK, SPREAD, STRICT_PACK, "
                "STRICT_SPREAD"
            )
        ]


def test_how_often_to_look() -> None:
    """A whole number of 1 or more."""
    assert checked_tries("6", "cluster") == 6
    for wrong in ("0", "-1", "1.5", "", "many", "²"):
        with pytest.raises(PlanError, match="is not a number of tries; set it to 1 or more"):
            checked_tries(wrong, "cluster")


def test_groups_share_a_gpu_until_it_is_spent() -> None:
    """Exact sums; the error names who holds what, and what would make room."""
    ledger = GpuLedger(colocated=3)
    for name in ("policy", "rollout", "reward"):
        ledger = ledger.with_group(name, 3333, 10_000)
    with pytest.raises(PlanError) as caught:
        ledger.with_group("teacher", 3333, 10_000)
    assert str(caught.value) == (
        "worker group 'teacher': cluster: its bundles are shared by at most 3 groups, and "
        "'policy', 'reward', 'rollout' hold 0.9999 of every GPU already; end one of them, or make "
        "the cluster with max_colocated_worker_groups=4"
    )
    again = ledger.without_group("rollout").with_group("teacher", 3333, 10_000)
    assert [name for name, _ in again.holders] == ["policy", "reward", "teacher"]
    assert ledger.without_group("nobody") == ledger


def test_groups_without_a_share_are_not_limited() -> None:
    """On a cluster of CPUs, where a worker takes as many of them as its class asks for."""
    ledger = GpuLedger(colocated=1)
    for name in ("plain", "decorated", "one"):
        ledger = ledger.with_group(name, 0, 10_000)
    assert len(ledger.holders) == 3


@given(st.integers(1, 40), st.integers(0, 60))
def test_as_many_groups_fit_as_the_cluster_was_made_for(colocated: int, extra: int) -> None:
    """Never one less, never one more."""
    share = 10_000 // colocated
    ledger = GpuLedger(colocated=colocated)
    for index in range(colocated):
        ledger = ledger.with_group(f"g{index}", share, 10_000)
    assert len(ledger.holders) == colocated
    assert planned(lambda: ledger.with_group(f"x{extra}", share, 10_000)) is None


@given(
    st.fixed_dictionaries(
        {
            "bundle_ct_per_node_list": junk(),
            "use_gpus": junk(),
            "max_colocated_worker_groups": junk(),
            "num_gpus_per_node": junk(),
            "name": junk(),
            "strategy": junk(),
        }
    )
)
def test_junk_is_refused_in_words(arguments: dict[str, object]) -> None:
    """A PlanError, or a cluster with bundles."""
    spec = planned(lambda: plan_cluster(**arguments))
    assert spec is None or sum(spec.bundle_counts) > 0


def test_all_findings_come_at_once() -> None:
    """Every argument is wrong."""
    with pytest.raises(PlanError) as caught:
        cluster(
            bundle_ct_per_node_list=[1, "2", -3],
            use_gpus=None,
            max_colocated_worker_groups=1.5,
            num_gpus_per_node=0,
            name=None,
            strategy="LOOSE",
        )
    assert [finding.path for finding in caught.value.findings] == [
        "bundle_ct_per_node_list[1]",
        "bundle_ct_per_node_list[2]",
        "max_colocated_worker_groups",
        "num_gpus_per_node",
        "use_gpus",
        "name",
        "placement_group_strategy",
    ]
