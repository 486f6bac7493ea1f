"""The specs behind the golden plans, and random plans for laws that hold of every plan."""

from collections.abc import Callable, Sequence

import numpy as np
from attrs import evolve
from hypothesis import strategies as st

from planner.configured import plan_overrides
from planner.dispatch import DispatchPlan, plan_one, plan_per_worker, plan_same, plan_sharded
from planner.environment import EnvironmentSources
from planner.findings import Findings
from planner.group import GroupArguments, GroupSpec, plan_group, plan_hosts
from planner.host_facts import HostFacts
from planner.interpreter import InterpreterFacts, parse_interpreter
from planner.inventory import BundleFacts, Inventory
from planner.launch import LaunchPlan, plan_launch
from planner.mesh import NamedSharding
from planner.requests import GroupRequest, virtual_cluster_request
from planner.reservation import ReservationPlan, plan_reservation, predicted_bundles
from planner.resharding import ReshardPlan, plan_resharding
from planner.shapes import cpu_nodes, h100_nodes, laptop
from planner.slice_policies import Balanced, Constant, Packed, Padded, RepeatLastRow
from planner.slicing import SlicePlan, plan_slices

__all__ = ["DISPATCHES", "GROUPS", "LAUNCHES", "RESERVATIONS", "SLICINGS", "dispatches", "launches"]

WORKER = "my_project.workers.Worker"
MEGATRON = ("pipeline_parallel", "data_parallel", "context_parallel", "tensor_parallel")
FULL, HALF = 10_000, 5_000
PORT = 29_400
USUAL = GroupArguments(worker_class=WORKER, name_prefix="policy", gpu_share=FULL)


def mesh(sizes: Sequence[int], names: Sequence[str] = MEGATRON) -> NamedSharding:
    """Ranks 0, 1, 2 ... over axes of these sizes."""
    return NamedSharding(np.arange(np.prod(sizes)).reshape(sizes), names)


def landed(spec: GroupSpec, bundles: Sequence[BundleFacts]) -> list[HostFacts]:
    """What the hosts of a group report when its bundles are where they are said to be."""
    places = {(each.placement_group, each.bundle): each for each in bundles}
    facts: list[HostFacts] = []
    for index, host in enumerate(plan_hosts(spec)):
        place = places[host.placement_group, host.bundle]
        gpus = place.gpus if host.gpu_share else ()
        facts.append(
            HostFacts(node_id=place.node_id, address=place.address, gpus=gpus, port=PORT + index)
        )
    return facts


def predicted(
    inventory: Inventory, counts: Sequence[int], *, unified: bool = False, gpus: bool = True
) -> tuple[BundleFacts, ...]:
    """Where the bundles of a virtual cluster would land."""
    strategy = "PACK" if unified else "SPREAD"
    request = virtual_cluster_request(
        counts, use_gpus=gpus, unified=unified, placement_group_strategy=strategy, name="cluster"
    )
    plan = plan_reservation([request], inventory)
    return predicted_bundles(plan, inventory, "cluster")


def _one_node() -> LaunchPlan:
    spec = plan_group(evolve(USUAL, bundle_counts=(8,), gpu_visibility="shared"))
    return plan_launch(spec, landed(spec, predicted(h100_nodes(1), [8])))


def _four_nodes() -> LaunchPlan:
    spec = plan_group(
        evolve(USUAL, bundle_counts=(8,) * 4, gpu_visibility="shared", mesh=mesh((2, 2, 2, 4)))
    )
    return plan_launch(spec, landed(spec, predicted(h100_nodes(4), [8] * 4)))


def _tied_per_node() -> LaunchPlan:
    names = ("data_parallel", "tensor_parallel")
    spec = plan_group(
        evolve(
            USUAL,
            name_prefix="rollout",
            bundle_counts=(8, 8),
            bundle_indices_list=[(0, list(range(8))), (1, list(range(8)))],
            mesh=mesh((2, 8), names),
        )
    )
    return plan_launch(spec, landed(spec, predicted(h100_nodes(2), [8, 8])))


