"""What padding may hold: rules without a use or a meaning are refused before anything is sent."""

from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from planner.findings import PlanError
from planner.mesh import NamedSharding
from planner.roles import Role, Shard
from planner.slice_policies import Constant, Packed, Pad, Padded, RepeatLastRow
from runtime.batches import BatchError, Whole, assemble
from tests.batch_cases import Own
from tests.call_cases import planned, received

MESH = NamedSharding([0, 1], ["data_parallel"])


def padded(batch: Any, pads: Any) -> Any:
    """The second of two slices of a batch of three rows, which ends with padding."""
    roles = {"b": Shard("data_parallel", Padded(), pads=pads)}
    plan = planned(MESH, {"b": batch}, roles)
    return received(plan, {"b": batch})[1]["b"]


@pytest.mark.parametrize(
    ("batch", "pads", "told"),
    [
        ({"mask": np.ones(3)}, {"maks": Constant(0)}, r"b\.pads\['maks'\].*did you mean 'mask'"),
        ({"a": {"mask": [1, 1, 1]}}, {"mask": Constant(0)}, "did you mean 'a.mask'"),
        ({"x": [1, 2, 3], "t": 0.7}, {"t": Constant(0)}, "no such field with rows; use one of x"),
        ({"x": [1, 2, 3], "t": Whole([1])}, {"t": Constant(0)}, "no such field with rows"),
        (np.arange(3), {"ids": Constant(0)}, "the batch has no fields; name it ''"),
        ({"x": [1, 2, 3]}, {"": Constant(0)}, "no such field with rows"),
        (np.arange(3, dtype=np.uint8), {"": Constant(-1)}, "uint8 does not hold -1; .* 0 to 255"),
        (np.arange(3), {"": Constant(0.5)}, "int64 does not hold 0.5; give a whole number"),
        (np.arange(3), {"": Constant(float("inf"))}, "int64 does not hold inf"),
        (torch.zeros(3, dtype=torch.int8), {"": Constant(128)}, "int8 does not hold 128"),
        (torch.zeros(3, dtype=torch.float16), {"": Constant(1e6)}, "float16 does not hold"),
        (torch.ones(3, dtype=torch.bool), {"": Constant(2)}, "bool does not hold 2"),
        (["a", "b", "c"], {"": Constant(0)}, "str does not hold 0; use RepeatLastRow"),
        (np.array(["a", "b", "c"]), {"": Constant(0)}, "does not hold 0"),
        ([np.zeros(1, dtype=np.uint8)] * 3, {"": Constant(-1)}, "uint8 does not hold -1"),
        (Own("abc"), {"": Constant(0)}, "Own does not hold 0"),
        (
            TensorDict({"ids": torch.arange(3)}, batch_size=[3]),
            {"id": Constant(0)},
            "did you mean 'ids'",
        ),
        ({"x": [1, 2, 3]}, {"x": -1}, r"b\.pads\['x'\]: -1 is not a rule; give Constant\(-1\)"),
        ({"x": [1, 2, 3]}, {"x": Constant("a")}, "'a' is not a number"),  # type: ignore[arg-type]
    ],
)
def test_a_rule_that_can_not_hold_is_refused(batch: Any, pads: Any, told: str) -> None:
    """By the field's name, and with what would work."""
    with pytest.raises(PlanError, match=told):
        padded(batch, pads)


@pytest.mark.parametrize(
    ("batch", "pad", "last"),
    [
        (torch.zeros(3), Constant(float("-inf")), float("-inf")),
        (np.arange(3, dtype=np.uint8), Constant(255), 255),
        (torch.ones(3, dtype=torch.bool), Constant(False), False),
        (["a", "b", "c"], RepeatLastRow(), "c"),
        (np.arange(3), Constant(np.int64(-1)), -1),  # type: ignore[arg-type]
        ([1, None, 3], Constant(-1), -1),
    ],
)
def test_a_rule_that_can_hold_does(batch: Any, pad: Pad, last: Any) -> None:
    """The last row of the last slice is padding."""
    assert padded(batch, {"": pad})[-1] == last


def test_fields_of_a_tensordict_are_padded_by_name() -> None:
    """Inner ones too."""
    inner = TensorDict({"mask": torch.ones(3)}, batch_size=[3])
    batch = TensorDict({"ids": torch.arange(3), "inner": inner}, batch_size=[3])

    last = padded(batch, {"ids": Constant(-1), "inner.mask": Constant(0)})

    assert last["ids"].tolist() == [2, -1]
    assert last["inner", "mask"].tolist() == [1.0, 0.0]
    assert batch["ids"].tolist() == [0, 1, 2]


def test_rows_that_go_with_another_argument_have_rules_of_their_own() -> None:
    """They are checked as well."""
    roles: dict[str, Role] = {
        "a": Shard("data_parallel", Padded()),
        "b": Shard("data_parallel", like="a", pads={"": 3}),  # type: ignore[dict-item]
    }

    with pytest.raises(PlanError, match=r"b\.pads\[''\]: 3 is not a rule"):
        planned(MESH, {"a": [1, 2, 3], "b": [1, 2, 3]}, roles)


def test_rules_are_checked_though_the_policy_does_not_pad() -> None:
    """A typing error is one whatever the number of rows."""
    role = Shard("data_parallel", Packed(budget=9), pads={"maks": Constant(0)})

    with pytest.raises(PlanError, match="did you mean 'mask'"):
        planned(MESH, {"b": {"mask": [1, 1]}}, {"b": role}, weights=[1, 1])


def test_a_joined_slice_lacks_no_field_that_its_padding_names() -> None:
    """Nobody knew the fields of results that stayed on their workers."""
    with pytest.raises(BatchError, match=r"inner\.maks: padding has a rule for it"):
        assemble([0, 1, 1], 2, {"inner.maks": 0}, {"inner": {"mask": np.ones(2)}})
