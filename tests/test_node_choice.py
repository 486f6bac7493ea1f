"""Which nodes a reservation may use, what Ray is told, and what is checked afterwards."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import Findings
from planner.inventory import BundleFacts, Inventory
from planner.node_choice import (
    NodeChoice,
    RayFeatures,
    check_landed,
    chosen_nodes,
    hardware_order,
    named_by_id,
    remaining_nodes,
    why_no_node,
)
from planner.requests import Strategy
from planner.reservation import plan_reservation
from planner.shapes import gb200_racks
from planner.virtual_cluster import (
    BundleRequest,
    ClusterSpec,
    plan_bundles,
    plan_cluster,
    reservation_request,
)
from tests.places_cases import small_nodes


def _requests(
    spec: ClusterSpec,
    inventory: Inventory,
    *,
    unified: bool = False,
    features: RayFeatures | None = None,
) -> tuple[BundleRequest, ...]:
    request = reservation_request(spec, unified=unified, strategy=Strategy.PACK)
    return plan_bundles(
        evolve(spec, nodes=named_by_id(spec.nodes, inventory)),
        unified=unified,
        strategy=Strategy.PACK,
        run="r",
        plan=plan_reservation([request], chosen_nodes(spec.nodes, inventory)),
        features=features or RayFeatures(),
    )


def test_plain_reservation_prefers_what_was_planned() -> None:
    """Without a wish Ray is only hinted at the planned node, so that it may choose another."""
    requests = _requests(plan_cluster(bundle_ct_per_node_list=[2, 0, 1]), small_nodes(2, 2))
    assert [(each.prefers, each.selectors, each.domain) for each in requests] == [
        ("n0", (), None),
        ("n1", (), None),
    ]


def test_excluded_nodes_and_labels_become_selectors() -> None:
    """Each bundle asks for the labels, and for none of the excluded nodes, by id."""
    spec = plan_cluster(
        bundle_ct_per_node_list=[2],
        node_selector={"ray.io/node-id": "!n2"},
        exclude_nodes=["10.0.0.1"],
    )
    [labelled] = _requests(spec, small_nodes(2, 2, 2))
    [excluding] = _requests(evolve(spec, nodes=NodeChoice(excluded=("n0",))), small_nodes(2, 2))
    assert labelled.prefers == "n1"
    assert excluding.selectors == ((("ray.io/node-id", "!in(n0)"),),) * 2


def test_segments_name_their_nodes() -> None:
    """With segments each bundle names the node that was planned."""
    spec = plan_cluster(bundle_ct_per_node_list=[4, 4], segment_size=1)
    requests = _requests(spec, gb200_racks(1))
    assert [each.selectors[0] for each in requests] == [
        (("ray.io/node-id", "rack-0-node-0"),),
        (("ray.io/node-id", "rack-0-node-1"),),
    ]
    assert requests[0].named_nodes == {"rack-0-node-0"}


def test_one_segment_is_rays_topology_strategy() -> None:
    """A unified reservation of one segment is left to Ray where it can keep a domain."""
    spec = plan_cluster(bundle_ct_per_node_list=[4, 4], segment_size=2, strategy="PACK")
    [native] = _requests(spec, gb200_racks(1), unified=True)
    [named] = _requests(
        spec, gb200_racks(1), unified=True, features=RayFeatures(topology_strategy=False)
    )
    assert (native.domain, native.selectors) == ("ray.io/gpu-domain", ())
    assert named.domain is None
    assert named.named_nodes == {"rack-0-node-0", "rack-0-node-1"}


def test_older_ray_is_told_nothing_and_checked() -> None:
    """Without label selectors the plan asks for none, and what landed elsewhere is found."""
    spec = plan_cluster(bundle_ct_per_node_list=[1], node_selector={"ray.io/node-id": "n1"})
    old = RayFeatures(label_selectors=False, topology_strategy=False)
    [request] = _requests(spec, small_nodes(1, 1), features=old)
    assert request.selectors == ()
    findings = Findings("cluster")
    landed = (BundleFacts(0, 0, "n0", "10.0.0.1"),)
    check_landed(spec.nodes, landed, chosen_nodes(spec.nodes, small_nodes(1, 1)), findings)
    assert [each.path for each in findings.found] == ["placement_groups[0].bundles[0]"]


def test_broken_segment_is_found() -> None:
    """Three nodes of a domain are no whole segments of two."""
    racks = gb200_racks(1)
    landed = [BundleFacts(0, n, f"rack-0-node-{n}", f"10.32.0.{n + 1}") for n in range(3)]
    findings = Findings("cluster")
    check_landed(NodeChoice(segment_size=2), landed, racks, findings)
    assert "3 nodes landed in NVLink domain 'rack-0'" in findings.found[0].problem
    whole = Findings("cluster")
    check_landed(NodeChoice(segment_size=2), landed[:2], racks, whole)
    assert not whole


def test_topology_by_hand_is_where_nodes_are() -> None:
    """Only the nodes that it names are used, at the places it says."""
    choice = NodeChoice(topology=(("n1", "a", 5), ("n2", "a", 1), ("n9", "b", 0)))
    chosen = chosen_nodes(choice, small_nodes(1, 1, 1))
    assert [(n.node_id, n.nvlink_domain, n.topology_rank) for n in chosen.nodes] == [
        ("n2", "a", 1),
        ("n1", "a", 5),
    ]


def test_remaining_nodes_without_a_domain_are_their_own() -> None:
    """What is left can be handed on even where no domain is known."""
    assert remaining_nodes(small_nodes(1, 1, 1), ["n1"]) == {"n0": ("n0", 0), "n2": ("n2", 2)}


def test_placement_groups_follow_the_hardware_among_equals() -> None:
    """Equal placement groups change places; one of another size keeps its own."""
    facts = [
        BundleFacts(0, 0, "n2", "10.0.0.3"),
        BundleFacts(1, 0, "n0", "10.0.0.1"),
        BundleFacts(1, 1, "n0", "10.0.0.1"),
        BundleFacts(2, 0, "n1", "10.0.0.2"),
    ]
    assert hardware_order(facts, small_nodes(2, 2, 2)) == (2, 1, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=8))
def test_hardware_order_is_a_permutation_that_keeps_sizes(landed: list[tuple[int, int]]) -> None:
    """Every placement group once, and as many bundles in each place as were asked for there."""
    facts = [
        BundleFacts(group, bundle, f"n{node}", f"10.0.0.{node + 1}")
        for group, (node, size) in enumerate(landed)
        for bundle in range(size)
    ]
    order = hardware_order(facts, small_nodes(1, 1, 1, 1, 1))
    assert sorted(order) == list(range(len(landed)))
    assert [landed[group][1] for group in order] == [size for _, size in landed]
    for size in {size for _, size in landed}:
        nodes = [landed[group][0] for group in order if landed[group][1] == size]
        assert nodes == sorted(nodes)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({}, None),
        ({"exclude_nodes": ["n0", "10.0.0.2"]}, None),
        (
            {"exclude_nodes": ["n0", "10.0.0.2", "n2"]},
            (
                "exclude_nodes: it leaves out all 3 nodes: 10.0.0.2, n0, n2; name fewer of them, "
                "or add nodes"
            ),
        ),
        (
            {"node_selector": {"rack": "r9"}},
            (
                "node_selector: none of the 3 nodes has rack=r9: it is r0, r1, r2 there; change "
                "the rule, or add such nodes"
            ),
        ),
        (
            {"node_selector": {"zone": "a"}},
            (
                "node_selector: none of the 3 nodes has zone=a: they do not have the label; "
                "change the rule, or add such nodes"
            ),
        ),
        (
            {"exclude_nodes": ["n0"], "node_selector": {"rack": "r0"}},
            (
                "node_selector: none of the 2 nodes that the rules before it leave has rack=r0: "
                "it is r1, r2 there; change the rule, or add such nodes"
            ),
        ),
        (
            {"topology": {"other": ("d", 0)}},
            (
                "topology: none of the 3 nodes is in it: it names other; name nodes by their ids, "
                "which are n0, n1, n2"
            ),
        ),
        ({"topology": {"n1": ("d", 0)}}, None),
    ],
)
def test_the_rule_that_leaves_no_node_is_named(rules: dict[str, object], told: str | None) -> None:
    """The first one after which none is left, with what the nodes are like."""
    nodes = Inventory(
        evolve(node, labels={"rack": f"r{index}"})
        for index, node in enumerate(small_nodes(1, 1, 1).nodes)
    )
    spec = plan_cluster(bundle_ct_per_node_list=[1], **rules)
    found = why_no_node(spec.nodes, nodes)
    assert (found and str(found)) == told
    assert (found is None) == bool(chosen_nodes(spec.nodes, nodes).nodes)


def test_a_cluster_without_nodes_has_none_to_use() -> None:
    """No rule is to blame."""
    found = why_no_node(NodeChoice(), Inventory([]))
    assert found is not None
    assert found.problem == "the cluster has no node"
