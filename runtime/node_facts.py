"""What a host process can tell about its machine, and what it can do to its own process.

It travels to the nodes by value, as ``host`` does: standard library only. It decides nothing.
"""

import contextlib
import ctypes
import fcntl
import importlib.metadata
import importlib.util
import os
import platform
import re
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Door", "bind_process", "look", "reachable"]

_NODES = Path("/sys/devices/system/node")
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
_PREFERRED = 1


def look(asked: Mapping[str, object], gpus: Sequence[str], ray_version: str) -> dict[str, object]:
    """The facts that were asked for.

    Args:
        asked: ``worker_class`` (its full name) and ``path`` (where else modules are looked for);
            ``ports`` and ``numa``, whether facts about these are wanted.
        gpus: The ids of this process's GPUs.
        ray_version: Ray's version here.
    """
    found: dict[str, object] = {
        "python": platform.python_version(),
        "ray": ray_version,
        "interpreter": sys.executable,
        "addresses": _addresses(),
        "gpus": _gpu_facts(gpus),
    }
    name, path = asked.get("worker_class"), asked.get("path")
    if isinstance(name, str) and isinstance(path, list):
        found["module"] = _module(name, path)
    if asked.get("ports"):
        found["reserved_ports"] = _reserved_ports()
    if asked.get("numa"):
        found["numa"] = _numa()
    return found


def _module(full_name: str, extra: list[str]) -> dict[str, object]:
    """How much of a class's name is a module, without importing any; and where it is."""
    parts = full_name.split(".")
    path: list[str] | None = None
    origin, depth = "", 0
    kept = list(sys.path)
    sys.path[1:1] = [each for each in extra if each not in sys.path]
    try:
        for index in range(len(parts) - 1):
            spec = _find(".".join(parts[: index + 1]), path)
            if spec is None:
                break
            depth, origin = index + 1, _place(spec)
            path = list(spec.submodule_search_locations or ())
            if spec.submodule_search_locations is None:
                break
    finally:
        sys.path[:] = kept
    return {"depth": depth, "origin": origin, "version": _version(parts[0])}


def _find(name: str, path: list[str] | None) -> "importlib.machinery.ModuleSpec | None":
    if path is None and name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        with contextlib.suppress(Exception):
            spec = find(name, path) if find is not None else None
            if isinstance(spec, importlib.machinery.ModuleSpec):
                return spec
    return None


def _place(spec: "importlib.machinery.ModuleSpec") -> str:
    folders = list(spec.submodule_search_locations or ())
    return str(spec.origin or (folders[0] if folders else ""))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def _addresses() -> list[tuple[str, str]]:
    """Interface and address of everything under which this machine may be reached."""
    found: list[tuple[str, str]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            packed = struct.pack("256s", name[:15].encode())
            with contextlib.suppress(OSError):
                # SIOCGIFADDR of linux/sockios.h
                answer = fcntl.ioctl(asking.fileno(), 0x8915, packed)
                found.append((name, socket.inet_ntoa(answer[20:24])))
    for line in _lines("/proc/net/if_inet6"):
        words = line.split()
        if len(words) == 6:
            found.append((words[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))))
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _reserved_ports() -> list[tuple[str, int, int]]:
    """Who hands out or holds which ports here: name, first and last."""
    found: list[tuple[str, int, int]] = []
    for line in _lines("/proc/sys/net/ipv4/ip_local_port_range")[:1]:
        first, last = line.split()
        found.append(("the kernel's ephemeral ports", int(first), int(last)))
    ray = _ray_ports()
    if ray is not None:
        found.append(("Ray's worker ports", *ray))
    held: set[int] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(table)[1:]:
            words = line.split()
            held.add(int(words[1].rpartition(":")[2], 16))
    found.extend(
        ("a port in use", port, port)
        for port in sorted(held)
        if not any(first <= port <= last for _, first, last in found)
    )
    return found


def _ray_ports() -> tuple[int, int] | None:
    """The range from which this node's Ray gives its workers ports; None for any free port."""
    pid = os.getppid()
    for _ in range(4):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(r"--min_worker_port=(\d+)\0--max_worker_port=(\d+)", words)
        if found and int(found[1]):
            return int(found[1]), int(found[2])
        parent = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        pid = int(parent[1]) if parent else 0
    return None


