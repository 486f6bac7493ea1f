"""What a class's source tells before anybody imports it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.class_source import ClassFacts, scan_class
from runtime import ray_backend
from runtime.observe import source_of
from runtime.ray_backend import RAY

PLAIN = ClassFacts()
ASYNC = ClassFacts(asynchronous=True)

MODULES = {
    "p.plain": "class A:\n    def run(self): ...\n",
    "p.waits": "class A:\n    async def run(self): ...\n",
    "p.streams": "class A:\n    async def run(self):\n        yield 1\n",
    "p.nested": "class A:\n    def run(self):\n        async def inner(): ...\n",
    "p.choice": "class A:\n    if True:\n        async def run(self): ...\n",
    "p.handlers": "class A:\n    try:\n        pass\n    except E:\n        async def run(self): "
    "...\n",
    "p.config": "class A:\n    @staticmethod\n    def configure_worker(n, b): ...\n",
    "p.child": "from p.waits import A as Base\nclass A(Base): ...\n",
    "p.attribute": "import p.waits as w\nclass A(w.A): ...\n",
    "p.dotted": "import p.waits\nclass A(p.waits.A): ...\n",
    "p.relative": "from .config import A as Base\nclass A(Base): ...\n",
    "p.exported": "from p.waits import A\n",
    "p.renamed": "from p.config import A as B\n",
    "p.generic": "from typing import Generic, T\nclass A(Generic[T]): ...\n",
    "p.abstract": "import abc\nclass A(abc.ABC, metaclass=abc.ABCMeta): ...\n",
    "p.module": "import torch\nclass A(torch.nn.Module): ...\n",
    "p.decorated": "import ray\n@ray.remote(num_cpus=0, runtime_env={'a': ['b']})\nclass A: ...\n",
    "p.bare": "from ray import remote\n@remote\nclass A: ...\n",
    # What the source does not tell:
    "p.unknown_base": "from elsewhere import B\nclass A(B): ...\n",
    "p.made_base": "class A(make()): ...\n",
    "p.unknown_decorator": "@mystery\nclass A: ...\n",
    "p.computed_option": "import ray\nN = 2\n@ray.remote(num_cpus=N)\nclass A: ...\n",
    "p.starred_option": "import ray\n@ray.remote(**O)\nclass A: ...\n",
    "p.assigned": "import ray\nclass B: ...\nA = ray.remote(B)\n",
    "p.reassigned": "class A: ...\nA = wrap(A)\n",
    "p.annotated": "class A: ...\nA: type = wrap(A)\n",
    "p.metaclass": "class A(metaclass=M): ...\n",
    "p.twice": "class A: ...\nclass A: ...\n",
    "p.broken": "class A(:\n",
    "p.empty": "",
    "p.circle": "from p.circle import A\n",
    "p.alias": "async def f(): ...\nclass A:\n    run = f\n",
    "p.set_later": "class A: ...\nA.run = f\n",
    "p": "from .waits import A as Waits\nfrom .inner import A as Deep\nfrom . import config\n"
    "class A(config.A): ...\n",
    "p.inner": "from ..streams import A\n",
    "p.static": "class A:\n    configure_worker = staticmethod(f)\n",
    "p.static_choice": "class A:\n    if X:\n        configure_worker: F = made()\n",
    "p.static_pair": "class A:\n    configure_worker, other = made()\n",
    "p.imports": "class A:\n    from p.waits import run\n",
    "p.loop": "class A:\n    with x:\n        async def run(self): ...\n",
}
PACKAGES = {"p", "p.inner"}


def read(module: str) -> tuple[str, bool] | None:
    """The source of one of the modules above, and whether it is a package."""
    source = MODULES.get(module)
    return None if source is None else (source, module in PACKAGES)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("p.plain", PLAIN),
        ("p.waits", ASYNC),
        ("p.streams", ASYNC),
        ("p.nested", PLAIN),
        ("p.choice", ASYNC),
        ("p.handlers", ASYNC),
        ("p.loop", ASYNC),
        ("p.config", ClassFacts(configures=True)),
        ("p.child", ASYNC),
        ("p.attribute", ASYNC),
        ("p.dotted", ASYNC),
        ("p.relative", ClassFacts(configures=True)),
        ("p.exported", ASYNC),
        ("p.generic", PLAIN),
        ("p.abstract", PLAIN),
        ("p.module", PLAIN),
        ("p.decorated", ClassFacts(options={"num_cpus": 0, "runtime_env": {"a": ["b"]}})),
        ("p.bare", PLAIN),
    ],
)
def test_what_the_source_tells(module: str, expected: ClassFacts) -> None:
    """Methods of its own and of its bases, wherever they are defined, and the decorator."""
    assert scan_class(f"{module}.A", read) == expected


def test_a_class_under_another_name() -> None:
    """Imported as, and asked for by the new name."""
    assert scan_class("p.renamed.B", read) == ClassFacts(configures=True)


@pytest.mark.parametrize(
    "module",
    [
        *("p.unknown_base", "p.made_base", "p.unknown_decorator", "p.computed_option"),
        *("p.starred_option", "p.assigned", "p.reassigned", "p.annotated", "p.metaclass"),
        *("p.twice", "p.broken", "p.empty", "p.circle", "p.missing", "p.renamed", "p.alias"),
        *("p.set_later", "p.static", "p.static_choice", "p.static_pair", "p.imports"),
    ],
)
def test_what_the_source_does_not_tell(module: str) -> None:
    """Then the class must be imported: None, never a guess."""
    assert scan_class(f"{module}.A", read) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p.Waits", ASYNC),
        ("p.Deep", ASYNC),
        ("p.A", ClassFacts(configures=True)),
        ("p.inner.A", ASYNC),
    ],
)
def test_relative_imports_of_a_package(name: str, expected: ClassFacts) -> None:
    """One dot in a package's ``__init__`` is the package itself, not its parent."""
    assert scan_class(name, read) == expected


