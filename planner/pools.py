"""Bundles that groups share, with every share of a GPU computed and proven in whole numbers."""

from collections.abc import Sequence

from attrs import frozen

from planner.amounts import GPU_UNIT, Amounts, amount_text
from planner.findings import Findings
from planner.requests import GroupRequest, Strategy, check_request

__all__ = ["Pool", "PoolMember", "pools_of"]


@frozen(kw_only=True)
class PoolMember:
    """One group of a pool.

    Attributes:
        group: The group's name.
        gpu_share: The share of each GPU of its bundle that one worker gets, in ten-thousandths.
        colocated: How many workers it has in each bundle.
        bundles: How many bundles it uses of each placement group: the first ones.
    """

    group: str
    gpu_share: int
    colocated: int
    bundles: tuple[int, ...]


@frozen(kw_only=True)
class Pool:
    """Bundles that one or several groups share.

    Attributes:
        name: The pool's name, or its only group's.
        members: The groups, in the order of the requests. Their shares of a GPU, each times its
            ``colocated``, sum to 10,000 at most.
        units: How many bundles each placement group has.
        needs: What each bundle needs.
        unified: Whether it is one placement group over all nodes.
        strategy: How a unified placement group lies.
        selector: Label to expression: which nodes.
        exclusive: Whether no other pool may use its nodes.
        segment_size: Nodes in an NVLink segment; None when segments do not matter.
        entries: Bundles per node as asked for; for segments.
        beside: What is needed on each node beside the bundles.
        flexible: Whether ``units`` only says how many bundles in all, for any number of nodes.
        apart: Whether placement groups lie on nodes of their own where there are enough.
    """

    name: str
    members: tuple[PoolMember, ...]
    units: tuple[int, ...]
    needs: Amounts
    unified: bool
    strategy: Strategy
    selector: tuple[tuple[str, str], ...]
    exclusive: bool
    segment_size: int | None
    entries: tuple[int, ...]
    beside: Amounts
    flexible: bool
    apart: bool = False

    @property
    def share(self) -> int:
        """How much of each GPU is given away, in ten-thousandths: 10,000 at most."""
        return sum(member.gpu_share * member.colocated for member in self.members)


def pools_of(requests: Sequence[GroupRequest]) -> tuple[Pool, ...]:
    """The pools of the requests, in the order of their first groups.

    Raises:
        PlanError: A request is impossible in itself, or groups of a pool do not go together.
    """
    findings = Findings("reservation")
    names = [request.name for request in requests]
    together: dict[tuple[bool, str], list[int]] = {}
    for index, request in enumerate(requests):
        path = f"requests[{index}]"
        if request.name in names[:index]:
            problem = f"{request.name!r} is the name of requests[{names.index(request.name)}]"
            findings.add(f"{path}.name", problem, "give each group its own name")
        check_request(request, path, findings)
        pooled = request.pool is not None
        name = request.pool if request.pool is not None else request.name
        together.setdefault((pooled, name), []).append(index)
    for (pooled, name), indices in together.items():
        if pooled and (False, name) in together:
            path = f"requests[{together[False, name][0]}].name"
            findings.add(path, f"{name!r} is the name of a pool", "name the group otherwise")
        if pooled:
            _check_alike(requests, indices, findings)
    findings.check()
    pools = tuple(
        _pool(name, [requests[index] for index in indices], indices, findings)
        for (_, name), indices in together.items()
    )
    findings.check()
    return pools


def _check_alike(
    requests: Sequence[GroupRequest], indices: Sequence[int], findings: Findings
) -> None:
    first = requests[indices[0]]
    for index in indices[1:]:
        request = requests[index]
        pairs = (
            ("unified", request.unified, first.unified),
            ("strategy", request.strategy.value, first.strategy.value),
            ("gpus_per_bundle", request.gpus_per_bundle, first.gpus_per_bundle),
            ("labels", request.labels, first.labels),
            ("node_class", request.node_class, first.node_class),
            ("exclusive", request.exclusive, first.exclusive),
            ("segment_size", request.segment_size, first.segment_size),
            ("workers", request.workers is None, first.workers is None),
        )
        for name, value, expected in pairs:
            if value != expected:
                where = f"pool {first.pool!r}, which it shares with {first.name!r}"
                problem = f"it differs from that of {where}"
                if name != "workers":
                    problem = f"{value!r} differs from {expected!r} in {where}"
                findings.add(f"requests[{index}].{name}", problem, "say the same in both groups")


def _pool(
    name: str, requests: Sequence[GroupRequest], indices: Sequence[int], findings: Findings
) -> Pool:
    first = requests[0]
    counts = [_units(request) for request in requests]
    length = max(map(len, counts))
    padded = [(*each, *(0 for _ in range(length - len(each)))) for each in counts]
    # A node without bundles makes no placement group.
    columns = [column for column in zip(*padded, strict=True) if any(column)]
    shares = _shares(name, requests, indices, findings)
    needs = Amounts(gpu_share=first.gpus_per_bundle * GPU_UNIT)
    beside = Amounts()
    for request in requests:
        beside = beside.plus(request.beside)
        needs = needs.plus(
            Amounts(
                milli_cpus=request.milli_cpus_per_bundle,
                memory=request.memory_per_bundle,
                custom=request.custom_per_bundle,
            )
        )
    members = tuple(
        PoolMember(
            group=request.name, gpu_share=share, colocated=request.colocated, bundles=tuple(each)
        )
        for request, share, each in zip(requests, shares, zip(*columns, strict=True), strict=True)
    )
    return Pool(
        name=name,
        members=members,
        units=tuple(max(column) for column in columns),
        needs=needs,
        unified=first.unified,
        strategy=first.strategy if first.unified else Strategy.STRICT_PACK,
        selector=first.selector,
        exclusive=first.exclusive,
        segment_size=first.segment_size,
        entries=_entries(requests),
        beside=beside,
        flexible=first.workers is not None and not first.unified,
        apart=any(request.apart for request in requests),
    )


def _units(request: GroupRequest) -> tuple[int, ...]:
    if request.workers is not None:
        return (request.workers,)
    return (sum(request.bundles_per_node),) if request.unified else request.bundles_per_node


def _entries(requests: Sequence[GroupRequest]) -> tuple[int, ...]:
    length = max(len(request.bundles_per_node) for request in requests)
    return tuple(
        max(
            request.bundles_per_node[index] if index < len(request.bundles_per_node) else 0
            for request in requests
        )
        for index in range(length)
    )


def _shares(
    name: str, requests: Sequence[GroupRequest], indices: Sequence[int], findings: Findings
) -> list[int]:
    """The share of each request's workers; whole numbers, so that the sum is proven exactly."""
    if not requests[0].gpus_per_bundle:
        return [0 for _ in requests]
    stated = sum((request.gpu_share or 0) * request.colocated for request in requests)
    others = sum(request.colocated for request in requests if request.gpu_share is None)
    left = GPU_UNIT - stated
    equal = left // others if others else 0
    if left < 0 or (others and not equal):
        parts = " + ".join(
            f"{request.colocated} x {request.gpu_share}"
            for request in requests
            if request.gpu_share is not None
        )
        problem = f"the shares of pool {name!r} are {parts or 0} = {stated} of {GPU_UNIT}"
        more = f", and {others} more workers want a part" if others else ""
        fitting = GPU_UNIT // sum(request.colocated for request in requests)
        remedy = f"{fitting} ({amount_text('GPU', fitting)}) for each worker would work"
        findings.add(f"requests[{indices[-1]}].gpu_share", problem + more, remedy)
    return [equal if request.gpu_share is None else request.gpu_share for request in requests]
