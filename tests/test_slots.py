"""Which bundles become workers, in which tied groups, under which names."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.slots import Slot, choose_prefix, plan_slots, plan_tied_slots
from tests.strategies import fresh, junk, planned


def checked(plan: Callable[..., tuple[Slot, ...]], *given_: Any) -> tuple[Slot, ...]:
    """Slots, or the error with every finding."""
    findings = fresh()
    slots = plan(*given_, findings)
    findings.check()
    return slots


def refusal(plan: Callable[..., tuple[Slot, ...]], *given_: Any) -> list[str]:
    """The findings, one line each."""
    with pytest.raises(PlanError) as caught:
        checked(plan, *given_)
    return [str(finding) for finding in caught.value.findings]


def places(slots: tuple[Slot, ...]) -> list[tuple[int, int]]:
    """Placement group and bundle of every slot."""
    return [(slot.placement_group, slot.bundle) for slot in slots]


def test_every_bundle_or_so_many_per_placement_group() -> None:
    """None, a number, or a list; each worker is a tied group of its own."""
    assert places(checked(plan_slots, None, (2, 1))) == [(0, 0), (0, 1), (1, 0)]
    assert places(checked(plan_slots, 1, (2, 1))) == [(0, 0), (1, 0)]
    assert places(checked(plan_slots, np.int64(1), (2, 1))) == [(0, 0), (1, 0)]
    assert places(checked(plan_slots, [0, 1], (2, 1))) == [(1, 0)]
    assert places(checked(plan_slots, (2, np.int32(0)), (2, 1))) == [(0, 0), (0, 1)]
    assert checked(plan_slots, [0, 1], (2, 1)) == (
        Slot(tied_group=0, member=0, node=1, placement_group=1, bundle=0, tied_bundles=(0,)),
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            3,
            [
                "workers_per_node: 3 workers for 2 bundles of placement group 0; ask for 2 at most",
                "workers_per_node: 3 workers for 1 bundle of placement group 1; ask for 1 at most",
            ],
        ),
        ([3, 1], ["workers_per_node[0]: 3 workers for 2 bundles of placement group 0; ask for 2"]),
        ([1], ["workers_per_node: 1 entries for 2 placement groups; give one number per"]),
        ([1, -1], ["workers_per_node[1]: -1 is not a number of workers; give 0 or more"]),
        ([True, "1"], ["workers_per_node[0]: True is not", "workers_per_node[1]: '1' is not"]),
        ("2", ["workers_per_node: '2' is of type str; give None (every bundle), a whole number"]),
        (1.0, ["workers_per_node: 1.0 is of type float; give None (every bundle)"]),
        (True, ["workers_per_node: True is of type bool; give None (every bundle)"]),
        (0, ["workers_per_node: the group has no worker; ask for at least one"]),
        ([0, 0], ["workers_per_node: the group has no worker; ask for at least one"]),
    ],
)
def test_numbers_of_workers_that_cannot_be(wanted: object, expected: list[str]) -> None:
    """Wrong type, wrong length, more than there is: with both numbers."""
    found = refusal(plan_slots, wanted, (2, 1))
    assert [line[: len(start)] for line, start in zip(found, expected, strict=False)] == expected


def test_tied_groups_are_taken_in_the_callers_order() -> None:
    """The leader comes first; numpy's whole numbers are as good."""
    slots = checked(plan_tied_slots, [(1, [1, 0]), (np.int64(0), (np.int64(1),))], (2, 2))
    assert places(slots) == [(1, 1), (1, 0), (0, 1)]
    assert [slot.is_leader for slot in slots] == [True, False, True]
    assert [slot.tied_bundles for slot in slots] == [(1, 0), (1, 0), (1,)]
    assert [slot.name("p") for slot in slots] == ["p-grp0-0", "p-grp0-1", "p-0-1"]
    assert [slot.node for slot in slots] == [1, 1, 0]


def test_in_one_placement_group_the_node_is_a_label() -> None:
    """A unified placement group: the node index is the caller's."""
    slots = checked(plan_tied_slots, [(0, [0, 2]), (3, [1])], (4,))
    assert places(slots) == [(0, 0), (0, 2), (0, 1)]
    assert [slot.node for slot in slots] == [0, 0, 3]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], "bundle_indices_list: [] names no tied group; give [(node_idx, [bundle, ...]), ...]"),
        (7, "bundle_indices_list: 7 names no tied group; give [(node_idx, [bundle, ...]), ...]"),
        ([3], "bundle_indices_list[0]: 3 is not a pair; give (node_idx, [bundle, ...])"),
        (
            [(2, [0])],
            (
                "bundle_indices_list[0][0]: 2 is not the index of one of 2 placement groups; "
                "give 0 "
                "to 1"
            ),
        ),
        (
            [(-1, [0])],
            (
                "bundle_indices_list[0][0]: -1 is not the index of one of 2 placement groups; "
                "give 0 "
                "to 1"
            ),
        ),
        (
            [(0, 1)],
            "bundle_indices_list[0][1]: 1 holds no bundle; give a list of bundle indices",
        ),
        (
            [(0, [])],
            "bundle_indices_list[0][1]: [] holds no bundle; give a list of bundle indices",
        ),
        (
            [(0, [0, 2, -1])],
            (
                "bundle_indices_list[0][1]: [2, -1] are not bundles of placement group 0, which "
                "has "
                "2; give 0 to 1"
            ),
        ),
        (
            [(0, [0, "1"])],
            (
                "bundle_indices_list[0][1]: ['1'] are not bundles of placement group 0, which "
                "has 2; "
                "give 0 to 1"
            ),
        ),
        (
            [(0, [0, 1]), (0, [1])],
            (
                "bundle_indices_list: bundle 1 of placement group 0 occurs 2 times; give each "
                "bundle "
                "to one worker of the group"
            ),
        ),
    ],
)
def test_tied_groups_that_cannot_be(given_: object, expected: str) -> None:
    """What was given, and what would work."""
    assert refusal(plan_tied_slots, given_, (2, 2)) == [expected]


