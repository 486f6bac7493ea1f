"""Which placement groups, with which bundles on which nodes, and what does not fit."""

import pickle
from collections import Counter
from itertools import permutations
from random import Random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.amounts import GPU_UNIT, Amounts
from planner.findings import PlanError, ResourceInsufficientError
from planner.inventory import Gpu, Inventory, Node
from planner.label_selectors import matches, parse_rule
from planner.placing import fill, fit_units, one_each, round_robin
from planner.reservation import (
    Fits,
    FitsWhenFree,
    GroupRequest,
    NeverFits,
    ReservationPlan,
    Strategy,
    plan_reservation,
    predicted_bundles,
    virtual_cluster_request,
)
from planner.shapes import cpu_nodes, gb200_racks, h100_nodes


def machine(
    name: str,
    gpus: int = 0,
    cpus: int = 64,
    free: Amounts | None = None,
    labels: dict[str, str] | None = None,
) -> Node:
    """A node with some GPUs."""
    return Node(
        node_id=name,
        address=name,
        milli_cpus=cpus * 1000,
        memory=1000,
        gpus=tuple(Gpu(kind="H100", index=index) for index in range(gpus)),
        free=free,
        labels=labels or {},
    )


def homes(plan: ReservationPlan, pool: str) -> list[list[str | None]]:
    """The node of each bundle, by placement group; None where it never fits."""
    return [
        [None if isinstance(each, NeverFits) else each.node_id for each in group.verdicts]
        for group in plan.placement_groups
        if group.pool == pool
    ]


def test_a_virtual_cluster_makes_a_placement_group_per_node() -> None:
    """One CPU per colocated group and one GPU a bundle; an empty node makes none."""
    request = virtual_cluster_request([8, 0, 8], max_colocated_worker_groups=3)
    plan = plan_reservation([request], h100_nodes(2))
    assert homes(plan, "cluster") == [["h100-0"] * 8, ["h100-1"] * 8]
    assert {group.strategy for group in plan.placement_groups} == {Strategy.STRICT_PACK}
    assert plan.placement_groups[0].needs == Amounts(milli_cpus=3000, gpu_share=GPU_UNIT)
    (member,) = plan.pools[0].members
    assert (member.gpu_share, plan.pools[0].share) == (3333, 9999)
    assert [group.name for group in plan.placement_groups] == ["cluster/0", "cluster/1"]


def test_two_placement_groups_share_a_node_that_has_room() -> None:
    """Entries are not nodes: four and four fit on one node of eight."""
    plan = plan_reservation([virtual_cluster_request([4, 4])], h100_nodes(1))
    assert homes(plan, "cluster") == [["h100-0"] * 4, ["h100-0"] * 4]
    facts = predicted_bundles(plan, h100_nodes(1), "cluster")
    assert [each.gpus for each in facts] == [(str(index),) for index in range(8)]


def test_a_unified_placement_group_packs_node_after_node() -> None:
    """All bundles in one placement group, on as few nodes as can hold them, in node order."""
    nodes = [machine("a", 2), machine("b", 8), machine("c", 4), machine("d", 8)]
    request = virtual_cluster_request([8, 8], unified=True, placement_group_strategy="PACK")
    plan = plan_reservation([request], Inventory(nodes))
    assert homes(plan, "cluster") == [["b"] * 8 + ["d"] * 8]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.SPREAD, ["a", "b", "c", "b"]),
        (Strategy.PACK, ["b", "b", "b", "b"]),
        (Strategy.STRICT_PACK, ["b", "b", "b", "b"]),
        (Strategy.STRICT_SPREAD, ["a", "b", "c", None]),
    ],
)
def test_each_strategy_of_a_unified_placement_group(
    strategy: Strategy, expected: list[str | None]
) -> None:
    """Packed, in turn, all on one node, or each on its own."""
    nodes = [machine("a", 1), machine("b", 4), machine("c", 1)]
    request = GroupRequest(name="g", workers=4, unified=True, strategy=strategy)
    assert homes(plan_reservation([request], Inventory(nodes)), "g") == [expected]


