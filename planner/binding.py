"""Arguments bound to a method's parameters, before anything is sent."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from planner.findings import Findings
from planner.signatures import Method, ParameterKind, check_call

__all__ = ["Bound", "bind"]


@frozen(kw_only=True)
class Bound:
    """A method and the names under which its arguments go.

    Attributes:
        method: The method.
        names: The name of every argument, those given by position first; one that no parameter
            names, as in ``*args``, is called by its place, such as ``*1``.
        by_position: How many must be sent by position: all that were given so, or none.
    """

    method: Method
    names: tuple[str, ...]
    by_position: int = 0


def bind(
    methods: Mapping[str, Method],
    worker_class: str,
    method_name: object,
    positional: int,
    keywords: Sequence[str],
    findings: Findings,
) -> Bound:
    """Bind the shape of a call.

    Raises:
        PlanError: There is no such method, or its parameters do not take the arguments.
    """
    method = check_call(methods, worker_class, method_name, positional, keywords, findings)
    findings.check()
    if method is None:
        findings.fail("method_name", f"{method_name!r} is unknown", "give a method's name")
    takes = [
        each
        for each in method.parameters or ()
        if each.kind in {ParameterKind.POSITIONAL_ONLY, ParameterKind.POSITIONAL_OR_KEYWORD}
    ]
    used = takes[:positional]
    names = [each.name for each in used] + [f"*{place}" for place in range(len(used), positional)]
    needs = len(used) < positional or any(
        each.kind is ParameterKind.POSITIONAL_ONLY for each in used
    )
    return Bound(method=method, names=(*names, *keywords), by_position=positional if needs else 0)
