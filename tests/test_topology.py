"""Whole segments, bundles in the order of the hardware, axes that stay together."""

from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError, ResourceInsufficientError
from planner.inventory import BundleFacts
from planner.mesh import NamedSharding
from planner.topology import (
    Locality,
    check_locality,
    nearest_layout,
    select_segment_nodes,
    sort_bundles,
)

RACKS = {
    "b2": ("rack-b", 6),
    "b0": ("rack-b", 4),
    "b1": ("rack-b", 5),
    "a1": ("rack-a", 8),
    "a0": ("rack-a", 0),
}


def test_whole_segments_in_topology_order() -> None:
    """Domains by smallest rank, nodes by rank; what is left over is handed on."""
    assert select_segment_nodes(RACKS, 2, 4) == (["a0", "a1", "b0", "b1"], ["b2"])
    assert select_segment_nodes(RACKS, 2, 2) == (["a0", "a1"], ["b0", "b1", "b2"])
    assert select_segment_nodes(RACKS, 3, 3) == (["b0", "b1", "b2"], ["a0", "a1"])
    assert select_segment_nodes(RACKS, 3, 0) == ([], ["a0", "a1", "b0", "b1", "b2"])


def test_remaining_nodes_serve_the_next_selection() -> None:
    """What one selection leaves can be selected from again."""
    _, remaining = select_segment_nodes(RACKS, 2, 2)
    rest = {node_id: RACKS[node_id] for node_id in remaining}
    assert select_segment_nodes(rest, 2, 2) == (["b0", "b1"], ["b2"])


def test_nodes_must_be_divisible_into_segments() -> None:
    """A count that is no whole number of segments names the nearest ones."""
    with pytest.raises(ValueError, match="give 4 or 6") as caught:
        select_segment_nodes(RACKS, 2, 5)
    assert not isinstance(caught.value, ResourceInsufficientError)
    with pytest.raises(PlanError, match="segment_size"):
        select_segment_nodes(RACKS, 0, 5)


def test_too_few_whole_segments() -> None:
    """Enough nodes, but not in whole segments: the error counts domain by domain."""
    with pytest.raises(ResourceInsufficientError) as caught:
        select_segment_nodes({**RACKS, "c0": ("rack-c", 9)}, 2, 6)
    text = str(caught.value)
    assert "3 segments of 2" in text
    assert "hold 2 whole ones (rack-a has 2, rack-b has 3, rack-c has 1)" in text
    assert "ask for at most 4 nodes, or segments of 1" in text


topologies = st.dictionaries(
    st.integers(0, 99).map(lambda number: f"n{number}"),
    st.tuples(st.sampled_from(["r1", "r2", "r10"]), st.integers(0, 30)),
    max_size=12,
)


@given(topologies, st.integers(-1, 4), st.integers(-1, 12), st.randoms())
def test_segments_hold_their_promises(
    topology: dict[str, tuple[str, int]], size: int, count: int, random: Random
) -> None:
    """Whole segments of one domain, each node once, whatever the order of the input."""
    shuffled = list(topology.items())
    random.shuffle(shuffled)
    try:
        selected, remaining = select_segment_nodes(topology, size, count)
    except PlanError:
        with pytest.raises(PlanError):
            select_segment_nodes(dict(shuffled), size, count)
        return
    assert select_segment_nodes(dict(shuffled), size, count) == (selected, remaining)
    assert len(selected) == count
    assert sorted(selected + remaining) == sorted(topology)
    for start in range(0, count, size):
        assert len({topology[each][0] for each in selected[start : start + size]}) == 1


def facts(*places: tuple[str, str, str]) -> list[BundleFacts]:
    """Bundles by (node, address, GPU)."""
    return [
        BundleFacts(0, index, node_id, address, (gpu,))
        for index, (node_id, address, gpu) in enumerate(places)
    ]


