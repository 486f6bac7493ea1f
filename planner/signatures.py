"""The methods of a worker's class as data, and calls checked against them before they are sent."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from enum import Enum

from attrs import frozen

from planner.findings import Findings

__all__ = ["Method", "MethodKind", "Parameter", "ParameterKind", "check_call", "nearest"]


class MethodKind(Enum):
    """How a method gives its result."""

    PLAIN = "plain"
    ASYNC = "async"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def streams(self) -> bool:
        """Whether the method gives a stream of values."""
        return self in {MethodKind.GENERATOR, MethodKind.ASYNC_GENERATOR}


class ParameterKind(Enum):
    """How a parameter takes its argument; named as in ``inspect``."""

    POSITIONAL_ONLY = "positional-only"
    POSITIONAL_OR_KEYWORD = "positional or keyword"
    VAR_POSITIONAL = "variadic positional"
    KEYWORD_ONLY = "keyword-only"
    VAR_KEYWORD = "variadic keyword"


@frozen(kw_only=True)
class Parameter:
    """One parameter of a method, ``self`` left out."""

    name: str
    kind: ParameterKind
    required: bool


@frozen(kw_only=True)
class Method:
    """A method of a worker's class, as its host reported it.

    Attributes:
        name: Its name.
        kind: How it gives its result.
        parameters: What it takes; None when Python can't tell.
        returns: How many objects one call returns (Ray's ``num_returns``).
        options: What ``ray.method`` says beside that, as sorted pairs.
        declared: The roles that its class declares, as JSON text; see planner/roles.py.
    """

    name: str
    kind: MethodKind = MethodKind.PLAIN
    parameters: tuple[Parameter, ...] | None = None
    returns: int = 1
    options: tuple[tuple[str, str], ...] = ()
    declared: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether one call gives one object, with no options of its own."""
        return not self.kind.streams and self.returns == 1 and not self.options


_POSITIONAL = frozenset({ParameterKind.POSITIONAL_ONLY, ParameterKind.POSITIONAL_OR_KEYWORD})
_BY_KEYWORD = frozenset({ParameterKind.KEYWORD_ONLY, ParameterKind.POSITIONAL_OR_KEYWORD})


def nearest(name: str, known: Collection[str]) -> str:
    """A remedy for an unknown name: the nearest known one, else all of them."""
    close = get_close_matches(name, sorted(known), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = sorted(each for each in known if not each.startswith("_"))
    return f"use one of {', '.join(shown) or 'none: it has no methods'}"


def check_call(
    methods: Mapping[str, Method],
    worker_class: str,
    method_name: object,
    positional: int,
    keywords: Collection[str],
    findings: Findings,
) -> Method | None:
    """Check a call by its shape: the method exists and its parameters take the arguments.

    Args:
        methods: The class's methods by name.
        worker_class: The class's name, for messages.
        method_name: The method to call.
        positional: How many positional arguments there are.
        keywords: The names of the keyword arguments.
        findings: Where everything that does not fit is recorded.

    Returns:
        The method; None when there is none of that name.
    """
    if not isinstance(method_name, str):
        findings.add("method_name", f"{method_name!r} is not a method's name", "give a string")
        return None
    method = methods.get(method_name)
    if method is None:
        findings.add(
            "method_name",
            f"{worker_class} has no method {method_name!r}",
            nearest(method_name, methods),
        )
        return None
    if method.parameters is not None:
        _check_arguments(method_name, method.parameters, positional, keywords, findings)
    return method


def _check_arguments(
    method: str,
    parameters: tuple[Parameter, ...],
    positional: int,
    keywords: Collection[str],
    findings: Findings,
) -> None:
    kinds = {parameter.kind for parameter in parameters}
    takes = [p for p in parameters if p.kind in _POSITIONAL]
    if positional > len(takes) and ParameterKind.VAR_POSITIONAL not in kinds:
        findings.add(
            f"{method}()",
            f"{_count(positional, 'positional argument')} for {_count(len(takes), 'parameter')}",
            f"its parameters are ({_shown(parameters)})",
        )
    filled = {parameter.name for parameter in takes[:positional]}
    for parameter in parameters:
        by_position = parameter.name in filled
        by_keyword = parameter.kind in _BY_KEYWORD and parameter.name in keywords
        if by_position and by_keyword:
            findings.add(
                f"{method}({parameter.name})",
                "given by position and by keyword",
                "give it once",
            )
        elif parameter.required and not by_position and not by_keyword:
            findings.add(
                f"{method}({parameter.name})",
                "this argument is missing",
                f"its parameters are ({_shown(parameters)})",
            )
    if ParameterKind.VAR_KEYWORD not in kinds:
        known = [p.name for p in parameters if p.kind in _BY_KEYWORD]
        for keyword in keywords:
            if keyword not in known:
                findings.add(
                    f"{method}({keyword})",
                    f"{method} has no such parameter",
                    f"{nearest(keyword, known)} (its parameters are ({_shown(parameters)}))"
                    if known
                    else "it takes no keyword arguments",
                )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _shown(parameters: tuple[Parameter, ...]) -> str:
    marks = {ParameterKind.VAR_POSITIONAL: "*", ParameterKind.VAR_KEYWORD: "**"}
    return ", ".join(
        f"{marks.get(each.kind, '')}{each.name}"
        + ("" if each.required or each.kind in marks else "=...")
        for each in parameters
    )