def test_an_engine_over_two_nodes_needs_a_unified_placement_group() -> None:
    """Sixteen bundles on one node never fit; unified they do."""
    per_node = plan_reservation([virtual_cluster_request([16])], h100_nodes(2))
    with pytest.raises(ResourceInsufficientError) as caught:
        per_node.check()
    assert str(caught.value) == (
        "reservation: cluster: 16 bundles of 1 GPU, 1 CPU asked for, 8 fit: 1 GPU missing on the "
        "closest node 10.16.0.1, which has 8 GPUs, of which this plan leaves 0 GPUs "
        "(placement_groups[0].bundles[8] and 7 more); at most 8 of them share a node: ask for "
        "that many per node, or fewer"
    )
    plan_reservation([virtual_cluster_request([16], unified=True)], h100_nodes(2)).check()


def test_busy_and_impossible_are_told_apart() -> None:
    """What is held by others is waited for; what is not there is an error, all in one go."""
    busy = Amounts(milli_cpus=64_000, gpu_share=3 * GPU_UNIT)
    inventory = Inventory([machine("a", 8, free=busy)])
    waits = plan_reservation([virtual_cluster_request([5])], inventory)
    verdicts = waits.placement_groups[0].verdicts
    assert verdicts[2:4] == (
        Fits(node_id="a"),
        FitsWhenFree(node_id="a", missing=(("GPU", GPU_UNIT),)),
    )
    assert (waits.fits, waits.possible) == (False, True)
    waits.check()
    with pytest.raises(ResourceInsufficientError, match="once 1 GPU more is free"):
        waits.check(now=True)
    never = plan_reservation([virtual_cluster_request([9])], inventory)
    assert never.placement_groups[0].verdicts[8] == NeverFits(
        resource="GPU", missing=GPU_UNIT, closest="a", has=8 * GPU_UNIT, left=0
    )
    with pytest.raises(ResourceInsufficientError) as caught:
        never.check()
    assert [str(each) for each in caught.value.findings] == [
        (
            "cluster: 5 of 9 bundles of 1 GPU, 1 CPU must wait, the first: it fits on node a once "
            "1 GPU more is free there (placement_groups[0].bundles[3] and 4 more); wait, or end "
            "what holds it"
        ),
        (
            "cluster: 9 bundles of 1 GPU, 1 CPU asked for, 8 fit: 1 GPU missing on the closest "
            "node a, which has 8 GPUs, of which this plan leaves 0 GPUs "
            "(placement_groups[0].bundles[8]); at most 8 of them share a node: ask for that many "
            "per node, or fewer"
        ),
    ]


def test_nodes_are_named_by_address_and_by_id_where_that_says_too_little() -> None:
    """An id of 56 digits is told only when two nodes share an address."""
    nodes = [evolve(machine(name, 2), address="10.0.0.1") for name in ("f" * 56, "e" * 56)]
    alone, shared = Inventory(nodes[:1]), Inventory(nodes)
    request = virtual_cluster_request([3])
    with pytest.raises(ResourceInsufficientError, match=r"closest node 10\.0\.0\.1, which has 2"):
        plan_reservation([request], alone).check()
    with pytest.raises(ResourceInsufficientError, match=r"node 10\.0\.0\.1 \(e{56}\), which has 2"):
        plan_reservation([request], shared).check()


def test_many_bundles_are_counted_first() -> None:
    """The error begins with how many were asked for and how many fit."""
    request = virtual_cluster_request([16] * 4, use_gpus=False)
    with pytest.raises(ResourceInsufficientError) as caught:
        plan_reservation([request], Inventory([machine("a", cpus=4)])).check()
    assert str(caught.value).startswith(
        "reservation: cluster: 64 bundles of 1 CPU asked for, 4 fit: 1 CPU missing on"
    )


def test_a_part_of_a_gpu_that_is_free_is_not_a_gpu() -> None:
    """Half a GPU free is not enough for a bundle; the missing half is named."""
    inventory = Inventory([machine("a", 1, free=Amounts(milli_cpus=9000, gpu_share=5000))])
    (group,) = plan_reservation([virtual_cluster_request([1])], inventory).placement_groups
    assert group.verdicts == (FitsWhenFree(node_id="a", missing=(("GPU", 5000),)),)


def test_free_nodes_are_preferred_to_busy_ones() -> None:
    """A plan that fits now wins over the first node."""
    busy = Amounts(milli_cpus=64_000)
    inventory = Inventory([machine("a", 8, free=busy), machine("b", 8)])
    plan = plan_reservation([virtual_cluster_request([8])], inventory)
    assert homes(plan, "cluster") == [["b"] * 8]
    assert plan.fits