def test_bundles_by_node_and_gpu_as_numbers() -> None:
    """Address as a number, then node id, then GPU id as a number."""
    given_facts = facts(
        ("m", "10.0.0.10", "0"),
        ("k", "10.0.0.9", "10"),
        ("k", "10.0.0.9", "9"),
        ("l10", "10.0.0.9", "1"),
        ("l9", "10.0.0.9", "1"),
    )
    assert [each.bundle for each in sort_bundles(given_facts)] == [2, 1, 4, 3, 0]


def test_bundles_by_topology() -> None:
    """Smallest rank of the domain, then rank, then GPU; nodes it does not name come last."""
    given_facts = facts(
        ("b0", "10.0.0.1", "0"),
        ("x", "10.0.0.0", "0"),
        ("a1", "10.0.0.2", "1"),
        ("a1", "10.0.0.2", "0"),
        ("b1", "10.0.0.0", "0"),
    )
    ordered = sort_bundles(given_facts, RACKS)
    # rack-a comes first by the rank of a0, although a0 holds no bundle.
    assert [each.bundle for each in ordered] == [3, 2, 0, 4, 1]


def test_domains_without_whole_segments_are_dropped() -> None:
    """With a segment size only nodes in whole segments keep their bundles."""
    given_facts = facts(*((node_id, "h", "0") for node_id in ("b0", "b1", "b2", "a1", "x")))
    ordered = sort_bundles(given_facts, RACKS, segment_size=2)
    assert [each.node_id for each in ordered] == ["b0", "b1"]
    with pytest.raises(PlanError, match="topology"):
        sort_bundles(given_facts, None, segment_size=2)


def test_a_bundle_given_twice_is_an_error() -> None:
    """The same bundle in two facts is named with both places."""
    with pytest.raises(PlanError, match=r"facts\[1\].*facts\[0\]"):
        sort_bundles([BundleFacts(0, 1, "a", "h"), BundleFacts(0, 1, "b", "h")])


@given(
    st.lists(
        st.tuples(st.sampled_from(["a0", "a1", "b0", "q"]), st.integers(0, 12)),
        unique=True,
        max_size=12,
    ),
    st.randoms(),
    st.booleans(),
)
def test_sorting_ignores_the_order_given_and_keeps_nodes_together(
    places: list[tuple[str, int]], random: Random, with_topology: bool
) -> None:
    """Any order in gives the same order out, and the bundles of a node are neighbours."""
    given_facts = facts(*((node_id, "h", str(gpu)) for node_id, gpu in places))
    shuffled = list(given_facts)
    random.shuffle(shuffled)
    topology = RACKS if with_topology else None
    ordered = sort_bundles(given_facts, topology)
    assert sort_bundles(shuffled, topology) == ordered
    nodes = [each.node_id for each in ordered]
    changes = sum(first != second for first, second in pairwise(nodes))
    assert changes == max(len(set(nodes)) - 1, 0)


def test_a_cut_axis_names_ranks_place_and_a_layout_that_works() -> None:
    """Tensor-parallel ranks over two nodes: who, where cut, how many more, what works."""
    mesh = NamedSharding(np.arange(8).reshape(2, 4).T, ["dp", "tp"])
    nodes = {rank: "a" if rank < 4 else "b" for rank in range(8)}
    (finding,) = check_locality(mesh, {"tp": Locality.SAME_NODE}, nodes)
    assert str(finding) == (
        "localities.tp: the ranks 0, 4 along tp at dp=0 must share a node, but they are cut "
        "between rank 0 (a) and rank 4 (b); 3 more groups are cut too; this layout of the same "
        "axes works: [[0, 1], [2, 3], [4, 5], [6, 7]]"
    )


def test_when_no_layout_works_sizes_that_do_are_named() -> None:
    """An axis longer than a node gets the product that fits."""
    mesh = NamedSharding(np.arange(16).reshape(2, 8), ["dp", "tp"])
    nodes = {rank: f"n{rank // 4}" for rank in range(16)}
    (finding,) = check_locality(mesh, {"tp": Locality.SAME_NODE}, nodes)
    assert finding.remedy == (
        "no layout works: tp is 8, and the nodes hold 4 ranks; choose a product that divides 4, "
        "such as 4"
    )
    assert nearest_layout(mesh, {"tp": Locality.SAME_NODE}, nodes) is None
    domains = {rank: f"rack{rank // 8}" for rank in range(16)}
    assert not check_locality(mesh, {"tp": Locality.SAME_DOMAIN}, nodes, domains)
    both = {"tp": Locality.SAME_DOMAIN, "dp": Locality.SAME_DOMAIN}
    (finding,) = check_locality(mesh, both, nodes, domains)
    assert "dp x tp is 16, and the domains hold 8 ranks" in finding.remedy


