"""Arguments bound to a method's parameters, before anything is sent."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import frozen

from planner.findings import Findings
from planner.roles import Role, Shard
from planner.signatures import Method, ParameterKind, check_call, nearest

__all__ = ["Bound", "bind", "check_row_facts", "check_roles_named"]


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


def check_roles_named(
    method: Method, roles: Iterable[str], given: Collection[str], path: str, findings: Findings
) -> None:
    """Record each role for an argument that the method can't take.

    Args:
        method: The method.
        roles: The arguments that have a role.
        given: What the call gives, under names that need not be parameters, such as ``*1``.
        path: Where the roles come from, with ``{}`` for the argument.
        findings: Where they are recorded.
    """
    parameters = method.parameters
    if parameters is None or any(each.kind is ParameterKind.VAR_KEYWORD for each in parameters):
        return
    names = [each.name for each in parameters if each.kind is not ParameterKind.VAR_POSITIONAL]
    for name in roles:
        if name not in names and name not in given:
            remedy = nearest(name, names) if names else "it takes no arguments"
            findings.add(path.format(name), f"{method.name} has no such parameter", remedy)


def check_row_facts(
    what: str,
    arguments: Iterable[str],
    roles: Mapping[str, Role],
    given: Collection[str],
    findings: Findings,
) -> None:
    """Record weights or labels that were given for an argument whose rows they can't be.

    Args:
        what: ``weights`` or ``groups``.
        arguments: The arguments that they were given for.
        roles: The roles of the call's arguments.
        given: What the call gives.
        findings: Where they are recorded.
    """
    for name in arguments:
        path, role = f"{what}[{name!r}]", roles.get(name)
        if name not in given:
            remedy = nearest(name, given) if given else "it gives none"
            findings.add(path, "the call has no such argument", remedy)
        elif not isinstance(role, Shard):
            findings.add(path, f"{name!r} is not cut", "give it the role Shard, or leave them out")
        elif role.like:
            findings.add(path, f"its rows go with {role.like!r}", f"give {what} for {role.like!r}")