def test_names_are_free_and_readable() -> None:
    """An empty prefix takes the class's name; taken names move on, asked-for ones are refused."""
    slots = checked(plan_slots, None, (2,))

    def chosen(prefix: object, taken: set[str], name: str = "package.Worker") -> str:
        findings = fresh()
        made = choose_prefix(prefix, name, slots, taken, findings)
        findings.check()
        return made

    assert chosen("", set()) == "Worker"
    assert chosen("", {"Worker-0-1"}) == "Worker-2"
    assert chosen("", {"Worker-0-1", "Worker-2-0-0"}) == "Worker-3"
    assert chosen("policy", {"Worker-0-1"}) == "policy"
    assert chosen("", set(), "package._Hidden") == "Hidden"
    assert chosen("", set(), "package.Größe") == "Gr--e"
    assert chosen("", set(), "package.___") == "worker"
    with pytest.raises(PlanError, match="2 of 2 names are taken by live actors, 'policy-0-0'"):
        chosen("policy", {"policy-0-0", "policy-0-1", "other"})
    for wrong in ("-x", "a b", "a\n", "x" * 201, "é"):
        with pytest.raises(PlanError, match="cannot be part of an actor's name"):
            chosen(wrong, set())
    for strange in (None, 3, b"x"):
        with pytest.raises(PlanError, match="is not a string; give a string"):
            chosen(strange, set())


def _chosen(prefix: str, taken: set[str], *, alone: bool = False) -> str:
    """What a group of two workers is called; one worker, where it is outside any group."""
    slots = checked(plan_slots, None, (1 if alone else 2,))
    findings = fresh()
    made = choose_prefix(
        prefix,
        "package.Worker",
        [evolve(slot, is_alone=alone) for slot in slots],
        taken,
        findings,
    )
    findings.check()
    return made


@pytest.mark.parametrize(
    "name",
    ["Worker-0-1.g3", "Worker.companion-0", "Worker-grp0-1.g1", "Worker-7-0", "Worker-grp4-0"],
)
def test_whatever_a_groups_actors_are_called_now_its_name_is_taken(name: str) -> None:
    """Started again, looked at from outside, or in other bundles: names would meet later."""
    assert _chosen("", {name}) == "Worker-2"
    assert _chosen("", {name, name.replace("Worker", "Worker-2", 1)}) == "Worker-3"


def test_names_that_only_look_alike_are_free() -> None:
    """Other prefixes, and what is no worker's or companion's name."""
    assert _chosen("", {"Workers-0-0", "Worker.gone", "Worker.companion-x", "Worker-0"}) == "Worker"
    assert _chosen("", {"Worker-0-0.g1", "Worker.companion-0"}, alone=True) == "Worker"
    assert _chosen("", {"Worker"}, alone=True) == "Worker-2"


def test_an_asked_for_name_that_meets_other_actors_is_refused() -> None:
    """The actor is named as it is called now; other bundles of one name may be used."""
    with pytest.raises(PlanError, match=r"live actors, 'w-0-1\.g2' first"):
        _chosen("w", {"w-0-1.g2"})
    with pytest.raises(PlanError, match="name_prefix: a live group is called 'w' already; end the"):
        _chosen("w", {"w.companion-0"})
    assert _chosen("w", {"w-1-0", "w-2.companion-0"}) == "w"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.data())
def test_no_bundle_has_two_workers(counts: list[int], data: st.DataObject) -> None:
    """And the names of a group are distinct."""
    wanted = data.draw(
        st.none()
        | st.integers(0, 5)
        | st.lists(st.integers(0, 4), min_size=len(counts), max_size=len(counts))
    )
    slots = planned(lambda: checked(plan_slots, wanted, counts)) or ()
    assert len(set(places(slots))) == len(slots)
    assert len({slot.name("g") for slot in slots}) == len(slots)
    assert all(slot.bundle < counts[slot.placement_group] for slot in slots)


@given(junk(), st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_junk_is_refused_in_words(given_: object, counts: list[int]) -> None:
    """A PlanError, or workers in bundles that there are."""
    for plan in (plan_slots, plan_tied_slots):
        for slot in planned(lambda plan=plan: checked(plan, given_, counts)) or ():  # type: ignore[misc]
            assert slot.bundle < counts[slot.placement_group]
