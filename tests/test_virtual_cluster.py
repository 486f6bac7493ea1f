"""What a virtual cluster asks Ray for, and who may share it."""

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.requests import Strategy
from planner.reservation import plan_reservation
from planner.shapes import h100_nodes
from planner.virtual_cluster import (
    BundleRequest,
    ClusterSpec,
    checked_strategy,
    checked_tries,
    plan_bundles,
    plan_cluster,
    reservation_request,
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
            name="train-node0-rankplan-r",
            strategy=Strategy.STRICT_PACK,
            bundles=(bundle, bundle),
            selectors=asked(cluster())[0].selectors,
        ),
        BundleRequest(
            name="train-node2-rankplan-r",
            strategy=Strategy.STRICT_PACK,
            bundles=(bundle,),
            selectors=asked(cluster())[1].selectors,
        ),
    )


def test_one_unified_placement_group() -> None:
    """With the cluster's strategy, or the caller's."""
    (request,) = asked(cluster(max_colocated_worker_groups=3), unified=True)
    assert request.name == "train-unified-rankplan-r"
    assert request.strategy is Strategy.SPREAD
    assert [dict(bundle) for bundle in request.bundles] == [{"CPU": 3, "GPU": 1}] * 3
    (packed,) = asked(cluster(), unified=True, strategy=Strategy.PACK)
    assert packed.strategy is Strategy.PACK


def test_without_gpus_and_without_a_name() -> None:
    """CPUs only, under the name that messages give it."""
    (first, _) = asked(cluster(use_gpus=False, name=""))
    assert [dict(bundle) for bundle in first.bundles] == [{"CPU": 1}] * 2
    assert first.name == "cluster-node0-rankplan-r"


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


def test_bundles_hold_what_was_asked_for() -> None:
    """Other CPUs, memory and custom resources, beside the GPU; counted when it is placed."""
    spec = cluster(
        max_colocated_worker_groups=2,
        bundle_resources={"CPU": 4, "memory": "16GiB", "disk": 0.5, "none": 0},
    )
    bundle = (("CPU", 4), ("GPU", 1), ("memory", 16 * 1024**3), ("disk", 0.5))
    assert [each.bundles for each in asked(spec)] == [(bundle, bundle), (bundle,)]
    request = reservation_request(spec, unified=False, strategy=Strategy.PACK)
    assert request.milli_cpus_per_bundle == 4_000
    assert request.memory_per_bundle == 16 * 1024**3
    assert request.custom_per_bundle == (("disk", 500),)
    assert reservation_request(cluster(), unified=False, strategy=Strategy.PACK) == evolve(
        request, milli_cpus_per_bundle=1_000, memory_per_bundle=0, custom_per_bundle=(), colocated=1
    )


def test_memory_that_no_node_has_is_named() -> None:
    """The verdict on such bundles is as for GPUs."""
    spec = cluster(bundle_ct_per_node_list=[2], bundle_resources={"memory": 2**40, "CPU": 0})
    request = reservation_request(spec, unified=False, strategy=Strategy.PACK)
    assert plan_reservation([request], h100_nodes(1)).fits
    more = reservation_request(
        evolve(spec, bundle_counts=(3,)), unified=False, strategy=Strategy.PACK
    )
    [finding] = plan_reservation([more], h100_nodes(1)).findings()
    assert "1 TiB of memory missing on the closest node" in finding.problem
    assert "CPU" not in finding.problem


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        (["CPU"], "bundle_resources: a value of type list; give names and amounts, as {'CPU': 4,"),
        ({"GPU": 2}, "bundle_resources['GPU']: a bundle holds one GPU, or none; say it with use_"),
        ({"num_cpus": 2}, "bundle_resources['num_cpus']: this is not what Ray calls it; call it"),
        ({3: 2}, "bundle_resources[3]: 3 is not the name of a resource; give a string"),
        ({"CPU": -1}, "bundle_resources['CPU']: -1 is not an amount of CPU; give a number of 0"),
        ({"CPU": True}, "bundle_resources['CPU']: True is not an amount of CPU"),
        ({"CPU": "4"}, "bundle_resources['CPU']: '4' is not an amount of CPU"),
        ({"x": 0.00001}, "bundle_resources['x']: 1e-05 is not an amount of x"),
        ({"x": float("nan")}, "bundle_resources['x']: nan is not an amount of x"),
        ({"memory": "16 GX"}, "bundle_resources['memory']: '16 GX' is not a size in bytes; give"),
        ({"memory": -1}, "bundle_resources['memory']: -1 is not a size in bytes"),
        ({"object_store_memory": 1}, "bundle_resources['object_store_memory']: a node's object"),
    ],
)
def test_wrong_resources_of_bundles_are_findings(resources: object, told: str) -> None:
    """Each with its name."""
    with pytest.raises(PlanError) as caught:
        cluster(bundle_resources=resources)
    [finding] = caught.value.findings
    assert str(finding).startswith(told)


def test_a_bundle_holds_something() -> None:
    """No GPU and no CPU is nothing; memory alone is something."""
    with pytest.raises(PlanError, match="bundle_resources: a bundle would hold nothing"):
        cluster(use_gpus=False, bundle_resources={"CPU": 0})
    (first, _) = asked(cluster(use_gpus=False, bundle_resources={"CPU": 0, "memory": 5}))
    assert first.bundles == ((("memory", 5),),) * 2


@given(
    st.fixed_dictionaries(
        {
            "bundle_ct_per_node_list": junk(),
            "use_gpus": junk(),
            "max_colocated_worker_groups": junk(),
            "num_gpus_per_node": junk(),
            "name": junk(),
            "strategy": junk(),
            "bundle_resources": junk(),
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
