"""The same arrangement in the words of torch, Megatron and torchtitan."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.conversions import (
    MegatronOrder,
    TorchtitanDimensions,
    from_device_mesh,
    from_megatron,
    from_torchtitan,
    to_device_mesh,
    to_megatron,
    to_torchtitan,
)
from planner.findings import PlanError
from planner.mesh import NamedSharding


@st.composite
def meshes(draw: st.DrawFn) -> NamedSharding:
    """A mesh over permuted ranks."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    ranks = draw(st.permutations(range(prod(sizes))))
    return NamedSharding(np.array(ranks).reshape(sizes), [f"x{axis}" for axis in range(len(sizes))])


@given(meshes())
def test_device_mesh_round_trips(mesh: NamedSharding) -> None:
    """To a DeviceMesh's arguments and back is the same mesh, permuted or not."""
    arguments = to_device_mesh(mesh)
    assert from_device_mesh(arguments) == mesh
    assert from_device_mesh(arguments.mesh, arguments.mesh_dim_names) == mesh
    assert np.asarray(arguments.mesh).tolist() == mesh.layout.tolist()


def test_a_device_mesh_without_names_is_refused() -> None:
    """Axes need names."""
    with pytest.raises(PlanError, match=r"mesh_dim_names: .* one name per dimension"):
        from_device_mesh([[0, 1], [2, 3]])


def test_megatron_counts_the_first_name_fastest() -> None:
    """A rank is tp + TP * (cp + CP * (dp + DP * pp)): checked coordinate by coordinate."""
    sizes = {"tp": 2, "cp": 3, "dp": 4, "pp": 5}
    mesh = from_megatron("tp-cp-ep-dp-pp", sizes)
    assert mesh.shape == {
        "pipeline_parallel": 5,
        "data_parallel": 4,
        "expert_parallel": 1,
        "context_parallel": 3,
        "tensor_parallel": 2,
    }
    for rank in mesh.ranks:
        at = mesh.get_worker_coords(rank)
        inner = at["data_parallel"] + 4 * at["pipeline_parallel"]
        assert rank == at["tensor_parallel"] + 2 * (at["context_parallel"] + 3 * inner)


def test_megatron_experts_are_carved_out_of_data_parallelism() -> None:
    """The ep axis takes its ranks from dp; the world stays the same."""
    mesh = from_megatron("tp-ep-dp-pp", {"tp": 2, "ep": 2, "dp": 4, "pp": 2})
    assert mesh.size == 16
    assert (mesh.get_axis_size("data_parallel"), mesh.get_axis_size("expert_parallel")) == (2, 2)
    assert mesh.get_ranks_by_coord(pipeline_parallel=0, data_parallel=0, tensor_parallel=0) == [
        0,
        2,
    ]
    assert to_megatron(mesh) == MegatronOrder(
        order="tp-ep-dp-pp", sizes={"tp": 2, "ep": 2, "dp": 4, "pp": 2}
    )


def test_megatron_infers_dp_from_the_world() -> None:
    """What the world leaves is dp, when it is not given."""
    mesh = from_megatron("tp-cp-ep-dp-pp", {"tp": 8, "pp": 4, "ep": 2}, world_size=128)
    assert mesh.get_axis_size("data_parallel") == 2
    assert mesh.size == 128


@pytest.mark.parametrize(
    ("order", "sizes", "world", "text"),
    [
        ("tp-dq", {"tp": 2}, None, "'dq' in 'tp-dq' is no name"),
        ("tp-tp-dp", {}, None, "'tp' occurs twice"),
        ("tp-dp", {"pp": 2}, None, "put 'pp' into the order"),
        ("tp-dp", {"tpp": 2}, None, "sizes.tpp: Megatron has no such name; write 'tp'"),
        ("tp-dp", {"tp": 0}, None, "sizes.tp: 0 is no size"),
        ("ep-tp-dp", {"ep": 2, "dp": 4}, None, "write ep-dp or dp-ep"),
        ("tp-ep-dp", {"ep": 3, "dp": 4}, None, "ep may be 1, 2, 4"),
        ("tp-pp", {"tp": 2}, 4, "tp 2 is 2, not 4"),
        ("tp-dp-pp", {"tp": 8, "pp": 4}, 8, "use 32 ranks"),
        ("tp-dp-pp", {"tp": 2, "dp": 4}, 16, "tp 2 x dp 4 is 8, not 16; use 8 ranks, or tp=4"),
    ],
)
def test_megatron_says_what_is_wrong_and_what_works(
    order: str, sizes: dict[str, int], world: int | None, text: str
) -> None:
    """Each mistake is answered with arithmetic and values that work."""
    with pytest.raises(PlanError) as caught:
        from_megatron(order, sizes, world)
    assert text in str(caught.value)


