"""Arguments of a worker group checked by their types: every finding at once, nothing started."""

import inspect
from collections.abc import Callable, Mapping

from attrs import evolve

from planner.environment import EnvironmentPolicy
from planner.failure_policy import FailurePolicy
from planner.findings import Findings
from planner.group import GroupArguments, GroupSpec, gpu_share_of
from planner.group_places import PlaceArguments
from planner.times import seconds_of
from planner.whole_numbers import whole_number
from runtime.backend import Cluster
from runtime.builder import RayWorkerBuilder
from runtime.preflight import Checks
from runtime.ray_backend import RAY
from runtime.starting import Ground, StartRequest

__all__ = [
    "check_end_arguments",
    "check_group_arguments",
    "check_restore",
    "check_start_timeout",
    "check_wait",
    "common_arguments",
    "start_request",
]


def check_group_arguments(
    findings: Findings,
    *,
    cluster: object,
    builder: object,
    env_vars: object,
    force_env_vars: object,
    policy: object,
    asynchronous: object,
    start_timeout: object,
    failure_policy: object,
    max_calls_in_flight: object,
) -> None:
    """Record what is wrong about the arguments of a new group that the planner does not see."""
    for path, value, kind, wanted in (
        ("cluster", cluster, Cluster, "RayVirtualCluster"),
        ("remote_worker_builder", builder, RayWorkerBuilder, "RayWorkerBuilder"),
    ):
        if not isinstance(value, kind) or isinstance(value, type):
            findings.add(path, f"a value of type {type(value).__name__}", f"give a {wanted}")
    for path, value in (("env_vars", env_vars), ("force_env_vars", force_env_vars)):
        if value is not None and not isinstance(value, Mapping):
            findings.add(path, f"a value of type {type(value).__name__}", "give a mapping, or None")
    if policy is not None:
        _check_policy(policy, findings)
    if asynchronous is not None and not isinstance(asynchronous, bool):
        findings.add(
            "asynchronous", f"{asynchronous!r} is not a truth value", "give None to find out"
        )
    _check_seconds("start_timeout", start_timeout, findings)
    if failure_policy is not None and not isinstance(failure_policy, FailurePolicy):
        findings.add(
            "failure_policy",
            f"a value of type {type(failure_policy).__name__}",
            "give a FailurePolicy, or None",
        )
    calls = whole_number(max_calls_in_flight)
    if calls is None or calls < 1:
        findings.add(
            "max_calls_in_flight",
            f"{max_calls_in_flight!r} is not a number of calls",
            "give a whole number, 1 or more",
        )


def start_request(
    cluster: object,
    builder: object,
    *,
    workers_per_node: object,
    bundle_indices_list: object,
    name_prefix: object,
    mesh: object,
    gpu_visibility: object,
    env_vars: object,
    force_env_vars: object,
    policy: object,
    asynchronous: bool | None,
    start_timeout: float,
    places: PlaceArguments,
    checks: Checks,
    claim: Callable[[GroupSpec], None],
    max_calls_in_flight: object,
    tensor_transport: object = None,
) -> StartRequest:
    """A new group as it is started, with what does no harm where an argument's type is wrong.

    What is wrong about types is told by ``check_group_arguments``: this makes it possible to
    check the rest together with it. Nothing is reserved before all of it is good.
    """
    known = cluster if isinstance(cluster, Cluster) and not isinstance(cluster, type) else None
    made = builder if isinstance(builder, RayWorkerBuilder) else None
    good_policy = EnvironmentPolicy()
    if isinstance(policy, EnvironmentPolicy) and not _wrong_patterns(policy):
        good_policy = policy
    arguments = GroupArguments(
        worker_class="unknown.Worker" if made is None else made.ray_actor_class_fqn,
        name_prefix=name_prefix,
        mesh=mesh,
        gpu_visibility=gpu_visibility,
        places=places,
        tensor_transport=tensor_transport,
        most_calls=whole_number(max_calls_in_flight) or None,
    )
    if known is not None:
        arguments = evolve(
            arguments,
            bundle_counts=known.bundle_counts,
            workers_per_node=workers_per_node,
            bundle_indices_list=bundle_indices_list,
            gpu_share=gpu_share_of(
                use_gpus=known.use_gpus, colocated=known.max_colocated_worker_groups
            ),
        )

    def ground() -> Ground:
        groups = () if known is None else tuple(known.get_placement_groups())
        return Ground(groups=groups, topology=getattr(known, "places", ()))

    return StartRequest(
        backend=RAY if known is None else known.backend,
        constructor=((), {}) if made is None else (made.args, made.kwargs),
        ground=ground,
        arguments=arguments,
        claim=claim,
        env_vars=dict(env_vars) if isinstance(env_vars, Mapping) else {},
        force_env_vars=dict(force_env_vars) if isinstance(force_env_vars, Mapping) else {},
        policy=good_policy,
        asynchronous=asynchronous,
        start_timeout=start_timeout,
        num_gpus_per_node=0 if known is None else known.num_gpus_per_node,
        checks=checks,
    )


