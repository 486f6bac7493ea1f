"""What hosts say once their workers are made, and whether it is as the plan counts on."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from planner.class_source import AssumedClass
from planner.findings import Finding
from planner.group import GroupSpec
from planner.launch_plan import LaunchPlan
from planner.outcomes import RankIdentity
from planner.signatures import Method, MethodKind

__all__ = [
    "Acknowledgement",
    "judge_affinity",
    "judge_answers",
    "judge_class",
    "judge_class_again",
    "memory_notes",
]

_ASYNC = frozenset({MethodKind.ASYNC, MethodKind.ASYNC_GENERATOR})


@frozen(kw_only=True)
class Acknowledgement:
    """What one host says when the constructor of its worker has returned.

    Attributes:
        digest: Stands for the methods of the class that it has imported.
        configures: Whether that class has ``configure_worker``.
        cores: The cores that it runs on, as the kernel says; None when it was not bound.
        memory_problem: Why its memory is not bound; empty when it is, or was not to be.
    """

    digest: str
    configures: bool
    cores: tuple[int, ...] | None = None
    memory_problem: str = ""


def judge_class(
    plan: LaunchPlan,
    assumed: AssumedClass,
    methods: Mapping[str, Method],
    acknowledged: Mapping[int, Acknowledgement],
    identities: Mapping[int, RankIdentity],
) -> tuple[Finding, ...]:
    """What contradicts the plan in the class that the hosts have imported.

    Args:
        plan: The group.
        assumed: What was taken of the class when the plan was made.
        methods: The methods of the class on rank 0.
        acknowledged: What each host said; rank 0's is among them.
        identities: Who the ranks are.
    """
    found: list[Finding] = []
    other = [rank for rank, each in acknowledged.items() if each.digest != acknowledged[0].digest]
    if other:
        found.append(
            Finding(
                plan.worker_class,
                f"it has other methods on {_some(other, identities)} than on {identities[0]}: "
                "the nodes hold different versions of it",
                "bring the same version to every node",
            )
        )
    hidden = [name for name, method in methods.items() if method.kind in _ASYNC]
    if hidden and not plan.asynchronous:
        found.append(
            Finding(
                plan.worker_class,
                f"it has async methods that its source does not show ({hidden[0]})",
                "start the group with asynchronous=True",
            )
        )
    contrary = [rank for rank, e in acknowledged.items() if e.configures != assumed.configures]
    if contrary:
        found.append(_contradiction(plan.worker_class, assumed, _some(contrary, identities)))
    return tuple(found)


def judge_class_again(
    plan: LaunchPlan,
    before: Acknowledgement,
    acknowledged: Mapping[int, Acknowledgement],
    identities: Mapping[int, RankIdentity],
) -> tuple[Finding, ...]:
    """What contradicts the group in the class that hosts have imported which start again.

    Args:
        plan: The group.
        before: What rank 0 said when the group was started.
        acknowledged: What each of them said.
        identities: Who the ranks are.
    """
    other = [
        rank
        for rank, each in acknowledged.items()
        if (each.digest, each.configures) != (before.digest, before.configures)
    ]
    if not other:
        return ()
    return (
        Finding(
            plan.worker_class,
            f"it has other methods on {_some(other, identities)} than when the group was started: "
            "its source has changed since",
            "bring the first version back, or end the group and start a new one",
        ),
    )


def judge_answers(
    spec: GroupSpec, assumed: AssumedClass, answers: Sequence[object], node: str
) -> tuple[Finding, ...]:
    """What contradicts what was taken of a class in how its ``configure_worker`` answered.

    Args:
        spec: The group.
        assumed: What was taken of its class: it was asked, so it has one.
        answers: One for each slot; none where the class has no ``configure_worker``.
        node: Where it was asked.
    """
    if answers:
        return ()
    return (_contradiction(spec.worker_class, assumed, f"node {node}, where it was asked"),)


def _contradiction(worker_class: str, assumed: AssumedClass, where: str) -> Finding:
    taken = f"it was taken ({assumed.found}) for a class"
    same = "bring the same version to every node"
    if assumed.configures:
        problem = f"{taken} with configure_worker, and it has none on {where}"
        return Finding(worker_class, problem, same)
    return Finding(
        worker_class,
        f"{taken} without configure_worker, so nobody asked what its workers need, and it has "
        f"one on {where}",
        "define configure_worker in the body of the class or of a base, where its source shows "
        f"it, and {same}",
    )


def judge_affinity(
    plan: LaunchPlan,
    acknowledged: Mapping[int, Acknowledgement],
    identities: Mapping[int, RankIdentity],
) -> tuple[Finding, ...]:
    """The processes that are not on the cores to which the plan binds them.

    Args:
        plan: The group.
        acknowledged: What hosts said; ranks that are not in it are not judged.
        identities: Who the ranks are.
    """
    found: list[Finding] = []
    for rank, each in acknowledged.items():
        wanted = plan.workers[rank].affinity
        if wanted is None or each.cores == wanted.cores:
            continue
        runs = "is bound to none" if each.cores is None else f"runs on {each.cores}"
        found.append(
            Finding(
                str(identities[rank]),
                f"it should run on cores {wanted.cores} and {runs}: something else on its node "
                "limits it",
                "start the group with numa_binding=False",
            )
        )
    return tuple(found)


def memory_notes(
    acknowledged: Mapping[int, Acknowledgement], identities: Mapping[int, RankIdentity]
) -> tuple[str, ...]:
    """A line for each process whose memory could not be bound, which is no error."""
    return tuple(
        f"the memory of {identities[rank]} is not bound: {each.memory_problem}"
        for rank, each in acknowledged.items()
        if each.memory_problem
    )


def _some(ranks: Sequence[int], identities: Mapping[int, RankIdentity]) -> str:
    more = f" and {len(ranks) - 1} more ranks" if len(ranks) > 1 else ""
    return f"{identities[ranks[0]]}{more}"
