"""Profilers for workers chosen by name."""

import pytest
from attrs import evolve

from planner.findings import Findings, PlanError
from planner.group import plan_group, plan_hosts
from planner.group_places import PlaceArguments
from planner.prediction import predict_launch
from planner.profiling import plan_profiles, profiler_of
from planner.virtual_cluster import plan_cluster
from tests.places_cases import GROUP, small_nodes


def test_pattern_gets_rays_own_settings() -> None:
    """A pattern without settings gets Nsight's default; others get nothing."""
    profiles = plan_profiles(["policy-0-*"], None, Findings("x"))
    assert profiler_of(profiles, "policy-0-1").value() == {"nsight": "default"}
    assert not profiler_of(profiles, "policy-1-0")


def test_variable_holds_patterns_or_json() -> None:
    """The driver's variable asks in either form; the argument's settings win."""
    plain = plan_profiles(None, "a-*, b-*", Findings("x"))
    rich = plan_profiles({"a-*": {"nsight": {"t": "cuda"}}}, '{"a-*": {"x": 1}}', Findings("x"))
    assert [each.pattern for each in plain] == ["a-*", "b-*"]
    assert profiler_of(rich, "a-0").value() == {"x": 1, "nsight": {"t": "cuda"}}


@pytest.mark.parametrize(
    ("given", "text", "path"),
    [
        (None, "{broken", "RANKPLAN_PROFILE"),
        (None, "a,,b", "RANKPLAN_PROFILE['']"),
        (3, None, "profile"),
        ({"a": "nsight"}, None, "profile['a']"),
        ({"a": {"x": object()}}, None, "profile['a'].x"),
        ({"a": {"env_vars": {"API_KEY": "k"}}}, None, "profile['a'].env_vars.API_KEY"),
        ({"a": {"nsigt": "default"}}, None, "profile['a']['nsigt']"),
    ],
)
def test_wrong_wishes_are_findings(given: object, text: str | None, path: str) -> None:
    """What can't be a profiler is found with its path."""
    findings = Findings("group")
    plan_profiles(given, text, findings)
    assert [each.path for each in findings.found] == [path]


def test_only_the_chosen_worker_pays() -> None:
    """The profiled host has a runtime environment of its own, and the plan says what it costs."""
    wish = evolve(
        GROUP,
        bundle_counts=(2,),
        places=PlaceArguments(profile={"policy-0-1": {"nsight": {"o": "trace"}}}),
    )
    hosts = plan_hosts(plan_group(wish))
    assert [host.runtime_env.value() for host in hosts] == [{}, {"nsight": {"o": "trace"}}]
    plan = predict_launch(plan_cluster(bundle_ct_per_node_list=[2]), wish, small_nodes(2))
    assert [worker.profiler.value() for worker in plan.workers] == [{}, {"nsight": {"o": "trace"}}]
    assert any("1 of 2 workers are profiled (policy-0-1)" in note for note in plan.notes)


def test_pattern_that_matches_nobody_is_told() -> None:
    """A misspelt pattern does not pass in silence."""
    wish = evolve(GROUP, places=PlaceArguments(profile=["polcy-*"]))
    plan = predict_launch(plan_cluster(bundle_ct_per_node_list=[1]), wish, small_nodes(1))
    assert any("no name matches 'polcy-*'" in note for note in plan.notes)


def test_error_reaches_the_caller() -> None:
    """A wrong profile stops the plan."""
    wish = evolve(GROUP, bundle_counts=(1,), places=PlaceArguments(profile=7))
    with pytest.raises(PlanError, match="profile"):
        plan_group(wish)
