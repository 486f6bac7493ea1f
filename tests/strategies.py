"""Hypothesis strategies for what the planner takes, well-formed and not."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from planner.findings import Findings, PlanError
from planner.group import GroupArguments, GroupSpec, plan_group
from planner.launch import HostFacts, LaunchPlan, plan_launch
from planner.mesh import NamedSharding

__all__ = [
    "AXES",
    "environments",
    "fresh",
    "host_facts",
    "junk",
    "launched",
    "mesh_with_roles",
    "meshes",
    "planned",
    "spec_of",
    "variable_names",
]

AXES = ("pipeline_parallel", "data_parallel", "context_parallel", "tensor_parallel")

_T = TypeVar("_T")
Roles = tuple[NamedSharding, list[str], list[str], list[str]]


def planned(make: Callable[[], _T]) -> _T | None:
    """What is made, or None when it is refused in words; any other error passes through."""
    try:
        return make()
    except PlanError as error:
        if not error.findings:
            raise AssertionError("an error without findings") from error
        return None


def fresh() -> Findings:
    """An empty list of findings."""
    return Findings("this test")


@st.composite
def meshes(draw: st.DrawFn, *, permuted: bool = True, most: int = 3) -> NamedSharding:
    """Arrangements of the ranks 0 to n - 1 with one to four axes, in any order of ranks."""
    names = draw(st.lists(st.sampled_from(AXES), min_size=1, unique=True))
    sizes = [draw(st.integers(1, most)) for _ in names]
    count = 1
    for size in sizes:
        count *= size
    ranks = draw(st.permutations(range(count))) if permuted else list(range(count))
    return NamedSharding(_nested(ranks, sizes), names)


def _nested(ranks: Sequence[int], sizes: Sequence[int]) -> object:
    if not sizes:
        return ranks[0]
    step = len(ranks) // sizes[0]
    return [_nested(ranks[i * step : (i + 1) * step], sizes[1:]) for i in range(sizes[0])]


@st.composite
def mesh_with_roles(draw: st.DrawFn) -> Roles:
    """A mesh, with its axes sharded, replicated or free, and some whose output is replicated."""
    mesh = draw(meshes())
    roles = {name: draw(st.sampled_from(["sharded", "replicated", "free"])) for name in mesh.names}
    sharded = draw(st.permutations([name for name, role in roles.items() if role == "sharded"]))
    replicated = [name for name, role in roles.items() if role == "replicated"]
    once = draw(st.lists(st.sampled_from(mesh.names), unique=True))
    return mesh, list(sharded), replicated, once


def variable_names() -> st.SearchStrategy[str]:
    """Names of environment variables that nothing else has a say in."""
    return st.from_regex(r"V[A-Z0-9_]{0,6}", fullmatch=True).filter(
        lambda name: not {"KEY", "TOKEN", "AUTH", "PAT", "SECRET"} & set(name.split("_"))
    )


def environments() -> st.SearchStrategy[dict[str, str]]:
    """Small environments that overlap often."""
    few = st.sampled_from(["VA", "VB", "VC", "VD"]) | variable_names()
    return st.dictionaries(few, st.sampled_from(["1", "2", "", "a$b", "x:y"]), max_size=5)


def junk() -> st.SearchStrategy[object]:
    """Whatever a caller may give by mistake."""
    leaves: st.SearchStrategy[object] = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=4)
        | st.binary(max_size=3)
        | st.sampled_from([object(), int, {1, 2}, frozenset({1}), range(3), ()])
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=2)
        ),
        max_leaves=6,
    )


def host_facts(counts: Sequence[int], *, gpus: bool = True) -> list[HostFacts]:
    """One host per bundle: as many on each node as ``counts`` says, in node order."""
    return [
        HostFacts(
            node_id=f"node{node}",
            address=f"10.0.0.{node + 1}",
            gpus=(str(place),) if gpus else (),
            pid=1000 + node * 100 + place,
            port=29500,
        )
        for node, count in enumerate(counts)
        for place in range(count)
    ]


def spec_of(counts: Sequence[int], **arguments: object) -> GroupSpec:
    """A group on placement groups with so many bundles each; one share of a GPU, no driver."""
    given: Mapping[str, object] = {"gpu_share": 10_000, "name_prefix": "g", **arguments}
    return plan_group(
        GroupArguments(
            worker_class="package.Worker",
            bundle_counts=tuple(counts),
            **given,  # type: ignore[arg-type]
        )
    )


def launched(counts: Sequence[int], **arguments: object) -> LaunchPlan:
    """The launch of such a group, each placement group on a node of its own."""
    spec = spec_of(counts, **arguments)
    facts = host_facts(counts, gpus=bool(spec.gpu_share))
    return plan_launch(spec, facts)
