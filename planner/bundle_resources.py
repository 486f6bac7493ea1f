"""What each bundle of a cluster holds beside its GPU, as a caller asks for it."""

from collections.abc import Mapping

from attrs import frozen

from planner.amounts import CPU_UNIT, checked_size, in_units
from planner.findings import Findings
from planner.whole_numbers import whole_number

__all__ = ["BundleResources", "checked_resources"]

_OTHER_WORDS = {
    "cpu": "CPU",
    "num_cpus": "CPU",
    "num_gpus": "GPU",
    "gpu": "GPU",
    "Memory": "memory",
    "num_memory": "memory",
}


@frozen(kw_only=True)
class BundleResources:
    """What each bundle holds beside its GPU.

    Attributes:
        milli_cpus: CPUs in thousandths; None for one CPU to each colocated group.
        memory: Main memory in bytes.
        custom: Custom resources in thousandths, as pairs sorted by name.
    """

    milli_cpus: int | None = None
    memory: int = 0
    custom: tuple[tuple[str, int], ...] = ()

    def bundle(self, colocated: int, *, use_gpus: bool) -> tuple[tuple[str, float], ...]:
        """A bundle as Ray takes it: pairs of name and amount, nothing that is 0."""
        milli = colocated * CPU_UNIT if self.milli_cpus is None else self.milli_cpus
        amounts: tuple[tuple[str, float], ...] = (
            ("CPU", _in_ones(milli)),
            ("GPU", int(use_gpus)),
            ("memory", self.memory),
            *((name, _in_ones(amount)) for name, amount in self.custom),
        )
        return tuple((name, amount) for name, amount in amounts if amount)


def _in_ones(thousandths: int) -> float:
    whole, rest = divmod(thousandths, CPU_UNIT)
    return thousandths / CPU_UNIT if rest else whole


def checked_resources(given: object, *, use_gpus: bool, findings: Findings) -> BundleResources:
    """The resources, if they can be asked for; otherwise findings.

    Args:
        given: Names to amounts, or None.
        use_gpus: Whether a bundle holds a GPU.
        findings: Where problems are recorded.
    """
    if given is None:
        return BundleResources()
    if not isinstance(given, Mapping):
        problem = f"a value of type {type(given).__name__}"
        remedy = "give names and amounts, as {'CPU': 4, 'memory': '16GiB'}"
        findings.add("bundle_resources", problem, remedy)
        return BundleResources()
    before = len(findings.found)
    cpus: int | None = None
    memory = 0
    custom: dict[str, int] = {}
    for name, amount in given.items():
        path = f"bundle_resources[{name!r}]"
        if not _is_askable(path, name, findings):
            continue
        if name == "memory":
            memory = checked_size(path, amount, findings)
            continue
        milli = _thousandths(amount)
        if milli is None:
            findings.add(
                path,
                f"{amount!r} is not an amount of {name}",
                "give a number of 0 or more, in thousandths at the finest",
            )
        elif name == "CPU":
            cpus = milli
        elif milli:
            custom[name] = milli
    if not (use_gpus or cpus is None or cpus or memory or custom or len(findings.found) > before):
        findings.add("bundle_resources", "a bundle would hold nothing", "leave CPU out")
    return BundleResources(milli_cpus=cpus, memory=memory, custom=tuple(sorted(custom.items())))


def _is_askable(path: str, name: object, findings: Findings) -> bool:
    if not isinstance(name, str) or not name.strip():
        findings.add(path, f"{name!r} is not the name of a resource", "give a string")
        return False
    meant = _OTHER_WORDS.get(name, name)
    if meant == "GPU":
        findings.add(
            path, "a bundle holds one GPU, or none", "say it with use_gpus, leave this out"
        )
        return False
    if name == "object_store_memory":
        findings.add(path, "a node's object store is not reserved", "leave it out")
        return False
    if meant != name:
        findings.add(path, "this is not what Ray calls it", f"call it {meant!r}")
        return False
    return True


def _thousandths(amount: object) -> int | None:
    number = whole_number(amount)
    if number is None and isinstance(amount, float):
        milli = in_units(amount)
    else:
        milli = None if number is None else in_units(number)
    return None if milli is None or milli < 0 else milli
