"""What differs between the plan that was predicted and the one that was made of what landed.

A prediction can't know everything. The rendezvous port is open in it, and the nodes of an
inventory written by hand have names of their own: nodes are compared by their place among the
group's nodes, and that their names differ is said once for each node.
"""

from collections.abc import Iterable, Sequence

from attrs import frozen

from planner.environment import Origin
from planner.findings import Finding, Findings
from planner.launch import LaunchPlan, WorkerPlan
from planner.outcomes import ranks_text

__all__ = [
    "BrokenInvariant",
    "FieldDifference",
    "PlanDifference",
    "RankDifference",
    "difference",
]

NOT_KNOWN = "(known after the start)"


@frozen(kw_only=True)
class FieldDifference:
    """One field with two values, as texts.

    Attributes:
        path: Where it is.
        predicted: What was predicted.
        observed: What was found.
    """

    path: str
    predicted: str
    observed: str

    def __str__(self) -> str:
        return f"{self.path}: predicted {self.predicted}, found {self.observed}"


@frozen(kw_only=True)
class RankDifference:
    """Fields of ranks that differ in the same way.

    Attributes:
        ranks: Which ranks.
        fields: What differs; the values are those of the first of them.
    """

    ranks: tuple[int, ...]
    fields: tuple[FieldDifference, ...]

    def __str__(self) -> str:
        return f"{ranks_text(self.ranks)}: {'; '.join(map(str, self.fields))}"


@frozen(kw_only=True)
class BrokenInvariant:
    """Something that held in the prediction and does not hold now.

    Attributes:
        name: What held, such as ``tensor_parallel stays on a node``.
        ranks: The first ranks of which it does not hold any more.
        problem: What is the case now.
    """

    name: str
    ranks: tuple[int, ...]
    problem: str

    def finding(self) -> Finding:
        """As a finding: what was promised, what is, what would work."""
        remedy = "mend or exclude the nodes named, or predict again from the cluster's inventory"
        return Finding(self.name, f"{self.problem} ({ranks_text(self.ranks)})", remedy)


