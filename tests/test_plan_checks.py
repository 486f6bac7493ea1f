"""What must hold between the fields of a plan that was read from a file."""

import pytest
from attrs import evolve

from planner.codec import plan_from_json, plan_to_json
from planner.launch import LaunchPlan
from tests.plan_cases import LAUNCHES
from tests.plan_files import PLANS, Steps, changed, paths, problems

CONTRADICTIONS: list[tuple[str, Steps, object, list[str]]] = [
    ("launch", ("workers",), [], ["plan.workers"]),
    ("launch", ("workers", 1, "name"), "policy-0-0", ["plan.workers[1].name"]),
    ("launch", ("workers", 1, "rank"), 5, ["plan.workers[1].rank"]),
    ("launch", ("workers", 1, "node_rank"), 1, ["plan.workers[1].node_rank"]),
    ("launch", ("workers", 1, "local_world_size"), 8, ["plan.workers[1].local_world_size"]),
    ("launch", ("workers", 1, "local_rank"), 2, ["plan.workers[1].local_rank"]),
    ("launch", ("workers", 1, "visible"), ["0"], ["plan.workers[1].visible"]),
    ("launch", ("workers", 2, "visible"), [], ["plan.workers[2].visible"]),
    ("launch", ("workers", 1, "gpus"), [], ["plan.workers[1].gpus", "plan.workers[1].visible"]),
    ("launch", ("workers", 1, "gpu_share"), 10_001, ["plan.workers[1].gpu_share"]),
    ("launch", ("workers", 1, "address"), "10.9.9.9", ["plan.workers[1].address"]),
    ("launch", ("workers", 1, "ports"), [9, 8], ["plan.workers[1].ports"]),
    (
        "launch",
        ("workers", 1, "member"),
        1,
        ["plan.workers[1].member", "plan.workers[1].tied_bundles"],
    ),
    ("launch", ("workers", 1, "tied_bundles"), None, ["plan.workers[1].tied_bundles"]),
    ("launch", ("workers", 1, "data_parallel_shard"), 0, ["plan.workers[1].data_parallel_shard"]),
    ("launch", ("leaders",), [2, 9], ["plan.leaders[1]"]),
    ("launch", ("leaders",), [0, 2], ["plan.leaders[0]", "plan.leaders[1]"]),
    ("launch", ("leaders",), [], ["plan.leaders"]),
    ("launch", ("mesh", "layout"), [[2, 3], [0, 4]], ["plan.mesh.layout"]),
    ("launch", ("rendezvous", "port"), 65_536, ["plan.rendezvous.port"]),
    ("launch", ("rendezvous", "address"), "", ["plan.rendezvous.address"]),
    ("launch", ("localities",), [["expert", "same_node"]], ["plan.localities[0]"]),
    ("tied", ("workers", 4, "tied_group"), 7, ["plan.workers", "plan.workers[4].member"]),
    ("tied", ("workers", 3, "data_parallel_shard"), 3, ["plan.workers[3].data_parallel_shard"]),
    (
        "environment",
        ("environment", "variables", 7, "value"),
        "x",
        ["plan.environment.variables[7].value"],
    ),
    ("environment", ("environment", "variables", 1, "name"), "A", ["plan.environment.variables"]),
    ("environment", ("environment", "before_python"), ["X"], ["plan.environment.before_python"]),
    ("dispatch", ("ranks",), [], ["plan.ranks", "plan.slices"]),
    ("dispatch", ("ranks", 1), 0, ["plan.ranks"]),
    ("dispatch", ("slices",), [0], ["plan.slices"]),
    ("dispatch", ("slices", 0), 2, ["plan.slices[0]"]),
    ("dispatch", ("slices", 0), 1, ["plan.slices"]),
    ("dispatch", ("returns",), [2, 0], ["plan.returns[1]"]),
    ("dispatch", ("returns",), [0, 0], ["plan.returns[1]"]),
    ("dispatch", ("returns",), [9], ["plan.returns[0]"]),
    ("dispatch", ("returns",), [1], ["plan.returns[0]"]),
    ("dispatch", ("shape",), [0], ["plan.shape[0]"]),
    ("dispatch", ("axes",), [], ["plan.shape"]),
    ("dispatch", ("kind",), "one worker", ["plan.slices[1]"]),
    ("group", ("gpu_share",), -1, ["plan.gpu_share"]),
    ("group", ("slots", 1, "bundle"), 0, ["plan.slots[1].bundle", "plan.slots[1].bundle"]),
    ("group", ("slots", 1, "member"), 2, ["plan.slots[1].member"]),
    ("group", ("slots",), [], ["plan.slots", "plan.overrides"]),
    ("reservation", ("placement_groups", 1, "index"), 2, ["plan.placement_groups"]),
    ("reservation", ("placement_groups", 1, "verdicts"), [], ["plan.placement_groups[1].verdicts"]),
    (
        "reservation",
        ("placement_groups", 0, "strategy"),
        "PACK",
        ["plan.placement_groups[0].strategy"],
    ),
    ("reservation", ("pools", 0, "members", 0, "gpu_share"), 10_001, ["plan.pools[0].members"]),
    (
        "reservation",
        ("pools", 0, "members", 0, "bundles"),
        [2],
        ["plan.pools[0].members[0].bundles"],
    ),
    ("slices", ("sizes",), [], ["plan.sizes"]),
    ("slices", ("sizes", 0), -1, ["plan.sizes[0]"]),
    ("slices", ("padding", 0), 4, ["plan.padding[0]"]),
    ("slices", ("order",), [0, 1, 3, 4, 2, 2], ["plan.order"]),
    ("slices", ("order",), [0, 1, 3, 4, 2, 6], ["plan.order[5]"]),
    ("slices", ("order",), [0], ["plan.order"]),
    ("slices", ("dropped",), [3], ["plan.rows"]),
    ("slices", ("rows",), 10**30, ["plan.rows"]),
    ("dispatch", ("shape",), [10**30], ["plan.shape"]),
    ("slices", ("micro_batches", 0), [1, 1], ["plan.micro_batches[0]"]),
    ("slices", ("loads",), [14], ["plan.loads"]),
    (
        "resharding",
        ("receivers", 0, "parts", 0, "source"),
        2,
        ["plan.receivers[0].parts[0].source"],
    ),
    ("resharding", ("receivers", 1, "parts", 0, "stop"), 5, ["plan.receivers[1].parts[0]"]),
    ("resharding", ("receivers", 1, "parts", 0, "start"), 2, ["plan.receivers[1]"]),
    ("resharding", ("receivers", 1, "order"), [0, 1, 3], ["plan.receivers[1].order[2]"]),
    ("resharding", ("target_sizes",), [2], ["plan.receivers"]),
]


