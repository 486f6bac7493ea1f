"""Plans kept as files; ``--update-golden`` writes them anew: read what changed, then keep it."""

from collections.abc import Callable

import pytest

from planner.codec import plan_from_json, plan_to_json
from tests.conftest import Golden
from tests.plan_cases import (
    DISPATCHES,
    GROUPS,
    LAUNCHES,
    RESERVATIONS,
    SLICINGS,
    resharding,
)

CASES: dict[str, Callable[[], object]] = {
    f"{folder}/{name}": make
    for folder, cases in (
        ("launch", LAUNCHES),
        ("group", GROUPS),
        ("dispatch", DISPATCHES),
        ("reservation", RESERVATIONS),
        ("slices", SLICINGS),
        ("resharding", {"balanced_to_even": resharding}),
    )
    for name, make in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_plan_is_the_kept_one(name: str, golden: Golden) -> None:
    """The plan of each case is, to the byte, the one that was read and found right."""
    plan = CASES[name]()
    text = plan_to_json(plan)
    golden(name, text)
    assert plan_from_json(text) == plan
