"""The names of a group's actors: how they are made of the group's, and whose a name is."""

import re
from collections.abc import Iterable

__all__ = ["base_name", "companion_name", "group_names", "group_of", "groups_watched", "next_name"]

_COMPANION = re.compile(r"(?P<group>.+)\.companion-[0-9]+")
_WORKER = re.compile(r"(?P<group>.+)-(?:grp[0-9]+-[0-9]+|[0-9]+-[0-9]+)")


def next_name(name: str, generation: int) -> str:
    """What a worker is called when it is started again: the old name may not be free yet."""
    return f"{base_name(name)}.g{generation}"


def base_name(name: str) -> str:
    """A worker's name without its generation."""
    head, mark, tail = name.rpartition(".g")
    return head if mark and tail.isdigit() else name


def companion_name(group: str, number: int) -> str:
    """What a process is called that looks at the workers of a group from outside."""
    return f"{group}.companion-{number}"


def groups_watched(taken: Iterable[str]) -> frozenset[str]:
    """The groups whose companions are among some names."""
    found = (_COMPANION.fullmatch(name) for name in taken)
    return frozenset(each["group"] for each in found if each)


def group_of(name: str) -> str:
    """The group that a name can belong to; the name itself where it can be nobody's."""
    return next(iter(group_names([name])), name)


def group_names(taken: Iterable[str]) -> frozenset[str]:
    """The groups that some names can belong to."""
    names = frozenset(taken)
    workers = (_WORKER.fullmatch(base_name(name)) for name in names)
    return groups_watched(names).union(each["group"] for each in workers if each)
