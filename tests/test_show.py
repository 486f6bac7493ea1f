"""What a reader is shown of a plan: plain text, the same everywhere."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from planner.dispatch import DispatchPlan, plan_sharded
from planner.findings import CoordinateError, Findings
from planner.group import plan_group
from planner.launch import LaunchPlan, plan_launch
from planner.mesh import NamedSharding
from planner.shapes import h100_nodes
from planner.show import (
    dispatch_table,
    environment_table,
    launch_table,
    launch_view,
    mesh_picture,
)
from tests.plan_cases import (
    DISPATCHES,
    LAUNCHES,
    USUAL,
    dispatches,
    landed,
    launches,
    predicted,
)


def many_ranks(nodes: int) -> LaunchPlan:
    """A group over whole nodes of 8 GPUs."""
    spec = plan_group(evolve(USUAL, bundle_counts=(8,) * nodes))
    return plan_launch(spec, landed(spec, predicted(h100_nodes(nodes), [8] * nodes)))


def test_launch_is_shown_whole() -> None:
    """The header says what the group is, and each rank has its row."""
    assert launch_table(LAUNCHES["permuted_layout"]()) == (
        "worker group 'policy': 4 ranks on 1 node\n"
        "class         my_project.workers.Worker\n"
        "interpreter   the driver's own interpreter (the class is not in the registry)\n"
        "rendezvous    10.16.0.1:29400\n"
        "GPUs          shared: each worker sees the group's on its node, LOCAL_RANK picks its own\n"
        "axes          data_parallel 2 x tensor_parallel 2, ranks permuted\n"
        "leaders       2 data-parallel shards, led by ranks 2, 0\n"
        "environment   1 variable for all ranks\n"
        "note          my_project.workers.Worker is not in the registry: it runs in the driver's "
        "interpreter\n"
        "\n"
        "             data     tensor               node   local\n"
        "  rank   parallel   parallel   node        rank    rank   bundle   GPU   share   name\n"
        f" {'─' * 91}\n"
        + "".join(
            f"     {rank}          {data}          {tensor}   10.16.0.1      0       {rank}      "
            f"0:{rank}     {rank}       1   policy-0-{rank}\n"
            for rank, data, tensor in ((0, 1, 0), (1, 1, 1), (2, 0, 0), (3, 0, 1))
        )
    )


@pytest.mark.parametrize(
    ("width", "heads", "rest", "below"),
    [
        (80, "GPU", "{0}", "No room for: share, bundle, node rank, local rank, name"),
        (120, "rank rank bundle GPU share name", "0 0 0:{0} {0} 1 policy-0-{0}", None),
    ],
)
def test_four_axes_fit_the_width(width: int, heads: str, rest: str, below: str | None) -> None:
    """Each rank has one line with coordinates, node and GPU; what has no room is named below."""
    axes = ["pipeline_parallel", "data_parallel", "context_parallel", "tensor_parallel"]
    mesh = NamedSharding(np.arange(8).reshape(1, 2, 2, 2), axes)
    spec = plan_group(evolve(USUAL, bundle_counts=(8,), mesh=mesh))
    plan = plan_launch(spec, landed(spec, predicted(h100_nodes(1), [8])))
    table = launch_table(plan, width).partition("\n\n")[2].splitlines()
    assert table[1].split() == ["rank", *["parallel"] * 4, "node", *heads.split()]
    assert [line.split() for line in table[3:11]] == [
        [str(rank), "0", *f"{rank:03b}", "10.16.0.1", *rest.format(rank).split()]
        for rank in range(8)
    ]
    assert table[11:] == ([] if below is None else ["", below])


def test_heads_of_axes_are_shortened_when_nothing_else_helps() -> None:
    """Where even the least table is too wide, long words over the coordinates are cut."""
    lines = launch_table(LAUNCHES["permuted_layout"](), 44).splitlines()
    heads = [line.split() for line in lines if line.strip().startswith(("data  ", "rank  "))]
    assert heads == [["data", "tens."], ["rank", "para.", "para.", "node", "GPU"]]
    assert ["3", "0", "1", "10.16.0.1", "3"] in [line.split() for line in lines]


def test_leaders_of_tied_groups_are_marked() -> None:
    """With tied groups, each row has its group, and leaders are marked."""
    rows = launch_table(LAUNCHES["tied_over_two_nodes"]()).splitlines()[-8:]
    assert [row.split()[-3:] for row in rows] == [
        ["rollout-grp0-0", "0", "yes"],
        ["1", "rollout-grp0-1", "0"],
        ["rollout-grp1-0", "1", "yes"],
        ["1", "rollout-grp1-1", "1"],
        ["1", "rollout-grp1-2", "1"],
        ["1", "rollout-grp1-3", "1"],
        ["rollout-grp2-0", "2", "yes"],
        ["1", "rollout-grp2-1", "2"],
    ]


def test_many_ranks_are_shown_per_node() -> None:
    """More than 64 ranks are folded: one row per node, ranks and GPUs as ranges."""
    text = launch_table(many_ranks(9))
    assert text.splitlines()[-9:][1].split() == [
        "1",
        "10.16.0.2",
        "8-15",
        "1:0-7",
        "0-7",
        "1",
        "8-15",
    ]
    assert "policy-0-0" not in text


def test_many_nodes_are_left_out_in_the_middle() -> None:
    """More than 64 nodes are not all shown, and the text says how many are missing."""
    lines = launch_table(many_ranks(70)).splitlines()
    missing = [line.split() for line in lines if "more" in line]
    assert missing == [["...", "6", "more"]]
    assert lines[-1].split()[0] == "69"


def test_nodes_that_share_an_address_are_told_apart() -> None:
    """Where several nodes have one address, the node's id is shown too."""
    plan = LAUNCHES["cpu_only"]()
    same = evolve(
        plan, workers=tuple(evolve(worker, address="127.0.0.1") for worker in plan.workers)
    )
    rows = launch_table(same).splitlines()[-3:]
    assert [row.split()[1:3] for row in rows] == [
        ["127.0.0.1", "(cpu-0)"],
        ["127.0.0.1", "(cpu-0)"],
        ["127.0.0.1", "(cpu-1)"],
    ]


