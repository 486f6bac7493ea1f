"""The planner is pure: what its source may import and call, and what importing it brings in."""

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import planner

FOLDER = Path(planner.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
STANDARD = frozenset(
    {"abc", "ast", "base64", "bisect", "collections", "contextlib", "difflib", "enum", "fnmatch"}
    | {"fractions", "functools", "hashlib", "heapq", "ipaddress", "itertools", "json", "keyword"}
    | {"math", "operator", "re", "shlex", "string", "textwrap", "tomllib", "types", "typing"}
    | {"unicodedata"}
)
EVERYWHERE = STANDARD | {"attrs", "numpy", "planner"}
EFFECTS = frozenset(
    {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "open", "print"}
)


def _allowed(source: Path) -> frozenset[str]:
    place = source.relative_to(FOLDER)
    if place == Path("codec.py"):
        return EVERYWHERE | {"cattrs"}
    return EVERYWHERE | {"rich"} if place.parts[0] == "show" else EVERYWHERE


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def _outside(source: Path, text: str) -> list[str]:
    """What a module imports or calls and may not."""
    tree = ast.parse(text)
    allowed = _allowed(source)
    imports = [name for name in _imported(tree) if name.split(".")[0] not in allowed]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return imports + sorted(names & EFFECTS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_module_stays_inside_the_pure_world(source: Path) -> None:
    """A planner module imports only what is pure, and calls no built-in that has effects."""
    assert _outside(source, source.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("mesh.py", "import os.path", ["os.path"]),
        ("mesh.py", "def f():\n    from ray.util import x", ["ray.util"]),
        ("mesh.py", "from . import launch", ["."]),
        ("mesh.py", "import cattrs, rich", ["cattrs", "rich"]),
        ("codec.py", "import cattrs", []),
        ("show/table.py", "import rich.table", []),
        ("codec.py", "open('x')", ["open"]),
        ("mesh.py", "run = print", ["print"]),
    ],
)
def test_check_sees_what_is_impure(place: str, text: str, expected: list[str]) -> None:
    """The check above finds each way out that it is there to find."""
    assert _outside(FOLDER / place, text) == expected


def test_importing_the_planner_brings_in_no_runtime() -> None:
    """With the planner and all its modules imported, Ray, torch and the runtime are not."""
    names = ["planner"]
    names += [each.name for each in pkgutil.walk_packages(planner.__path__, "planner.")]
    program = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "print(sorted({'ray', 'torch', 'runtime'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
