"""What must hold between the fields of a launch: for plans that come from a file.

``plan_launch`` makes no other plan. A file may have been put together, or changed, by hand.
"""

from collections.abc import Callable, Iterable, Sequence

from planner.environment import EnvVar, GroupEnvironment, is_credential
from planner.findings import Findings
from planner.group import FULL_GPU, GroupSpec
from planner.launch import DATA_PARALLEL, LaunchPlan, WorkerPlan
from planner.mesh import NamedSharding
from planner.slots import Slot

__all__ = ["check_group", "check_launch"]


def check_launch(plan: LaunchPlan, findings: Findings) -> None:
    """Record everything about a LaunchPlan that contradicts itself."""
    if not plan.workers:
        findings.add("plan.workers", "there is none", "a group has at least one worker")
        return
    _check_mesh(plan.mesh, len(plan.workers), findings)
    _check_environment(plan.environment, findings)
    _check_meeting(plan, findings)
    _check_identities(plan, findings)
    _check_nodes(plan, findings)
    _check_devices(plan, findings)
    _check_tied(plan, findings)
    _check_shards(plan, findings)


def check_group(spec: GroupSpec, findings: Findings) -> None:
    """Record everything about a GroupSpec that contradicts itself."""
    if not spec.slots:
        findings.add("plan.slots", "there is none", "a group has at least one worker")
    _check_mesh(spec.mesh, len(spec.slots), findings)
    _check_environment(spec.environment, findings)
    _check_share("plan.gpu_share", spec.gpu_share, findings)
    _check_unique("plan.slots", "name", [slot.name(spec.name) for slot in spec.slots], findings)
    places = [(slot.placement_group, slot.bundle) for slot in spec.slots]
    _check_unique("plan.slots", "bundle", places, findings)
    for index, slot in enumerate(spec.slots):
        _check_slot(f"plan.slots[{index}]", slot, findings)
    if spec.overrides and len(spec.overrides) != len(spec.slots):
        problem = f"{len(spec.overrides)} entries for {len(spec.slots)} slots"
        findings.add("plan.overrides", problem, "give one per slot, or none")
    for index, override in enumerate(spec.overrides):
        if override.gpu_share is not None:
            _check_share(f"plan.overrides[{index}].gpu_share", override.gpu_share, findings)
        _check_variables(f"plan.overrides[{index}].environment", override.environment, findings)


def _check_slot(path: str, slot: Slot, findings: Findings) -> None:
    if not 0 <= slot.member < len(slot.tied_bundles):
        problem = f"{slot.member} is not one of {len(slot.tied_bundles)} members"
        findings.add(f"{path}.member", problem, "it is the place of its bundle in tied_bundles")
    elif slot.tied_bundles[slot.member] != slot.bundle:
        expected = slot.tied_bundles[slot.member]
        problem = f"{slot.bundle} is not entry {slot.member} of tied_bundles"
        findings.add(f"{path}.bundle", problem, f"the tied group says {expected}")


_SHOWN = 8
_LAST_PORT = 65_535
_LONGEST_INDEX = 6


def _expect(
    plan: LaunchPlan,
    field: str,
    expected: Callable[[WorkerPlan, int], object],
    why: str,
    findings: Findings,
) -> None:
    """Compare one field of every worker with what the others imply; the first few are shown."""
    wrong: list[tuple[int, object, object]] = []
    for index, worker in enumerate(plan.workers):
        found: object = getattr(worker, field)
        wanted = expected(worker, index)
        if found != wanted:
            wrong.append((index, found, wanted))
    for place, (index, found, wanted) in enumerate(wrong[:_SHOWN]):
        more = f" (and for {len(wrong) - _SHOWN} more workers)" if place == _SHOWN - 1 else ""
        last = more if len(wrong) > _SHOWN else ""
        path = f"plan.workers[{index}].{field}"
        findings.add(path, f"{found!r}, but {why}{last}", f"{wanted!r} would go with the rest")


def _check_identities(plan: LaunchPlan, findings: Findings) -> None:
    _expect(plan, "rank", lambda _, index: index, "ranks count from 0 in order", findings)
    _check_unique("plan.workers", "name", [worker.name for worker in plan.workers], findings)
    places = [(worker.placement_group, worker.bundle) for worker in plan.workers]
    _check_unique("plan.workers", "bundle", places, findings)


