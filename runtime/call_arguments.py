"""The arguments of a call: the facts that its plan needs, and the payloads that the plan names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen

from planner.call_requests import ArgumentFacts, ArgumentPlan, Given, Payload, Route
from planner.findings import Findings, PlanError
from planner.indices import Indices
from planner.roles import MicroBatches, PerRank, Role, Shard
from planner.slice_policies import Constant
from planner.slicing import SlicePlan, slice_rows
from planner.transports import held_apart_text
from runtime.backend import Backend
from runtime.batch_bytes import compact, row_bytes
from runtime.batch_fields import field_facts
from runtime.batches import BatchError, Rows, column, is_tensor, row_count, take
from runtime.links import link_of, lost_of
from runtime.payloads import payload_size
from runtime.remote_batches import RemoteBatch
from runtime.tensor_storages import carry_storages

__all__ = ["RowFacts", "facts_of", "numbers_of_pads", "payload_values", "rows_of", "ship_payloads"]

_ONE_EACH = "give one whole number for each row; scale and round a cost that is not whole"
_EXACT_FROM = 16 * 1024
"""Below that many bytes sizes are rounded up, so that calls with small arguments share plans."""


@frozen
class RowFacts:
    """Weights and labels that the caller gives for the rows of arguments, by argument."""

    weights: Mapping[str, Any] = field(factory=dict)
    groups: Mapping[str, Any] = field(factory=dict)


def facts_of(
    backend: Backend,
    name: str,
    value: Any,
    role: Role | None,
    given: RowFacts,
    findings: Findings,
) -> ArgumentFacts:
    """What the plan must know of one argument."""
    kind = type(value).__name__
    if isinstance(value, RemoteBatch):
        held_for = value.transport
        return ArgumentFacts(
            name=name,
            kind=kind,
            given=Given.HELD,
            held=value.slices,
            is_cut=value.is_cut,
            held_for=held_for,
            held_link=link_of(value.homes) if held_for else "",
            lost=lost_of(backend, value.homes) if held_for else (),
            weights=_numbers(f"weights[{name!r}]", given.weights.get(name), findings),
            groups=_labels(f"groups[{name!r}]", given.groups.get(name), findings),
        )
    apart = _held_apart(backend, value, role)
    if apart:
        findings.add(name, *held_apart_text(apart))
        return ArgumentFacts(name=name, kind=kind, given=Given.REFERENCE)
    if backend.is_reference(value):
        return ArgumentFacts(name=name, kind=kind, given=Given.REFERENCE)
    if isinstance(role, PerRank):
        count = len(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
        sizes = None if count is None else value_sizes(backend, value)
        return ArgumentFacts(name=name, kind=kind, count=count, row_bytes=sizes)
    if isinstance(role, Shard):
        return _batch_facts(backend, name, value, role, given, findings)
    size = payload_size(value)
    if size is not None and size < _EXACT_FROM:
        size = _rounded(size)
    return ArgumentFacts(name=name, kind=kind, size=size)


def _held_apart(backend: Backend, value: Any, role: Role | None) -> str:
    """The transport that a result was held for, which is given without its batch; else empty."""
    given = (value,)
    if isinstance(value, list | tuple):
        # Looking at every row of a batch would cost more than sending it.
        given = tuple(value) if isinstance(role, PerRank) else tuple(value[:1])
    return next((found for each in given if (found := backend.direct.transport_of(each))), "")


def value_sizes(backend: Backend, values: Sequence[Any]) -> Indices | None:
    """About how many bytes each value has; one number where all are small, None if unknown."""
    sizes = [0 if backend.is_reference(each) else payload_size(each) for each in values]
    known = [each for each in sizes if each is not None]
    if not known or len(known) < len(sizes):
        return None
    largest = max(known)
    return Indices.of([_rounded(largest)] if largest < _EXACT_FROM else known)


def _rounded(size: int) -> int:
    return 1 << max(4, (size - 1).bit_length())


def _batch_facts(
    backend: Backend, name: str, value: Any, role: Shard, given: RowFacts, findings: Findings
) -> ArgumentFacts:
    kind = type(value).__name__
    if isinstance(value, list | tuple) and value and all(map(backend.is_reference, value)):
        return ArgumentFacts(
            name=name,
            kind=kind,
            given=Given.REFERENCES,
            count=len(value),
            weights=_numbers(f"weights[{name!r}]", given.weights.get(name), findings),
            groups=_labels(f"groups[{name!r}]", given.groups.get(name), findings),
        )
    try:
        rows = row_count(value)
    except BatchError as error:
        path = f"{name}.{error.path}" if error.path else name
        findings.add(path, error.problem, error.remedy)
        return ArgumentFacts(name=name, kind=kind, rows=0)
    size = row_bytes(value)
    weights, labels = given.weights.get(name), given.groups.get(name)
    for found, wanted in ((weights, role.weights), (labels, role.groups)):
        if found is None and wanted and column(value, wanted) is None:
            findings.add(
                f"{name}.{wanted}", "the batch has no such field", "give it, or name another"
            )
    if weights is None and role.weights:
        weights = column(value, role.weights)
    if labels is None and role.groups:
        labels = column(value, role.groups)
    return ArgumentFacts(
        name=name,
        kind=kind,
        rows=rows,
        row_bytes=None if size is None else Indices.of(size if isinstance(size, list) else [size]),
        weights=_numbers(f"{name}.{role.weights or 'weights'}", weights, findings),
        groups=_labels(f"{name}.{role.groups or 'groups'}", labels, findings),
        fields=field_facts(value) if role.pads else None,
    )


def _numbers(path: str, given: Any, findings: Findings) -> Indices | None:
    if given is None:
        return None
    try:
        array = np.asarray(_plain(given))
    except (RuntimeError, TypeError, ValueError):
        findings.add(path, f"{type(given).__name__} of unlike entries", _ONE_EACH)
        return None
    if array.dtype.kind == "f" and array.ndim == 1 and not np.all(np.isfinite(array)):
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        findings.add(path, f"row {row} ({array[row]}) is not finite", _ONE_EACH)
        return None
    whole = array.ndim == 1 and (
        array.dtype.kind in "iu"
        or not array.size
        or (array.dtype.kind == "f" and bool(np.all(array == np.floor(array))))
    )
    if not whole:
        findings.add(path, f"an array of {array.dtype} and shape {array.shape}", _ONE_EACH)
        return None
    if array.size and float(np.max(np.abs(array.astype(np.float64)))) >= 2.0**63:
        findings.add(path, "a number is beyond 2 ** 63", "give them in a larger unit")
        return None
    return Indices.of(array.astype(np.int64))


def _labels(path: str, given: Any, findings: Findings) -> Indices | None:
    if given is None:
        return None
    labels: dict[object, int] = {}
    try:
        plain = _plain(given)
        listed = plain.tolist() if isinstance(plain, np.ndarray) else list(plain)
        return Indices.of([labels.setdefault(label, len(labels)) for label in listed])
    except (RuntimeError, TypeError, ValueError) as error:
        findings.add(
            path,
            f"{type(given).__name__} has no label for each row ({error})",
            "give one whole number, text or tuple of these for each row",
        )
        return None


def _plain(given: Any) -> Any:
    """Numbers that numpy reads, where they are a tensor's."""
    if not is_tensor(given):
        return given
    tensor = given.detach().cpu()
    # numpy has no type for some of torch's small ones; single precision holds all of theirs.
    small = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.float() if small else tensor).numpy()


