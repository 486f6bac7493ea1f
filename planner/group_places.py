"""What a worker group asks of its places: closeness of axes, ports, cores, profilers."""

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from planner.findings import Findings
from planner.locality import Locality
from planner.mesh import NamedSharding, unknown_axis
from planner.ports import PortRange
from planner.profiling import Profile, plan_profiles, profile_note

__all__ = ["PlaceArguments", "PlaceSpec", "Place", "checked_places"]

Place = tuple[str, str | None, int | None]
"""Node id, NVLink domain and topology rank of one node."""


@frozen(kw_only=True)
class PlaceArguments:
    """As given by the caller, and facts about the cluster.

    Attributes:
        localities: Axis name to a ``Locality`` or its value; None for no wish.
        ports_per_worker: How many ports in a row each worker gets.
        ports_per_engine: How many each tied group gets, on each of its nodes.
        numa_binding: Whether workers are bound to the cores and memory close to their GPUs.
        profile: Patterns of worker names to a profiler's settings, or None.
        profile_variable: The driver's ``RANKPLAN_PROFILE``, or None.
        topology: Where the nodes stand in the network, as far as it is known.
        ports_taken: What other live groups of this driver hold.
    """

    localities: object = None
    ports_per_worker: object = 0
    ports_per_engine: object = 0
    numa_binding: object = False
    profile: object = None
    profile_variable: str | None = None
    topology: tuple[Place, ...] = ()
    ports_taken: tuple[PortRange, ...] = ()


@frozen(kw_only=True)
class PlaceSpec:
    """The same, checked.

    Attributes:
        localities: Axis and locality, by axis name.
        ports_per_worker: How many ports in a row each worker gets; 0 for none.
        ports_per_engine: How many each tied group gets on each of its nodes; 0 for none.
        numa_binding: Whether workers are bound to cores and memory.
        profiles: Which workers are profiled.
        topology: Where the nodes stand in the network, as far as it is known.
        ports_taken: What other live groups of this driver hold.
    """

    localities: tuple[tuple[str, Locality], ...] = ()
    ports_per_worker: int = 0
    ports_per_engine: int = 0
    numa_binding: bool = False
    profiles: tuple[Profile, ...] = ()
    topology: tuple[Place, ...] = field(default=(), repr=False)
    ports_taken: tuple[PortRange, ...] = ()

    @property
    def wants_ports(self) -> bool:
        """Whether anybody gets ports."""
        return bool(self.ports_per_worker or self.ports_per_engine)


def checked_places(
    given: PlaceArguments,
    mesh: NamedSharding | None,
    names: Sequence[str],
    findings: Findings,
    notes: list[str],
) -> PlaceSpec:
    """Check what was asked for; what is wrong is added to ``findings``.

    Args:
        given: As given.
        mesh: The group's axes.
        names: The workers' names.
        findings: Where problems are recorded.
        notes: Where costs are told.
    """
    per_worker = _count("ports_per_worker", given.ports_per_worker, findings)
    per_engine = _count("ports_per_engine", given.ports_per_engine, findings)
    if per_worker and per_engine:
        findings.add("ports_per_engine", "ports_per_worker is given too", "give one of the two")
    if not isinstance(given.numa_binding, bool):
        findings.add(
            "numa_binding", f"{given.numa_binding!r} is not a truth value", "give True or False"
        )
    profiles = plan_profiles(given.profile, given.profile_variable, findings)
    told = profile_note(profiles, names)
    notes.extend([told] if told else [])
    return PlaceSpec(
        localities=_localities(given.localities, mesh, findings),
        ports_per_worker=per_worker,
        ports_per_engine=per_engine,
        numa_binding=given.numa_binding is True,
        profiles=profiles,
        topology=given.topology,
        ports_taken=given.ports_taken,
    )


def _localities(
    given: object, mesh: NamedSharding | None, findings: Findings
) -> tuple[tuple[str, Locality], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        findings.add(
            "localities",
            f"a value of type {type(given).__name__}",
            "give axes and localities, as {'tensor_parallel': 'same_node'}",
        )
        return ()
    if mesh is None and given:
        findings.add(
            "localities", "the group has no axes", "give sharding_annotations, or leave it out"
        )
        return ()
    known = {each.value: each for each in Locality}
    wanted: dict[str, Locality] = {}
    for axis, locality in given.items():
        found = locality if isinstance(locality, Locality) else known.get(str(locality))
        if found is None:
            names = ", ".join(map(repr, known))
            findings.add(f"localities[{axis!r}]", f"{locality!r} is no locality", f"use {names}")
        elif mesh is not None and axis not in mesh.names:
            unknown = unknown_axis("localities", str(axis), mesh.names)
            findings.add(unknown.path, unknown.problem, unknown.remedy)
        else:
            wanted[str(axis)] = found
    return tuple(sorted(wanted.items(), key=lambda pair: pair[0]))


def _count(path: str, given: object, findings: Findings) -> int:
    if given is None:
        return 0
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        findings.add(path, f"{given!r} is not a number of ports", "give 0 or more")
        return 0
    return given