def test_unknown_axes_and_ranks_are_found_together() -> None:
    """A misspelt axis and a rank nobody placed are both named."""
    with pytest.raises(PlanError) as caught:
        check_locality(NamedSharding([0, 1], ["dp"]), {"tp": Locality.SAME_NODE}, {0: "a"})
    assert [each.path for each in caught.value.findings] == ["localities", "node_of_rank"]


@st.composite
def placed_meshes(
    draw: st.DrawFn,
) -> tuple[NamedSharding, dict[str, Locality], dict[int, str], dict[int, str | None]]:
    """A permuted mesh over nodes of equal or unequal size in racks."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3))
    total = int(np.prod(sizes))
    ranks = draw(st.permutations(range(total)))
    names = [f"x{index}" for index in range(len(sizes))]
    mesh = NamedSharding(np.array(ranks).reshape(sizes), names)
    localities = {name: draw(st.sampled_from(Locality)) for name in names}
    per_node = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    nodes = {rank: f"n{rank // per_node}" for rank in range(total)}
    rack_of = draw(st.sampled_from([1, 2, 3]))
    domains: dict[int, str | None] = {
        rank: None if rack_of == 1 else f"r{rank // per_node // rack_of}" for rank in range(total)
    }
    return mesh, localities, nodes, domains


@given(placed_meshes())
def test_the_nearest_layout_really_works(
    case: tuple[NamedSharding, dict[str, Locality], dict[int, str], dict[int, str | None]],
) -> None:
    """It keeps axes and ranks and breaks nothing; None only when the mesh is broken."""
    mesh, localities, nodes, domains = case
    layout = nearest_layout(mesh, localities, nodes, domains)
    findings = check_locality(mesh, localities, nodes, domains)
    if layout is None:
        assert findings
        return
    assert not check_locality(layout, localities, nodes, domains)
    assert layout.shape == mesh.shape
    assert sorted(layout.ranks) == sorted(mesh.ranks)


PLACES = {"a": ("d", 0), "b": ("d", 1)}


@pytest.mark.parametrize(
    ("topology", "size", "count", "told"),
    [
        (PLACES, "2", 2, ["segment_size"]),
        (PLACES, 1.0, True, ["segment_size", "num_nodes"]),
        (None, 1, 1, ["topology"]),
        ({"a": 1, "b": ("d", "0"), "c": ("d", 0)}, 1, 1, ["topology['a']", "topology['b']"]),
    ],
)
def test_wrong_types_for_segments_are_findings(
    topology: Any, size: Any, count: Any, told: list[str]
) -> None:
    """With what would work."""
    with pytest.raises(PlanError) as caught:
        select_segment_nodes(topology, size, count)
    assert [finding.path for finding in caught.value.findings] == told


@pytest.mark.parametrize(
    ("facts", "told"),
    [(None, ["facts"]), ([1, BundleFacts(0, 0, "n", "10.0.0.1"), None], ["facts[0]", "facts[2]"])],
)
def test_what_is_no_bundle_is_not_sorted(facts: Any, told: list[str]) -> None:
    """Each is named."""
    with pytest.raises(PlanError) as caught:
        sort_bundles(facts)
    assert [finding.path for finding in caught.value.findings] == told


def test_segments_of_bundles_are_of_whole_nodes() -> None:
    """A text or a fraction is no number of them."""
    for wrong in ("2", 1.5, True, 0):
        with pytest.raises(PlanError, match=r"segment_size: .* nodes are no segment"):
            sort_bundles([], {}, wrong)  # type: ignore[arg-type]