def check_start_timeout(start_timeout: object, findings: Findings) -> None:
    """Record it when it is no time to start in."""
    _check_seconds("start_timeout", start_timeout, findings)


def check_end_arguments(timeout: object, force: object, findings: Findings) -> None:
    """Record what is wrong about how a group shall be ended."""
    check_wait(timeout, findings)
    if not isinstance(force, bool):
        findings.add("force", f"{force!r} is not a truth value", "give True or False")


def check_wait(timeout: object, findings: Findings) -> None:
    """Record it when it is no time to wait."""
    if timeout is not None and seconds_of(timeout) is None:
        findings.add("timeout", f"{timeout!r} is not a time", "give seconds, 0 or more, or None")


def check_restore(restore: object, findings: Findings) -> None:
    """Record it when it is no function of a group and a plan, nor None."""
    remedy = "give a function of the group and the plan, or None"
    if restore is None:
        return
    if not callable(restore):
        findings.add("restore", f"{restore!r} can't be called", remedy)
        return
    try:
        signature = inspect.signature(restore)
    except (TypeError, ValueError):  # one written in C tells nothing
        return
    try:
        signature.bind("group", "plan")
    except TypeError as error:
        findings.add("restore", f"it can't take the group and the plan ({error})", remedy)


def _check_seconds(path: str, seconds: object, findings: Findings) -> None:
    if not seconds_of(seconds):
        findings.add(path, f"{seconds!r} is not a time", "give seconds, more than 0")


def _check_policy(policy: object, findings: Findings) -> None:
    if not isinstance(policy, EnvironmentPolicy):
        findings.add(
            "environment_policy",
            f"a value of type {type(policy).__name__}",
            "give an EnvironmentPolicy, or None",
        )
        return
    for name, patterns in _wrong_patterns(policy).items():
        findings.add(
            f"environment_policy.{name}",
            f"{patterns!r} is not a tuple of patterns",
            "give a tuple, as in ('NCCL_*',)",
        )


def _wrong_patterns(policy: EnvironmentPolicy) -> dict[str, object]:
    given: dict[str, object] = {"inherit": policy.inherit, "credentials": policy.credentials}
    return {
        name: patterns
        for name, patterns in given.items()
        if not isinstance(patterns, list | tuple)
        or not all(isinstance(each, str) for each in patterns)
    }


def common_arguments(
    common: object, sliced: Mapping[str, object], findings: Findings
) -> Mapping[str, object]:
    """The arguments that are the same for all ranks; none when ``common`` is None.

    Raises:
        PlanError: They are not a mapping from names, or a name is among the sliced ones too.
    """
    if common is None:
        return {}
    if not isinstance(common, Mapping):
        findings.fail("common_kwargs", f"a value of type {type(common).__name__}", "give a mapping")
    for name in common:
        if not isinstance(name, str):
            findings.add(
                f"common_kwargs[{name!r}]",
                "this is not the name of an argument",
                "give a mapping from the method's parameters to values",
            )
        elif name in sliced:
            findings.add(
                f"common_kwargs[{name!r}]",
                "the same argument is given as data too",
                "give it in one of the two",
            )
    findings.check()
    return common