def test_colocated_groups_share_slots_with_proven_shares() -> None:
    """Three groups in one pool: each adds its CPUs, and the shares sum to a GPU at most."""
    requests = [
        GroupRequest(name="policy", bundles_per_node=(4, 4), pool="main", gpu_share=5000),
        GroupRequest(name="rollout", bundles_per_node=(4, 4), pool="main"),
        GroupRequest(name="reward", bundles_per_node=(2,), pool="main", milli_cpus_per_bundle=500),
    ]
    inventory = Inventory([machine("a", 4), machine("b", 4)])
    plan = plan_reservation(requests, inventory)
    (pool,) = plan.pools
    assert [(each.group, each.gpu_share) for each in pool.members] == [
        ("policy", 5000),
        ("rollout", 2500),
        ("reward", 2500),
    ]
    assert pool.needs == Amounts(milli_cpus=2500, gpu_share=GPU_UNIT)
    assert len(plan.placement_groups) == 2
    assert plan.processes() == (("a", 4 + 4 + 2), ("b", 4 + 4))
    shared = predicted_bundles(plan, inventory, "main")
    assert predicted_bundles(plan, inventory, "reward") == shared[:2]
    assert predicted_bundles(plan, inventory, "policy") == shared


def test_shares_over_a_whole_gpu_are_refused_with_the_arithmetic() -> None:
    """0.7 + 0.25 + 0.0501 of a GPU is more than one."""
    requests = [
        GroupRequest(name=f"g{share}", bundles_per_node=(1,), pool="p", gpu_share=share)
        for share in (7000, 2500, 501)
    ]
    with pytest.raises(PlanError) as caught:
        plan_reservation(requests, h100_nodes(1))
    text = str(caught.value)
    assert "1 x 7000 + 1 x 2500 + 1 x 501 = 10001 of 10000" in text
    assert "3333 (0.3333 GPUs) for each worker would work" in text


@given(st.lists(st.tuples(st.none() | st.integers(0, 6000), st.integers(1, 5)), min_size=1))
def test_shares_never_exceed_a_gpu(wanted: list[tuple[int | None, int]]) -> None:
    """Whatever is asked for, the shares of a pool sum to at most 10,000, or it is an error."""
    requests = [
        GroupRequest(
            name=str(index), workers=1, unified=True, pool="p", gpu_share=share, colocated=colocated
        )
        for index, (share, colocated) in enumerate(wanted)
    ]
    try:
        plan = plan_reservation(requests, h100_nodes(1))
    except PlanError:
        return
    assert plan.pools[0].share <= GPU_UNIT
    assert all(
        member.gpu_share > 0 or wanted[int(member.group)][0] == 0
        for member in plan.pools[0].members
    )


def test_groups_of_a_pool_must_agree() -> None:
    """Groups that share slots differ in nothing that places the slots."""
    requests = [
        GroupRequest(name="a", workers=4, pool="p", unified=True),
        GroupRequest(name="b", bundles_per_node=(4,), pool="p", gpus_per_bundle=2),
        GroupRequest(name="p", workers=1),
        GroupRequest(name="a", workers=1),
    ]
    with pytest.raises(PlanError) as caught:
        plan_reservation(requests, h100_nodes(1))
    assert sorted(each.path for each in caught.value.findings) == [
        "requests[1].gpus_per_bundle",
        "requests[1].unified",
        "requests[1].workers",
        "requests[2].name",
        "requests[3].name",
    ]


def test_every_impossible_number_is_found_at_once() -> None:
    """All that is wrong with a request is one error."""
    request = GroupRequest(
        name=" ",
        bundles_per_node=(3, -1, 2),
        workers=3,
        milli_cpus_per_bundle=-1,
        custom_per_bundle={"GPU": 1000},
        colocated=0,
        gpu_share=10_001,
        labels={"zone": "in(a"},
        node_class="!in()",
    )
    with pytest.raises(PlanError) as caught:
        plan_reservation([request], h100_nodes(1))
    assert [each.path.removeprefix("requests[0].") for each in caught.value.findings] == [
        "name",
        "bundles_per_node[1]",
        "workers",
        "milli_cpus_per_bundle",
        "custom_per_bundle.GPU",
        "colocated",
        "gpu_share",
        "labels.zone",
        "node_class",
    ]


