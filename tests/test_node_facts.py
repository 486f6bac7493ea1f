"""What a process tells about its machine, alone and on the other side of a pickle."""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray import cloudpickle

from runtime import node_facts
from runtime.node_facts import Door, look, reachable


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """A bound socket for both families that does not listen, as hosts hold their port."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("::", 0))
        yield bound


def test_door_is_open_for_both_families_and_only_for_a_moment(held: socket.socket) -> None:
    """A held port answers over IPv4 and IPv6 while the door is open, and not after."""
    port = held.getsockname()[1]
    addresses = ["127.0.0.1", "::1"]
    before = reachable(addresses, port, 1.0)
    door = Door(held)
    during = reachable([*addresses, "192.0.2.255"], port, 0.2)
    door.close()
    assert (before, during, reachable(addresses, port, 1.0)) == ([], addresses, [])
    assert held.getsockname()[1] == port


def test_module_is_found_without_an_import(tmp_path: Path) -> None:
    """A module on an extra path is found, with its file, and is not imported."""
    package = tmp_path / "not_imported" / "deep"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "__init__.py").touch()
    module = package / "worker.py"
    module.write_text("raise RuntimeError('imported')\n")
    asked = {"path": [str(tmp_path)]}
    found = look({**asked, "worker_class": "not_imported.deep.worker.Worker"}, [], "2")
    half = look({**asked, "worker_class": "not_imported.deeper.worker.Worker"}, [], "2")
    none = look({**asked, "worker_class": "nowhere.at_all.Worker"}, [], "2")
    assert found["module"] == {"depth": 3, "origin": str(module), "version": ""}
    assert isinstance(half["module"], dict)
    assert half["module"]["depth"] == 1
    assert none["module"] == {"depth": 0, "origin": "", "version": ""}
    assert "not_imported" not in sys.modules
    assert str(tmp_path) not in sys.path


def test_version_of_the_distribution_is_told() -> None:
    """A module of an installed distribution comes with its version."""
    import attrs

    found = look({"path": [], "worker_class": "pytest.Item"}, [], "2")["module"]
    assert isinstance(found, dict)
    assert found["version"] == pytest.__version__
    assert attrs is not None


def test_ports_of_others_are_told(held: socket.socket) -> None:
    """The kernel's range is there, and ports in use that lie outside it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        ranges = look({"ports": True}, [], "2")["reserved_ports"]
    assert isinstance(ranges, list)
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8")
    first, last = map(int, text.split())
    assert ("the kernel's ephemeral ports", first, last) in ranges
    assert all(low <= high for _, low, high in ranges)


def test_numa_nodes_hold_the_cores_of_this_process() -> None:
    """The cores of all NUMA nodes are those that this process may use."""
    numa = look({"numa": True}, [], "2")["numa"]
    assert isinstance(numa, list)
    cores = [core for each in numa for core in each["cores"]]
    assert sorted(cores) == sorted(os.sched_getaffinity(0))


def test_it_travels_by_value() -> None:
    """On the other side rankplan may not be installed."""
    cloudpickle.register_pickle_by_value(node_facts)
    sent = cloudpickle.dumps((node_facts.look, node_facts.Door, node_facts.bind_process))
    program = (
        "import pickle, sys, os\n"
        "look, door, bind = pickle.load(sys.stdin.buffer)\n"
        "told = look({'numa': True, 'ports': True, 'worker_class': 'json.JSONDecoder',"
        " 'path': []}, ['0'], '2')\n"
        "assert 'runtime' not in sys.modules\n"
        "core = min(os.sched_getaffinity(0))\n"
        "print(told['module']['depth'], bind([core], None)['cores'] == [core])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], input=sent, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"1", b"True"]
    assert pickle.loads(sent)[0].__name__ == "look"  # noqa: S301  # our own