def _tied_unified() -> LaunchPlan:
    spec = plan_group(
        evolve(
            USUAL,
            name_prefix="rollout",
            bundle_counts=(16,),
            bundle_indices_list=[(0, list(range(8))), (1, list(range(8, 16)))],
        )
    )
    return plan_launch(spec, landed(spec, predicted(h100_nodes(2), [8, 8], unified=True)))


def _tied_over_two_nodes() -> LaunchPlan:
    spec = plan_group(
        evolve(
            USUAL,
            name_prefix="rollout",
            bundle_counts=(8,),
            bundle_indices_list=[(0, [0, 1]), (0, [2, 3, 4, 5]), (1, [6, 7])],
            gpu_visibility="shared",
        )
    )
    places = [
        BundleFacts(0, bundle, f"node-{bundle // 4}", f"10.0.0.{1 + bundle // 4}", (str(gpu),))
        for bundle, gpu in enumerate((4, 5, 6, 7, 0, 1, 2, 3))
    ]
    return plan_launch(spec, landed(spec, places))


def _colocated(name: str, visibility: str) -> LaunchPlan:
    inventory = laptop(gpus=4)
    reserved = plan_reservation(_policy_and_rollout(4), inventory)
    spec = plan_group(
        evolve(
            USUAL, name_prefix=name, bundle_counts=(4,), gpu_share=HALF, gpu_visibility=visibility
        )
    )
    return plan_launch(spec, landed(spec, predicted_bundles(reserved, inventory, name)))


def _policy_and_rollout(bundles: int) -> list[GroupRequest]:
    return [
        GroupRequest(name=name, bundles_per_node=(bundles,), pool="shared")
        for name in ("policy", "rollout")
    ]


def _cpu_only() -> LaunchPlan:
    spec = plan_group(evolve(USUAL, name_prefix="loader", bundle_counts=(2, 1), gpu_share=0))
    return plan_launch(spec, landed(spec, predicted(cpu_nodes(2, cpus=2), [2, 1], gpus=False)))


def _permuted() -> LaunchPlan:
    layout = NamedSharding([[2, 3], [0, 1]], ["data_parallel", "tensor_parallel"])
    spec = plan_group(evolve(USUAL, bundle_counts=(4,), gpu_visibility="shared", mesh=layout))
    return plan_launch(spec, landed(spec, predicted(h100_nodes(1), [4])))


def _scattered() -> LaunchPlan:
    spec = plan_group(evolve(USUAL, bundle_counts=(8,)))
    places = [
        BundleFacts(0, bundle, f"node-{node}", f"10.0.0.{10 - node}", (gpu,))
        for bundle, (node, gpu) in enumerate(
            [(1, "3"), (0, "2"), (0, "0"), (1, "0"), (0, "3"), (1, "1"), (1, "2"), (0, "1")]
        )
    ]
    return plan_launch(spec, landed(spec, places))


def _environment() -> LaunchPlan:
    spec = _every_origin()
    return plan_launch(spec, landed(spec, predicted(h100_nodes(1), [2])))


def _every_origin() -> GroupSpec:
    registered = "uv run --locked --extra vllm --directory /srv/my_project"
    facts = InterpreterFacts(
        python_version="3.11.7",
        ray_version="2.60.0",
        driver_prefix="/opt/driver",
        working_directory="/srv",
    )
    sources = EnvironmentSources(
        class_options={"VLLM_USE_V1": "1"},
        driver={
            "HF_HOME": "/models",
            "HF_TOKEN": "never in a plan",
            "PATH": "/usr/bin",
            "RANK": "7",
            "TORCHELASTIC_RUN_ID": "none",
        },
        interpreter={"VIRTUAL_ENV": "/envs/k"},
        group={"PATH": "/opt/bin", "PYTHONHASHSEED": "0", "WANDB_API_KEY": "never in a plan"},
        forced={"MASTER_PORT": "12345"},
    )
    spec = plan_group(
        evolve(
            USUAL,
            name_prefix="rollout",
            bundle_counts=(2,),
            bundle_indices_list=[(0, [0, 1])],
            interpreter=parse_interpreter(registered, facts),
            options={"num_cpus": 0, "resources": {"fast_disk": 0.5}},
            sources=sources,
            asynchronous=True,
        )
    )
    seen = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
    leader: tuple[object, ...] = ({"num_gpus": 0.5}, {seen: "1", "VLLM_PORT": "7000"}, {"seed": 0})
    other: tuple[object, ...] = ({"num_gpus": 0}, {}, {}, {"env_vars": {"MALLOC_ARENA_MAX": "2"}})
    return evolve(spec, overrides=plan_overrides(spec, [leader, other]))