def test_the_closest_node_and_the_first_missing_resource() -> None:
    """GPUs before CPUs before memory before custom ones, on the node that lacks least."""
    nodes = [machine("a", 1, cpus=1), machine("b", 1, cpus=8), machine("c", 0, cpus=64)]
    request = GroupRequest(
        name="g", workers=1, milli_cpus_per_bundle=10_000, custom_per_bundle={"ssd": 1}
    )
    plan = plan_reservation([request], Inventory(nodes))
    assert plan.placement_groups[0].verdicts == (
        NeverFits(resource="CPU", missing=2000, closest="b", has=8000, left=8000),
    )


@pytest.mark.parametrize(
    ("gpus", "colocated", "remedy"),
    [
        (0, 1, r"ask for less in each bundle \(use_gpus=False asks for no GPU\)"),
        (2, 1, "at most 2 of them share a node"),
        (8, 9, r"in each bundle \(a lower max_colocated_worker_groups needs fewer CPUs\)"),
    ],
)
def test_the_remedy_names_what_asks_for_too_much(gpus: int, colocated: int, remedy: str) -> None:
    """A cluster without GPUs, with too few, or with too many groups to each bundle."""
    request = virtual_cluster_request([4], max_colocated_worker_groups=colocated)
    plan = plan_reservation([request], Inventory([machine("a", gpus, cpus=8)]))
    with pytest.raises(ResourceInsufficientError, match=remedy):
        plan.check()


def test_processes_beside_the_bundles_are_counted_once_per_node() -> None:
    """A companion on each node takes its CPU before the bundles do."""
    nodes = Inventory([machine("a", 8, cpus=8), machine("b", 8, cpus=9)])
    request = GroupRequest(name="g", workers=16, beside=Amounts(milli_cpus=1000))
    counts = Counter(
        home for unit in homes(plan_reservation([request], nodes), "g") for home in unit
    )
    assert counts == {"b": 8, "a": 7, None: 1}


def test_each_group_counts_what_runs_beside_it() -> None:
    """Two groups on one node need their companions' CPUs too; the second does not get its own."""
    requests = [
        GroupRequest(name=name, bundles_per_node=(2,), beside=Amounts(milli_cpus=1000))
        for name in ("g", "h")
    ]
    plan = plan_reservation(requests, Inventory([machine("a", 8, cpus=5)]))
    assert homes(plan, "g") == [["a", "a"]]
    assert homes(plan, "h") == [["a", None]]
    assert plan_reservation(requests, Inventory([machine("a", 8, cpus=6)])).fits


@pytest.mark.parametrize("unified", [False, True])
def test_who_asks_first_is_served_first(unified: bool) -> None:
    """The first group gets the free node, the second waits for a busy one."""
    busy = Amounts(milli_cpus=64_000)
    nodes = [machine("a", 8, free=busy), machine("b", 8)]
    requests = [
        GroupRequest(name=name, bundles_per_node=(8,), unified=unified) for name in ("g", "h")
    ]
    plan = plan_reservation(requests, Inventory(nodes))
    assert (homes(plan, "g"), homes(plan, "h")) == ([["b"] * 8], [["a"] * 8])
    assert (plan.fits, plan.possible) == (False, True)


def test_workers_without_nodes_named_take_as_few_as_can_hold_them() -> None:
    """A number of workers becomes placement groups of what each node holds."""
    plan = plan_reservation(
        [
            GroupRequest(name="g", workers=11, pool="p"),
            GroupRequest(name="h", workers=9, pool="p"),
        ],
        h100_nodes(4),
    )
    assert [len(group.verdicts) for group in plan.placement_groups] == [8, 3]
    assert [member.bundles for member in plan.pools[0].members] == [(8, 3), (8, 1)]


def test_when_other_groups_take_everything_the_remedy_says_so() -> None:
    """A node that would hold the bundles, were it not for the plan itself."""
    requests = [GroupRequest(name=name, bundles_per_node=(8,)) for name in ("g", "h")]
    with pytest.raises(ResourceInsufficientError, match="other groups of the plan take"):
        plan_reservation(requests, h100_nodes(1)).check()