def test_group_without_gpus_says_so() -> None:
    """No GPU, no word about which ones are visible."""
    assert "\nGPUs          none\n" in launch_table(LAUNCHES["cpu_only"]())


def test_port_that_is_not_known_yet() -> None:
    """Before rank 0 is up, the rendezvous has no port."""
    plan = LAUNCHES["permuted_layout"]()
    early = evolve(plan, rendezvous=evolve(plan.rendezvous, port=None))
    assert "\nrendezvous    10.16.0.1:(known when rank 0 is up)\n" in launch_table(early)


def test_environment_names_every_origin() -> None:
    """Each variable has its value and where that comes from; secrets are redacted."""
    text = environment_table(LAUNCHES["environment"](), 1)
    rows = [line.split(maxsplit=2) for line in text.splitlines()[4:]]
    origins = {name: (value, origin) for name, value, origin in rows}
    assert origins["WANDB_API_KEY"] == ("<redacted>", "env_vars")
    assert origins["PATH"] == ("/opt/bin:/usr/bin", "env_vars + driver")
    assert origins["LOCAL_RANK"] == ("1", "rank")
    assert origins["MASTER_PORT"] == ("12345", "force_env_vars")
    assert "never in a plan" not in text


@pytest.mark.parametrize("rank", [-1, 4])
def test_environment_of_nobody(rank: int) -> None:
    """A rank that is not there is an error that says which are."""
    with pytest.raises(CoordinateError, match=f"no rank {rank}; the group has ranks 0 to 3"):
        environment_table(LAUNCHES["permuted_layout"](), rank)


def test_dispatch_is_shown_whole() -> None:
    """The first line counts, the rows say who gets what and who returns at which place."""
    assert dispatch_table(DISPATCHES["sharded_permuted"]()) == (
        "sharded data: 4 calls, 2 slices over data_parallel 2, 2 results from ranks 0, 2\n"
        "\n"
        "  rank   slice             result\n"
        f" {'─' * 33}\n"
        "     0   data_parallel=1        1\n"
        "     1   data_parallel=1        -\n"
        "     2   data_parallel=0        0\n"
        "     3   data_parallel=0        -\n"
    )


def test_dummy_calls_are_counted() -> None:
    """Dummy calls are named as such."""
    text = dispatch_table(DISPATCHES["sharded_dummy"]())
    assert text.splitlines()[0] == (
        "sharded data: 8 calls, 2 slices over data_parallel 2, 6 dummy calls, "
        "2 results from ranks 0, 2"
    )
    assert text.count(" dummy ") == 7


