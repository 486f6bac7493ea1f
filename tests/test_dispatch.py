"""Who is called with which slice and who returns: every kind of call, and its laws."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.dispatch import (
    DUMMY,
    CallKind,
    DispatchPlan,
    Transport,
    choose_transport,
    plan_one,
    plan_per_worker,
    plan_same,
    plan_sharded,
    slice_path,
    slices_of,
)
from planner.findings import PlanError
from planner.mesh import NamedSharding
from tests.strategies import Roles, fresh, junk, mesh_with_roles, meshes, planned

MESH = NamedSharding([[2, 3], [0, 1]], ["dp", "tp"])


def sharded(
    cut: Any, same: Any = None, once: Any = None, *, dummy: bool = False, mesh: Any = MESH
) -> DispatchPlan:
    """A sharded call on the permuted layout."""
    return plan_sharded(mesh, cut, same, once, fresh(), dummy_calls=dummy)


def refusal(*given: Any) -> list[str]:
    """The findings of a sharded call, one line each."""
    with pytest.raises(PlanError) as caught:
        sharded(*given)
    return [str(finding) for finding in caught.value.findings]


def test_one_worker_is_called_and_returns() -> None:
    """Python's and numpy's whole numbers; nothing else is a rank."""
    assert plan_one(np.int64(2), 4, fresh()) == DispatchPlan(
        kind=CallKind.ONE, ranks=(2,), slices=(0,), returns=(2,)
    )
    for wrong in (4, -1, True, 1.0, "1", None, [1], np.array([1, 2])):
        with pytest.raises(PlanError, match="is not a rank; give 0 to 3"):
            plan_one(wrong, 4, fresh())


def test_the_same_data_goes_to_all_or_to_the_first_of_an_axis() -> None:
    """In rank order, also in a permuted layout; no axes are needed to call all."""
    assert plan_same(None, 3, None, fresh()).ranks == (0, 1, 2)
    assert plan_same(MESH, 4, ["tp"], fresh()).ranks == (0, 2)
    assert plan_same(MESH, 4, ("dp", "tp"), fresh()).ranks == (2,)
    with pytest.raises(PlanError, match="the group has no sharding_annotations"):
        plan_same(None, 3, ["tp"], fresh())


def test_each_worker_has_a_slice_of_its_own() -> None:
    """Numbered in rank order."""
    plan = plan_per_worker(MESH, 4, ["tp"], fresh())
    assert (plan.ranks, plan.slices, plan.shape) == ((0, 2), (0, 1), (2,))
    assert plan.receivers == ((0,), (2,))


def test_slices_follow_coordinates() -> None:
    """Results follow the sharded axes, then the layout."""
    assert sharded(["dp"], ["tp"], ["tp"]) == DispatchPlan(
        kind=CallKind.SHARDED,
        ranks=(0, 1, 2, 3),
        slices=(1, 1, 0, 0),
        returns=(2, 0),
        axes=("dp",),
        shape=(2,),
    )
    assert sharded(["tp", "dp"]).slices == (1, 3, 0, 2)
    assert sharded(["tp", "dp"]).returns == (2, 0, 3, 1)
    assert sharded(["dp"], ["tp"]).returns == (2, 3, 0, 1)


def test_free_axes_are_called_at_coordinate_0_or_with_dummies() -> None:
    """A dummy never returns."""
    plan = sharded(["dp"])
    assert (plan.ranks, plan.slices, plan.returns) == ((0, 2), (1, 0), (2, 0))
    with_dummies = sharded(["dp"], dummy=True)
    assert with_dummies.ranks == (0, 1, 2, 3)
    assert with_dummies.slices == (1, DUMMY, 0, DUMMY)
    assert with_dummies.returns == (2, 0)
    assert with_dummies.quiet == {1, 3}
    nobody = sharded(None)
    assert (nobody.ranks, nobody.shape, nobody.slice_count) == ((2,), (), 1)


def test_unknown_axes_are_named_wherever_they_stand() -> None:
    """All at once; an axis cannot be sharded and replicated."""
    assert refusal(["dq"], ["dp"], ["tq"]) == [
        "in_sharded_axes[0]: unknown axis 'dq'; the axes are dp, tp",
        "output_is_replicated[0]: unknown axis 'tq'; the axes are dp, tp",
    ]
    assert refusal(["dp"], ["tp", "dp"]) == [
        (
            "replicate_on_axes: axis 'dp' is in in_sharded_axes too; an axis is either sharded or "
            "replicated: name it in one of the two"
        )
    ]
    assert refusal(["dp", "dp"]) == ["in_sharded_axes[1]: axis 'dp' occurs twice; name it once"]
    assert refusal("dp") == [
        "in_sharded_axes: 'dp' is one string; give a list of axes, such as ['dp']"
    ]
    assert refusal(3, {"tp"}) == [
        "in_sharded_axes: 3 is not a list of axes; the axes are dp, tp",
        "replicate_on_axes: {'tp'} is not a list of axes; the axes are dp, tp",
    ]
    with pytest.raises(PlanError, match="run_rank_0_only_axes\\[0\\]: unknown axis 'ep'"):
        plan_same(MESH, 4, ["ep"], fresh())
    with pytest.raises(PlanError, match="sharding_annotations: the group has none"):
        sharded(["dp"], mesh=None)


def slice_findings(plan: DispatchPlan, value: object) -> list[str]:
    """What is wrong with an argument's slices."""
    findings = fresh()
    slices_of(plan, "data", value, findings)
    return [str(finding) for finding in findings.found]


