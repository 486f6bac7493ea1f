"""Roles of arguments: declared without cost, carried as text, read back as they were."""

import pytest

from planner.declare import dispatch
from planner.findings import Findings, PlanError
from planner.roles import (
    AllByRank,
    Common,
    Concatenate,
    Declaration,
    First,
    PerRank,
    PerShard,
    Reduce,
    Replicate,
    Result,
    Role,
    Shard,
    declaration_of,
    declaration_text,
)
from planner.slice_policies import (
    Balanced,
    Constant,
    DropRemainder,
    Even,
    Interleaved,
    Packed,
    Padded,
    Policy,
    RepeatLastRow,
    RowCounts,
    Uneven,
)

POLICIES: tuple[Policy, ...] = (
    Even(),
    Uneven(),
    Padded(4),
    DropRemainder(2),
    Interleaved(),
    Balanced(RowCounts.EQUAL),
    Packed(budget=100, equal_counts=False),
)
ROLES: tuple[Role, ...] = (
    *(Shard("data_parallel", policy) for policy in POLICIES),
    Shard(
        ("data_parallel", "context_parallel"),
        Padded(),
        weights="lengths",
        groups="prompt",
        pads={"mask": Constant(0), "ids": RepeatLastRow()},
        like="batch",
        share="broadcast",
    ),
    Replicate(share="broadcast"),
    PerRank(),
    Common(),
)
RESULTS: tuple[Result | None, ...] = (
    None,
    Concatenate(like="batch"),
    PerShard(),
    First(),
    AllByRank(),
    Reduce("mean"),
)


def declared_by(method: object) -> str:
    """The text that a decorated method carries."""
    text = getattr(method, "__rankplan_dispatch__", None)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_back_as_it_was(role: Role) -> None:
    """Every role survives the way from the worker's interpreter, which is text."""
    declaration = Declaration(arguments=(("batch", role),))

    read = declaration_of(declaration_text(declaration), Findings("test"))

    assert read == declaration
    assert hash(read) == hash(declaration)


@pytest.mark.parametrize("returns", RESULTS)
def test_a_result_reads_back_as_it_was(returns: Result | None) -> None:
    """Every way to combine results survives the way too."""
    declaration = Declaration(returns=returns, free="tensor_parallel", dummy_calls=True)

    assert declaration_of(declaration_text(declaration), Findings("test")) == declaration


def test_the_decorator_gives_the_method_back() -> None:
    """A class used without Ray pays nothing: the function is the same object."""

    def step(batch: list[int], lr: float) -> float:
        return sum(batch) * lr

    decorated = dispatch(batch=Shard("data_parallel"), returns=Reduce("mean"))(step)

    assert decorated is step
    assert decorated([1, 2], 0.5) == 1.5
    assert declaration_of(declared_by(decorated), Findings("test")) == Declaration(
        arguments=(("batch", Shard("data_parallel")),), returns=Reduce("mean")
    )


def test_arguments_are_sorted_so_that_equal_declarations_are_equal_texts() -> None:
    """The order in which roles are written down does not matter."""

    def one() -> None: ...
    def other() -> None: ...

    dispatch(a=PerRank(), b=Common())(one)
    dispatch(b=Common(), a=PerRank())(other)

    assert declared_by(one) == declared_by(other)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is not a declaration"),
        ('{"kind": "Shared"}', "'Shared' is unknown"),
        ('{"kind": "Declaration", "arguments": [["b", {"kind": "Slice"}]]}', "'Slice' is unknown"),
        ('{"kind": "Declaration", "size": 3}', "size"),
        ('{"kind": "Declaration", "returns": {"kind": "Reduce"}}', "function"),
    ],
)
def test_a_text_that_is_no_declaration_is_refused(text: str, told: str) -> None:
    """What is wrong is named; nothing in the text is run."""
    with pytest.raises(PlanError, match=told):
        declaration_of(text, Findings("worker group 'policy', step()"))


def test_all_that_is_wrong_with_a_text_is_said_at_once() -> None:
    """Two unknown kinds give two findings."""
    text = '{"kind": "Declaration", "arguments": [["a", {"kind": "X"}], ["b", {"kind": "Y"}]]}'

    with pytest.raises(PlanError) as raised:
        declaration_of(text, Findings("test"))

    assert [finding.path for finding in raised.value.findings] == [
        "__rankplan_dispatch__.arguments[0][1].kind",
        "__rankplan_dispatch__.arguments[1][1].kind",
    ]