@given(
    st.permutations(["tp", "cp", "dp", "pp"]),
    st.dictionaries(st.sampled_from(["tp", "cp", "dp", "pp"]), st.integers(1, 4)),
    st.integers(1, 3),
    st.booleans(),
)
def test_megatron_round_trips(
    names: list[str], sizes: dict[str, int], experts: int, experts_first: bool
) -> None:
    """To our axes and back is the same order and the same sizes."""
    at = names.index("dp") + (0 if experts_first else 1)
    order = "-".join([*names[:at], "ep", *names[at:]])
    whole = {name: sizes.get(name, 1) for name in ("tp", "cp", "dp", "pp")}
    whole |= {"ep": experts, "dp": whole["dp"] * experts}
    mesh = from_megatron(order, whole)
    assert to_megatron(mesh) == MegatronOrder(order=order, sizes=whole)
    assert mesh.size == prod(whole[name] for name in ("tp", "cp", "dp", "pp"))


def test_a_permuted_layout_has_no_megatron_order() -> None:
    """Megatron and torchtitan count in order; the device mesh is named as the way out."""
    mesh = NamedSharding([[0, 2], [1, 3]], ["data_parallel", "tensor_parallel"])
    with pytest.raises(PlanError, match=r"position 1 holds rank 2.*device mesh"):
        to_megatron(mesh)
    with pytest.raises(PlanError, match="use the device mesh"):
        to_torchtitan(mesh)
    with pytest.raises(PlanError, match="axis 'rows' has no name"):
        to_megatron(NamedSharding([0, 1], ["rows"]))


@given(st.lists(st.integers(1, 4), min_size=5, max_size=5), st.none() | st.integers(0, 4))
def test_torchtitan_round_trips(sizes: list[int], inferred: int | None) -> None:
    """Sizes become axes without those of 1, and come back with every size known."""
    given_sizes = [-1 if index == inferred else size for index, size in enumerate(sizes)]
    names = ("pp", "dp_replicate", "dp_shard", "cp", "tp")
    fields = dict(zip(names, given_sizes, strict=True))
    mesh = from_torchtitan(TorchtitanDimensions(**fields), prod(sizes))
    whole = dict(zip(names, sizes, strict=True))
    assert to_torchtitan(mesh) == TorchtitanDimensions(**whole)
    assert list(mesh.sizes) == ([size for size in sizes if size > 1] or [1])


def test_torchtitan_axes_are_outermost_first() -> None:
    """The order is pp, dp_replicate, dp_shard, cp, tp, with tp fastest."""
    mesh = from_torchtitan(TorchtitanDimensions(pp=2, dp_shard=-1, tp=2), 12)
    assert mesh.shape == {"pipeline_parallel": 2, "data_parallel": 3, "tensor_parallel": 2}
    assert mesh.ranks == tuple(range(12))
    theirs = from_torchtitan(TorchtitanDimensions(tp=2), 4, axes=[("tp", "t"), ("dp_shard", "d")])
    assert theirs.names == ["d", "t"]


@pytest.mark.parametrize(
    ("dimensions", "world", "text"),
    [
        (TorchtitanDimensions(dp_shard=2, tp=2), 8, "dp_shard 2 x tp 2 is 4, not 8; use 4 ranks"),
        (
            TorchtitanDimensions(tp=3),
            8,
            "dp_shard: 8 ranks are not divisible by the other sizes, 3",
        ),
        (TorchtitanDimensions(tp=3), 8, "use 6 or 9 ranks"),
        (TorchtitanDimensions(tp=-1), 8, "tp: dp_shard and tp are both -1"),
        (TorchtitanDimensions(pp=0), 8, "pp: 0 is no size"),
        (TorchtitanDimensions(), 0, "world_size: 0 ranks"),
    ],
)
def test_torchtitan_says_what_is_wrong_and_what_works(
    dimensions: TorchtitanDimensions, world: int, text: str
) -> None:
    """Each mistake is answered with arithmetic and values that work."""
    with pytest.raises(PlanError) as caught:
        from_torchtitan(dimensions, world)
    assert text in str(caught.value)


def test_axes_in_another_order_are_refused_by_torchtitan() -> None:
    """The order is fixed there; the error gives it."""
    mesh = NamedSharding([[0, 1], [2, 3]], ["tensor_parallel", "data_parallel"])
    with pytest.raises(PlanError, match="arrange them as dp_shard, tp"):
        to_torchtitan(mesh)