def _numa() -> list[dict[str, object]]:
    """The NUMA nodes, with those of their cores that this process may use."""
    allowed = os.sched_getaffinity(0)
    found: list[dict[str, object]] = []
    for folder in sorted(_NODES.glob("node[0-9]*"), key=lambda each: int(each.name[4:])):
        cores = {core for line in _lines(str(folder / "cpulist")) for core in _listed(line)}
        total = re.search(r"MemTotal:\s*(\d+)", "\n".join(_lines(str(folder / "meminfo"))))
        found.append(
            {
                "index": int(folder.name[4:]),
                "cores": sorted(cores & allowed),
                "memory": int(total[1]) * 1024 if total else None,
            }
        )
    return found or [{"index": 0, "cores": sorted(allowed), "memory": None}]


def _listed(text: str) -> list[int]:
    cores: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            cores.extend(range(int(first), int(last or first) + 1))
    return cores


def _gpu_facts(gpus: Sequence[str]) -> dict[str, object] | None:
    """What NVML says of this process's GPUs; None where there is no NVIDIA driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    return {"count": count.value, "gpus": [_gpu(nvml, gpu) for gpu in gpus if gpu.isdigit()]}


def _gpu(nvml: ctypes.CDLL, gpu: str) -> dict[str, object]:
    device = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(gpu)), ctypes.byref(device)):
        return {"index": int(gpu), "found": False}
    text = ctypes.create_string_buffer(96)
    facts: dict[str, object] = {"index": int(gpu), "found": True}
    if nvml.nvmlDeviceGetName(device, text, ctypes.c_uint(96)) == 0:
        facts["kind"] = text.value.decode()
    if nvml.nvmlDeviceGetUUID(device, text, ctypes.c_uint(96)) == 0:
        facts["uuid"] = text.value.decode()
    # Buffers, not ctypes structures: these can't travel by value. Layouts as in nvml.h.
    memory = ctypes.create_string_buffer(24)
    if nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0:
        facts["total"], facts["free"], _ = struct.unpack("QQQ", memory.raw)
    pci = ctypes.create_string_buffer(68)
    if nvml.nvmlDeviceGetPciInfo_v3(device, pci) == 0:
        facts["numa_node"] = _numa_of(pci.raw[36:].partition(b"\0")[0].decode())
    return facts


def _numa_of(bus_id: str) -> int | None:
    # NVML writes the domain with eight digits, the kernel with four.
    lines = _lines(f"/sys/bus/pci/devices/{bus_id.lower()[-12:]}/numa_node")
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


class Door:
    """Listens on a port for a moment, so that others can try to reach it.

    Args:
        held: A bound socket that holds the port and does not listen.
    """

    def __init__(self, held: socket.socket) -> None:
        self._listening = socket.socket(held.family, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if held.family == socket.AF_INET6:
            self._listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listening.bind(held.getsockname()[:2])
        self._listening.listen(1024)
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            caller.close()

    def close(self) -> None:
        """Stop listening; the port is free for its holder again."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(timeout=5)


def reachable(addresses: Sequence[str], port: int, seconds: float) -> list[str]:
    """Those of the addresses at which a port takes connections from here."""
    found: list[str] = []
    for address in addresses:
        with contextlib.suppress(OSError), socket.create_connection((address, port), seconds):
            found.append(address)
    return found


def bind_process(cores: Sequence[int], memory_node: int | None) -> dict[str, object]:
    """Bind every thread of this process; what the kernel says of it afterwards.

    Threads that start later inherit it from the thread that starts them.
    """
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), cores)
    problem = "" if memory_node is None else _prefer_memory(memory_node)
    return {"cores": sorted(os.sched_getaffinity(0)), "memory_problem": problem}


def _prefer_memory(node: int) -> str:
    number = _SET_MEMPOLICY.get(platform.machine())
    if number is None:
        return f"the system call is not known on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_ulong * 16)()
    mask[node // 64] = 1 << (node % 64)
    if libc.syscall(number, _PREFERRED, ctypes.byref(mask), ctypes.c_ulong(16 * 64)):
        return f"set_mempolicy: {os.strerror(ctypes.get_errno())}"
    return ""
