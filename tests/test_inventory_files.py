"""Inventories in files: TOML and JSON, there and back, and everything that is wrong."""

from pathlib import Path

import pytest

from planner.findings import PlanError
from planner.inventory import Inventory
from planner.shapes import cpu_nodes, gb200_racks, h100_nodes, laptop
from runtime import inventory_files
from runtime.inventory_files import read_inventory, write_inventory
from tests.places_cases import mixed_nodes, small_nodes

HAND_WRITTEN = """
[[nodes]]
count = 3
node_id = "gpu-0"
address = "10.0.0.1"
cpus = 32
memory = "1TiB"
gpus = { kind = "H100", count = 2, memory = "80GiB" }
labels = { zone = "a" }
nvlink_domain = "rack-0"
topology_rank = 0
"""


@pytest.mark.parametrize("kind", ["toml", "json"])
@pytest.mark.parametrize(
    "inventory",
    [h100_nodes(2), gb200_racks(1), cpu_nodes(1), laptop(gpus=1), mixed_nodes(), small_nodes()],
)
def test_what_is_written_is_read_back(tmp_path: Path, inventory: Inventory, kind: str) -> None:
    """An inventory comes back equal from either kind of file."""
    file = tmp_path / f"cluster.{kind}"
    write_inventory(inventory, file)
    assert read_inventory(file) == inventory


def test_odd_texts_survive(tmp_path: Path) -> None:
    """Quotes, line ends, unicode and control characters in labels come back as they were."""
    text = 'a"b\\c\n\t\x7f\u00e9\u4e2d'
    data = tmp_path / "odd.json"
    data.write_text('{"nodes": [{"labels": {"odd key": "x", "t": "y"}}]}', encoding="utf-8")
    inventory = read_inventory(data)
    node = inventory.nodes[0]
    from attrs import evolve

    odd = Inventory([evolve(node, labels={"odd key": text})])
    write_inventory(odd, tmp_path / "odd.toml")
    assert read_inventory(tmp_path / "odd.toml") == odd


def test_hand_written_file(tmp_path: Path) -> None:
    """A count makes several nodes whose ids, addresses and ranks go up."""
    file = tmp_path / "cluster.toml"
    file.write_text(HAND_WRITTEN, encoding="utf-8")
    nodes = read_inventory(str(file)).nodes
    assert [(node.node_id, node.address, node.topology_rank) for node in nodes] == [
        ("gpu-0", "10.0.0.1", 0),
        ("gpu-1", "10.0.0.2", 1),
        ("gpu-2", "10.0.0.3", 2),
    ]


@pytest.mark.parametrize(
    ("name", "text", "path", "problem"),
    [
        ("a.yaml", "", "file", "its name ends in '.yaml'"),
        ("a.toml", "nodes = [", "file", "not well-formed"),
        ("a.json", "{", "file", "not well-formed"),
        ("a.json", "[" * 100_000, "file", "not well-formed"),
        ("a.json", "[]", "data", "is not a table"),
        ("a.toml", "[[nodes]]\ncpus = 'many'", "nodes[0].cpus", "many"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, name: str, text: str, path: str, problem: str) -> None:
    """The error says which file, where in it, and what is wrong."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        read_inventory(file)
    assert str(file) in caught.value.subject
    assert caught.value.findings[0].path == path
    assert problem in caught.value.findings[0].problem


def test_every_problem_of_a_file_is_told(tmp_path: Path) -> None:
    """Two wrong nodes are two findings."""
    file = tmp_path / "two.toml"
    file.write_text("[[nodes]]\ncpus = -1\n[[nodes]]\nmemory = 'big'\n", encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        read_inventory(file)
    assert [each.path for each in caught.value.findings] == ["nodes[0].cpus", "nodes[1].memory"]


def test_missing_and_binary_and_huge_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be read is an error about the file."""
    binary, huge = tmp_path / "b.json", tmp_path / "h.json"
    binary.write_bytes(b"\xff\xfe\x00")
    huge.write_text("x" * 100, encoding="utf-8")
    monkeypatch.setattr(inventory_files, "LARGEST", 99)
    for file, problem in (
        (tmp_path / "none.json", "can't be read"),
        (binary, "no UTF-8"),
        (huge, "100 bytes"),
    ):
        with pytest.raises(PlanError, match=problem):
            read_inventory(file)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is not there is an error, not a crash."""
    with pytest.raises(PlanError, match="can't be written"):
        write_inventory(laptop(), tmp_path / "no" / "a.json")


def test_what_is_no_path_and_what_is_no_inventory(tmp_path: Path) -> None:
    """Told in words, and no file is made."""
    with pytest.raises(PlanError, match="inventory: path: a value of type int; give the path of"):
        read_inventory(5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="inventory: path: a value of type NoneType; give the"):
        write_inventory(laptop(), None)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="inventory: a value of type int; give an Inventory, as"):
        write_inventory(5, tmp_path / "nodes.json")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
