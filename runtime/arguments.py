"""Arguments of a worker group checked by their types: every finding at once, nothing started."""

from collections.abc import Mapping

from planner.environment import EnvironmentPolicy
from planner.findings import Findings
from planner.recovery import FailurePolicy
from planner.whole_numbers import whole_number
from runtime.backend import Cluster
from runtime.builder import RayWorkerBuilder

__all__ = ["check_group_arguments", "check_seconds", "common_arguments"]


def check_group_arguments(
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
    """Check what the planner does not see of a new group's arguments.

    Raises:
        PlanError: Something is wrong; all of it is in the error.
    """
    findings = Findings("worker group")
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
    findings.check()


def check_seconds(subject: str, path: str, seconds: object) -> None:
    """Check a time to wait.

    Raises:
        PlanError: It is not a number of 0 or more.
    """
    findings = Findings(subject)
    if seconds != 0 or isinstance(seconds, bool):
        _check_seconds(path, seconds, findings)
    findings.check()


def _check_seconds(path: str, seconds: object, findings: Findings) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        findings.add(path, f"{seconds!r} is not a time", "give seconds, more than 0")


def _check_policy(policy: object, findings: Findings) -> None:
    if not isinstance(policy, EnvironmentPolicy):
        findings.add(
            "environment_policy",
            f"a value of type {type(policy).__name__}",
            "give an EnvironmentPolicy, or None",
        )
        return
    given: dict[str, object] = {"inherit": policy.inherit, "credentials": policy.credentials}
    for name, patterns in given.items():
        good = isinstance(patterns, list | tuple) and all(isinstance(p, str) for p in patterns)
        if not good:
            findings.add(
                f"environment_policy.{name}",
                f"{patterns!r} is not a tuple of patterns",
                "give a tuple, as in ('NCCL_*',)",
            )


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
