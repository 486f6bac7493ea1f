"""Removes from a process what its node handed it and the plan does not let through.

It travels to the nodes by value, so it imports the standard library only.
"""

import re
from collections.abc import Iterable, Mapping, MutableMapping
from fnmatch import fnmatchcase

__all__ = ["drop_inherited"]


def drop_inherited(told: Mapping[str, object], environment: MutableMapping[str, str]) -> None:
    """Remove variables from an environment.

    Args:
        told: The rules: what ``NodeVariables.told`` gives.
        environment: Of the process; what the plan gives it is set after this.
    """
    removed, stays, kept, credentials = (
        _patterns(told[rule]) for rule in ("removed", "stays", "kept", "credentials")
    )
    secret_name, secret_value = (
        re.compile(str(told[rule])) for rule in ("credential_name", "credential_value")
    )
    for name, value in list(environment.items()):
        if _matches(name, removed):
            del environment[name]
        elif not _matches(name, stays):
            secret = secret_name.search(name) or secret_value.search(value)
            if not _matches(name, kept) or (secret and not _matches(name, credentials)):
                del environment[name]


def _patterns(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
