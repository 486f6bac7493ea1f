"""The decorator with which a worker's class says what its methods' arguments are.

It sets one attribute, a text, and hands the method back unchanged: a class used without Ray pays
nothing. An interpreter without rankplan can set the attribute itself, see ``declaration_text``.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from planner.roles import Declaration, Result, Role, declaration_text

__all__ = ["dispatch"]

_Method = TypeVar("_Method")


def dispatch(
    *,
    returns: Result | None = None,
    free: str | Sequence[str] = (),
    dummy_calls: bool = False,
    **roles: Role,
) -> Callable[[_Method], _Method]:
    """Declare the roles of a method's arguments and how its results combine.

    Args:
        returns: How the results combine.
        free: Axes along which only coordinate 0 is called.
        dummy_calls: Whether the others along free axes get dummy calls.
        roles: A role per argument; one without a role is ``Common``.
    """
    declared = Declaration(
        arguments=tuple(sorted(roles.items(), key=lambda named: named[0])),
        returns=returns,
        free=free,
        dummy_calls=dummy_calls,
    )
    text = declaration_text(declared)

    def mark(method: _Method) -> _Method:
        setattr(method, "__rankplan_dispatch__", text)  # noqa: B010  # any callable takes it
        return method

    return mark
