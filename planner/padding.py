"""What padding may hold: the rules of a batch's fields, checked against the fields."""

from collections.abc import Mapping, Sequence
from math import isinf, isnan

from attrs import frozen

from planner.findings import Findings
from planner.signatures import nearest
from planner.slice_policies import Constant, Pad, RepeatLastRow

__all__ = ["FieldFacts", "check_pads", "check_pads_fit"]


@frozen(kw_only=True)
class FieldFacts:
    """A field of a batch, as far as its padding must know it.

    Attributes:
        name: Its name, after those of the mappings around it, with dots; empty for a batch that
            has no fields.
        kind: What its rows hold, such as ``uint8`` or ``str``.
        takes_numbers: Whether a number can stand in its rows.
        whole: Whether only whole numbers can.
        least: The least of them; None without a limit.
        most: The largest of them; None without a limit.
    """

    name: str
    kind: str
    takes_numbers: bool = True
    whole: bool = False
    least: float | None = None
    most: float | None = None


def check_pads(pads: Mapping[str, Pad], findings: Findings) -> None:
    """Record the rules that are none, whatever the batch."""
    rules: Mapping[str, object] = pads
    for name, pad in rules.items():
        path, given = f"pads[{name!r}]", _number_of(pad)
        if not isinstance(pad, Constant | RepeatLastRow):
            meant = f"Constant({pad!r})" if isinstance(pad, int | float) else "Constant(...)"
            findings.add(path, f"{pad!r} is not a rule", f"give {meant} or RepeatLastRow()")
        elif isinstance(pad, Constant) and given is None:
            findings.add(path, f"{pad.value!r} is not a number", "give a number")
        elif given is not None and isnan(given):
            findings.add(path, "NaN is not equal to itself, and plans compare", "give a number")


def check_pads_fit(
    pads: Mapping[str, Pad], fields: Sequence[FieldFacts], argument: str, findings: Findings
) -> None:
    """Record the rules that name no field of the batch, and numbers that a field can't hold."""
    known = {each.name: each for each in fields}
    for name, pad in pads.items():
        path, number = f"{argument}.pads[{name!r}]", _number_of(pad)
        field = known.get(name)
        if field is None:
            bare = set(known) == {""}
            findings.add(
                path,
                "the batch has no fields" if bare else "the batch has no such field with rows",
                "name it '', the batch itself" if bare else _nearest_field(name, known),
            )
        elif number is not None and not _holds(field, number):
            findings.add(path, f"{field.kind} does not hold {number}", _limits(field))


def _number_of(pad: object) -> float | None:
    """The number that padding holds; None where it holds none."""
    value: object = pad.value if isinstance(pad, Constant) else None
    return value if isinstance(value, int | float) else None


def _nearest_field(name: str, known: Mapping[str, FieldFacts]) -> str:
    return nearest(name, known) if known else "give a batch with rows, or no pads"


def _holds(field: FieldFacts, number: float) -> bool:
    if not field.takes_numbers:
        return False
    if field.whole and number != number // 1:
        return False
    if isinf(number):
        return not field.whole
    least, most = field.least, field.most
    return (least is None or number >= least) and (most is None or number <= most)


def _limits(field: FieldFacts) -> str:
    if not field.takes_numbers:
        return "use RepeatLastRow(), or leave it out"
    kind = "a whole number" if field.whole else "a number"
    if field.least is None or field.most is None:
        return f"give {kind}"
    return f"give {kind} from {field.least} to {field.most}"
