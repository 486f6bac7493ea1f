"""What a cluster has: values, order, plain data."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.amounts import Amounts, amount_text, in_units, parse_size
from planner.findings import PlanError
from planner.inventory import (
    Gpu,
    Inventory,
    Node,
    NumaNode,
    inventory_from_data,
    inventory_to_data,
)
from planner.nodes import NODE_CLASS_LABEL, address_key
from planner.shapes import cpu_nodes, gb200_racks, h100_nodes, laptop

GIB = 1024**3


def paths(error: PlanError) -> list[str]:
    """Where the findings are."""
    return [finding.path for finding in error.findings]


@st.composite
def node_lists(draw: st.DrawFn) -> list[Node]:
    """Nodes of many kinds with distinct ids."""
    nodes: list[Node] = []
    for node_id in draw(st.lists(st.text(min_size=1).filter(str.strip), unique=True, max_size=6)):
        gpus = draw(st.integers(0, 3))
        total = Amounts(
            milli_cpus=draw(st.integers(0, 9_999)),
            memory=draw(st.integers(0, 2**50)),
            gpu_share=gpus * 10_000,
            custom={"ssd": draw(st.integers(0, 5_000))},
        )
        free = Amounts(
            milli_cpus=total.milli_cpus // 2, gpu_share=draw(st.integers(0, total.gpu_share))
        )
        node = Node(
            node_id=node_id,
            address=draw(st.sampled_from(["10.0.0.2", "10.0.0.10", "fd00::1", "n10", "n2"])),
            milli_cpus=total.milli_cpus,
            memory=total.memory,
            gpus=tuple(Gpu(kind="H100", memory=GIB, index=index) for index in range(gpus)),
            custom=total.custom,
            labels=draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)),
            nvlink_domain=draw(st.sampled_from([None, "r2", "r10"])),
            topology_rank=draw(st.none() | st.integers(0, 9)),
            numa=draw(st.sampled_from([(), (NumaNode(index=0, cores=(0, 1, 5)),)])),
            free=draw(st.sampled_from([None, free])),
            is_head=draw(st.booleans()),
        )
        nodes.append(node)
    return nodes


@given(node_lists(), st.randoms())
def test_order_of_nodes_does_not_matter(nodes: list[Node], random: Random) -> None:
    """A shuffled cluster is the same value."""
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert Inventory(shuffled) == Inventory(nodes)


@given(node_lists())
def test_plain_data_round_trips(nodes: list[Node]) -> None:
    """Written as plain data and read again, an inventory is equal."""
    inventory = Inventory(nodes)
    assert inventory_from_data(inventory_to_data(inventory)) == inventory


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
)
node_tables = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(-1, 3) | json_like,
        "node_id": st.text(max_size=3) | json_like,
        "address": st.sampled_from(["10.0.0.1", "255.255.255.255", "x9"]) | json_like,
        "cpus": st.floats() | json_like,
        "memory": st.sampled_from(["1GiB", "1.5B", "x"]) | json_like,
        "gpus": json_like
        | st.lists(
            st.fixed_dictionaries(
                {"kind": st.just("H")},
                optional={"count": st.integers(-1, 9), "index": st.integers(-1, 3)},
            ),
            max_size=2,
        ),
        "custom": json_like | st.dictionaries(st.text(max_size=3), st.integers()),
        "labels": json_like | st.dictionaries(st.text(max_size=3), st.text()),
        "numa": json_like | st.lists(st.fixed_dictionaries({"cores": st.just("0-3")}), max_size=2),
        "free": json_like | st.fixed_dictionaries({}, optional={"cpus": st.floats()}),
    },
)


@given(json_like | st.fixed_dictionaries({"nodes": st.lists(node_tables | json_like)}))
def test_any_data_is_an_inventory_or_a_plan_error(data: object) -> None:
    """Whatever is read, the answer is an inventory or findings, nothing else."""
    try:
        inventory = inventory_from_data(data)
    except PlanError:
        return
    assert inventory_from_data(inventory_to_data(inventory)) == inventory


def test_every_problem_at_once_with_its_path() -> None:
    """All that is wrong with data is said in one error, place by place."""
    data = {
        "nodes": [
            {"cpus": -1, "gpus": [{"kind": "H100"}, {"memory": "80GiBB", "indx": 1}]},
            {"mem": 3, "count": 0, "gpus": {"kind": "H100", "count": 2, "uuid": "GPU-1"}},
            {"free": {"gpus": 1}},
            {"numa": [{"cores": "0-3"}, {"cores": "3-5"}]},
        ],
        "node": [],
    }
    with pytest.raises(PlanError) as caught:
        inventory_from_data(data)
    assert sorted(paths(caught.value)) == [
        "node",
        "nodes[0].cpus",
        "nodes[0].gpus[1].indx",
        "nodes[0].gpus[1].kind",
        "nodes[0].gpus[1].memory",
        "nodes[1].count",
        "nodes[1].gpus.uuid",
        "nodes[1].mem",
        "nodes[2].free",
        "nodes[3].numa[1].cores",
    ]
    assert "write 'memory'" in str(caught.value)


def test_count_makes_nodes_that_count_upwards() -> None:
    """A count repeats a node; id, address and topology rank go up, the domain stays."""
    data = {
        "nodes": [
            {
                "count": 3,
                "node_id": "gpu-08",
                "address": "10.0.0.255",
                "cpus": 1.5,
                "memory": "2TiB",
                "gpus": {"kind": "H100", "count": 8, "memory": "80GiB"},
                "nvlink_domain": "rack-0",
                "topology_rank": 4,
                "class": "train",
            }
        ]
    }
    nodes = inventory_from_data(data).nodes
    assert [(node.node_id, node.address, node.topology_rank) for node in nodes] == [
        ("gpu-08", "10.0.0.255", 4),
        ("gpu-09", "10.0.1.0", 5),
        ("gpu-10", "10.0.1.1", 6),
    ]
    assert {node.nvlink_domain for node in nodes} == {"rack-0"}
    assert nodes[2].total == Amounts(milli_cpus=1_500, memory=2048 * GIB, gpu_share=80_000)
    assert [gpu.index for gpu in nodes[2].gpus] == list(range(8))
    assert (nodes[0].gpus[7].memory, nodes[0].node_class) == (80 * GIB, "train")
    assert nodes[0].labels == ((NODE_CLASS_LABEL, "train"),)


def test_free_amounts_left_out_are_all_free() -> None:
    """What ``free`` does not name is free as a whole."""
    node = {"cpus": 8, "gpus": {"kind": "T4", "count": 2}, "free": {"gpus": 0.5}}
    (only,) = inventory_from_data({"nodes": [node]}).nodes
    assert only.free == Amounts(milli_cpus=8_000, gpu_share=5_000)


def test_nodes_follow_domain_rank_address_and_id() -> None:
    """Domains by their smallest rank, then rank, then address as a number, then id."""
    given_nodes = [
        Node(node_id="z", address="10.0.0.10"),
        Node(node_id="y", address="10.0.0.9"),
        Node(node_id="x10", address="n10"),
        Node(node_id="x2", address="n10"),
        Node(node_id="b1", address="h", nvlink_domain="r10", topology_rank=3),
        Node(node_id="b0", address="h", nvlink_domain="r10", topology_rank=0),
        Node(node_id="a1", address="h", nvlink_domain="r2", topology_rank=2),
    ]
    ids = [node.node_id for node in Inventory(given_nodes).nodes]
    assert ids == ["b0", "b1", "a1", "y", "z", "x2", "x10"]


def test_addresses_sort_as_numbers() -> None:
    """IPv4 before IPv6 before host names, each by number."""
    ordered = ["9.0.0.1", "10.0.0.2", "10.0.0.10", "fd00::a", "fd00::10", "gpu2", "gpu10"]
    by_text = sorted(ordered)
    assert sorted(by_text, key=address_key) == ordered


def test_a_node_says_all_that_is_wrong_with_it() -> None:
    """Impossible values of a node are found together when it is made."""
    with pytest.raises(PlanError) as caught:
        Node(
            node_id=" ",
            address="a",
            gpus=(Gpu(kind="", index=1), Gpu(kind="T4", memory=0, index=1, numa_node=3)),
            topology_rank=-1,
            numa=(NumaNode(index=0, cores=(0,)),),
            free=Amounts(milli_cpus=1),
        )
    assert paths(caught.value) == [
        "node_id",
        "topology_rank",
        "gpus[0].kind",
        "gpus[1].memory",
        "gpus[1].index",
        "gpus[1].numa_node",
        "free",
    ]


def test_ids_and_uuids_are_unique() -> None:
    """Two nodes with one id, or two GPUs with one UUID, name each other."""
    gpu = Gpu(kind="T4", uuid="GPU-1")
    nodes = [Node(node_id="a", address=x, gpus=(gpu,)) for x in ("1.1.1.1", "1.1.1.2")]
    with pytest.raises(PlanError) as caught:
        Inventory(nodes)
    assert paths(caught.value) == ["nodes[1].node_id", "nodes[1].gpus[0].uuid"]
    assert "nodes[0].gpus[0]" in str(caught.value)


def test_an_unknown_node_is_answered_with_those_near() -> None:
    """A misspelt node id names similar ones."""
    with pytest.raises(PlanError, match="such as h100-1"):
        h100_nodes(2).node("h100_1")
    with pytest.raises(PlanError, match=r"node_ids\[1\]"):
        h100_nodes(2).without(["h100-0", "nope"])
    assert h100_nodes(2).without(["h100-0"]) == h100_nodes(1, first=1)


def test_ready_shapes_have_what_they_say() -> None:
    """A thousand nodes are one line; racks have domains and ranks."""
    assert h100_nodes(1000).gpu_count == 8000
    racks = gb200_racks(2)
    assert (len(racks.nodes), racks.gpu_count) == (36, 144)
    assert racks.topology["rack-1-node-0"] == ("rack-1", 18)
    assert [node.node_id for node in racks.nodes[8:12]] == [
        f"rack-0-node-{index}" for index in range(8, 12)
    ]
    assert cpu_nodes(3, cpus=4).total.milli_cpus == 12_000
    mixed = h100_nodes(1) + cpu_nodes(1)
    assert [node.node_id for node in mixed.nodes] == ["h100-0", "cpu-0"]
    assert laptop().nodes[0].is_head
    with pytest.raises(PlanError, match="count: -1 is negative"):
        h100_nodes(-1)


def test_numa_cores_of_the_ready_shapes_are_disjoint() -> None:
    """Each core of a ready node is in one NUMA node, and all are there."""
    for inventory in (h100_nodes(1), gb200_racks(1)):
        node = inventory.nodes[0]
        cores = [core for numa in node.numa for core in numa.cores]
        assert sorted(cores) == list(range(node.milli_cpus // 1000))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 80 * GIB),
        ("1.5 TB", 1_500_000_000_000),
        ("512", 512),
        ("4k", 4000),
        ("2 kib", 2048),
        ("1.5B", None),
        ("80GiBB", None),
        ("-1GB", None),
        ("", None),
        ("GiB", None),
        ("3ib", None),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int | None) -> None:
    """Binary and decimal units are kept apart; what is not whole bytes is not a size."""
    assert parse_size(text) == size


def test_amounts_are_exact_whole_numbers() -> None:
    """A tenth ten times is one; what is finer than the unit is refused."""
    tenth = in_units(0.1)
    assert tenth is not None
    assert Amounts(milli_cpus=tenth).times(10) == Amounts(milli_cpus=1000)
    assert in_units(0.0001) is None
    assert in_units(0.3333, 10_000) == 3333
    both = Amounts(gpu_share=3333, custom={"a": 1}).plus(Amounts(custom={"b": 2, "a": 3}))
    assert both == Amounts(gpu_share=3333, custom=(("b", 2), ("a", 4)))
    assert str(both) == "0.3333 GPUs, 0.004 a, 0.002 b"
    assert amount_text("memory", 80 * GIB) == "80 GiB of memory"


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (lambda: h100_nodes("2"), "shape: count: '2' is not a whole number; give 0 or more"),  # type: ignore[arg-type]
        (lambda: h100_nodes(1.5), "shape: count: 1.5 is not a whole number; give 0 or more"),  # type: ignore[arg-type]
        (lambda: gb200_racks(None), "shape: racks: None is not a whole number; give 0 or more"),  # type: ignore[arg-type]
        (lambda: laptop(gpus=True), "shape: gpus: True is not a whole number; give 0 or more"),
        (lambda: cpu_nodes(-1), "shape: count: -1 is negative; give 0 or more"),
    ],
)
def test_shapes_take_whole_numbers(shape: Callable[[], Inventory], told: str) -> None:
    """Nothing else, in words."""
    with pytest.raises(PlanError) as caught:
        shape()
    assert str(caught.value) == told
