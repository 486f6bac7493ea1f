"""Actor options: how they merge, and which of them a worker may have."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.options import JsonObject, actor_options, json_object, recursive_merge_options
from tests.strategies import fresh, junk

nested = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
options = st.dictionaries(st.sampled_from("abc"), nested, max_size=3)


def test_extra_options_win_at_every_level() -> None:
    """Mappings merge, everything else is replaced; the inputs are left as they were."""
    default = {"num_cpus": 1, "runtime_env": {"env_vars": {"A": "1", "B": "1"}, "pip": ["a"]}}
    extra = {"runtime_env": {"env_vars": {"B": "2"}, "pip": ["b"]}, "num_gpus": 0.5}
    before = copy.deepcopy((default, extra))
    merged = recursive_merge_options(default, extra)
    assert merged == {
        "num_cpus": 1,
        "num_gpus": 0.5,
        "runtime_env": {"env_vars": {"A": "1", "B": "2"}, "pip": ["b"]},
    }
    merged["runtime_env"]["pip"].append("c")  # type: ignore[index]
    assert (default, extra) == before


def test_nsight_gets_its_name_back() -> None:
    """Ray hides it in the defaults of a decorated class; what is there already stays."""
    hidden = {"runtime_env": {"_nsight": "default"}}
    assert recursive_merge_options(hidden, {}) == {"runtime_env": {"nsight": "default"}}
    both = recursive_merge_options(hidden, {"runtime_env": {"nsight": {"t": "cuda"}}})
    assert both == {"runtime_env": {"nsight": {"t": "cuda"}}}
    deeper = {"runtime_env": {"config": {"_nsight": 1}}}
    assert recursive_merge_options(deeper, {}) == deeper


def test_what_is_no_mapping_is_not_merged() -> None:
    """Both are named, whichever is wrong."""
    with pytest.raises(PlanError) as caught:
        recursive_merge_options(None, [("num_cpus", 1)])  # type: ignore[arg-type]
    assert [each.path for each in caught.value.findings] == ["default_options", "extra_options"]
    assert "None is of type NoneType; give a mapping" in str(caught.value)


@given(options, options)
def test_merging_keeps_every_key(default: dict[str, Any], extra: dict[str, Any]) -> None:
    """And the extra leaves; a merge with nothing, or with itself, changes nothing."""
    merged = recursive_merge_options(default, extra)
    assert set(merged) == {*default, *extra}
    assert recursive_merge_options(merged, extra) == merged
    assert recursive_merge_options(default, {}) == recursive_merge_options({}, default) == default


def handed_on(**given_: object) -> tuple[dict[str, Any], list[str]]:
    """The options that a host takes over, and the notes."""
    findings, notes = fresh(), list[str]()
    made = actor_options(given_, findings, notes)
    findings.check()
    return made.value(), notes


def test_options_of_a_class_that_are_handed_on() -> None:
    """Placement and names are the plan's; None means not given."""
    assert handed_on(
        num_cpus=2,
        resources={"tpu": 1},
        memory=None,
        num_gpus=1,
        name="mine",
        scheduling_strategy="SPREAD",
        runtime_env={"pip": []},
        lifetime="non_detached",
    ) == ({"num_cpus": 2, "resources": {"tpu": 1}}, [])


def test_restarts_are_not_handed_on() -> None:
    """A process that Ray restarts has lost its rank; the reader is told."""
    kept, notes = handed_on(max_restarts=3, max_task_retries=0)
    assert kept == {}
    assert notes == [
        (
            "max_restarts=3 of the worker class is not handed on: a process that Ray restarts has "
            "lost its rank and its state"
        )
    ]


def test_options_that_a_worker_cannot_have() -> None:
    """All at once."""
    with pytest.raises(PlanError) as caught:
        handed_on(lifetime="detached", num_cpu=1, resources={"a": object()})
    paths = [finding.path for finding in caught.value.findings]
    assert paths == ["options.lifetime", "options.num_cpu", "options.resources['a']"]
    assert "did you mean 'num_cpus'? use one of accelerator_type, " in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("num_cpus", -1, "num_cpus: -1 is not an amount; give a number of 0 or more"),
        ("num_cpus", True, "num_cpus: True is not an amount; give a number of 0 or more"),
        ("memory", float("nan"), "memory: nan is not an amount; give a number of 0 or more"),
        ("resources", "x", "resources: 'x' are not resources; give names and amounts, as {'nic'"),
        ("resources", {"nic": -1}, "resources['nic']: -1 is not an amount; give a number of 0"),
        ("resources", {"CPU": 1}, "resources['CPU']: it has an option of its own; use num_cpus"),
        ("resources", {7: 1}, "resources[7]: 7 is not the name of a resource; give a string"),
        ("max_concurrency", "x", "max_concurrency: 'x' is not a number of calls; give a whole"),
        ("max_concurrency", 0, "max_concurrency: 0 is not a number of calls; give a whole number"),
        ("concurrency_groups", {"io": 0}, "concurrency_groups: {'io': 0} are not groups of calls;"),
        ("accelerator_type", 5, "accelerator_type: 5 is not a kind of accelerator; give a name"),
        ("label_selector", {"rack": 1}, "label_selector: {'rack': 1} is not a selector of labels;"),
    ],
)
def test_values_that_an_option_cannot_have(option: str, value: object, text: str) -> None:
    """Found here, where Ray would refuse them in the middle of a start."""
    with pytest.raises(PlanError) as caught:
        handed_on(**{option: value})
    (found,) = caught.value.findings
    assert str(found).startswith(f"options.{text}")


def test_values_that_options_may_have() -> None:
    """They reach the host as they were given."""
    given_: dict[str, Any] = {
        "num_cpus": 0.5,
        "memory": 1 << 30,
        "resources": {"nic": 0.25},
        "max_concurrency": 4,
        "concurrency_groups": {"io": 2},
        "accelerator_type": "H100",
        "label_selector": {"rack": "in(r1, r2)"},
    }
    assert handed_on(**given_) == (given_, [])


def test_json_objects_are_values() -> None:
    """Equal whatever the order of their keys; a fresh dictionary each time."""
    first = json_object("here", {"b": [1, (2,)], "a": {"x": None}}, fresh())
    second = json_object("here", {"a": {"x": None}, "b": [1, [2]]}, fresh())
    assert first == second == JsonObject('{"a":{"x":null},"b":[1,[2]]}')
    first.value()["a"] = "changed"
    assert first.value()["a"] == {"x": None}
    assert not JsonObject()


@given(st.dictionaries(st.text(max_size=3), junk(), max_size=3))
def test_junk_becomes_findings(value: dict[str, object]) -> None:
    """Whatever JSON cannot hold is named; nothing is raised."""
    findings = fresh()
    made = json_object("here", value, findings)
    assert made.value() is not None
    assert all(finding.path.startswith("here") for finding in findings.found)
