"""Which running cluster a driver may join: a local one only when both see the same GPUs."""

from collections.abc import Mapping, Sequence

from planner.accelerators import ACCELERATORS
from planner.nodes import natural_key

__all__ = ["GPU_MARK_LABEL", "gpu_mark", "may_join"]

GPU_MARK_LABEL = "rankplan/visible-gpus"
"""The node label in which a local cluster keeps which GPUs its driver saw."""

EVERYTHING = "all"


def gpu_mark(environment: Mapping[str, str]) -> str:
    """Which GPUs a process with this environment sees, as the value of a label.

    The order of the devices does not matter: a cluster has them all.
    """
    names = dict.fromkeys(row.visible for row in ACCELERATORS)
    marks: list[str] = []
    for name in names:
        if name in environment:
            listed = {part.strip() for part in environment[name].split(",") if part.strip()}
            marks.append(
                "_".join(sorted(listed, key=lambda each: (natural_key(each), each))) or "none"
            )
    return "-".join(marks)[:60] or EVERYTHING


def may_join(nodes: Sequence[Mapping[str, str]], mark: str, *, announced: bool) -> bool:
    """Whether a driver may use a running cluster.

    A cluster that carries no mark was not started by a driver of ours: it is used as it is when
    it was announced, by ``RAY_ADDRESS`` or by the note that ``ray start`` leaves. One that only
    runs on the same machine may be anybody's.

    Args:
        nodes: The labels of its nodes.
        mark: Which GPUs this driver sees.
        announced: Whether somebody said that it is to be used.
    """
    marks = {labels[GPU_MARK_LABEL] for labels in nodes if GPU_MARK_LABEL in labels}
    return marks == {mark} if marks else announced