def test_slices_are_taken_level_by_level() -> None:
    """Lists, tuples, arrays, ranges: whatever has a length and an index."""
    plan = sharded(["tp", "dp"])
    assert slices_of(plan, "data", [["a", "b"], ["c", "d"]], fresh()) == ["a", "b", "c", "d"]
    assert slices_of(plan, "data", ([1, 2], range(2)), fresh()) == [1, 2, 0, 1]
    rows = slices_of(sharded(["dp"]), "data", np.array([[1, 2], [3, 4]]), fresh())
    assert [list(row) for row in rows if isinstance(row, np.ndarray)] == [[1, 2], [3, 4]]
    whole = {"not": "cut"}
    assert slices_of(sharded([]), "data", whole, fresh()) == [whole]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1], ["data: 1 slices for 2; give a list of 2, one per coordinate of axis 'dp'"]),
        ([1, 2, 3], ["data: 3 slices for 2; give a list of 2, one per coordinate of axis 'dp'"]),
        (
            {"a": 1, "b": 2},
            [
                (
                    "data: a mapping of type dict: its keys are not slices; give a list of 2, "
                    "one per "
                    "coordinate of axis 'dp'"
                )
            ],
        ),
        (
            MappingProxyType({0: 1, 1: 2}),
            [
                (
                    "data: a mapping of type mappingproxy: its keys are not slices; give a list "
                    "of 2, "
                    "one per coordinate of axis 'dp'"
                )
            ],
        ),
        (
            "ab",
            [
                (
                    "data: a value of type str, not a list; give a list of 2, one per coordinate "
                    "of "
                    "axis 'dp'"
                )
            ],
        ),
        (
            None,
            [
                (
                    "data: a value of type NoneType, not a list; give a list of 2, one per "
                    "coordinate "
                    "of axis 'dp'"
                )
            ],
        ),
        (
            {1, 2},
            [
                (
                    "data: a value of type set, not a list; give a list of 2, one per coordinate "
                    "of "
                    "axis 'dp'"
                )
            ],
        ),
        (
            np.array(7),
            ["data: 0 slices for 2; give a list of 2, one per coordinate of axis 'dp'"],
        ),
    ],
)
def test_slices_of_the_wrong_form(value: object, expected: list[str]) -> None:
    """Found before anything is sent: what was given, and what would work."""
    assert slice_findings(sharded(["dp"]), value) == expected


def test_every_faulty_level_is_named_by_its_place() -> None:
    """The outer level is right, two inner ones are not."""
    plan = sharded(["dp", "tp"])
    assert slice_findings(plan, [[1], {"a": 1}]) == [
        "data[0]: 1 slices for 2; give a list of 2, one per coordinate of axis 'tp'",
        (
            "data[1]: a mapping of type dict: its keys are not slices; give a list of 2, one per "
            "coordinate of axis 'tp'"
        ),
    ]
    per_worker = plan_per_worker(MESH, 4, None, fresh())
    assert slice_findings(per_worker, [1]) == [
        "data: 1 slices for 4; give a list of 4, one per worker called"
    ]
    assert [slice_path(plan, "data", number) for number in (0, 3)] == ["data[0][0]", "data[1][1]"]
    assert slice_path(plan, "data", None) == "data"


def test_small_payloads_travel_inline_and_shared_large_ones_once() -> None:
    """What has an unknown size is serialised once before anything is sent."""
    assert choose_transport(100, 8, 8) is Transport.INLINE
    assert choose_transport(1_000_000, 8, 8) is Transport.OBJECT
    assert choose_transport(50_000, 1, 8) is Transport.INLINE
    # Ray would put this one into its store in the middle of sending, where it may not fit.
    assert choose_transport(1_000_000, 1, 8) is Transport.OBJECT
    assert choose_transport(None, 1, 8) is Transport.OBJECT
    assert choose_transport(None, 1, 1) is Transport.INLINE