def _unmasked() -> LaunchPlan:
    spec = plan_group(evolve(USUAL, bundle_counts=(2,), gpu_visibility="unmasked"))
    places = [BundleFacts(0, index, "node-0", "10.0.0.1", (str(4 + index),)) for index in (0, 1)]
    return plan_launch(spec, landed(spec, places))


LAUNCHES: dict[str, Callable[[], LaunchPlan]] = {
    "one_node": _one_node,
    "four_nodes": _four_nodes,
    "tied_per_node": _tied_per_node,
    "tied_unified": _tied_unified,
    "tied_over_two_nodes": _tied_over_two_nodes,
    "colocated_policy": lambda: _colocated("policy", "shared"),
    "colocated_rollout": lambda: _colocated("rollout", "isolated"),
    "cpu_only": _cpu_only,
    "permuted_layout": _permuted,
    "scattered_bundles": _scattered,
    "unmasked": _unmasked,
    "environment": _environment,
}
"""Each golden LaunchPlan by the name of its file."""

GROUPS: dict[str, Callable[[], GroupSpec]] = {
    "environment": _every_origin,
    "tied_over_two_nodes": lambda: plan_group(
        evolve(
            USUAL,
            name_prefix="rollout",
            bundle_counts=(4,),
            bundle_indices_list=[(0, [0, 3]), (0, [2, 1])],
        )
    ),
}
"""Each golden GroupSpec by the name of its file."""

_AXES = ("pipeline_parallel", "data_parallel", "tensor_parallel")
_MESH = mesh((2, 2, 2), _AXES)
_PERMUTED = NamedSharding([[2, 3], [0, 1]], ["data_parallel", "tensor_parallel"])


def sharded(
    axes: NamedSharding,
    sharded_axes: Sequence[str],
    replicated: Sequence[str] = (),
    once: Sequence[str] = (),
    *,
    dummies: bool = False,
) -> DispatchPlan:
    """A plan of sharded data."""
    findings = Findings("call")
    return plan_sharded(axes, sharded_axes, replicated, once, findings, dummy_calls=dummies)


_DATA, _PIPELINE, _TENSOR = "data_parallel", "pipeline_parallel", "tensor_parallel"
DISPATCHES: dict[str, Callable[[], DispatchPlan]] = {
    "one_worker": lambda: plan_one(3, 8, Findings("call")),
    "same_data": lambda: plan_same(None, 8, None, Findings("call")),
    "same_data_first_only": lambda: plan_same(_MESH, 8, [_TENSOR], Findings("call")),
    "data_per_worker": lambda: plan_per_worker(None, 8, None, Findings("call")),
    "data_per_worker_first_only": lambda: plan_per_worker(
        _MESH, 8, [_PIPELINE, _TENSOR], Findings("call")
    ),
    "sharded_replicated": lambda: sharded(
        _MESH, [_DATA], [_PIPELINE, _TENSOR], [_PIPELINE, _TENSOR]
    ),
    "sharded_all_return": lambda: sharded(_MESH, [_DATA], [_PIPELINE, _TENSOR]),
    "sharded_free": lambda: sharded(_MESH, [_DATA]),
    "sharded_dummy": lambda: sharded(_MESH, [_DATA], dummies=True),
    "sharded_two_axes": lambda: sharded(_MESH, [_TENSOR, _DATA], [], dummies=True),
    "sharded_free_and_replicated": lambda: sharded(_MESH, [_DATA], [_TENSOR], [_TENSOR]),
    "sharded_permuted": lambda: sharded(_PERMUTED, [_DATA], [_TENSOR], [_TENSOR]),
}
"""Each golden DispatchPlan by the name of its file."""


