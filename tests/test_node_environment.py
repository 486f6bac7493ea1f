"""What a worker keeps of the environment in which its node started it."""

import pytest
from attrs import evolve
from hypothesis import given

from planner.environment import EnvironmentPolicy, EnvironmentSources, plan_environment
from planner.environment_names import LAUNCHERS, NEEDED, RANK_CONTRACT
from planner.interpreter import DriverInterpreter, InterpreterPath
from planner.launch import environment_of
from planner.node_environment import group_node_variables, rank_node_variables
from planner.profiling import Profile
from runtime.inherited import drop_inherited
from tests.strategies import environments, fresh, launched, spec_of

NODE = {
    "PATH": "/bin",
    "HOME": "/root",
    "PLAIN": "1",
    "NCCL_DEBUG": "INFO",
    "MY_TOKEN": "hush1",
    "DSN": "Server=db;Uid=me;Pwd=hush2",
    "SLURM_JOB_ID": "7",
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "3",
    "CONDA_PREFIX": "/conda",
    "RAY_AUTH_TOKEN": "rays",
    "CUDA_VISIBLE_DEVICES": "2",
}
ALWAYS = {"PATH", "HOME", "RAY_AUTH_TOKEN", "CUDA_VISIBLE_DEVICES"}


def kept(policy: EnvironmentPolicy, *, own_interpreter: bool = False, **driver: str) -> set[str]:
    """The names of ``NODE`` that a worker keeps."""
    planned = plan_environment(EnvironmentSources(driver=driver), policy, fresh())
    interpreter = InterpreterPath(executable="/x/python") if own_interpreter else None
    rule = group_node_variables(planned, interpreter or DriverInterpreter())
    environment = dict(NODE)
    drop_inherited(rule.told(), environment)
    assert {name: NODE[name] for name in environment} == environment
    return set(environment)


def test_by_default_a_worker_keeps_what_the_driver_would_hand_on() -> None:
    """No credential by name or value, no launcher's word; Ray's own stay."""
    expected = ALWAYS | {"PLAIN", "NCCL_DEBUG", "CONDA_PREFIX"}
    assert kept(EnvironmentPolicy()) == expected


def test_another_interpreter_is_not_told_of_the_nodes() -> None:
    """What the node says of its own would mislead it."""
    assert kept(EnvironmentPolicy(), own_interpreter=True) == ALWAYS | {"PLAIN", "NCCL_DEBUG"}


@pytest.mark.parametrize(
    ("inherit", "expected"),
    [((), set()), (("NCCL_*",), {"NCCL_DEBUG"}), (("MY_TOKEN", "PLAIN"), {"PLAIN"})],
)
def test_a_strict_policy_counts_for_the_node_too(
    inherit: tuple[str, ...], expected: set[str]
) -> None:
    """Beside what a process needs and what is Ray's."""
    assert kept(EnvironmentPolicy(inherit=inherit)) == ALWAYS | expected


def test_a_credential_that_the_policy_names_stays() -> None:
    """By pattern; the others go."""
    policy = EnvironmentPolicy(credentials=("MY_*",))
    assert {"MY_TOKEN", "DSN"} & kept(policy) == {"MY_TOKEN"}


def test_what_the_plan_says_is_withheld_is_not_there() -> None:
    """Even when the node's value of that name looks harmless."""
    assert "PLAIN" not in kept(EnvironmentPolicy(), PLAIN="http://me:hush@host")


def test_no_value_is_told() -> None:
    """Names and patterns only."""
    sources = EnvironmentSources(driver={"A_TOKEN": "hush", "DSN": "Uid=me;Pwd=hush"})
    plan = launched([1], sources=sources)
    told = str(rank_node_variables(plan, 0).told())
    assert "A_TOKEN" in told
    assert "hush" not in told


@given(environments())
def test_what_is_kept_is_never_changed(environment: dict[str, str]) -> None:
    """And to drop again drops nothing."""
    rule = rank_node_variables(launched([1]), 0).told()
    once = dict(environment)
    drop_inherited(rule, once)
    assert once.items() <= environment.items()
    again = dict(once)
    drop_inherited(rule, again)
    assert again == once


def test_the_device_list_goes_where_every_device_shall_be_seen() -> None:
    """Otherwise it is Ray's word on which are the worker's."""
    for mode, stays in (("unmasked", False), ("isolated", True)):
        rule = rank_node_variables(launched([1], gpu_visibility=mode), 0)
        environment = dict(NODE)
        drop_inherited(rule.told(), environment)
        assert ("CUDA_VISIBLE_DEVICES" in environment) is stays


def test_launchers_and_the_rank_contract_go_whatever_the_policy_says() -> None:
    """They would contradict the plan."""
    policy = EnvironmentPolicy(inherit=("*", "RANK"), credentials=("*",))
    environment = plan_environment(EnvironmentSources(), policy, fresh())
    rule = group_node_variables(environment, DriverInterpreter())
    assert {*RANK_CONTRACT, *LAUNCHERS} <= set(rule.removed)
    assert set(NEEDED).isdisjoint(rule.removed)


def test_what_a_profiler_needs_stays() -> None:
    """It is in the worker's runtime environment, so it is there before the host is."""
    settings = spec_of([1]).runtime_env.__class__('{"env_vars":{"PROFILER_MODE":"1"}}')
    plan = launched([1], policy=EnvironmentPolicy(inherit=()))
    worker = evolve(plan.workers[0], profiler=Profile(pattern="*", settings=settings).settings)
    environment = {"PROFILER_MODE": "1", "PLAIN": "1"}
    drop_inherited(rank_node_variables(evolve(plan, workers=(worker,)), 0).told(), environment)
    assert environment == {"PROFILER_MODE": "1"}


def test_what_the_plan_gives_is_given_whatever_is_dropped() -> None:
    """The group's credential is planned, so it is set after its name was dropped."""
    plan = launched([1], sources=EnvironmentSources(group={"MY_TOKEN": "given"}))
    assert "MY_TOKEN" in {each.name for each in environment_of(plan, 0)}