def rows_of(plan: SlicePlan, index: int) -> tuple[Rows, list[int]]:
    """The rows of one slice, as a slice where that gives a view, and what its padding repeats."""
    found = slice_rows(plan, index)
    rows = found.rows.as_slice()
    return found.rows.tolist() if rows is None else rows, found.repeats.tolist()


def numbers_of_pads(plan: SlicePlan) -> dict[str, float]:
    """The number that padding holds, for the fields that do not repeat a row."""
    return {name: pad.value for name, pad in plan.pads if isinstance(pad, Constant)}


def payload_values(argument: ArgumentPlan, value: Any) -> list[Any]:
    """The values of an argument's payloads, views where they can be; nothing is sent yet.

    Raises:
        PlanError: The batch can't be cut.
    """
    if isinstance(argument.role, MicroBatches):
        sizes = argument.slices.micro_batches if argument.slices else ()
        return [list(each) for each in sizes or ((),) * len(argument.payloads)]
    if isinstance(argument.role, PerRank):
        return list(value)
    if not isinstance(argument.role, Shard):
        return [value]
    if argument.slices is None:
        return list(value)
    pads = numbers_of_pads(argument.slices)
    try:
        return [
            take(value, *rows_of(argument.slices, index), pads)
            for index in range(argument.slices.slices)
        ]
    except BatchError as error:
        path = f"{argument.name}.{error.path}" if error.path else argument.name
        found = Findings(f"argument {argument.name!r}")
        found.add(path, error.problem, error.remedy)
        raise PlanError(found.subject, found.found) from error


def ship_payloads(
    backend: Backend, argument: ArgumentPlan, values: Sequence[Any], findings: Findings
) -> list[Any]:
    """The payloads as they travel; one that can't be serialised becomes a finding."""
    carry_storages()
    cut = isinstance(argument.role, Shard)
    return [
        _shipped(backend, argument.name, payload, compact(value) if cut else value, findings)
        for payload, value in zip(argument.payloads, values, strict=True)
    ]


def _shipped(backend: Backend, name: str, payload: Payload, value: Any, findings: Findings) -> Any:
    if payload.route is not Route.OBJECT or backend.is_reference(value):
        return value
    try:
        return backend.put(value)
    except Exception as error:  # noqa: BLE001  # serialising runs code of the value's type
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or ["no reason given"])[0]
        findings.add(
            name,
            f"a value of type {type(value).__name__} can't be serialised "
            f"({type(cause).__name__}: {reason})",
            "give data that pickle can send to another process",
        )
        return None
