"""What all tests share: hypothesis profiles, golden files, and one Ray cluster of several nodes."""

import difflib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from attrs import field, frozen

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

__all__ = ["Golden", "GoldenFiles"]

ROOT = Path(__file__).parent.parent
Golden = Callable[[str, str], None]

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "dev")


@frozen
class GoldenFiles:
    """Texts kept as files, and which of them were asked for.

    Attributes:
        folder: Where they are kept.
        update: Write what the tests give, where it differs, and compare nothing.
    """

    folder: Path
    update: bool = False
    used: set[Path] = field(factory=set, init=False)

    def check(self, name: str, text: str) -> None:
        """Fail with a diff unless ``text`` is what ``<name>.json`` holds."""
        path = self.folder / f"{name}.json"
        self.used.add(path)
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        kept = path.read_text(encoding="utf-8") if path.exists() else ""
        if kept != text:
            diff = difflib.unified_diff(
                kept.splitlines(), text.splitlines(), f"{name}.json", "this run", lineterm=""
            )
            shown = "\n".join(diff) or "they differ only in how their lines end"
            pytest.fail(f"{shown}\n\nIf the change is meant: pytest --update-golden", pytrace=False)

    def orphans(self) -> list[str]:
        """The kept files that nothing asked for, by name."""
        kept = set(self.folder.rglob("*.json"))
        return sorted(str(path.relative_to(self.folder)) for path in kept - self.used)


FILES = pytest.StashKey[GoldenFiles]()
PARTIAL = pytest.StashKey[bool]()
ORPHANS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the golden files; refuse to write them in CI."""
    update = bool(config.getoption("--update-golden"))
    if update and "CI" in os.environ:
        raise pytest.UsageError("--update-golden is refused when CI is set")
    config.stash[FILES] = GoldenFiles(Path(__file__).parent / "golden", update)
    config.stash[PARTIAL] = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or any(
        config.getoption(name, default=None)
        for name in ("lf", "ignore", "ignore_glob", "numprocesses")
    )


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Golden:
    """``golden(name, text)`` compares a text with ``tests/golden/<name>.json``."""
    return pytestconfig.stash[FILES].check


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Note that not every test runs."""
    for item in items[:1]:
        item.config.stash[PARTIAL] = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when all tests ran and passed, and one golden file was not asked for."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    passed = len(reporter.stats.get("passed", [])) if reporter else 0
    if config.stash[PARTIAL] or not passed or passed != session.testscollected:
        return
    config.stash[ORPHANS] = config.stash[FILES].orphans()
    if config.stash[ORPHANS]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the golden files that no test asked for."""
    orphans = config.stash.get(ORPHANS, [])
    if orphans:
        terminalreporter.section("golden files that no test uses", red=True, bold=True)
        terminalreporter.line("\n".join(orphans))
        terminalreporter.line("Delete them, or use them in a test.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the cluster, so that ``-m 'not ray'`` leaves out all of them."""
    for item in items:
        if isinstance(item, pytest.Function) and "cluster_of_nodes" in item.fixturenames:
            item.add_marker("ray")


@pytest.fixture(scope="session")
def cluster_of_nodes() -> Iterator["Cluster"]:
    """Three nodes on this machine, each with 16 CPUs and 8 GPUs that exist by name only.

    The driver is connected to the first. Node ``i`` has the labels ``rack=rack<i>`` and
    ``position=<i>``. A test that needs a node it can kill adds one and removes it.
    """
    import ray
    from ray.cluster_utils import Cluster

    with _environment() as folder:
        cluster = Cluster()
        try:
            with _as_default_folder(folder):
                for index in range(3):
                    cluster.add_node(
                        wait=index == 0,
                        num_cpus=16,
                        num_gpus=8,
                        labels={"rack": f"rack{index}", "position": str(index)},
                        include_dashboard=False,
                    )
                cluster.wait_for_nodes()
            _connect(cluster)
            yield cluster
        finally:
            with _as_default_folder(folder):
                ray.shutdown()
                cluster.shutdown()


@contextmanager
def _environment() -> Iterator[str]:
    with (
        # Not pytest's folder: the paths of sockets must be short.
        tempfile.TemporaryDirectory(
            prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
        ) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # The nodes hand this on to the workers, which import tests.workers.
        environment.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        yield folder


@contextmanager
def _as_default_folder(folder: str) -> Iterator[None]:
    """Keep Ray's note of the newest cluster where no other Ray on this machine finds it.

    The nodes also get variables that the driver lacks, as from a shell that starts Ray.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TMPDIR", folder)
        # What the shell held that started the nodes: no worker may find the first of them.
        environment.setenv("RANKPLAN_TEST_API_TOKEN", "hush-of-the-node")
        environment.setenv("RANKPLAN_TEST_PLAIN", "of-the-node")
        environment.setenv("SLURM_JOB_ID", "4711")
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves an actor or a placement group on the cluster.

    What was there when the test began, such as the group of a module's fixture, may stay.
    """
    if "cluster_of_nodes" not in request.fixturenames:
        yield
        return
    cluster: Cluster = request.getfixturevalue("cluster_of_nodes")
    _connect(cluster)
    before = set(_living())
    yield
    _connect(cluster)
    deadline = time.monotonic() + 10
    while (left := _living()).keys() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    names = [text for identity, text in left.items() if identity not in before]
    if names:
        pytest.fail("the test left on the cluster: " + "; ".join(names), pytrace=False)


def _connect(cluster: "Cluster") -> None:
    """Connect the driver, first or again: a test may have disconnected it."""
    import ray

    if not ray.is_initialized():
        ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)


def _living() -> dict[str, str]:
    """The actors and placement groups of the cluster, each by its id, with what to call it."""
    from ray._private import state
    from ray.util.placement_group import placement_group_table

    actors = {
        identity: f"actor {each['ActorClassName']} {each['Name']!r} ({each['State']}, "
        f"pid {each['Pid']})"
        for identity, each in state.actors().items()
        if each["State"] != "DEAD"
    }
    groups = {
        identity: f"placement group {each['name']!r} ({each['state']}, "
        f"{len(each['bundles'])} bundles)"
        for identity, each in placement_group_table().items()
        if each["state"] != "REMOVED"
    }
    return actors | groups
