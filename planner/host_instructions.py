"""What the host of a rank is told before it makes its worker."""

from collections.abc import Mapping

from attrs import frozen

from planner.affinity import Affinity
from planner.environment import EnvVar
from planner.launch import LaunchPlan, environment_of
from planner.node_environment import NodeVariables, rank_node_variables
from planner.outcomes import RankIdentity

__all__ = ["HostInstructions", "host_instructions"]


@frozen(kw_only=True)
class HostInstructions:
    """What one host is told; only the values that no plan holds are missing.

    Attributes:
        identity: Who it is from now on.
        worker_class: Full name of the class of its worker.
        from_node: What it keeps of the variables that its node handed it.
        environment: The variables that it sets, those of credentials without their values.
        holds_port: Whether it keeps the port that it holds: the group meets there.
        describes: Whether it tells the methods of the class, which are the same everywhere.
        affinity: The cores and memory that it binds itself to; None for all.
    """

    identity: RankIdentity
    worker_class: str
    from_node: NodeVariables
    environment: tuple[EnvVar, ...]
    holds_port: bool
    describes: bool
    affinity: Affinity | None

    def told(self, values: Mapping[str, str]) -> dict[str, object]:
        """The same in plain types: a host may be where this library is not installed.

        Args:
            values: The values of the environment.
        """
        bound = self.affinity
        return {
            "worker_class": self.worker_class,
            "environment": dict(values),
            "from_node": self.from_node.told(),
            "holds_port": self.holds_port,
            "identity": str(self.identity),
            "describes": self.describes,
            "affinity": bound
            and {
                "cores": list(bound.cores),
                "memory_node": bound.numa_node if bound.binds_memory else None,
            },
        }


def host_instructions(plan: LaunchPlan, identity: RankIdentity) -> HostInstructions:
    """What the host of a rank is told.

    Rank 0 keeps its port, because the group meets there, and describes the class for all.

    Args:
        plan: The group.
        identity: Whose host.
    """
    rank = identity.rank
    worker = plan.workers[rank]
    return HostInstructions(
        identity=identity,
        worker_class=plan.worker_class,
        from_node=rank_node_variables(plan, rank),
        environment=environment_of(plan, rank),
        holds_port=rank == 0,
        describes=rank == 0,
        affinity=worker.affinity,
    )
