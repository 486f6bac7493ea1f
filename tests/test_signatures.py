"""Calls checked against the methods that a class has."""

import inspect
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.signatures import Method, Parameter, ParameterKind, check_call, nearest
from tests.strategies import fresh


def method_of(function: Callable[..., object]) -> Method:
    """A function as a method, as a host describes it."""
    return Method(
        name=function.__name__,
        parameters=tuple(
            Parameter(
                name=each.name,
                kind=ParameterKind(each.kind.description),
                required=each.default is each.empty and "variadic" not in each.kind.description,
            )
            for each in inspect.signature(function).parameters.values()
        ),
    )


def train(batch: int, /, rate: int, *more: int, steps: int, note: int = 0, **extra: int) -> None:
    """One parameter of each kind."""


def update(weights: int, version: int = 0) -> None:
    """Two parameters."""


def rewind() -> None:
    """No parameter."""


METHODS = {
    "_rewind": method_of(rewind),
    "train": method_of(train),
    "update": method_of(update),
    "_hidden": Method(name="_hidden"),
    "opaque": Method(name="opaque", parameters=None),
}


def refusal(name: object, positional: int = 0, *keywords: str) -> list[str]:
    """The findings about a call."""
    findings = fresh()
    check_call(METHODS, "package.Worker", name, positional, keywords, findings)
    return [str(finding) for finding in findings.found]


def test_calls_that_fit() -> None:
    """By position and by keyword; what Python cannot tell is let through."""
    assert refusal("train", 1, "rate", "steps") == []
    assert refusal("train", 5, "steps", "anything") == []
    assert refusal("update", 0, "weights") == []
    assert refusal("opaque", 9, "whatever") == []
    assert check_call(METHODS, "W", "update", 1, (), fresh()) == METHODS["update"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            ("updte",),
            ["method_name: package.Worker has no method 'updte'; did you mean 'update'?"],
        ),
        (
            ("zzz",),
            ["method_name: package.Worker has no method 'zzz'; use one of opaque, train, update"],
        ),
        ((7,), ["method_name: 7 is not a method's name; give a string"]),
        ((["x"],), ["method_name: ['x'] is not a method's name; give a string"]),
        (
            ("update",),
            [
                (
                    "update(weights): this argument is missing; its parameters are (weights, "
                    "version=...)"
                )
            ],
        ),
        (
            ("update", 0, "weights", "verson"),
            [
                (
                    "update(verson): update has no such parameter; did you mean 'version'? (its "
                    "parameters are (weights, version=...))"
                )
            ],
        ),
        (
            ("update", 3),
            [
                (
                    "update(): 3 positional arguments for 2 parameters; its parameters are "
                    "(weights, "
                    "version=...)"
                )
            ],
        ),
        (
            ("_rewind", 1),
            ["_rewind(): 1 positional argument for 0 parameters; its parameters are ()"],
        ),
        (
            ("update", 1, "weights"),
            ["update(weights): given by position and by keyword; give it once"],
        ),
        (
            ("train", 0, "batch", "rate"),
            [
                (
                    "train(batch): this argument is missing; its parameters are (batch, rate, "
                    "*more, "
                    "steps, note=..., **extra)"
                ),
                (
                    "train(steps): this argument is missing; its parameters are (batch, rate, "
                    "*more, "
                    "steps, note=..., **extra)"
                ),
            ],
        ),
    ],
)
def test_calls_that_do_not_fit(call: tuple[object, ...], expected: list[str]) -> None:
    """Every problem, with the nearest name or the parameters."""
    name, positional, *keywords = (*call, 0)[:2] if len(call) == 1 else call
    assert refusal(name, int(str(positional)), *map(str, keywords)) == expected


def test_the_nearest_name() -> None:
    """Else all of them, hidden ones left out."""
    assert nearest("trian", ["train", "update"]) == "did you mean 'train'?"
    assert nearest("q", []) == "use one of none: it has no methods"


@given(st.integers(0, 4), st.sets(st.sampled_from(["weights", "version", "rate", "steps", "x"])))
def test_the_check_agrees_with_python(positional: int, keywords: set[str]) -> None:
    """A call is refused exactly when Python would refuse it."""
    for function in (train, update):
        try:
            inspect.signature(function).bind(*range(positional), **dict.fromkeys(keywords, 0))
            fits = True
        except TypeError:
            fits = False
        assert (refusal(function.__name__, positional, *sorted(keywords)) == []) == fits


def test_findings_carry_the_subject() -> None:
    """The error names what was called."""
    findings = fresh()
    check_call(METHODS, "package.Worker", "updte", 0, (), findings)
    with pytest.raises(PlanError, match=r"^this test: method_name: package\.Worker has no method"):
        findings.check()