def test_a_name_without_a_module() -> None:
    """Nothing to read."""
    assert scan_class("A", read) is None


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(source: str) -> None:
    """Facts or None."""
    found = scan_class("p.A", lambda _: (source, False))
    assert found is None or isinstance(found, ClassFacts)


def test_sources_are_found_without_an_import(tmp_path: Path) -> None:
    """With the declared encoding, and whether it is a package; nothing else is a source."""
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "__init__.py").write_text("X = 1\n", encoding="utf-8")
    (folder / "latin.py").write_bytes(b"# coding: latin-1\nX = '\xe9'\n")
    (folder / "broken.py").write_bytes(b"X = '\xe9'\n")
    first = [str(tmp_path)]
    assert source_of("packed", first) == ("X = 1\n", True)
    assert source_of("packed.latin", first) == ("# coding: latin-1\nX = '\xe9'\n", False)
    assert source_of("packed.broken", first) is None
    assert source_of("packed.missing", first) is None
    assert source_of("packed") is None


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("interpreter", [True, False])
def test_the_class_that_is_read_is_the_one_that_workers_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool, interpreter: bool
) -> None:
    """The group's PYTHONPATH comes first; what may differ on the nodes is imported there."""
    asked = []

    def import_class(name: str, runtime_env: object, node_id: str) -> ClassFacts:
        asked.append((name, runtime_env, node_id))
        return ClassFacts(configures=True)

    monkeypatch.setattr(ray_backend, "import_class", import_class)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, text in ((ours, "class A: ...\n"), (theirs, MODULES["p.waits"])):
        folder.mkdir()
        (folder / "twofold.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(ours))
    path = str(theirs) if there else f"{theirs}:{tmp_path}/elsewhere"
    where: dict[str, object] = {"env_vars": {"PYTHONPATH": path}}
    if interpreter:
        where["py_executable"] = "/opt/python"
    facts, found = RAY.class_facts("twofold.A", where, "node")
    if there and not interpreter:
        assert (facts, found, asked) == (ASYNC, "read from its source", [])
    else:
        assert (facts, asked) == (ClassFacts(configures=True), [("twofold.A", where, "node")])
        assert "importing it once" in found
