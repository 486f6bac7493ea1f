"""The documents: links lead somewhere, snippets are Python, and what they name is there."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import planner
import runtime
from examples import plan_ahead

pytest_plugins = ["pytester"]

ROOT = Path(planner.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = (planner, runtime)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"(?:benchmarks|docs|examples|planner|runtime|tests)(?:/\w+)+\.(?:py|md)")
_MODULE = re.compile(r"python -m (benchmarks\.\w+)")
_DOTTED = re.compile(r"(?:planner|runtime)(?:\.\w+)+")
_PLACEHOLDER = re.compile(r"@[A-Z_]+@|\b(?:TODO|FIXME|TBD|XXX)\b")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def _prose(text: str) -> str:
    return _BLOCK.sub("", text)


def _anchor(heading: str) -> str:
    """The anchor that a reader's browser is given for a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def _anchors(text: str) -> set[str]:
    return {_anchor(heading) for heading in _HEADING.findall(_prose(text))}


def dead_links(page: Path, text: str) -> list[str]:
    """The links of a page, read as ``text``, that lead to no file or to no heading."""
    dead: list[str] = []
    for link in _LINK.findall(_prose(text)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if re.match(r"\w+:", link):
            continue
        there = text if not name else target.read_text() if target.is_file() else ""
        if not target.exists() or (anchor and anchor not in _anchors(there)):
            dead.append(link)
    return dead


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of everything that is taken from this project's packages."""
    for node in ast.walk(tree):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.split(".")[0] in {"planner", "runtime"}:
            yield from ((module, alias.name) for alias in node.names)


def _bound(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _public() -> set[str]:
    """Names that a reader must import: all that is exported, and each module's own types."""
    names: set[str] = set()
    for package in PACKAGES:
        names |= set(package.__all__)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            listed: list[str] = getattr(importlib.import_module(found.name), "__all__", [])
            names |= {name for name in listed if name[0].isupper()}
    return names | set(importlib.import_module("planner.show").__all__)


def names_not_imported(text: str, public: set[str]) -> list[str]:
    """Public names that a page's snippets use before a snippet imports or makes them."""
    known: set[str] = set()
    missing: list[str] = []
    for block in _blocks(text, "python"):
        tree = ast.parse(block)
        known |= set(_bound(tree))
        used = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        missing += sorted((used & public) - known)
    return missing


def _is_there(dotted: str) -> bool:
    """Whether ``package.module.name...`` can be reached by imports and attributes."""
    parts = dotted.split(".")
    found: object = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], start=1):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(".".join(parts[: index + 1]))
        except ImportError:
            return False
    return True


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every link within the project names a file that exists, and a heading of it."""
    assert dead_links(page, page.read_text()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/none.md)", ["docs/none.md"]),
        ("[a](docs/plans.md#nothing)", ["docs/plans.md#nothing"]),
        ("[a](docs/plans.md#versions) [b](https://example.com/x)", []),
        ("# A `b`, c\n[a](#a-b-c) [b](#a-b)", ["#a-b"]),
        ("```text\n[a](none.md)\n```\n", []),
    ],
)
def test_dead_links_are_seen(text: str, expected: list[str]) -> None:
    """The check above finds what it is there to find."""
    assert dead_links(ROOT / "README.md", text) == expected


@each_page
def test_pages_can_be_reached(page: Path) -> None:
    """README links to every page, and every page to another one."""
    readme = set(_LINK.findall(PAGES[0].read_text()))
    if page != PAGES[0]:
        assert f"docs/{page.name}" in readme
    assert any(re.search(r"\.md(#|$)", link) for link in _LINK.findall(page.read_text()))


@each_page
def test_nothing_was_left_to_fill_in(page: Path) -> None:
    """No placeholder stands anywhere."""
    assert _PLACEHOLDER.findall(page.read_text()) == []


@each_page
def test_snippets_import_what_exists(page: Path) -> None:
    """Every Python block parses, and every name that it takes from this project is there."""
    taken = [
        pair for block in _blocks(page.read_text(), "python") for pair in _imports(ast.parse(block))
    ]
    missing = [
        f"{module}.{name}"
        for module, name in taken
        if not hasattr(importlib.import_module(module), name)
    ]
    assert missing == []


@each_page
def test_snippets_import_what_they_use(page: Path) -> None:
    """What belongs to this project is imported on the page before it is used, or with it."""
    assert names_not_imported(page.read_text(), _public()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nplan_cluster(Locality.ANYWHERE)\n```\n", ["Locality", "plan_cluster"]),
        (
            "```python\nfrom planner import Locality\n```\nx\n```python\nLocality.ANYWHERE\n```\n",
            [],
        ),
        (
            "```python\nLocality.ANYWHERE\n```\n```python\nfrom planner import Locality\n```\n",
            ["Locality"],
        ),
        ("```python\ndef difference(): ...\ndifference()\n```\n", []),
        ("```text\nLocality\n```\n", []),
    ],
)
def test_names_without_an_import_are_seen(text: str, expected: list[str]) -> None:
    """The check above finds what it is there to find, and no more."""
    assert names_not_imported(text, {"Locality", "plan_cluster", "difference"}) == expected


@each_page
def test_what_is_named_in_the_text_is_there(page: Path) -> None:
    """Files, programs and dotted names that the text mentions exist."""
    text = page.read_text()
    code = " ".join(_CODE.findall(_prose(text)))
    gone = [name for name in _FILE.findall(code) if not (ROOT / name).is_file()]
    gone += [
        name
        for name in _MODULE.findall(text)
        if not (ROOT / f"{name.replace('.', '/')}.py").is_file()
    ]
    words = (word for word in _CODE.findall(_prose(text)) if _DOTTED.match(word))
    dotted = [found.group() for word in words if (found := _DOTTED.match(word))]
    gone += [name for name in dotted if not _is_there(name)]
    assert gone == []


def test_readme_shows_what_its_plan_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The plan in README is, to the letter, what its snippet prints, and the example too."""
    text = PAGES[0].read_text()
    snippet = next(each for each in _blocks(text, "python") if "h100_nodes" in each)
    exec(compile(snippet, "README.md", "exec"), {})  # noqa: S102  # a reader would run it too
    printed = capsys.readouterr().out
    plan_ahead.main([])
    assert printed == capsys.readouterr().out
    assert printed.rstrip("\n") + "\n" in _blocks(text, "text")


def test_golden_fixture_of_the_pages_works(pytester: pytest.Pytester) -> None:
    """It fails without a file, writes one when asked, and fails when the text changes."""
    blocks = _blocks((ROOT / "docs" / "plans.md").read_text(), "python")
    (conftest,) = [each for each in blocks if "pytest_addoption" in each]
    pytester.makeconftest(conftest)
    pytester.makepyfile("def test_it(golden):\n    golden('launch/policy', 'one\\n')\n")
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.TESTS_FAILED
    assert pytester.runpytest_inprocess("--update-golden").ret == pytest.ExitCode.OK
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.OK
    (pytester.path / "golden" / "launch" / "policy.json").write_text("two\n")
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.TESTS_FAILED