def _reserved(*requests: GroupRequest, inventory: Inventory) -> ReservationPlan:
    return plan_reservation(requests, inventory)


RESERVATIONS: dict[str, Callable[[], ReservationPlan]] = {
    "colocated": lambda: _reserved(*_policy_and_rollout(2), inventory=h100_nodes(1)),
    "too_large": lambda: _reserved(
        GroupRequest(name="policy", bundles_per_node=(2, 3)), inventory=laptop(gpus=2)
    ),
}
"""Each golden ReservationPlan by the name of its file."""

SLICINGS: dict[str, Callable[[], SlicePlan]] = {
    "packed": lambda: plan_slices(
        Packed(budget=10),
        rows=6,
        slices=2,
        weights=[9, 1, 4, 4, 6, 2],
        row_bytes=8,
        pads={"tokens": Constant(0), "reward": RepeatLastRow(), "mask": Constant(float("-inf"))},
    ),
    "padded": lambda: plan_slices(Padded(multiple=2), rows=5, slices=2),
}
"""Each golden SlicePlan by the name of its file."""


def resharding() -> ReshardPlan:
    """A plan with spans and picks."""
    source = plan_slices(Balanced(), rows=5, slices=2, weights=[5, 1, 1, 1, 2])
    return plan_resharding(source, [2, 3])


_NAMES = st.text(max_size=8)
_RESOURCES = _NAMES.filter(lambda name: name not in {"", "CPU", "GPU", "memory"})


@st.composite
def launches(draw: st.DrawFn) -> LaunchPlan:
    """LaunchPlans over up to 12 ranks: scattered or not, tied or not, with or without axes."""
    nodes = draw(st.integers(1, 3))
    per_node = draw(st.integers(1, 4))
    count = nodes * per_node
    order = draw(st.permutations(range(count)))
    notes = tuple(draw(st.lists(_NAMES, max_size=2)))
    axes = mesh((nodes, per_node), (_DATA, _TENSOR)) if draw(st.booleans()) else None
    tied = [(0, list(range(n * per_node, (n + 1) * per_node))) for n in range(nodes)]
    spec = plan_group(
        evolve(
            USUAL,
            bundle_counts=(count,),
            bundle_indices_list=draw(st.sampled_from([None, tied])),
            gpu_visibility=draw(st.sampled_from(["isolated", "shared", "unmasked"])),
            gpu_share=draw(st.sampled_from([0, 3_333, FULL])),
            mesh=axes,
            notes=notes,
            options={"resources": draw(st.dictionaries(_RESOURCES, st.floats(0, 9), max_size=2))},
        )
    )
    facts = [
        HostFacts(
            node_id=f"node-{place // per_node}",
            address=f"10.0.0.{place // per_node}",
            gpus=(str(place % per_node),),
            port=draw(st.none() | st.integers(1, 65_535)),
        )
        for place in order
    ]
    return plan_launch(spec, facts)


@st.composite
def dispatches(draw: st.DrawFn) -> DispatchPlan:
    """DispatchPlans of every kind, over a permuted mesh of up to three axes."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    names = MEGATRON[: len(sizes)]
    ranks = draw(st.permutations(range(int(np.prod(sizes)))))
    axes = NamedSharding(np.array(ranks).reshape(sizes), names)
    cut = draw(st.lists(st.sampled_from(names), unique=True))
    rest = [name for name in names if name not in cut]
    same = draw(st.lists(st.sampled_from(rest), unique=True)) if rest else []
    findings = Findings("call")
    match draw(st.sampled_from(["one", "same", "per worker", "sharded"])):
        case "one":
            return plan_one(draw(st.sampled_from(ranks)), axes.size, findings)
        case "same":
            return plan_same(axes, axes.size, cut, findings)
        case "per worker":
            return plan_per_worker(axes, axes.size, cut, findings)
        case _:
            return sharded(axes, cut, same, same, dummies=draw(st.booleans()))
