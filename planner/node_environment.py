"""What a worker keeps of the environment in which its node starts processes.

Ray's workers have the environment of whoever started Ray on their node: perhaps a launcher, or
the driver, with all its credentials. What the plan does not hand on must not come from there.
"""

from collections.abc import Iterable, Mapping

from attrs import frozen

from planner.credentials import CREDENTIAL_NAME, CREDENTIAL_VALUE
from planner.environment import GroupEnvironment
from planner.environment_names import (
    INTERPRETER_VARIABLES,
    LAUNCHERS,
    NEEDED,
    RANK_CONTRACT,
    RAYS_OWN,
)
from planner.interpreter import DriverInterpreter, Interpreter
from planner.launch_plan import LaunchPlan

__all__ = ["NodeVariables", "group_node_variables", "rank_node_variables"]


@frozen(kw_only=True)
class NodeVariables:
    """Which of its node's variables a process keeps: names and patterns, never a value.

    What the plan gives a process is set after this, so it is not touched by it.

    Attributes:
        removed: Never kept.
        stays: Kept, unless ``removed``.
        kept: Every other name must match one of these, and must not look like a credential.
        credentials: Those that are kept though they look like credentials.
    """

    removed: tuple[str, ...]
    stays: tuple[str, ...]
    kept: tuple[str, ...]
    credentials: tuple[str, ...]

    def told(self) -> dict[str, object]:
        """The same in plain types, with the rules that tell a credential."""
        return {
            "removed": list(self.removed),
            "stays": list(self.stays),
            "kept": list(self.kept),
            "credentials": list(self.credentials),
            "credential_name": CREDENTIAL_NAME,
            "credential_value": CREDENTIAL_VALUE,
        }


def group_node_variables(environment: GroupEnvironment, interpreter: Interpreter) -> NodeVariables:
    """What all workers of a group keep.

    What the node says of its interpreter is true for a worker that runs in the same one only.
    """
    other = () if isinstance(interpreter, DriverInterpreter) else INTERPRETER_VARIABLES
    return NodeVariables(
        removed=(*RANK_CONTRACT, *LAUNCHERS, *other, *environment.withheld),
        stays=RAYS_OWN,
        kept=tuple(dict.fromkeys((*environment.inherit, *NEEDED))),
        credentials=environment.credentials,
    )


def rank_node_variables(plan: LaunchPlan, rank: int) -> NodeVariables:
    """What one worker keeps.

    The device list that Ray made stays, unless the worker is to see every device. What a profiler
    has in the worker's runtime environment is there before its host is, and stays.
    """
    worker = plan.workers[rank]
    shared = group_node_variables(plan.environment, plan.interpreter)
    unmasked = worker.visible is None and bool(worker.gpus)
    return NodeVariables(
        removed=(*shared.removed, worker.device_variable) if unmasked else shared.removed,
        stays=(*shared.stays, *_names(worker.profiler.value().get("env_vars"))),
        kept=shared.kept,
        credentials=shared.credentials,
    )


def _names(variables: object) -> Iterable[str]:
    return [str(name) for name in variables] if isinstance(variables, Mapping) else ()
