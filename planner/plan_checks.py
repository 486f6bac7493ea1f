"""What must hold between the fields of a plan: for plans that come from a file.

The planning functions make no other plans. A file may have been put together, or changed, by hand.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod

from planner.amounts import GPU_UNIT
from planner.dispatch import DUMMY, CallKind, DispatchPlan
from planner.findings import Findings
from planner.reservation import PlacementGroupPlan, ReservationPlan
from planner.resharding import Receiver, ReshardPlan, RowSpan
from planner.slicing import SlicePlan

__all__ = ["check_dispatch", "check_reservation", "check_resharding", "check_slices"]

_Lengths = tuple[str, Sequence[object], str, Sequence[object]]


def check_dispatch(plan: DispatchPlan, findings: Findings) -> None:
    """Record everything about a DispatchPlan that contradicts itself."""
    if not plan.ranks:
        findings.add("plan.ranks", "nobody is called", "call at least one rank")
    if list(plan.ranks) != sorted(set(plan.ranks)) or min(plan.ranks, default=0) < 0:
        problem = "they are not ascending ranks of 0 or more"
        findings.add("plan.ranks", problem, "name each called rank once, in order")
    _check_lengths(
        findings,
        ("plan.slices", plan.slices, "plan.ranks", plan.ranks),
        ("plan.shape", plan.shape, "plan.axes", plan.axes),
    )
    for index, size in enumerate(plan.shape):
        if size < 1:
            findings.add(f"plan.shape[{index}]", f"{size} is no size", "give 1 or more")
            return
    count = prod(plan.shape)
    if count > len(plan.ranks):
        problem = f"{count} slices for {len(plan.ranks)} called ranks"
        findings.add("plan.shape", problem, "send each slice to at least one rank")
        return
    if len(plan.slices) == len(plan.ranks):
        _check_slices_sent(plan, findings)
        _check_returns(plan, findings)
    _check_kind(plan, findings)


def _check_slices_sent(plan: DispatchPlan, findings: Findings) -> None:
    count = plan.slice_count
    lowest = DUMMY if plan.kind is CallKind.SHARDED else 0
    wrong = [index for index, each in enumerate(plan.slices) if not lowest <= each < count]
    for index in wrong:
        problem = f"{plan.slices[index]} is not one of {count} slices"
        dummy = f", or {DUMMY} for a dummy call" if lowest == DUMMY else ""
        findings.add(f"plan.slices[{index}]", problem, f"give 0 to {count - 1}{dummy}")
    if not wrong and len(set(plan.slices) - {DUMMY}) != count:
        sent = set(plan.slices)
        missing = next(each for each in range(count) if each not in sent)
        problem = f"nobody receives slice {missing} of {count}"
        findings.add("plan.slices", problem, "send each slice to at least one rank")


def _check_returns(plan: DispatchPlan, findings: Findings) -> None:
    slice_of = dict(zip(plan.ranks, plan.slices, strict=True))
    previous, seen = DUMMY, set[int]()
    for index, rank in enumerate(plan.returns):
        path = f"plan.returns[{index}]"
        number = slice_of.get(rank)
        if number is None:
            findings.add(path, f"rank {rank} is not called", "name ranks that are called")
            continue
        if number == DUMMY:
            findings.add(path, f"rank {rank} gets a dummy call", "name ranks with a slice")
        if rank in seen:
            findings.add(path, f"rank {rank} returns twice", "name each rank once")
        if number < previous:
            problem = f"slice {number} comes after slice {previous}"
            findings.add(path, problem, "results come in the order of the slices")
        previous = max(previous, number)
        seen.add(rank)


def _check_kind(plan: DispatchPlan, findings: Findings) -> None:
    count = len(plan.ranks)
    if plan.kind is CallKind.ONE and count != 1:
        findings.add("plan.ranks", f"{count} ranks for one worker", "call exactly one")
    if plan.kind in {CallKind.ONE, CallKind.SAME} and plan.axes:
        problem = f"{', '.join(plan.axes)}, but all called ranks get the same"
        findings.add("plan.axes", problem, "leave axes and shape empty")
    if plan.kind is CallKind.PER_WORKER:
        if plan.slices != tuple(range(count)):
            problem = "they are not 0, 1, 2 ..., one for each called rank"
            findings.add("plan.slices", problem, f"give 0 to {count - 1} in order")
        if plan.shape != (count,):
            findings.add("plan.shape", f"{plan.shape} for {count} ranks", f"give [{count}]")


def check_slices(plan: SlicePlan, findings: Findings) -> None:
    """Record everything about a SlicePlan that contradicts itself."""
    negative = [index for index, each in enumerate(plan.sizes) if each < 0]
    for index in negative:
        findings.add(f"plan.sizes[{index}]", f"{plan.sizes[index]} is negative", "give 0 or more")
    if not plan.sizes:
        findings.add("plan.sizes", "there is no slice", "a plan has at least one slice")
    pairs: list[_Lengths] = [("plan.padding", plan.padding, "plan.sizes", plan.sizes)]
    for path, listed in (("micro_batches", plan.micro_batches), ("loads", plan.loads or ())):
        if listed:
            pairs.append((f"plan.{path}", listed, "plan.sizes", plan.sizes))
    if plan.slice_bytes is not None:
        pairs.append(("plan.slice_bytes", plan.slice_bytes, "plan.sizes", plan.sizes))
    whole = _check_lengths(findings, *pairs)
    if negative or not whole:
        return
    for index, (padding, size) in enumerate(zip(plan.padding, plan.sizes, strict=True)):
        if not 0 <= padding <= size:
            problem = f"{padding} places of padding in a slice of {size}"
            findings.add(f"plan.padding[{index}]", problem, f"give 0 to {size}")
            return
    for index, sizes in enumerate(plan.micro_batches):
        if sum(sizes) != plan.sizes[index] or min(sizes, default=0) < 0:
            problem = f"{sum(sizes)} rows in a slice of {plan.sizes[index]}"
            findings.add(f"plan.micro_batches[{index}]", problem, "let them sum to the slice")
    _check_rows(plan, findings)
    names = [name for name, _ in plan.pads]
    if names != sorted(set(names)):
        findings.add("plan.pads", "the names are not sorted and distinct", "name each field once")


def _check_rows(plan: SlicePlan, findings: Findings) -> None:
    if len(plan.order) != sum(plan.sizes):
        problem = f"{len(plan.order)} places in slices of {sum(plan.sizes)}"
        findings.add("plan.order", problem, "give one row for each place")
        return
    order = plan.order.tolist()
    for index, row in enumerate(order):
        if not 0 <= row < plan.rows:
            problem = f"row {row} is not one of {plan.rows}"
            findings.add(f"plan.order[{index}]", problem, f"give 0 to {plan.rows - 1}")
            return
    kept = len(order) - sum(plan.padding)
    if kept + len(plan.dropped) != plan.rows:
        problem = f"{plan.rows}, but {kept} are in slices and {len(plan.dropped)} are dropped"
        findings.add("plan.rows", problem, f"{kept + len(plan.dropped)} would go with the rest")
        return
    held = Counter(plan.dropped)
    for start, size in zip(plan.starts, plan.real_sizes, strict=True):
        held.update(order[start : start + size])
    wrong = [row for row in (*range(plan.rows), *held) if held[row] != 1 or row >= plan.rows]
    if wrong:
        problem = f"row {wrong[0]} is in {held[wrong[0]]} slices or dropped places"
        findings.add("plan.order", problem, "put each row in one slice, or drop it")


def check_resharding(plan: ReshardPlan, findings: Findings) -> None:
    """Record everything about a ReshardPlan that contradicts itself."""
    _check_lengths(
        findings, ("plan.receivers", plan.receivers, "plan.target_sizes", plan.target_sizes)
    )
    for index, receiver in enumerate(plan.receivers):
        path = f"plan.receivers[{index}]"
        if _check_parts(path, receiver, plan.source_sizes, findings):
            _check_order(path, receiver, plan.target_sizes[index : index + 1], findings)


def _check_parts(path: str, receiver: Receiver, sizes: tuple[int, ...], findings: Findings) -> bool:
    good = True
    for number, part in enumerate(receiver.parts):
        at = f"{path}.parts[{number}]"
        if not 0 <= part.source < len(sizes):
            problem = f"there is no source {part.source}"
            findings.add(f"{at}.source", problem, f"give 0 to {len(sizes) - 1}")
            good = False
            continue
        size = sizes[part.source]
        span = isinstance(part, RowSpan)
        first = part.start if isinstance(part, RowSpan) else min(part.places, default=0)
        last = part.stop - 1 if isinstance(part, RowSpan) else max(part.places, default=-1)
        if not 0 <= first <= last < size:
            problem = f"rows {first} to {last} of a source with {size}"
            findings.add(at, problem, f"{'span' if span else 'pick'} rows 0 to {size - 1}")
            good = False
    return good


def _check_order(path: str, receiver: Receiver, size: tuple[int, ...], findings: Findings) -> None:
    rows = sum(
        part.stop - part.start if isinstance(part, RowSpan) else len(part.places)
        for part in receiver.parts
    )
    made = rows if receiver.order is None else len(receiver.order)
    if size and made != size[0]:
        findings.add(path, f"{made} rows for a slice of {size[0]}", "let the parts make the slice")
    for place, row in enumerate(receiver.order or ()):
        if not 0 <= row < rows:
            problem = f"{row} is not one of the {rows} rows of the parts"
            findings.add(f"{path}.order[{place}]", problem, f"give 0 to {rows - 1}")
            return


def check_reservation(plan: ReservationPlan, findings: Findings) -> None:
    """Record everything about a ReservationPlan that contradicts itself."""
    names = [pool.name for pool in plan.pools]
    expected = [(pool.name, index) for pool in plan.pools for index in range(len(pool.units))]
    found = [(group.pool, group.index) for group in plan.placement_groups]
    if len(set(names)) != len(names):
        findings.add("plan.pools", "two have the same name", "give each pool its own name")
    elif found != expected:
        problem = f"{len(found)} placement groups that are not those of the pools' units"
        remedy = "list one for each entry of units, by pool and number"
        findings.add("plan.placement_groups", problem, remedy)
    else:
        _check_groups(plan, plan.placement_groups, findings)
    for index, pool in enumerate(plan.pools):
        if pool.share > GPU_UNIT or any(each.gpu_share < 0 for each in pool.members):
            problem = f"the members' shares of a GPU sum to {pool.share}"
            remedy = f"give shares of 0 or more, {GPU_UNIT} ten-thousandths at most in all"
            findings.add(f"plan.pools[{index}].members", problem, remedy)
        for number, member in enumerate(pool.members):
            path = f"plan.pools[{index}].members[{number}].bundles"
            _check_lengths(
                findings, (path, member.bundles, f"plan.pools[{index}].units", pool.units)
            )


def _check_groups(
    plan: ReservationPlan, groups: Iterable[PlacementGroupPlan], findings: Findings
) -> None:
    pools = {pool.name: pool for pool in plan.pools}
    for number, group in enumerate(groups):
        path, pool = f"plan.placement_groups[{number}]", pools[group.pool]
        if len(group.verdicts) != pool.units[group.index]:
            problem = f"{len(group.verdicts)} for {pool.units[group.index]} bundles"
            findings.add(f"{path}.verdicts", problem, "give one verdict for each bundle")
        for field, own, shared in (
            ("needs", group.needs, pool.needs),
            ("strategy", group.strategy, pool.strategy),
            ("selector", group.selector, pool.selector),
        ):
            if own != shared:
                problem = f"it is not that of pool {pool.name!r}"
                findings.add(f"{path}.{field}", problem, f"the pool says {shared}")


def _check_lengths(findings: Findings, *pairs: _Lengths) -> bool:
    """Whether sequences that belong together are equally long."""
    good = True
    for path, listed, other, expected in pairs:
        if len(listed) != len(expected):
            problem = f"{len(listed)} entries for {len(expected)} of {other}"
            findings.add(path, problem, f"give {len(expected)}")
            good = False
    return good