def _check_unique(path: str, field: str, values: Sequence[object], findings: Findings) -> None:
    if len(set(values)) == len(values):
        return
    first: dict[object, int] = {}
    for index, value in enumerate(values):
        before = first.setdefault(value, index)
        if before != index:
            problem = f"{value!r} is that of {path}[{before}] too"
            findings.add(f"{path}[{index}].{field}", problem, "give each worker its own")


def _check_nodes(plan: LaunchPlan, findings: Findings) -> None:
    ranks_of: dict[str, list[int]] = {}
    for index, worker in enumerate(plan.workers):
        ranks_of.setdefault(worker.node_id, []).append(index)
    node_ranks = {node_id: place for place, node_id in enumerate(ranks_of)}
    local = {rank: place for ranks in ranks_of.values() for place, rank in enumerate(ranks)}
    first = {node_id: plan.workers[ranks[0]] for node_id, ranks in ranks_of.items()}
    _expect(
        plan,
        "node_rank",
        lambda worker, _: node_ranks[worker.node_id],
        "nodes count from 0 in the order of their lowest rank",
        findings,
    )
    _expect(
        plan,
        "node_local_rank",
        lambda _, index: local[index],
        "a node's ranks count from 0 in order",
        findings,
    )
    _expect(
        plan,
        "local_world_size",
        lambda worker, _: len(ranks_of[worker.node_id]),
        "it is the number of workers on the node",
        findings,
    )
    _expect(
        plan,
        "address",
        lambda worker, _: first[worker.node_id].address,
        "a node has one address",
        findings,
    )
    _expect(
        plan,
        "domain",
        lambda worker, _: first[worker.node_id].domain,
        "a node is in one NVLink domain",
        findings,
    )


def _check_devices(plan: LaunchPlan, findings: Findings) -> None:
    holders: dict[tuple[str, str], int] = {}
    for index, worker in enumerate(plan.workers):
        path = f"plan.workers[{index}]"
        if not 0 <= worker.gpu_share <= FULL_GPU:
            _check_share(f"{path}.gpu_share", worker.gpu_share, findings)
        if worker.gpu_share and not worker.gpus:
            problem = f"it is empty, and the worker has a share of {worker.gpu_share}"
            findings.add(f"{path}.gpus", problem, "name its GPU")
        for gpu in worker.gpus:
            holder = holders.setdefault((worker.node_id, gpu), index)
            if holder != index:
                problem = f"GPU {gpu} of node {worker.node_id!r} is that of rank {holder} too"
                findings.add(f"{path}.gpus", problem, "give each rank of a group its own")
        _check_visible(path, worker, findings)


def _check_visible(path: str, worker: WorkerPlan, findings: Findings) -> None:
    own = worker.gpus[0] if worker.gpus else None
    if worker.visible is None:
        counted = own is not None and own.isdecimal() and len(own) < _LONGEST_INDEX
        expected = int(own or 0) if counted else worker.node_local_rank
        if worker.local_rank != expected:
            problem = f"{worker.local_rank}, but it sees all devices of its node"
            findings.add(f"{path}.local_rank", problem, f"{expected} would go with the rest")
        return
    if own not in worker.visible:
        problem = f"{', '.join(worker.visible) or 'none'}, without its own GPU {own}"
        findings.add(f"{path}.visible", problem, "list the worker's own GPU")
    elif worker.local_rank != worker.visible.index(own):
        place = worker.visible.index(own)
        problem = f"{worker.local_rank} does not pick its own GPU {own} from visible"
        findings.add(f"{path}.local_rank", problem, f"{place} would go with the rest")


def _check_share(path: str, share: int, findings: Findings) -> None:
    if not 0 <= share <= FULL_GPU:
        problem = f"{share} is no share of a GPU"
        findings.add(path, problem, f"give 0 to {FULL_GPU} ten-thousandths")


def _check_tied(plan: LaunchPlan, findings: Findings) -> None:
    members: dict[int, list[WorkerPlan]] = {}
    for worker in plan.workers:
        members.setdefault(worker.tied_group, []).append(worker)
    if sorted(members) != list(range(len(members))):
        problem = f"the numbers of {len(members)} tied groups are not 0 to {len(members) - 1}"
        findings.add("plan.workers", problem, "count tied_group from 0, without gaps")
    leaders = {
        group: tuple(each.bundle for each in sorted(workers, key=lambda each: each.member))
        for group, workers in members.items()
    }
    places = {
        worker.rank: place for workers in members.values() for place, worker in enumerate(workers)
    }
    _expect(
        plan,
        "member",
        lambda worker, _: places.get(worker.rank, 0),
        "the members of a tied group count from 0",
        findings,
    )
    _expect(
        plan,
        "tied_bundles",
        lambda worker, _: leaders[worker.tied_group] if worker.is_leader else None,
        "a leader has the bundles of its tied group, the others have none",
        findings,
    )