def test_labels_and_classes_choose_nodes() -> None:
    """Only nodes whose labels agree are used; without any the labels are named."""
    nodes = [
        machine("a", 8, labels={"zone": "x", "ray.io/node-group": "train"}),
        machine("b", 8, labels={"zone": "y", "ray.io/node-group": "train"}),
        machine("c", 8, labels={"zone": "y"}),
    ]
    request = GroupRequest(
        name="g", bundles_per_node=(8,), labels={"zone": "!x"}, node_class="train"
    )
    plan = plan_reservation([request], Inventory(nodes))
    assert homes(plan, "g") == [["b"] * 8]
    assert plan.placement_groups[0].selector == (("ray.io/node-group", "train"), ("zone", "!x"))
    nowhere = GroupRequest(name="g", workers=2, labels={"zone": "z"})
    with pytest.raises(
        ResourceInsufficientError,
        match=r"with zone=z .* none fits: there is no node for one .*change",
    ):
        plan_reservation([nowhere], Inventory(nodes)).check()


@pytest.mark.parametrize(
    ("expression", "of_a", "of_none"),
    [("a", True, False), ("!a", False, True), ("in(b, a)", True, False), ("!in(b)", True, True)],
)
def test_label_expressions(expression: str, of_a: bool, of_none: bool) -> None:
    """The four forms; a node without the label matches the negative ones."""
    rule = parse_rule("k", expression)
    assert rule is not None
    assert matches([rule], [("k", "a")]) is of_a
    assert matches([rule], []) is of_none


@pytest.mark.parametrize("expression", ["", "in()", "in(a", "!", "a b", "a,b", "in(a,,b)"])
def test_what_is_no_label_expression(expression: str) -> None:
    """Anything else is refused."""
    assert parse_rule("k", expression) is None


def test_exclusive_groups_have_their_nodes_to_themselves() -> None:
    """Nobody joins the nodes of an exclusive group, and it joins nobody."""
    requests = [
        GroupRequest(name="a", bundles_per_node=(2,)),
        GroupRequest(name="b", bundles_per_node=(2,), exclusive=True),
        GroupRequest(name="c", bundles_per_node=(6, 2)),
    ]
    plan = plan_reservation(requests, h100_nodes(3))
    assert homes(plan, "a") == [["h100-0"] * 2]
    assert homes(plan, "b") == [["h100-1"] * 2]
    assert homes(plan, "c") == [["h100-0"] * 6, ["h100-2"] * 2]


def test_whole_segments_and_what_is_left_for_the_next() -> None:
    """Groups take whole NVLink segments in topology order; the next takes from the rest."""
    requests = [
        GroupRequest(name="train", bundles_per_node=(4,) * 16, segment_size=16, unified=True),
        GroupRequest(name="roll", bundles_per_node=(4,) * 2, segment_size=2),
    ]
    inventory = gb200_racks(1)
    plan = plan_reservation(requests, inventory)
    (train,) = homes(plan, "train")
    assert train[::4] == [f"rack-0-node-{index}" for index in range(16)]
    assert homes(plan, "roll") == [["rack-0-node-16"] * 4, ["rack-0-node-17"] * 4]
    more = GroupRequest(name="more", bundles_per_node=(4,) * 2, segment_size=2)
    with pytest.raises(
        ResourceInsufficientError, match=r"none fits: there is no segment for one \("
    ):
        plan_reservation([*requests, more], inventory).check()
    many = evolve(more, bundles_per_node=(4,) * 4)
    with pytest.raises(ResourceInsufficientError, match=r"8 fit: .* for one more beside the 1 it"):
        plan_reservation([requests[0], many], inventory).check()
    odd = GroupRequest(name="odd", bundles_per_node=(4, 4, 4), segment_size=2)
    with pytest.raises(PlanError, match="give 2 or 4 nodes"):
        plan_reservation([odd], inventory)


def test_groups_without_gpus_leave_the_gpu_nodes_alone() -> None:
    """CPU workers go to CPU nodes while there is room, then to the others."""
    inventory = h100_nodes(1) + cpu_nodes(1, cpus=4)
    request = GroupRequest(name="g", bundles_per_node=(4, 4), gpus_per_bundle=0)
    plan = plan_reservation([request], inventory)
    assert homes(plan, "g") == [["cpu-0"] * 4, ["h100-0"] * 4]
    assert plan.pools[0].share == 0


