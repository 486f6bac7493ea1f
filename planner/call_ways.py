"""Whether a method can be called in the way that a call asks for."""

from collections.abc import Iterable, Mapping

from planner.findings import Findings
from planner.signatures import Method, check_call, nearest

__all__ = ["check_way"]


def check_way(
    method: Method,
    shares: Iterable[tuple[str, str]],
    methods: Mapping[str, Method],
    findings: Findings,
    *,
    timed: bool = False,
) -> None:
    """Check what a call asks for beside its arguments.

    Args:
        method: What is called.
        shares: Arguments that are handed on inside the group, each with the method that does it.
        methods: The methods of the worker's class.
        findings: Where everything that can't be is recorded.
        timed: Whether workers shall report when they began and ended.
    """
    if timed and method.kind.streams:
        findings.add(
            "timed",
            f"{method.name}() streams its values, and only a call with one result has times",
            "call it without timed=True, and look at a clock as the values come",
        )
    for argument, share in shares:
        _check_share(f"roles[{argument!r}].share", share, methods, findings)


def _check_share(path: str, share: str, methods: Mapping[str, Method], findings: Findings) -> None:
    found = methods.get(share)
    if found is None:
        findings.add(path, f"the workers have no method {share!r}", nearest(share, methods))
    elif found.kind.streams:
        findings.add(path, f"{share}() streams its values", "name a method that gives the slice")
    else:
        check_call(methods, "the worker's class", share, 1, (), findings)