def _check_shards(plan: LaunchPlan, findings: Findings) -> None:
    known = [rank for rank in plan.leaders if 0 <= rank < plan.world_size]
    for shard, rank in enumerate(plan.leaders):
        if rank not in range(plan.world_size):
            problem = f"there is no rank {rank}"
            findings.add(f"plan.leaders[{shard}]", problem, f"give 0 to {plan.world_size - 1}")
        elif plan.workers[rank].data_parallel_shard != shard:
            of = plan.workers[rank].data_parallel_shard
            problem = f"rank {rank} belongs to shard {of}"
            findings.add(f"plan.leaders[{shard}]", problem, f"name a rank of shard {shard}")
    if len(set(known)) != len(known) or not known:
        findings.add("plan.leaders", "they are not distinct ranks", "one rank leads each shard")
    mesh = plan.mesh
    if mesh is None or DATA_PARALLEL not in mesh.names or mesh.size != plan.world_size:
        _check_shard_range(plan, findings)
        return
    axis = mesh.get_axis_index(DATA_PARALLEL)
    by_shard = mesh.layout.swapaxes(0, axis).reshape(mesh.sizes[axis], -1).tolist()
    coordinate = {rank: shard for shard, ranks in enumerate(by_shard) for rank in ranks}
    _expect(
        plan,
        "data_parallel_shard",
        lambda _, index: coordinate.get(index),
        "it is the coordinate on the axis data_parallel",
        findings,
    )


def _check_shard_range(plan: LaunchPlan, findings: Findings) -> None:
    count = len(plan.leaders)
    for index, worker in enumerate(plan.workers):
        if not 0 <= worker.data_parallel_shard < count:
            path = f"plan.workers[{index}].data_parallel_shard"
            problem = f"{worker.data_parallel_shard} is not one of {count} shards"
            findings.add(path, problem, f"give 0 to {count - 1}")


def _check_mesh(mesh: NamedSharding | None, workers: int, findings: Findings) -> None:
    if mesh is not None and sorted(mesh.ranks) != list(range(workers)):
        problem = f"its {mesh.size} ranks are not the ranks 0 to {workers - 1} of the workers"
        findings.add("plan.mesh.layout", problem, "arrange exactly these ranks")


def _check_meeting(plan: LaunchPlan, findings: Findings) -> None:
    told = plan.rendezvous
    if not told.address:
        findings.add("plan.rendezvous.address", "it is empty", "give the address of rank 0")
    if told.port is not None and not 1 <= told.port <= _LAST_PORT:
        findings.add("plan.rendezvous.port", f"{told.port} is no port", "give 1 to 65535")
    for index, worker in enumerate(plan.workers):
        if worker.ports and not 1 <= worker.ports[0] <= worker.ports[1] <= _LAST_PORT:
            problem = f"{worker.ports[0]} to {worker.ports[1]} are no ports"
            remedy = "give the first and the last of a range in 1 to 65535"
            findings.add(f"plan.workers[{index}].ports", problem, remedy)
    names = [] if plan.mesh is None else plan.mesh.names
    for index, (axis, _) in enumerate(plan.localities):
        if axis not in names:
            known = f"the axes are {', '.join(names) or 'none'}"
            findings.add(f"plan.localities[{index}]", f"there is no axis {axis!r}", known)


def _check_environment(environment: GroupEnvironment, findings: Findings) -> None:
    path = "plan.environment"
    _check_variables(f"{path}.variables", environment.variables, findings)
    known = {each.name for each in environment.variables}
    for field, names in (
        ("before_python", environment.before_python),
        ("expected", environment.expected),
    ):
        for name in names:
            if name not in known:
                findings.add(f"{path}.{field}", f"{name} is no variable", "name one of variables")


def _check_variables(path: str, variables: Iterable[EnvVar], findings: Findings) -> None:
    listed = tuple(variables)
    names = [each.name for each in listed]
    if names != sorted(set(names)):
        findings.add(path, "the names are not sorted and distinct", "sort them, each name once")
    for index, each in enumerate(listed):
        if each.value is not None and is_credential(each.name, each.value):
            problem = f"{each.name} looks like a credential, and a plan holds none"
            findings.add(f"{path}[{index}].value", problem, "write null: the runtime has the value")
