"""The full name by which workers import their class."""

from planner.findings import Findings

__all__ = ["check_class_name"]


def check_class_name(path: str, name: object, findings: Findings) -> bool:
    """Whether a name can be that of a class that workers import; otherwise a finding.

    Args:
        path: Where it was given.
        name: As given.
        findings: Where problems are recorded.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        findings.add(
            path, f"{name!r} is not the full name of a class", "give 'package.module.Class'"
        )
        return False
    if parts[0] == "__main__":
        problem = f"{name!r} is in the driver's script, which workers cannot import"
        findings.add(path, problem, "move the class to a module of its own")
        return False
    return True