def test_many_calls_are_shown_per_slice() -> None:
    """More than 64 calls are folded by slice."""
    mesh = NamedSharding(np.arange(96).reshape(3, 32), ["data_parallel", "tensor_parallel"])
    findings = Findings("call")
    plan = plan_sharded(mesh, ["data_parallel"], None, None, findings, dummy_calls=True)
    rows = [line.split() for line in dispatch_table(plan).splitlines()[-4:]]
    assert rows == [
        ["data_parallel=0", "0", "0"],
        ["data_parallel=1", "32", "32"],
        ["data_parallel=2", "64", "64"],
        ["dummy", "1-31,", "33-63,", "65-95", "none"],
    ]


def test_mesh_of_three_axes() -> None:
    """The last two axes are a grid; there is one for each coordinate of the others."""
    mesh = NamedSharding([[[0, 1], [2, 3]], [[4, 5], [7, 6]]], ["pp", "dp", "tp"])
    assert mesh_picture(mesh) == (
        "8 ranks: pp 2 x dp 2 x tp 2\n"
        "pp=0\n"
        "\n"
        "  dp \\ tp   0   1\n"
        " ─────────────────\n"
        "        0   0   1\n"
        "        1   2   3\n"
        "\n"
        "pp=1\n"
        "\n"
        "  dp \\ tp   0   1\n"
        " ─────────────────\n"
        "        0   4   5\n"
        "        1   7   6\n"
    )


def test_mesh_of_one_axis() -> None:
    """One axis is one row."""
    assert mesh_picture(NamedSharding([2, 0, 1], ["dp"])).splitlines()[-1].split() == [
        "rank",
        "2",
        "0",
        "1",
    ]


def test_large_mesh_is_shown_in_part() -> None:
    """A mesh of 100,000 ranks is a short text that says what it leaves out."""
    mesh = NamedSharding(np.arange(100_000).reshape(10, 100, 100), ["pp", "dp", "tp"])
    text = mesh_picture(mesh, width=400)
    assert "... 2 more grids" in text
    assert "... 68 more" in text
    assert len(text.splitlines()) < 320


@settings(max_examples=25)
@given(launches(), st.integers(80, 200))
def test_every_rank_has_a_row_within_the_width(plan: LaunchPlan, width: int) -> None:
    """No line is wider than asked for, and no rank is left out."""
    lines = launch_table(plan, width).splitlines()
    assert max(map(len, lines)) <= width
    firsts = [line.split()[0] for line in lines[-plan.world_size * 12 :] if line[:7].strip()]
    assert set(map(str, range(plan.world_size))) <= set(firsts)


@settings(max_examples=25)
@given(dispatches())
def test_every_call_has_a_row(plan: DispatchPlan) -> None:
    """Each called rank is shown once, and results are numbered as they come back."""
    rows = [line.split() for line in dispatch_table(plan, width=400).splitlines()[4:]]
    assert [int(row[0]) for row in rows] == list(plan.ranks)
    places = {int(row[-1]): int(row[0]) for row in rows if row[-1] != "-"}
    assert tuple(places[index] for index in range(len(plan.returns))) == plan.returns


def test_brackets_in_names_are_no_markup() -> None:
    """A note like ``[red]`` is shown as it is."""
    plan = evolve(LAUNCHES["permuted_layout"](), notes=("[red]stop[/red] :warning:",))
    assert "note          [red]stop[/red] :warning:\n" in launch_table(plan)


def test_colour_only_when_asked_for() -> None:
    """Plain text has no control characters; with colour there are some, and the same words."""
    plan = LAUNCHES["permuted_layout"]()
    assert "\x1b" not in launch_table(plan)
    assert "\x1b[" in launch_table(plan, colour=True)


def test_environment_of_the_process_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plan is the same text on every terminal."""
    plan = LAUNCHES["permuted_layout"]()
    before, coloured = launch_table(plan), launch_table(plan, colour=True)
    for name, value in {"COLUMNS": "20", "FORCE_COLOR": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launch_table(plan) == before
    assert launch_table(plan, colour=True) == coloured


def test_view_goes_to_any_console() -> None:
    """A view is printed by a console of the caller's own."""
    console = Console(width=200, _environ={})
    with console.capture() as capture:
        console.print(launch_view(LAUNCHES["permuted_layout"]()))
    assert "worker group 'policy': 4 ranks on 1 node" in capture.get()