def test_a_demanding_group_is_not_locked_out_by_an_easy_one() -> None:
    """When request order leaves a group out, the most demanding goes first."""
    inventory = Inventory([machine("a", 8), machine("b", 2)])
    requests = [
        GroupRequest(name="small", bundles_per_node=(2,)),
        GroupRequest(name="large", bundles_per_node=(8,)),
    ]
    plan = plan_reservation(requests, inventory)
    assert plan.fits
    assert homes(plan, "small") == [["b", "b"]]


def test_a_missing_gpu_is_named() -> None:
    """One GPU short on one of four nodes: the bundle, and the node that came closest."""
    nodes = [machine(f"n{index}", 7 if index == 2 else 8) for index in range(4)]
    plan = plan_reservation([virtual_cluster_request([8] * 4)], Inventory(nodes))
    lost = [
        (group.index, bundle, verdict)
        for group in plan.placement_groups
        for bundle, verdict in enumerate(group.verdicts)
        if isinstance(verdict, NeverFits)
    ]
    (only,) = lost
    assert only == (
        3,
        7,
        NeverFits(resource="GPU", missing=GPU_UNIT, closest="n2", has=7 * GPU_UNIT, left=0),
    )


def test_unknown_names_are_answered() -> None:
    """Predicting a group that is not there, or one that does not fit, is an error."""
    plan = plan_reservation([virtual_cluster_request([8])], h100_nodes(1))
    with pytest.raises(PlanError, match="there is cluster"):
        predicted_bundles(plan, h100_nodes(1), "clustr")
    with pytest.raises(PlanError, match="give one of PACK"):
        virtual_cluster_request([8], placement_group_strategy="PAKC")
    with pytest.raises(ResourceInsufficientError):
        predicted_bundles(
            plan_reservation([virtual_cluster_request([9])], h100_nodes(1)),
            h100_nodes(1),
            "cluster",
        )


def test_a_thousand_nodes_are_planned_whole() -> None:
    """Every bundle of 1,000 nodes x 8 has a home, a full node each."""
    plan = plan_reservation([virtual_cluster_request([8] * 1000)], h100_nodes(1000))
    assert plan.fits
    assert Counter(home for unit in homes(plan, "cluster") for home in unit) == {
        f"h100-{index}": 8 for index in range(1000)
    }


@st.composite
def clusters(draw: st.DrawFn) -> list[Node]:
    """A few unequal nodes, some of them busy."""
    nodes: list[Node] = []
    for index in range(draw(st.integers(0, 4))):
        gpus, cpus = draw(st.integers(0, 5)), draw(st.integers(0, 8))
        free = Amounts(
            milli_cpus=draw(st.integers(0, cpus * 1000)),
            gpu_share=draw(st.integers(0, gpus)) * GPU_UNIT,
            memory=draw(st.integers(0, 1000)),
        )
        busy = draw(st.booleans())
        zone = {"zone": draw(st.sampled_from("xy"))}
        nodes.append(machine(f"n{index}", gpus, cpus, free if busy else None, zone))
    return nodes


@st.composite
def group_requests(draw: st.DrawFn) -> list[GroupRequest]:
    """A few requests of any shape, sensible or not."""
    requests: list[GroupRequest] = []
    for index in range(draw(st.integers(1, 3))):
        workers = draw(st.none() | st.integers(0, 9))
        counts = draw(st.lists(st.integers(-1 if index == 2 else 0, 5), max_size=4))
        requests.append(
            GroupRequest(
                name=f"g{index}",
                workers=workers,
                bundles_per_node=() if workers is not None else tuple(counts),
                unified=draw(st.booleans()),
                strategy=draw(st.sampled_from(Strategy)),
                gpus_per_bundle=draw(st.integers(0, 2)),
                milli_cpus_per_bundle=draw(st.sampled_from([0, 500, 1000, 3000])),
                memory_per_bundle=draw(st.sampled_from([0, 0, 300])),
                pool=draw(st.sampled_from([None, None, "p"])),
                labels=draw(st.sampled_from([{}, {}, {"zone": "x"}])),
                exclusive=draw(st.sampled_from([False, False, True])),
                beside=draw(st.sampled_from([Amounts(), Amounts(milli_cpus=500)])),
            )
        )
    return requests