@given(mesh_with_roles(), st.booleans())
def test_every_slice_reaches_every_replica_once(roles: Roles, dummy: bool) -> None:
    """Each coordinate of the replicated axes gets each slice, exactly once."""
    mesh, cut, same, once = roles
    plan = plan_sharded(mesh, cut, same, once, fresh(), dummy_calls=dummy)
    replicas = int(np.prod([mesh.get_axis_size(name) for name in same], dtype=int))
    got = Counter(number for number in plan.slices if number != DUMMY)
    assert got == dict.fromkeys(range(plan.slice_count), replicas)
    assert len(set(plan.ranks)) == len(plan.ranks)
    assert list(plan.ranks) == sorted(plan.ranks)
    if dummy:
        assert set(plan.ranks) == set(mesh.ranks)
    for number, ranks in enumerate(plan.receivers):
        coords = [mesh.get_worker_coords(rank) for rank in ranks]
        told = np.unravel_index(number, plan.shape) if plan.shape else ()
        assert {tuple(each[name] for name in cut) for each in coords} == {tuple(map(int, told))}
        where = Counter(tuple(each[name] for name in same) for each in coords)
        assert set(where.values()) == {1}


@given(mesh_with_roles(), st.booleans())
def test_one_returner_per_slice_and_replica_that_counts(roles: Roles, dummy: bool) -> None:
    """Coordinate 0 of each free and output-replicated axis; slices in order; dummies never."""
    mesh, cut, same, once = roles
    plan = plan_sharded(mesh, cut, same, once, fresh(), dummy_calls=dummy)
    free = [name for name in mesh.names if name not in {*cut, *same}]
    silent = {*free, *once}
    expected = [
        rank
        for rank in mesh.ranks
        if all(mesh.get_worker_coords(rank)[name] == 0 for name in silent)
    ]
    assert sorted(plan.returns) == sorted(expected)
    number = dict(zip(plan.ranks, plan.slices, strict=True))
    order = [number[rank] for rank in plan.returns]
    assert order == sorted(order)
    assert DUMMY not in order
    if not set(cut) & set(once) and set(same) <= set(once):
        assert order == list(range(plan.slice_count))
    assert plan.quiet == set(plan.ranks) - set(plan.returns)


@given(mesh_with_roles(), st.data())
def test_a_rank_gets_value_at_its_coordinates(roles: Roles, data: st.DataObject) -> None:
    """``value[c1][c2]...`` in the order of in_sharded_axes."""
    mesh, cut, same, once = roles
    plan = plan_sharded(mesh, cut, same, once, fresh())

    def nested(shape: Sequence[int], place: tuple[int, ...]) -> object:
        if not shape:
            return place
        return [nested(shape[1:], (*place, index)) for index in range(shape[0])]

    leaves = slices_of(plan, "data", nested(plan.shape, ()), fresh())
    assert leaves == list(product(*(range(size) for size in plan.shape)))
    rank, number = data.draw(st.sampled_from(list(zip(plan.ranks, plan.slices, strict=True))))
    coords = mesh.get_worker_coords(rank)
    assert leaves[number] == tuple(coords[name] for name in cut)


@given(mesh_with_roles())
def test_a_plan_compares_by_value(roles: Roles) -> None:
    """Made twice it is equal, with an equal hash."""
    first, second = (plan_sharded(*roles, fresh()) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


@given(meshes(), junk(), junk(), junk(), junk())
def test_junk_is_refused_in_words(
    mesh: NamedSharding, cut: Any, same: Any, once: Any, rank: Any
) -> None:
    """A PlanError, or a plan over ranks of the mesh."""
    plan = planned(lambda: plan_sharded(mesh, cut, same, once, fresh()))
    assert plan is None or set(plan.ranks) <= set(mesh.ranks)
    plan = planned(lambda: plan_same(mesh, mesh.size, cut, fresh()))
    assert plan is None or set(plan.ranks) <= set(mesh.ranks)
    plan = planned(lambda: plan_one(rank, mesh.size, fresh()))
    assert plan is None or plan.ranks == (rank,)


@given(mesh_with_roles(), junk())
def test_junk_slices_are_findings(roles: Roles, value: object) -> None:
    """Either one value per slice, or findings; nothing is raised."""
    plan = plan_sharded(*roles, fresh())
    findings = fresh()
    leaves = slices_of(plan, "data", value, findings)
    assert bool(findings) != (len(leaves) == plan.slice_count)
