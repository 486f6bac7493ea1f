"""Plans as text and back: canonical bytes, exact types, and every problem of a bad file at once."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from attrs import asdict, evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from planner.codec import PLAN_FORMATS, plan_from_json, plan_to_json
from planner.dispatch import DispatchPlan
from planner.findings import PlanError
from planner.group import GroupSpec
from planner.launch import LaunchPlan, WorkerPlan
from planner.options import JsonObject
from planner.plan_text import canonical_text
from planner.reservation import ReservationPlan
from planner.slice_policies import Constant, Even
from planner.slicing import SlicePlan, plan_slices
from tests.plan_cases import LAUNCHES, dispatches, launches
from tests.plan_files import PLANS, Steps, changed, opened, paths, problems, put, sealed


def leaves(data: object, steps: Steps = ()) -> Iterator[Steps]:
    """The way to everything in some data that holds nothing further."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*steps, key))
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            yield from leaves(value, (*steps, index))
    else:
        yield steps


def path_of(steps: Steps) -> str:
    """Steps as a message shows them."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)[1:]


@given(launches())
def test_launch_plan_survives(plan: LaunchPlan) -> None:
    """A LaunchPlan read from its text is equal, and gives the same text again."""
    text = plan_to_json(plan)
    read = plan_from_json(text, LaunchPlan)
    assert read == plan
    assert hash(read) == hash(plan)
    assert plan_to_json(read) == text


@given(dispatches())
def test_dispatch_plan_survives(plan: DispatchPlan) -> None:
    """A DispatchPlan read from its text is equal, and gives the same text again."""
    text = plan_to_json(plan)
    assert plan_from_json(text, DispatchPlan) == plan
    assert plan_to_json(plan_from_json(text)) == text


@given(dispatches(), dispatches())
def test_texts_are_equal_where_plans_are(one: DispatchPlan, other: DispatchPlan) -> None:
    """Equal plans have equal bytes, and no others have."""
    assert (plan_to_json(one) == plan_to_json(other)) == (one == other)
    assert plan_to_json(copy.deepcopy(one)) == plan_to_json(one)


@pytest.mark.parametrize("name", PLANS)
def test_text_is_canonical(name: str) -> None:
    """The text is ASCII with one line end at its end, and keys have the order of the fields."""
    text = plan_to_json(PLANS[name])
    assert text.isascii()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == ["format", "version", "digest", "plan"]
    expected = [each.name for each in fields(type(PLANS[name]))]
    assert list(json.loads(text)["plan"]) == expected


def test_layout_of_the_text() -> None:
    """Rows of numbers and what is short stand on one line; objects in a list never do."""
    data = {"row": list(range(60)), "short": {"a": [1, "\u00e9"]}, "many": [{}, {"b": None}]}
    assert canonical_text(data) == (
        "{\n"
        f'  "row": {list(range(60))},\n'
        '  "short": {"a": [1, "\\u00e9"]},\n'
        '  "many": [\n    {},\n    {"b": null}\n  ]\n'
        "}\n"
    )


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_text_holds_the_data(data: object) -> None:
    """Whatever the layout, a JSON reader finds the same data."""
    assert json.loads(canonical_text(data)) == data


def test_equal_numbers_are_written_alike() -> None:
    """Plans with 1 and 1.0 are equal, so their bytes are."""
    one, same = (plan_slices(Even(), rows=2, slices=1, pads={"x": Constant(v)}) for v in (1, 1.0))
    assert one == same
    assert plan_to_json(one) == plan_to_json(same)


def test_secret_stays_out() -> None:
    """A secret is null in the file, null again in the plan, and its value is nowhere."""
    text = plan_to_json(PLANS["environment"])
    assert "never in a plan" not in text
    read = plan_from_json(text, LaunchPlan)
    secrets = [each.name for each in read.environment.variables if each.is_secret]
    assert secrets == ["WANDB_API_KEY"]


class Live:
    """Something that is no plan value."""


def first_worker(**values: object) -> LaunchPlan:
    """A plan whose first worker has values of other types than it should."""
    plan: LaunchPlan = LAUNCHES["permuted_layout"]()
    given = asdict(plan.workers[0], recurse=False) | values
    wrong = object.__new__(WorkerPlan)
    for name, value in given.items():
        object.__setattr__(wrong, name, value)
    return evolve(plan, workers=(wrong, *plan.workers[1:]))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rank", np.int64(0), "a value of type int64, not int"),
        ("rank", True, "a value of type bool, not int"),
        ("rank", 0.0, "a value of type float, not int"),
        ("name", np.str_("a"), "a value of type str_, not str"),
        ("gpus", ["0"], "a value of type list, not tuple[str, ...]"),
        ("tied_bundles", {0}, "a value of type set, not tuple"),
        ("overrides", Live(), "a value of type Live, not WorkerOverrides"),
        ("profiler", {}, "a value of type dict, not JsonObject"),
        ("profiler", JsonObject('{"a":NaN}'), "'{\"a\":NaN}' holds what JSON can't hold"),
    ],
)
def test_no_plan_value_no_text(field: str, value: object, expected: str) -> None:
    """A value that is no plan value is refused, and the error says where it is."""
    with pytest.raises(TypeError) as raised:
        plan_to_json(first_worker(**{field: value}))
    assert str(raised.value) == f"plan.workers[0].{field}: {expected}"


def test_place_of_a_wrong_value_deep_inside() -> None:
    """The place is found through tuples, too."""
    with pytest.raises(TypeError, match=r"^plan\.workers\[0\]\.gpus\[1\]: a value of type int"):
        plan_to_json(first_worker(gpus=("0", 1)))


@pytest.mark.parametrize("value", [None, 3, {"format": "x"}, Live(), JsonObject()])
def test_only_plans_are_written(value: object) -> None:
    """Anything but a plan is refused."""
    with pytest.raises(TypeError, match=r"is no plan; plans are LaunchPlan, DispatchPlan"):
        plan_to_json(value)


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("", "line 1, column 1", "this is not JSON: Expecting value"),
        ("[1]", "text", "a list of 1 is no plan file"),
        ("[NaN]", "text", "this cannot be read: NaN is not a number of JSON"),
        ('{"a": 1, "a": 2}', "text", "this cannot be read: the key 'a' occurs twice in one object"),
    ],
)
def test_text_that_is_no_plan_file(text: str, path: str, problem: str) -> None:
    """What is not JSON, or JSON of another form, is told with its place."""
    (found,) = problems(text)
    assert (found.path, found.problem) == (path, problem)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5_000 + "}"])
def test_text_beyond_all_bounds(text: str) -> None:
    """Nesting and numbers that would break the reader are a PlanError too."""
    assert paths(text) == ["text"]


def test_bytes_are_not_a_text() -> None:
    """A caller who has read a file as bytes is told so."""
    with pytest.raises(PlanError, match="text: a value of type bytes; give the text"):
        plan_from_json(b"{}")  # type: ignore[call-overload]


def test_another_kind_was_asked_for() -> None:
    """A file of another kind is refused by name."""
    (found,) = problems(plan_to_json(PLANS["dispatch"]), LaunchPlan)
    assert str(found) == (
        "format: it holds a DispatchPlan, and a LaunchPlan was asked for; read it as DispatchPlan"
    )


def test_unknown_format_is_told_with_the_nearest() -> None:
    """A format that is not known is told, beside everything else about the envelope."""
    found = problems(json.dumps({"format": "rankplan/LaunchPlans", "version": "1.0"}))
    assert [each.path for each in found] == ["digest", "plan", "format"]
    assert found[-1].remedy == "known: rankplan/LaunchPlan"


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("2.0", "2.0 is not understood: version 1.x of rankplan/DispatchPlan is understood here"),
        ("0.9", "0.9 is not understood: version 1.x of rankplan/DispatchPlan is understood here"),
        ("1", '"1" is no version'),
        (1.0, "1.0 is no version"),
        (None, "null is no version"),
    ],
)
def test_version_that_is_not_understood(version: object, problem: str) -> None:
    """Another major version is refused, whatever the rest holds."""
    envelope = opened("dispatch") | {"version": version, "plan": "another world"}
    (found,) = problems(sealed(envelope))
    assert (found.path, found.problem) == ("version", problem)


def test_newer_minor_version_may_hold_more() -> None:
    """What a newer minor version adds is ignored, at every level; its digest still counts."""
    envelope = opened("launch") | {"version": "1.7", "signed_by": "somebody"}
    put(envelope, ("plan", "colour"), "red")
    put(envelope, ("plan", "workers", 1, "mood"), {"good": True})
    assert plan_from_json(sealed(envelope)) == PLANS["launch"]
    assert paths(json.dumps(envelope)) == ["digest"]


def test_this_version_holds_nothing_more() -> None:
    """In a file of this version an unknown key is an error, with the nearest that is known."""
    envelope = opened("launch") | {"signed_by": "somebody"}
    put(envelope, ("plan", "workers", 1, "local_ranks"), 1)
    found = problems(sealed(envelope))
    assert [each.path for each in found] == ["signed_by", "plan.workers[1].local_ranks"]
    assert found[1].remedy == "the plan has local_rank"


def test_field_with_a_default_may_be_missing() -> None:
    """An older minor version of a file lacks what was added since; the rest must be there."""
    envelope = opened("dispatch")
    plan = envelope["plan"]
    assert isinstance(plan, dict)
    del plan["shape"], plan["axes"], plan["ranks"]
    assert paths(sealed(envelope)) == ["plan.ranks"]


WRONG_TYPES: list[tuple[str, Steps, object, str]] = [
    ("launch", ("workers", 3, "local_rank"), "7", '"7" is not a whole number'),
    ("launch", ("workers", 3, "local_rank"), 1.9, "1.9 is not a whole number"),
    ("launch", ("workers", 3, "local_rank"), 3.0, "3.0 is not a whole number"),
    ("launch", ("workers", 3, "local_rank"), True, "true is not a whole number"),
    ("launch", ("workers", 3, "local_rank"), None, "null is not a whole number"),
    ("launch", ("workers", 0, "gpus"), "01", '"01" is not a list'),
    ("launch", ("workers", 0, "gpus", 0), 0, "0 is not a text"),
    ("launch", ("workers", 0, "tied_bundles"), [0, "1"], '"1" is not a whole number'),
    ("launch", ("workers",), {}, "an object is not a list"),
    ("launch", ("asynchronous",), 0, "0 is not true or false"),
    ("launch", ("gpu_visibility",), "masked", '"masked" is no GpuVisibility'),
    ("launch", ("rendezvous",), [], "a list of 0 is not an object"),
    ("launch", ("rendezvous", "port"), "29400", '"29400" is not a whole number'),
    ("launch", ("interpreter",), None, "null is not an object"),
    ("launch", ("interpreter", "class"), "os.system", '"os.system" is none of the kinds'),
    ("launch", ("mesh", "layout"), [[0, 1], [2, True]], "true is neither a list nor a rank"),
    ("launch", ("mesh", "names"), "ab", '"ab" does not hold names alone'),
    ("launch", ("runtime_env",), [], "a list of 0 is not an object"),
    ("environment", ("interpreter", "source", "class"), "Uv", '"Uv" is none of the kinds'),
    ("slices", ("order",), [0, 1.0], "1.0 is not a whole number of 64 bits"),
    ("slices", ("order",), [2**63], f"{2**63} is not a whole number of 64 bits"),
    ("slices", ("pads", 0), ["mask"], "1 entries for 2"),
    ("slices", ("pads", 0, 1, "value"), "nan", '"nan" is not a number'),
    ("slices", ("micro_batches", 1, 0), False, "false is not a whole number"),
]


@pytest.mark.parametrize(("name", "steps", "value", "problem"), WRONG_TYPES)
def test_value_of_a_wrong_type(name: str, steps: Steps, value: object, problem: str) -> None:
    """Nothing is converted: the finding names the place and what is there."""
    (found,) = problems(changed(name, (steps, value)))
    assert found.path.startswith(path_of(("plan", *steps)))
    assert found.problem == problem


@pytest.mark.parametrize("name", PLANS)
def test_no_leaf_takes_an_object(name: str) -> None:
    """An object in place of any value is found, at that value; only JSON objects may hold it."""
    plan = opened(name)["plan"]
    for steps in leaves(plan):
        if {"options", "runtime_env", "profiler"}.isdisjoint(steps):
            (found,) = problems(changed(name, (steps, {"not": "there"})))[:1]
            place = path_of(("plan", *steps)).replace("plan.mesh.names", "plan.mesh.layout")
            near = found.path.replace("plan.mesh.names", "plan.mesh.layout")
            assert near.startswith(place) or place.startswith(near)


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    """Whatever value of a file becomes another, the digest gives it away."""
    name = data.draw(st.sampled_from(sorted(PLANS)))
    envelope = opened(name)
    steps = data.draw(st.sampled_from(list(leaves(envelope))))
    value = data.draw(st.integers() | st.text() | st.none() | st.booleans())
    before = json.dumps(envelope)
    put(envelope, steps, value)
    if json.dumps(envelope) != before:
        assert "digest" in paths(json.dumps(envelope))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
EXTREMES = st.sampled_from([10**30, -1, 0, 2**63, "9" * 5_000, [[[]]], [10**30] * 4])


@given(st.data())
def test_nothing_but_a_plan_error(data: st.DataObject) -> None:
    """Whatever stands anywhere in a file, it is a plan or a PlanError, and quickly."""
    name = data.draw(st.sampled_from(sorted(PLANS)))
    plan = opened(name)["plan"]
    steps = data.draw(st.sampled_from(list(leaves(plan))))
    cut = steps[: data.draw(st.integers(1, len(steps)))]
    text = changed(name, (cut, data.draw(JSON | EXTREMES)))
    with suppress(PlanError):
        assert type(plan_from_json(text)) is type(PLANS[name])


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("value", [10**30, 2**62, -(2**63)])
def test_no_number_is_too_large_to_check(name: str, value: int) -> None:
    """A number beyond all sense is a finding or a part of a plan, never a crash."""
    for steps in leaves(opened(name)["plan"]):
        with suppress(PlanError):
            assert type(plan_from_json(changed(name, (steps, value)))) is type(PLANS[name])


def test_layout_and_order_of_keys_do_not_count() -> None:
    """A file that another tool wrote anew with the same content is the same plan."""
    text = json.dumps(opened("launch"), indent=7, sort_keys=True)
    assert plan_from_json(text, LaunchPlan) == PLANS["launch"]


def test_every_problem_at_once() -> None:
    """One error holds what is wrong with the envelope and with the plan, in order."""
    envelope = opened("launch") | {"note": "mine"}
    put(envelope, ("plan", "workers", 0, "rank"), "0")
    put(envelope, ("plan", "workers", 2, "gpus"), "2")
    put(envelope, ("plan", "asynchronous"), None)
    assert paths(json.dumps(envelope)) == [
        "digest",
        "note",
        "plan.asynchronous",
        "plan.workers[0].rank",
        "plan.workers[2].gpus",
    ]


def test_a_type_that_checks_itself_is_told_too() -> None:
    """What a plan's own types refuse is a finding with its place."""
    text = changed(
        "reservation",
        (("pools", 0, "needs", "memory"), -1),
        (("placement_groups", 1, "needs", "custom"), [["", 5]]),
    )
    assert paths(text) == [
        "plan.pools[0].needs.memory",
        "plan.placement_groups[1].needs.custom.",
    ]
    mesh = changed("launch", (("mesh", "layout"), [[0, 1], [1, 2]]))
    assert paths(mesh) == ["plan.mesh.layout"]


def test_every_format_is_covered_here() -> None:
    """Each type of plan that can be kept is among the plans of these tests."""
    covered: set[type] = {type(plan) for plan in PLANS.values()}
    own = {LaunchPlan, DispatchPlan, GroupSpec, ReservationPlan, SlicePlan}
    assert own <= covered
    assert len({each.name for each in PLAN_FORMATS}) == len(PLAN_FORMATS)