@pytest.mark.parametrize(("name", "steps", "value", "expected"), CONTRADICTIONS)
def test_plan_that_contradicts_itself(
    name: str, steps: Steps, value: object, expected: list[str]
) -> None:
    """Values of the right type that do not go together are found, where they are."""
    found = paths(changed(name, (steps, value)))
    assert found[: len(expected)] == expected


def test_many_alike_are_folded() -> None:
    """A fault that strikes every rank is told for the first eight, with a count."""
    plan: LaunchPlan = LAUNCHES["four_nodes"]()
    shifted = evolve(plan, workers=(plan.workers[31], *plan.workers[:31]))
    found = [each for each in problems(plan_to_json(shifted)) if each.path.endswith("].rank")]
    assert [each.path for each in found] == [f"plan.workers[{index}].rank" for index in range(8)]
    assert found[0].problem == "31, but ranks count from 0 in order"
    assert found[7].problem == "6, but ranks count from 0 in order (and for 24 more workers)"


@pytest.mark.parametrize(
    ("name", "steps", "value"),
    [
        ("launch", ("mesh",), None),
        ("launch", ("rendezvous", "address"), "10.99.0.1"),
        ("group", ("overrides",), []),
        ("slices", ("loads",), None),
    ],
)
def test_other_plan_that_holds_together(name: str, steps: Steps, value: object) -> None:
    """What the rest of a plan does not decide may be otherwise."""
    assert plan_from_json(changed(name, (steps, value))) != PLANS[name]
