"""Inventories in files: read from TOML or JSON, written as JSON or TOML."""

import json
import tomllib
from os import PathLike
from pathlib import Path

from planner.findings import Finding, Findings, PlanError
from planner.inventory import Inventory, inventory_from_data, inventory_to_data

__all__ = ["read_inventory", "write_inventory"]

LARGEST = 64 * 1024 * 1024
"""Bytes that an inventory's file may have; 100,000 nodes need about a third of it."""

_KINDS = (".toml", ".json")


def read_inventory(path: str | Path) -> Inventory:
    """The inventory that a file describes.

    Args:
        path: A file whose name ends in ``.toml`` or ``.json``.

    Raises:
        PlanError: The file can't be read, is not well-formed, or describes no cluster; every
            problem is in the error, each with the file and the place in it.
    """
    file = _file(path)
    findings = Findings(f"inventory {str(file)!r}")
    kind = _kind(file, findings)
    text = _text(file, findings)
    try:
        data: object = tomllib.loads(text) if kind == ".toml" else json.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        findings.fail("file", f"it is not well-formed: {error}", f"write it as {kind[1:].upper()}")
    try:
        return inventory_from_data(data)
    except PlanError as error:
        raise PlanError(findings.subject, error.findings) from error


def write_inventory(inventory: Inventory, path: str | Path) -> None:
    """Write an inventory so that ``read_inventory`` gives an equal one.

    Raises:
        PlanError: It is no inventory, the file's name ends in neither ``.toml`` nor ``.json``, or
            it can't be written.
    """
    file = _file(path)
    findings = Findings(f"inventory {str(file)!r}")
    given: object = inventory
    if not isinstance(given, Inventory):
        problem = f"a value of type {type(given).__name__}"
        findings.fail("inventory", problem, "give an Inventory, as observe_inventory() makes it")
    kind = _kind(file, findings)
    data = inventory_to_data(inventory)
    text = json.dumps(data, indent=2) + "\n" if kind == ".json" else _toml(data)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        findings.fail("file", f"it can't be written: {error.strerror}", "choose another place")


def _file(path: object) -> Path:
    if not isinstance(path, str | PathLike):
        problem = f"a value of type {type(path).__name__}"
        Findings("inventory").fail("path", problem, "give the path of a file")
    return Path(path)


def _kind(file: Path, findings: Findings) -> str:
    kind = file.suffix.lower()
    if kind not in _KINDS:
        findings.fail("file", f"its name ends in {kind!r}", f"use {' or '.join(_KINDS)}")
    return kind


def _text(file: Path, findings: Findings) -> str:
    try:
        size = file.stat().st_size
        if size > LARGEST:
            findings.fail(
                "file",
                f"it has {size:,} bytes, more than {LARGEST:,}",
                "use 'count' for nodes that are alike",
            )
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(
            findings.subject, [Finding("file", "it is no UTF-8 text", "save it as UTF-8")]
        ) from error
    except OSError as error:
        findings.fail("file", f"it can't be read: {error.strerror}", "check its path")


def _toml(data: dict[str, object]) -> str:
    nodes = data["nodes"]
    tables = nodes if isinstance(nodes, list) else []
    lines: list[str] = []
    for table in tables:
        lines.append("[[nodes]]")
        lines.extend(f"{_key(name)} = {_value(value)}" for name, value in table.items())
        lines.append("")
    return "\n".join(lines) if lines else "nodes = []\n"


def _key(name: str) -> str:
    return (
        name
        if name.replace("_", "").replace("-", "").isalnum() and name.isascii()
        else _value(name)
    )


def _value(value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(str(name))} = {_value(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the control character DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return json.dumps(value)