def check_capacity(plan: ReservationPlan, nodes: dict[str, Node]) -> None:
    """No node is given more than it has, nor told to fit now what is not free."""
    beside = {pool.name: pool.beside for pool in plan.pools}
    taken: dict[str, Amounts] = {name: Amounts() for name in nodes}
    now: dict[str, Amounts] = {name: Amounts() for name in nodes}
    for pool in sorted(
        {
            (g.pool, v.node_id)
            for g in plan.placement_groups
            for v in g.verdicts
            if not isinstance(v, NeverFits)
        }
    ):
        taken[pool[1]] = taken[pool[1]].plus(beside[pool[0]])
    for group in plan.placement_groups:
        for verdict in group.verdicts:
            if isinstance(verdict, NeverFits):
                continue
            taken[verdict.node_id] = taken[verdict.node_id].plus(group.needs)
            if isinstance(verdict, Fits):
                now[verdict.node_id] = now[verdict.node_id].plus(group.needs)
    for name, node in nodes.items():
        assert all(amount <= node.total.of(what) for what, amount in taken[name].items())
        assert all(amount <= node.free_now.of(what) for what, amount in now[name].items())


def check_strategies(plan: ReservationPlan) -> None:
    """Strict strategies hold for whatever was placed, and exclusive nodes have one user."""
    users: dict[str, set[str]] = {}
    for group in plan.placement_groups:
        places = [each.node_id for each in group.verdicts if not isinstance(each, NeverFits)]
        for place in places:
            users.setdefault(place, set()).add(group.pool)
        if group.strategy is Strategy.STRICT_PACK:
            assert len(set(places)) <= 1
        if group.strategy is Strategy.STRICT_SPREAD:
            assert len(set(places)) == len(places)
    for pool in plan.pools:
        if pool.exclusive:
            assert all(len(each) == 1 for each in users.values() if pool.name in each)


@settings(max_examples=300)
@given(clusters(), group_requests(), st.randoms(use_true_random=False))
def test_a_plan_keeps_its_laws(
    nodes: list[Node], requests: list[GroupRequest], random: Random
) -> None:
    """Capacity and strategies hold, each slot is used once, node order does not matter."""
    inventory = Inventory(nodes)
    try:
        plan = plan_reservation(requests, inventory)
    except PlanError:
        return
    check_capacity(plan, {node.node_id: node for node in nodes})
    check_strategies(plan)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert plan_reservation(requests, Inventory(shuffled)) == plan
    assert hash(pickle.loads(pickle.dumps(plan))) == hash(plan)  # noqa: S301
    if not plan.possible:
        with pytest.raises(ResourceInsufficientError):
            plan.check()
        return
    slots: list[tuple[str, str]] = []
    for pool in plan.pools:
        facts = predicted_bundles(plan, inventory, pool.name)
        assert len(facts) == sum(pool.units)
        slots.extend((each.node_id, gpu) for each in facts for gpu in each.gpus)
    assert len(slots) == len(set(slots))


@given(clusters(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_one_group_is_placed_whenever_it_can_be(nodes: list[Node], sizes: list[int]) -> None:
    """Against every possible assignment: a plan says never only when there is none."""
    rooms = [min(len(node.gpus), node.milli_cpus // 1000) for node in nodes]
    plan = plan_reservation([virtual_cluster_request(sizes)], Inventory(nodes))
    assert plan.possible is _exists(sizes, rooms)


def _exists(sizes: list[int], rooms: list[int]) -> bool:
    if not sizes:
        return True
    return any(
        _exists(sizes[1:], [*rooms[:at], room - sizes[0], *rooms[at + 1 :]])
        for at, room in enumerate(rooms)
        if room >= sizes[0]
    )


def test_the_search_settles_what_plain_ways_do_not() -> None:
    """Sizes on which both first fit and best fit fail still get their homes."""
    sizes, rooms = [5, 4, 3, 3, 3, 2], [10, 10]
    for order in set(permutations(sizes)):
        assert None not in fit_units(order, rooms, in_order=True)


def test_counting_bundles_onto_nodes() -> None:
    """As few nodes as can be, in turn, or each on its own; what has no room is left out."""
    assert fill(5, [1, 4, 0, 3]) == [1, 1, 1, 1, 3]
    assert round_robin(5, [1, 4, 0, 3]) == [0, 1, 3, 1, 3]
    assert one_each(5, [1, 4, 0, 3]) == [0, 1, 3]
    assert fill(9, [1, 4, 0, 3]) == [0, 1, 1, 1, 1, 3, 3, 3]
    assert fit_units([3, 3], [3, 2], in_order=True) == [0, None]
