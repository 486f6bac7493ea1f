"""Every type of batch under every policy: scattered and gathered, it is what it was."""

import numpy as np
import pytest
from ray import cloudpickle

from planner.mesh import NamedSharding
from planner.roles import Concatenate, Shard
from planner.slice_policies import (
    Balanced,
    DropRemainder,
    Even,
    Interleaved,
    Packed,
    Padded,
    Policy,
    RowCounts,
    Uneven,
)
from runtime.batch_bytes import compact, pack
from runtime.call_results import combine
from tests.batch_cases import MAKERS, same
from tests.call_cases import AXES, kept_rows, planned, received

POLICIES: tuple[Policy, ...] = (
    Even(),
    Uneven(),
    Padded(),
    Padded(2),
    DropRemainder(),
    DropRemainder(2),
    Interleaved(),
    Balanced(),
    Balanced(RowCounts.WITHIN_ONE),
    Balanced(RowCounts.EQUAL),
    Packed(budget=20),
    Packed(budget=20, equal_counts=False),
)
QUICK = ("tuple", "named tuple", "own type", "ragged arrays")
SLOW = ("mapping", "jagged tensor", "tensordict")
"""Types whose operations take milliseconds; the numbers of rows that matter are enough."""


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("dp", range(1, 9))
def test_scatter_then_gather_is_the_identity(dp: int, policy: Policy) -> None:
    """Whatever the number of replicas and of rows, an empty batch and empty slices too."""
    mesh = NamedSharding(np.arange(dp * 2).reshape(dp, 2), AXES)
    role = Shard("data_parallel", policy)
    divides = isinstance(policy, Even) or policy == Balanced(RowCounts.EQUAL)
    for rows in range(0, 3 * dp + 2, dp if divides else 1):
        kinds = QUICK + (SLOW if rows in {0, dp + 1} else ())
        batch = {kind: MAKERS[kind](rows) for kind in kinds}
        weighted = isinstance(policy, Balanced | Packed)
        weights = [row % 7 + 1 for row in range(rows)] if weighted else None
        plan = planned(mesh, {"batch": batch}, {"batch": role}, Concatenate(), weights=weights)

        got = received(plan, {"batch": batch})
        slices = [got[rank]["batch"] for rank in plan.returns]
        back = combine(plan, slices)

        kept = kept_rows(batch, plan)
        assert [kind for kind in kinds if not same(back[kind], kept[kind])] == []
        assert plan.returns == tuple(range(0, dp * 2, 2))
        assert all(got[rank]["batch"] is got[rank + 1]["batch"] for rank in plan.returns)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_batch_of_one_type_goes_over_the_wire(kind: str, rows: int) -> None:
    """As the whole argument, not as a field, in the form in which slices are sent."""
    mesh = NamedSharding(range(3), ["data_parallel"])
    batch = MAKERS[kind](rows)
    role = Shard("data_parallel", Interleaved())
    plan = planned(mesh, {"batch": batch}, {"batch": role}, Concatenate())

    got = received(plan, {"batch": batch})
    sent = [cloudpickle.loads(cloudpickle.dumps(pack(compact(got[r]["batch"])))) for r in range(3)]

    assert {type(each) for each in sent} == {type(batch)}
    assert same(combine(plan, sent), batch)
