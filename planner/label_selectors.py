"""Choosing nodes by their labels, in the words Ray uses.

An expression is ``v`` (the label is v), ``!v`` (it is not), ``in(a, b)`` or ``!in(a, b)``. A
node without the label matches the two negative forms.
"""

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

__all__ = ["LabelRule", "matches", "parse_rule"]

_RULE = re.compile(r"(!?)(?:in\(([^()]*)\)|([^!(),\s]+))")


@frozen
class LabelRule:
    """Which values of a label are wanted, or not wanted."""

    label: str
    values: tuple[str, ...]
    wanted: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels obey the rule."""
        return (labels.get(self.label) in self.values) is self.wanted


def parse_rule(label: str, expression: str) -> LabelRule | None:
    """The rule that an expression says; None when it says none."""
    match = _RULE.fullmatch(expression.strip())
    if match is None or not label:
        return None
    negation, several, one = match.groups()
    values = (one,) if several is None else tuple(part.strip() for part in several.split(","))
    return LabelRule(label, values, not negation) if all(values) else None


def matches(rules: Iterable[LabelRule], labels: Iterable[tuple[str, str]]) -> bool:
    """Whether labels obey every rule."""
    given = dict(labels)
    return all(rule.holds(given) for rule in rules)
