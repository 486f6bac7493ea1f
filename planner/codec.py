"""Plans as text, to be kept, compared and read back with exact types.

A plan file is an envelope around the plan: its format, the format's version, and a digest of all
of it. Minor versions only add fields: what a newer minor version adds is ignored, another major
version is refused. Nothing in a file names code, and nothing of it is run.
"""

from collections.abc import Callable
from difflib import get_close_matches
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import TypeVar, Union, get_args, get_origin, overload

import attrs
from cattrs import Converter
from cattrs.errors import (
    BaseValidationError,
    CattrsError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from planner.difference import PlanDifference
from planner.dispatch import DispatchPlan
from planner.exact_values import (
    EXACT_VALUES,
    NotPlanValueError,
    Reader,
    Writer,
    WrongValueError,
    number_hooks,
    read_enum,
    shown,
    write_enum,
)
from planner.findings import Findings, PlanError
from planner.group import GroupSpec
from planner.launch import LaunchPlan
from planner.launch_checks import check_group, check_launch
from planner.plan_checks import check_dispatch, check_reservation, check_resharding, check_slices
from planner.plan_envelope import PlanFormat, envelope_of, open_envelope
from planner.plan_text import canonical_text, parse_text
from planner.preflight import PreflightReport
from planner.reservation import ReservationPlan
from planner.resharding import ReshardPlan
from planner.slicing import SlicePlan

__all__ = ["PLAN_FORMATS", "plan_from_json", "plan_to_json"]

T = TypeVar("T")

# Tells the members of a union apart. No field can have the name of a keyword.
_TAG = "class"
_WRONG = (WrongValueError, CattrsError, KeyError, PlanError)


def _format(
    plan: type[T], check: Callable[[T, Findings], None] | None = None, *, version: str = "1.0"
) -> PlanFormat:
    def checked(value: object, findings: Findings) -> None:
        if check is not None and isinstance(value, plan):
            check(value, findings)

    major, _, minor = version.partition(".")
    return PlanFormat(plan=plan, major=int(major), minor=int(minor), check=checked)


PLAN_FORMATS: tuple[PlanFormat, ...] = (
    _format(LaunchPlan, check_launch, version="1.1"),
    _format(DispatchPlan, check_dispatch),
    _format(GroupSpec, check_group, version="1.1"),
    _format(ReservationPlan, check_reservation, version="1.1"),
    _format(SlicePlan, check_slices),
    _format(ReshardPlan, check_resharding),
    _format(PlanDifference),
    _format(PreflightReport),
)
"""Every type of plan that can be kept as a file. A further type is one more row."""


def plan_to_json(plan: object) -> str:
    """A plan as the text of a plan file: the same bytes for the same plan on every machine.

    Values that the plan keeps secret stay out: they are ``null``.

    Raises:
        TypeError: It is not a plan, or something in it is not a plan value: a live object, a list
            where the plan has a tuple, a number of another type.
    """
    form = next((each for each in PLAN_FORMATS if type(plan) is each.plan), None)
    if form is None:
        known = ", ".join(each.plan.__name__ for each in PLAN_FORMATS)
        raise TypeError(f"a value of type {type(plan).__name__} is no plan; plans are {known}")
    try:
        data: object = _writing().unstructure(plan, form.plan)
    except NotPlanValueError as error:
        raise error.within("plan") from None
    return canonical_text(envelope_of(form, data))


@overload
def plan_from_json(text: str) -> object: ...
@overload
def plan_from_json(text: str, kind: type[T]) -> T: ...
def plan_from_json(text: str, kind: type | None = None) -> object:
    """The plan in the text of a plan file.

    Args:
        text: What ``plan_to_json`` gave.
        kind: The type of plan that it must hold; without it, any.

    Raises:
        PlanError: The text is no plan file, holds another type of plan, is of a version that is
            not understood, was changed after it was written, or contradicts itself. Everything
            that is wrong is in the error, each with its path.
    """
    findings = Findings("plan file")
    try:
        return _read(text, kind, findings)
    except RecursionError:
        findings.fail("text", "it is nested too deeply", "take the file as it was written")


def _read(text: str, kind: type | None, findings: Findings) -> object:
    data = parse_text(text, findings)
    form, newer, plain = open_envelope(data, PLAN_FORMATS, kind, findings)
    try:
        plan: object = _reading(detailed=False, newer=newer).structure(plain, form.plan)
    except _WRONG:
        _explain(plain, form, findings, newer=newer)
        raise
    form.check(plan, findings)
    findings.check()
    return plan


def _explain(plain: object, form: PlanFormat, findings: Findings, *, newer: bool) -> None:
    """Read again, slowly, and raise everything that is wrong, each with its path."""
    try:
        _reading(detailed=True, newer=newer).structure(plain, form.plan)
    except _WRONG as error:
        _collect("plan", error, findings)
        findings.check()


def _collect(path: str, error: BaseException, findings: Findings) -> None:
    match error:
        case ClassValidationError():
            noted, others = error.group_exceptions()
            for each, note in noted:
                _collect(f"{path}.{note.name}", each, findings)
            for each in others:
                _collect(path, each, findings)
        case IterableValidationError():
            for each, place in error.group_exceptions()[0]:
                _collect(f"{path}[{place.index}]", each, findings)
        case ForbiddenExtraKeysError():
            names = [each.name for each in attrs.fields(error.cl)]
            for name in sorted(error.extra_fields):
                near = get_close_matches(name, names, n=1) or names
                remedy = f"the plan has {', '.join(near)}" if near else "the plan has no field here"
                findings.add(f"{path}.{name}", "there is no such field", remedy)
        case PlanError():
            findings.include(error, path)
        case WrongValueError():
            findings.add(f"{path}{error.place}", error.problem, error.remedy)
        case _:
            findings.add(path, "it is missing", "take the file as it was written, or plan again")


@cache
def _writing() -> Converter:
    made = Converter()
    for kind, (_, write) in EXACT_VALUES:
        made.register_unstructure_hook(kind, write)
    made.register_unstructure_hook_factory(_is_enum, write_enum)
    made.register_unstructure_hook_factory(_is_tuple, _tuple_writer)
    made.register_unstructure_hook_factory(_is_union, _union_writer)
    made.register_unstructure_hook_factory(_is_own_class, _class_writer)
    return made


@cache
def _reading(*, detailed: bool, newer: bool) -> Converter:
    made = Converter(detailed_validation=detailed, forbid_extra_keys=not newer)
    for kind, (read, _) in EXACT_VALUES:
        made.register_structure_hook(kind, read)
    made.register_structure_hook_factory(_is_enum, read_enum)
    made.register_structure_hook_factory(_is_tuple, _tuple_reader)
    made.register_structure_hook_factory(_is_union, _union_reader)
    made.register_structure_hook_factory(_is_own_class, _class_reader)
    return made


_OF_THEIR_OWN = frozenset(kind for kind, _ in EXACT_VALUES)


def _is_own_class(kind: object) -> bool:
    return isinstance(kind, type) and attrs.has(kind) and kind not in _OF_THEIR_OWN


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _is_tuple(kind: object) -> bool:
    return get_origin(kind) is tuple


def _is_union(kind: object) -> bool:
    return get_origin(kind) in {Union, UnionType}


def _members(kind: object) -> tuple[tuple[type, ...], bool]:
    """The members of a union without None, and whether None is one."""
    members = get_args(kind)
    return tuple(each for each in members if each is not NoneType), NoneType in members


def _is_number(members: tuple[type, ...]) -> bool:
    return set(members) == {int, float}


def _class_writer(kind: type[attrs.AttrsInstance], converter: Converter) -> Writer:
    write_fields = make_dict_unstructure_fn(kind, converter)
    fields = attrs.fields(attrs.resolve_types(kind))

    def write(value: object) -> object:
        if type(value) is not kind:
            raise NotPlanValueError(f"a value of type {type(value).__name__}, not {kind.__name__}")
        try:
            return write_fields(value)
        except NotPlanValueError as error:
            for each in fields:
                _point(converter, getattr(value, each.name), each.type, f".{each.name}")
            raise error from None

    return write


def _point(converter: Converter, value: object, kind: object, place: str) -> None:
    """Raise what is wrong with a part, with its place."""
    try:
        converter.unstructure(value, kind)
    except NotPlanValueError as error:
        raise error.within(place) from None


def _class_reader(kind: type[attrs.AttrsInstance], converter: Converter) -> Reader:
    read_fields = make_dict_structure_fn(kind, converter)

    def read(value: object, _: object) -> object:
        if type(value) is not dict:
            raise WrongValueError(f"{shown(value)} is not an object", "give an object")
        return read_fields(value, kind)

    return read


def _tuple_writer(kind: object, converter: Converter) -> Writer:
    entries = get_args(kind)
    alike = len(entries) == 2 and entries[1] is Ellipsis
    kinds = entries[:1] if alike else entries
    writers = [converter.get_unstructure_hook(each) for each in kinds]
    plain = _plain_entries(kinds, alike=alike)

    def write(value: object) -> object:
        if type(value) is not tuple or (not alike and len(value) != len(kinds)):
            raise NotPlanValueError(f"a value of type {type(value).__name__}, not {kind}")
        if plain and plain.issuperset(map(type, value)):
            return list(value)
        each_with = writers * len(value) if alike else writers
        try:
            return [hook(each) for hook, each in zip(each_with, value, strict=True)]
        except NotPlanValueError:
            each_kind = kinds * len(value) if alike else kinds
            for index, (each, own) in enumerate(zip(value, each_kind, strict=True)):
                _point(converter, each, own, f"[{index}]")
            raise

    return write


def _plain_entries(kinds: tuple[object, ...], *, alike: bool) -> frozenset[object]:
    """The type of the entries, where it alone says that they can stay as they are."""
    return frozenset(kinds) if alike and kinds[0] in {int, str} else frozenset()


def _tuple_reader(kind: object, converter: Converter) -> Reader:
    entries = get_args(kind)
    alike = len(entries) == 2 and entries[1] is Ellipsis
    kinds = entries[:1] if alike else entries
    readers = [converter.get_structure_hook(each) for each in kinds]
    plain = _plain_entries(kinds, alike=alike)

    def read(value: object, _: object) -> object:
        if type(value) is not list:
            raise WrongValueError(f"{shown(value)} is not a list", "give a list")
        if plain and plain.issuperset(map(type, value)):
            return tuple(value)
        if not alike and len(value) != len(kinds):
            raise WrongValueError(f"{len(value)} entries for {len(kinds)}", f"give {len(kinds)}")
        each_with = readers * len(value) if alike else readers
        if not converter.detailed_validation:
            return tuple([hook(each, kind) for hook, each in zip(each_with, value, strict=True)])
        return _each(value, each_with, kind)

    return read


def _each(values: list[object], readers: list[Reader], kind: object) -> tuple[object, ...]:
    made: list[object] = []
    wrong: list[Exception] = []
    for index, (read, value) in enumerate(zip(readers, values, strict=True)):
        try:
            made.append(read(value, kind))
        except (WrongValueError, BaseValidationError, PlanError) as error:
            error.add_note(IterableValidationNote(f"entry {index}", index, kind))
            wrong.append(error)
    if wrong:
        raise IterableValidationError("entries", wrong, tuple)
    return tuple(made)


def _union_writer(kind: object, converter: Converter) -> Writer:
    members, optional = _members(kind)
    hooks = {get_origin(each) or each: converter.get_unstructure_hook(each) for each in members}
    if _is_number(members):
        hooks = dict.fromkeys(members, number_hooks(whole_too=True)[1])
    tagged = len(members) > 1 and not _is_number(members)

    def write(value: object) -> object:
        if value is None and optional:
            return None
        own = type(value)
        if own not in hooks:
            names = " or ".join(each.__name__ for each in members)
            raise NotPlanValueError(f"a value of type {own.__name__}, not {names}")
        return {_TAG: own.__name__, **hooks[own](value)} if tagged else hooks[own](value)

    return write


def _union_reader(kind: object, converter: Converter) -> Reader:
    members, optional = _members(kind)
    if len(members) == 1 or _is_number(members):
        only = converter.get_structure_hook(members[0])
        if _is_number(members):
            only = number_hooks(whole_too=True)[0]
        return lambda value, _: None if value is None and optional else only(value, members[0])
    hooks = {each.__name__: converter.get_structure_hook(each) for each in members}
    wanted = ", ".join(hooks)

    def read(value: object, _: object) -> object:
        if value is None and optional:
            return None
        if type(value) is not dict:
            raise WrongValueError(f"{shown(value)} is not an object", f"give one of {wanted}")
        name = value.get(_TAG)
        if type(name) is not str or name not in hooks:
            problem = f"{shown(name)} is none of the kinds"
            raise WrongValueError(problem, f"give one of {wanted}", f".{_TAG}")
        return hooks[name]({key: each for key, each in value.items() if key != _TAG}, kind)

    return read
