"""Whether what actor options ask for is in the bundles."""

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.option_fit import check_options_fit
from planner.prediction import predict_launch
from planner.virtual_cluster import plan_cluster
from tests.places_cases import GROUP, small_nodes
from tests.strategies import spec_of

ONE = (("CPU", 1), ("GPU", 1))


def refusal(options: dict[str, Any], *bundles: tuple[tuple[str, float], ...]) -> list[str]:
    """The findings of a group with one worker in each bundle of one placement group."""
    spec = spec_of([len(bundles)], options=options)
    held = {(0, index): each for index, each in enumerate(bundles)}
    try:
        check_options_fit(spec, held)
    except PlanError as error:
        return [str(finding) for finding in error.findings]
    return []


def test_every_option_that_does_not_fit_is_named() -> None:
    """With what the bundle holds, and what would fit."""
    options = {"num_cpus": 2, "memory": 1 << 30, "resources": {"nic": 0.5}}
    assert refusal(options, ONE) == [
        (
            "options.num_cpus: each worker asks for 2 of CPU, and bundle 0 of placement group 0 "
            "holds 1; ask for 1 at most, or reserve bundles with 2 of CPU"
        ),
        (
            "options.memory: each worker asks for 1073741824 of memory, and bundle 0 of placement "
            "group 0 holds 0; leave it out, or reserve bundles with 1073741824 of memory"
        ),
        (
            "options.resources['nic']: each worker asks for 0.5 of nic, and bundle 0 of placement "
            "group 0 holds 0; leave it out, or reserve bundles with 0.5 of nic"
        ),
    ]


def test_one_bundle_that_is_too_small_is_enough() -> None:
    """Its worker would wait for ever."""
    (found,) = refusal({"num_cpus": 2}, (("CPU", 4),), ONE, (("CPU", 1.5),))
    assert "bundle 1 of placement group 0 and 1 more holds 1; ask for 1 at most" in found


def test_bundles_that_are_not_known_are_not_judged() -> None:
    """Nothing is guessed."""
    check_options_fit(spec_of([1], options={"num_cpus": 99}), {})


@given(
    st.floats(min_value=0, max_value=8, allow_nan=False),
    st.floats(min_value=0, max_value=8, allow_nan=False),
)
def test_it_fits_when_the_bundle_holds_as_much(asked: float, held: float) -> None:
    """Exactly then."""
    assert bool(refusal({"num_cpus": asked}, (("CPU", held),))) is (asked > held)


def test_a_prediction_finds_it_too() -> None:
    """From the cluster's own word on its bundles."""
    spec = plan_cluster(bundle_ct_per_node_list=[2], max_colocated_worker_groups=2)
    assert (
        predict_launch(spec, evolve(GROUP, options={"num_cpus": 2}), small_nodes(2)).world_size == 2
    )
    with pytest.raises(PlanError, match="asks for 3 of CPU, and bundle 0 of placement group 0"):
        predict_launch(spec, evolve(GROUP, options={"num_cpus": 3}), small_nodes(2))
