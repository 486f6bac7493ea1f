"""Named axes over a layout of ranks: every member of the contract, and its laws."""

import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.mesh import NamedSharding
from tests.strategies import junk, meshes, planned

CUBE = NamedSharding(np.arange(8).reshape(2, 2, 2), ["pp", "dp", "tp"])


def message(layout: object, names: Any) -> str:
    """The whole text of the error that a construction raises."""
    with pytest.raises(PlanError) as caught:
        NamedSharding(layout, names)
    return str(caught.value)


def test_members_describe_the_arrangement() -> None:
    """Names and layout are copies; sizes go by name."""
    assert CUBE.shape == {"pp": 2, "dp": 2, "tp": 2}
    assert list(CUBE.shape) == ["pp", "dp", "tp"]
    assert (CUBE.names, CUBE.ndim, CUBE.size) == (["pp", "dp", "tp"], 3, 8)
    assert CUBE.layout.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    CUBE.names.append("changed")
    CUBE.layout[0, 0, 0] = 99
    CUBE.shape["pp"] = 7
    assert NamedSharding(np.arange(8).reshape(2, 2, 2), ["pp", "dp", "tp"]) == CUBE


def test_a_layout_is_not_changed_from_outside() -> None:
    """The array it was made from belongs to the caller."""
    layout = np.arange(4).reshape(2, 2)
    mesh = NamedSharding(layout, ["dp", "tp"])
    layout[0, 0] = 3
    assert mesh.get_ranks(dp=0, tp=0) == 0


def test_coordinates_of_a_rank() -> None:
    """By axis name; an unknown rank is a ValueError that shows the known ones."""
    assert CUBE.get_worker_coords(6) == {"pp": 1, "dp": 1, "tp": 0}
    assert CUBE.get_worker_coords(np.int64(1)) == {"pp": 0, "dp": 0, "tp": 1}  # type: ignore[arg-type]
    for wrong in (8, -1, "0", None, [0], 0.5):
        with pytest.raises(ValueError, match="is not in the layout of 8 ranks; use one of 0, 1"):
            CUBE.get_worker_coords(wrong)  # type: ignore[arg-type]


def test_ranks_by_coordinate() -> None:
    """Sorted and unique; what is not named matches all; out of range matches nothing."""
    assert CUBE.get_ranks_by_coord() == list(range(8))
    assert CUBE.get_ranks_by_coord(dp=1) == [2, 3, 6, 7]
    assert CUBE.get_ranks_by_coord(dp=1, tp=0) == [2, 6]
    assert CUBE.get_ranks_by_coord(pp=2) == []
    assert CUBE.get_ranks_by_coord(pp=-1) == []
    assert NamedSharding([[3, 1], [2, 0]], ["a", "b"]).get_ranks_by_coord(b=0) == [2, 3]
    with pytest.raises(ValueError, match="unknown axis 'ep'; the axes are pp, dp, tp"):
        CUBE.get_ranks_by_coord(ep=0)
    with pytest.raises(ValueError, match="tp: '0' is not a coordinate"):
        CUBE.get_ranks_by_coord(tp="0")  # type: ignore[arg-type]


def test_sub_arrangements() -> None:
    """Over the axes not named; a plain int when all are named."""
    sub = CUBE.get_ranks(pp=1)
    assert sub == NamedSharding([[4, 5], [6, 7]], ["dp", "tp"])
    rank = CUBE.get_ranks(pp=1, dp=0, tp=1)
    assert type(rank) is int
    assert rank == 5
    assert CUBE.get_ranks() == CUBE
    with pytest.raises(ValueError, match="unknown axis 'ep'"):
        CUBE.get_ranks(ep=0)
    for wrong in (2, -1):
        with pytest.raises(IndexError) as caught:
            CUBE.get_ranks(pp=wrong, dp=5)
        assert str(caught.value) == (
            "named sharding: 2 problems\n"
            f"  - pp: coordinate {wrong} is out of range; the axis has 0 to 1\n"
            "  - dp: coordinate 5 is out of range; the axis has 0 to 1"
        )
    with pytest.raises(ValueError, match="is not a coordinate") as refused:
        CUBE.get_ranks(pp=0.5)  # type: ignore[arg-type]
    assert not isinstance(refused.value, IndexError)


def test_axes_by_name() -> None:
    """Position and size; unknown names show the known ones."""
    assert (CUBE.get_axis_index("tp"), CUBE.get_axis_size("dp")) == (2, 2)
    for ask in (CUBE.get_axis_index, CUBE.get_axis_size):
        with pytest.raises(ValueError, match="unknown axis 'ep'; the axes are pp, dp, tp"):
            ask("ep")


def test_equality_hash_and_repr() -> None:
    """By layout and names; a value that travels."""
    same = NamedSharding(np.arange(8, dtype=np.float32).reshape(2, 2, 2).tolist(), CUBE.names)
    assert (same, hash(same)) == (CUBE, hash(CUBE))
    assert NamedSharding([[0, 1]], ["a", "b"]) != NamedSharding([[0, 1]], ["b", "a"])
    assert NamedSharding([[0, 1]], ["a", "b"]) != NamedSharding([[1, 0]], ["a", "b"])
    assert NamedSharding([[0, 1]], ["a", "b"]) != NamedSharding([[0], [1]], ["a", "b"])
    other: object = "CUBE"
    assert other != CUBE
    assert (
        repr(NamedSharding([[0, 1]], ["dp", "tp"])) == "NamedSharding(dp=1, tp=2; layout=[[0, 1]])"
    )
    CUBE.get_worker_coords(0)
    assert pickle.loads(pickle.dumps(CUBE)) == CUBE  # noqa: S301
    assert pickle.loads(pickle.dumps(CUBE)).get_worker_coords(7) == CUBE.get_worker_coords(7)  # noqa: S301


