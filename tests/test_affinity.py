"""Which cores each rank of a node is bound to."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.affinity import bind_node
from planner.group_places import PlaceArguments
from planner.nodes import NumaNode
from planner.prediction import predict_launch
from planner.shapes import h100_nodes
from planner.virtual_cluster import plan_cluster
from tests.places_cases import GROUP, small_nodes

TWO = (NumaNode(index=0, cores=(0, 1, 4, 5)), NumaNode(index=1, cores=(2, 3, 6, 7)))


def _cores(numa: tuple[NumaNode, ...], homes: list[int | None]) -> list[tuple[int, ...]]:
    bound, _ = bind_node(numa, homes)
    return [() if each is None else each.cores for each in bound]


def test_a_core_and_its_second_thread_stay_together() -> None:
    """Cores 0, 1 and their second threads 4, 5 are divided as 0 with 4 and 1 with 5."""
    assert _cores(TWO, [0, 0, 1, 1]) == [(0, 4), (1, 5), (2, 6), (3, 7)]


def test_ranks_follow_their_gpus() -> None:
    """A rank is bound near its GPU, whatever its local rank."""
    assert _cores(TWO, [1, 0]) == [(2, 3, 6, 7), (0, 1, 4, 5)]


def test_ranks_without_a_known_gpu_are_spread() -> None:
    """Where nobody knows better, NUMA nodes are filled evenly in local-rank order."""
    bound, note = bind_node(TWO, [None, None, None, None])
    assert [each.numa_node for each in bound if each] == [0, 0, 1, 1]
    assert note == ""


def test_one_numa_node_divides_cores_and_leaves_memory() -> None:
    """With one NUMA node there is nothing to bind memory to, and the plan says so."""
    bound, note = bind_node((NumaNode(index=0, cores=(0, 1)),), [None, None])
    assert [(each.cores, each.binds_memory) for each in bound if each] == [
        ((0,), False),
        ((1,), False),
    ]
    assert "one NUMA node" in note


def test_more_ranks_than_cores_share_them() -> None:
    """Nobody is left without a core; the plan says that they are shared."""
    bound, note = bind_node((NumaNode(index=0, cores=(0, 1)),), [None] * 3)
    assert [each.cores for each in bound if each] == [(0, 1)] * 3
    assert "3 ranks share the 2 cores" in note


def test_unknown_cores_bind_nothing() -> None:
    """Without facts nothing is bound, and the plan says so."""
    bound, note = bind_node((), [None, 0])
    assert bound == [None, None]
    assert "not known" in note


def test_plan_holds_the_binding_and_its_note() -> None:
    """A predicted plan binds each rank near its GPU and tells what is special."""
    wish = evolve(GROUP, places=PlaceArguments(numa_binding=True))
    large = predict_launch(plan_cluster(bundle_ct_per_node_list=[8]), wish, h100_nodes(1))
    small = predict_launch(plan_cluster(bundle_ct_per_node_list=[2]), wish, small_nodes(2))
    assert [w.affinity.numa_node for w in large.workers if w.affinity] == [0] * 4 + [1] * 4
    assert "NUMA binding: there is one NUMA node" in small.notes[-1]
    assert "10.0.0.1" in small.notes[-1]


@st.composite
def _machines(draw: st.DrawFn) -> tuple[tuple[NumaNode, ...], list[int | None]]:
    count = draw(st.integers(1, 4))
    cores = draw(st.integers(1, 12))
    numa = tuple(
        NumaNode(index=index, cores=tuple(range(index * cores, (index + 1) * cores)))
        for index in range(count)
    )
    known = st.one_of(st.none(), st.integers(0, count - 1))
    return numa, draw(st.lists(known, min_size=1, max_size=12))


@given(_machines())
def test_cores_are_near_and_disjoint(
    machine: tuple[tuple[NumaNode, ...], list[int | None]],
) -> None:
    """Every rank has cores of its GPU's NUMA node; no two share one while there are enough."""
    numa, homes = machine
    bound, note = bind_node(numa, homes)
    used: list[int] = []
    for each, home in zip(bound, homes, strict=True):
        assert each is not None
        assert each.cores
        assert home in {None, each.numa_node}
        assert set(each.cores) <= set(numa[each.numa_node or 0].cores)
        used.extend(each.cores)
    if "share" not in note:
        assert len(used) == len(set(used))