@frozen(kw_only=True)
class PlanDifference:
    """Everything that differs between two launch plans of one group.

    Attributes:
        group: The group.
        fields: What differs for the whole group.
        nodes: Where a node has another name or address; one for each node.
        ranks: What differs for single ranks, ranks that differ alike together.
        broken: What held in the prediction and does not hold any more.
    """

    group: str
    fields: tuple[FieldDifference, ...] = ()
    nodes: tuple[FieldDifference, ...] = ()
    ranks: tuple[RankDifference, ...] = ()
    broken: tuple[BrokenInvariant, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fields or self.nodes or self.ranks or self.broken)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is broken, as findings."""
        return tuple(each.finding() for each in self.broken)

    def text(self, limit: int = 20) -> str:
        """A report of one line for each difference.

        Args:
            limit: How many lines of each kind at most.
        """
        if not self:
            return f"worker group {self.group!r} is as predicted"
        lines = [f"worker group {self.group!r} differs from its prediction"]
        lines += _lines((f"BROKEN  {each.finding()}" for each in self.broken), limit)
        lines += _lines((f"group   {each}" for each in self.fields), limit)
        lines += _lines((f"node    {each}" for each in self.nodes), limit)
        lines += _lines((f"rank    {each}" for each in self.ranks), limit)
        return "\n".join(lines)


def _lines(texts: Iterable[str], limit: int) -> list[str]:
    given = list(texts)
    shown = [f"  {each}" for each in given[:limit]]
    return [*shown, f"  ... and {len(given) - limit} more"] if len(given) > limit else shown


def difference(predicted: LaunchPlan, observed: LaunchPlan) -> PlanDifference:
    """What differs between a prediction and what was made of what landed.

    Args:
        predicted: Made from an inventory.
        observed: Made from what the hosts reported.

    Raises:
        PlanError: One of the two is no launch plan.
    """
    findings = Findings("difference")
    plans: dict[str, object] = {"predicted": predicted, "observed": observed}
    for path, plan in plans.items():
        if not isinstance(plan, LaunchPlan):
            findings.add(path, f"a value of type {type(plan).__name__}", "give a LaunchPlan")
    findings.check()
    return PlanDifference(
        group=observed.group,
        fields=tuple(_group_fields(predicted, observed)),
        nodes=tuple(_node_fields(predicted, observed)),
        ranks=_rank_fields(predicted, observed),
        broken=tuple(_broken(predicted, observed)),
    )


def _pair(path: str, predicted: object, observed: object) -> Iterable[FieldDifference]:
    if predicted != observed:
        yield FieldDifference(path=path, predicted=_shown(predicted), observed=_shown(observed))


def _shown(value: object) -> str:
    if value is None or value in {(), ""}:
        return "none"
    if isinstance(value, tuple) and all(isinstance(each, str | int) for each in value):
        shown = ",".join(map(str, value[:16]))
        return shown if len(value) <= 16 else f"{shown},... ({len(value)})"
    return str(value)


def _group_fields(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[FieldDifference]:
    yield from _pair("group", predicted.group, observed.group)
    yield from _pair("worker_class", predicted.worker_class, observed.worker_class)
    yield from _pair("world_size", predicted.world_size, observed.world_size)
    yield from _pair("node_count", predicted.node_count, observed.node_count)
    yield from _pair("axes", predicted.mesh, observed.mesh)
    yield from _pair("leaders", predicted.leaders, observed.leaders)
    yield from _pair("asynchronous", predicted.asynchronous, observed.asynchronous)
    yield from _pair("interpreter", predicted.interpreter, observed.interpreter)
    yield from _pair("runtime_env", predicted.runtime_env.text, observed.runtime_env.text)
    yield from _pair("options", predicted.options.text, observed.options.text)
    modes = (predicted.gpu_visibility.value, observed.gpu_visibility.value)
    yield from _pair("gpu_visibility", *modes)
    if predicted.rendezvous.port is not None:
        yield from _pair("rendezvous.port", predicted.rendezvous.port, observed.rendezvous.port)
    yield from _environment(predicted, observed)


def _environment(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[FieldDifference]:
    skipped: set[str] = set()
    for origin in (Origin.DRIVER, Origin.INTERPRETER, Origin.CLASS):
        found_names = _names_from(observed, origin)
        if found_names and not _names_from(predicted, origin):
            skipped |= found_names
            yield FieldDifference(
                path=f"environment from {origin.value}",
                predicted="not known",
                observed=f"{len(found_names)} variables",
            )
    before = {each.name: each for each in predicted.environment.variables}
    after = {each.name: each for each in observed.environment.variables}
    for name in sorted({*before, *after}):
        told, found = before.get(name), after.get(name)
        if told == found or (told is None and name in skipped):
            continue
        texts = [
            "not set" if each is None else f"{each.value or '(hidden)'} from {each.origin.value}"
            for each in (told, found)
        ]
        yield FieldDifference(path=f"environment.{name}", predicted=texts[0], observed=texts[1])


def _names_from(plan: LaunchPlan, origin: Origin) -> set[str]:
    return {each.name for each in plan.environment.variables if each.origin is origin}


def _node_names(plan: LaunchPlan) -> list[tuple[str, str]]:
    names: dict[int, tuple[str, str]] = {}
    for worker in plan.workers:
        names.setdefault(worker.node_rank, (worker.node_id, worker.address))
    return [names[rank] for rank in sorted(names)]


def _node_fields(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[FieldDifference]:
    for index, (told, found) in enumerate(
        zip(_node_names(predicted), _node_names(observed), strict=False)
    ):
        if told != found:
            yield FieldDifference(
                path=f"node {index}",
                predicted=f"{told[0]} ({told[1]})",
                observed=f"{found[0]} ({found[1]})",
            )


def _rank_fields(predicted: LaunchPlan, observed: LaunchPlan) -> tuple[RankDifference, ...]:
    same: dict[tuple[FieldDifference, ...], list[int]] = {}
    for told, found in zip(predicted.workers, observed.workers, strict=False):
        if told == found:
            continue
        fields = tuple(_worker_fields(told, found))
        if fields:
            same.setdefault(fields, []).append(told.rank)
    return tuple(RankDifference(ranks=tuple(each), fields=fields) for fields, each in same.items())


def _worker_fields(told: WorkerPlan, found: WorkerPlan) -> Iterable[FieldDifference]:
    for path, before, after in (
        ("name", told.name, found.name),
        ("node", told.node_rank, found.node_rank),
        ("local rank on the node", told.node_local_rank, found.node_local_rank),
        ("LOCAL_WORLD_SIZE", told.local_world_size, found.local_world_size),
        ("LOCAL_RANK", told.local_rank, found.local_rank),
        ("GPU", told.gpus, found.gpus),
        ("GPU share", told.gpu_share, found.gpu_share),
        ("visible GPUs", told.visible, found.visible),
        ("NVLink domain", told.domain, found.domain),
        ("placement group", told.placement_group, found.placement_group),
        ("bundle", told.bundle, found.bundle),
        ("data-parallel shard", told.data_parallel_shard, found.data_parallel_shard),
        ("ports", told.ports, found.ports),
        ("cores", _cores(told), _cores(found)),
        ("profiler", told.profiler.text, found.profiler.text),
    ):
        yield from _pair(path, before, after)
    if told.uuids and found.uuids:
        yield from _pair("GPU UUID", told.uuids, found.uuids)
    if told.overrides is not None:
        yield from _pair("configure_worker", told.overrides, found.overrides)
    elif found.overrides is not None:
        yield FieldDifference(
            path="configure_worker", predicted=NOT_KNOWN, observed=str(found.overrides)
        )


def _cores(worker: WorkerPlan) -> tuple[int, ...]:
    return () if worker.affinity is None else worker.affinity.cores


def _broken(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[BrokenInvariant]:
    if predicted.world_size != observed.world_size:
        yield BrokenInvariant(
            name="every rank is there",
            ranks=tuple(range(observed.world_size)),
            problem=f"{observed.world_size} ranks, and {predicted.world_size} were predicted",
        )
        return
    yield from _broken_gpus(predicted, observed)
    yield from _broken_axes(predicted, observed)
    yield from _broken_engines(predicted, observed)


def _broken_gpus(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[BrokenInvariant]:
    lost = [
        found
        for told, found in zip(predicted.workers, observed.workers, strict=True)
        if len(found.gpus) < len(told.gpus)
    ]
    if lost:
        yield BrokenInvariant(
            name="every rank has its GPU",
            ranks=tuple(each.rank for each in lost),
            problem=f"a GPU is missing on node {lost[0].address}",
        )
    twice = _used_twice(observed)
    if twice and not _used_twice(predicted):
        yield BrokenInvariant(
            name="no GPU is used twice", ranks=twice, problem="these ranks hold one GPU"
        )


def _used_twice(plan: LaunchPlan) -> tuple[int, ...]:
    holders: dict[tuple[str, str], list[int]] = {}
    for worker in plan.workers:
        for gpu in worker.gpus:
            holders.setdefault((worker.node_id, gpu), []).append(worker.rank)
    return next((tuple(ranks) for ranks in holders.values() if len(ranks) > 1), ())


def _broken_axes(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[BrokenInvariant]:
    if predicted.mesh is None or predicted.mesh != observed.mesh:
        return
    kinds = [("a node", _nodes)]
    if all(worker.domain for worker in predicted.workers):
        kinds.append(("an NVLink domain", _domains))
    for axis in predicted.mesh.names:
        rows = _along(predicted, axis)
        for what, homes in kinds:
            before, after = homes(predicted), homes(observed)
            if any(len({before[rank] for rank in row}) > 1 for row in rows):
                continue
            cut = [row for row in rows if len({after[rank] for rank in row}) > 1]
            if cut:
                names = ", ".join(dict.fromkeys(observed.workers[r].address for r in cut[0]))
                more = f", and {len(cut) - 1} more groups are cut" if len(cut) > 1 else ""
                yield BrokenInvariant(
                    name=f"{axis} stays in {what}",
                    ranks=tuple(cut[0]),
                    problem=f"these ranks are on {len({after[r] for r in cut[0]})} of them "
                    f"({names}){more}",
                )


def _along(plan: LaunchPlan, axis: str) -> list[list[int]]:
    if plan.mesh is None:
        return []
    layout = plan.mesh.layout
    rows: list[list[int]] = (
        layout.swapaxes(plan.mesh.get_axis_index(axis), -1)
        .reshape(-1, plan.mesh.get_axis_size(axis))
        .tolist()
    )
    return rows


def _nodes(plan: LaunchPlan) -> list[str]:
    return [worker.node_id for worker in plan.workers]


def _domains(plan: LaunchPlan) -> list[str]:
    return [worker.domain or worker.node_id for worker in plan.workers]


def _broken_engines(predicted: LaunchPlan, observed: LaunchPlan) -> Iterable[BrokenInvariant]:
    before, after = _engines(predicted), _engines(observed)
    if before.keys() != after.keys():
        return
    cut = [
        [worker.rank for worker in after[group]]
        for group in sorted(after)
        if _on_one_node(before[group]) and not _on_one_node(after[group])
    ]
    if cut:
        yield BrokenInvariant(
            name="a tied group stays on its node",
            ranks=tuple(cut[0]),
            problem="it is on several nodes",
        )


def _engines(plan: LaunchPlan) -> dict[int, list[WorkerPlan]]:
    engines: dict[int, list[WorkerPlan]] = {}
    for worker in plan.workers:
        engines.setdefault(worker.tied_group, []).append(worker)
    return engines


def _on_one_node(workers: Sequence[WorkerPlan]) -> bool:
    return len({worker.node_id for worker in workers}) == 1