@pytest.mark.parametrize(
    ("layout", "names", "expected"),
    [
        (
            [[0, 1], [2]],
            ["a", "b"],
            (
                "layout: it is ragged or holds something other than rank ids; "
                "give nested sequences of whole numbers, equally long at each level"
            ),
        ),
        (
            [[0, 1.5]],
            ["a", "b"],
            "layout: ids of type float64 are not whole numbers; give rank ids such as 0, 1, 2",
        ),
        (
            ["0", "1"],
            ["a"],
            "layout: ids of type <U1 are not whole numbers; give rank ids such as 0, 1, 2",
        ),
        (
            [True, False],
            ["a"],
            "layout: ids of type bool are not whole numbers; give rank ids such as 0, 1, 2",
        ),
        (
            [0, float("nan")],
            ["a"],
            "layout: ids of type float64 are not whole numbers; give rank ids such as 0, 1, 2",
        ),
        (
            [0, 1],
            ["a", "b"],
            (
                "names: 2 names for 1 dimensions of shape (2,); give one name per dimension, "
                "outermost first"
            ),
        ),
        ([0, 1, 1, 0], ["a"], "layout: duplicate ranks 0, 1; give each rank once"),
        ([0, -1], ["a"], "layout: rank -1 is negative; give rank ids of 0 or more"),
        ([[0], [1]], ["a", "a"], "names[1]: axis 'a' occurs twice; name each axis once"),
        ([0, 1], "a", "names: 'a' is one string; give a sequence of axis names"),
        ([0, 1], None, "names: None is not a sequence of names; give a sequence of axis names"),
        ([0, 1], [3], "names[0]: 3 is not a name; give a non-empty string"),
        ([0, 1], [""], "names[0]: '' is not a name; give a non-empty string"),
        ([], ["a"], "layout: shape (0,) holds no rank; give at least one rank"),
    ],
)
def test_what_is_no_arrangement(layout: object, names: object, expected: str) -> None:
    """One finding, with what would work."""
    assert message(layout, names) == f"named sharding: {expected}"


def test_all_findings_come_at_once() -> None:
    """Names and ranks are both wrong."""
    assert message([[0, 0]], ["a", "", "b"]) == (
        "named sharding: 3 problems\n"
        "  - names[1]: '' is not a name; give a non-empty string\n"
        "  - names: 3 names for 2 dimensions of shape (1, 2); give one name per dimension, "
        "outermost first\n"
        "  - layout: duplicate ranks 0; give each rank once"
    )


def test_ids_need_not_start_at_zero() -> None:
    """Floats that hold whole numbers are accepted; a sub-arrangement is an arrangement."""
    mesh = NamedSharding([7.0, 5.0], ["a"])
    assert mesh.get_worker_coords(5) == {"a": 1}
    assert mesh.get_ranks_by_coord() == [5, 7]
    assert mesh.layout.dtype.kind == "i"


@given(meshes())
def test_rank_and_coordinates_are_inverse(mesh: NamedSharding) -> None:
    """Every coordinate names one rank, which names that coordinate."""
    for coords in product(*(range(size) for size in mesh.sizes)):
        named = dict(zip(mesh.names, coords, strict=True))
        rank = mesh.get_ranks(**named)
        assert isinstance(rank, int)
        assert mesh.get_worker_coords(rank) == named
        assert mesh.get_ranks_by_coord(**named) == [rank]


@given(meshes(), st.data())
def test_both_ways_of_selecting_agree(mesh: NamedSharding, data: st.DataObject) -> None:
    """A sub-arrangement holds what a selection by coordinate finds."""
    chosen = data.draw(st.lists(st.sampled_from(mesh.names), unique=True))
    coords = {name: data.draw(st.integers(0, mesh.get_axis_size(name) - 1)) for name in chosen}
    sub = mesh.get_ranks(**coords)
    held = [sub] if isinstance(sub, int) else sorted(sub.ranks)
    assert mesh.get_ranks_by_coord(**coords) == held


@given(junk(), junk())
def test_junk_is_refused_in_words(layout: object, names: Any) -> None:
    """Either a mesh or a PlanError, never anything else."""
    made = planned(lambda: NamedSharding(layout, names))
    assert made is None or made.size == len(made.ranks) > 0


@given(meshes(), junk(), junk())
def test_junk_coordinates_are_refused_in_words(
    mesh: NamedSharding, coord: Any, worker: Any
) -> None:
    """Coordinates and ids of any type: a PlanError, or a rank of the mesh."""
    name = mesh.names[0]
    planned(lambda: mesh.get_ranks(**{name: coord}))
    planned(lambda: mesh.get_axis_size(worker))
    ranks = planned(lambda: mesh.get_ranks_by_coord(**{name: coord})) or []
    assert set(ranks) <= set(mesh.ranks)
    coords = planned(lambda: mesh.get_worker_coords(worker))
    assert (coords is None) == (type(worker) is not int or worker not in mesh.ranks)
