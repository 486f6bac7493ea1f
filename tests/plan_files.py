"""Plan files to be changed by tests, and what reading them says."""

import json

import pytest
from attrs import AttrsInstance

from planner.codec import plan_from_json, plan_to_json
from planner.findings import Finding, PlanError
from planner.plan_text import digest_of
from tests.plan_cases import DISPATCHES, GROUPS, LAUNCHES, RESERVATIONS, SLICINGS, resharding

__all__ = ["PLANS", "Steps", "changed", "opened", "paths", "problems", "put", "sealed"]

PLANS: dict[str, AttrsInstance] = {
    "launch": LAUNCHES["permuted_layout"](),
    "tied": LAUNCHES["tied_over_two_nodes"](),
    "environment": LAUNCHES["environment"](),
    "dispatch": DISPATCHES["sharded_dummy"](),
    "group": GROUPS["environment"](),
    "reservation": RESERVATIONS["too_large"](),
    "slices": SLICINGS["packed"](),
    "resharding": resharding(),
}
Steps = tuple[str | int, ...]


def opened(name: str) -> dict[str, object]:
    """The envelope of one of the plans, to be changed."""
    envelope: dict[str, object] = json.loads(plan_to_json(PLANS[name]))
    return envelope


def put(data: object, steps: Steps, value: object) -> None:
    """Replace what is at the end of some steps."""
    for step in steps[:-1]:
        data = data[step]  # type: ignore[index]
    data[steps[-1]] = value  # type: ignore[index]


def sealed(envelope: dict[str, object]) -> str:
    """The text of a changed envelope, with a digest that matches."""
    rest = {key: value for key, value in envelope.items() if key != "digest"}
    return json.dumps({**rest, "digest": digest_of(rest)})


def changed(name: str, *changes: tuple[Steps, object]) -> str:
    """A plan file in which some values are others, with a digest that matches."""
    envelope = opened(name)
    for steps, value in changes:
        put(envelope, ("plan", *steps), value)
    return sealed(envelope)


def problems(text: str, kind: type | None = None) -> tuple[Finding, ...]:
    """What is wrong with a file."""
    with pytest.raises(PlanError) as raised:
        plan_from_json(text) if kind is None else plan_from_json(text, kind)
    return raised.value.findings


def paths(text: str) -> list[str]:
    """Where something is wrong with a file."""
    return [each.path for each in problems(text)]
