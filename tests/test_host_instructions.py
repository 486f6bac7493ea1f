"""What each host is told, from the plan."""

from attrs import evolve

from planner.affinity import Affinity
from planner.environment import EnvironmentSources
from planner.host_instructions import host_instructions
from planner.launch import environment_of, identity_of
from planner.node_environment import rank_node_variables
from tests.strategies import launched

PLAN = launched([1, 2], sources=EnvironmentSources(group={"COLOUR": "blue", "HF_TOKEN": "hush"}))


def test_rank_zero_holds_the_port_and_describes_the_class() -> None:
    """Nobody else does either."""
    made = [host_instructions(PLAN, identity_of(PLAN, rank)) for rank in range(3)]
    assert [each.holds_port for each in made] == [True, False, False]
    assert [each.describes for each in made] == [True, False, False]


def test_instructions_hold_what_the_plan_says_of_the_rank() -> None:
    """Its identity as it was given, its environment, and no secret."""
    identity = identity_of(PLAN, 2, 4711)
    made = host_instructions(PLAN, identity)
    assert made.identity is identity
    assert made.environment == environment_of(PLAN, 2)
    assert {each.name: each.value for each in made.environment}["RANK"] == "2"
    assert made.from_node == rank_node_variables(PLAN, 2)
    assert "hush" not in repr(made)


def test_a_host_is_told_in_plain_types() -> None:
    """It may be where the library is not installed."""
    told = host_instructions(PLAN, identity_of(PLAN, 0, 7)).told({"RANK": "0"})
    assert told == {
        "worker_class": "package.Worker",
        "environment": {"RANK": "0"},
        "from_node": rank_node_variables(PLAN, 0).told(),
        "holds_port": True,
        "identity": "rank 0 on node 10.0.0.1, GPU 0, pid 7",
        "describes": True,
        "affinity": None,
    }


def test_memory_is_bound_where_the_plan_binds_it() -> None:
    """Cores always; the memory's node only with ``binds_memory``."""
    for binds, node in ((True, 1), (False, None)):
        bound = Affinity(cores=(2, 3), numa_node=1, binds_memory=binds)
        plan = evolve(PLAN, workers=(evolve(PLAN.workers[0], affinity=bound),))
        told = host_instructions(plan, identity_of(PLAN, 0)).told({})
        assert told["affinity"] == {"cores": [2, 3], "memory_node": node}
