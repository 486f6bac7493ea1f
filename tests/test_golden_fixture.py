"""The golden fixture: what it compares, writes and refuses, and when it looks for orphans."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.conftest import GoldenFiles

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parent / "conftest.py"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    """A small test suite with this conftest, two tests and two golden files."""
    profile = hypothesis.settings.get_current_profile_name()
    tests = pytester.mkdir("tests")
    (tests / "conftest.py").write_text(CONFTEST.read_text())
    (tests / "golden").mkdir()
    (tests / "golden" / "a.json").write_text("1\n")
    (tests / "golden" / "b.json").write_text("2\n")
    (tests / "test_it.py").write_text(
        "def test_a(golden): golden('a', '1\\n')\ndef test_b(golden): golden('b', '2\\n')\n"
    )
    pytester.makeini("[pytest]\ntestpaths = tests\nmarkers = ray: cluster\n")
    yield pytester
    hypothesis.settings.load_profile(profile)  # the conftest of the inner run chose one too


def test_same_text_passes(tmp_path: Path) -> None:
    """A text equal to its file passes."""
    (tmp_path / "plan.json").write_text("one\n")
    GoldenFiles(tmp_path).check("plan", "one\n")


def test_other_text_fails_with_a_diff(tmp_path: Path) -> None:
    """A text that differs fails, and the message is the diff and what to do."""
    (tmp_path / "plan.json").write_text("one\ntwo\n")
    with pytest.raises(pytest.fail.Exception) as failure:
        GoldenFiles(tmp_path).check("plan", "one\nthree\n")
    assert str(failure.value) == (
        "--- plan.json\n+++ this run\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n\n"
        "If the change is meant: pytest --update-golden"
    )


def test_missing_file_fails(tmp_path: Path) -> None:
    """A text that has no file yet fails, and nothing is written."""
    with pytest.raises(pytest.fail.Exception, match=r"\+one"):
        GoldenFiles(tmp_path).check("plan", "one\n")
    assert list(tmp_path.iterdir()) == []


def test_update_writes_folders_and_files(tmp_path: Path) -> None:
    """With update, a text becomes its file."""
    GoldenFiles(tmp_path, update=True).check("launch/one_node", "one\n")
    assert (tmp_path / "launch" / "one_node.json").read_text() == "one\n"


def test_orphans_are_the_files_not_asked_for(tmp_path: Path) -> None:
    """Orphans are named by their path in the folder, in order."""
    (tmp_path / "old").mkdir()
    for name in ("b", "a", "old/c"):
        (tmp_path / f"{name}.json").write_text("1\n")
    files = GoldenFiles(tmp_path)
    files.check("a", "1\n")
    assert files.orphans() == ["b.json", "old/c.json"]


def test_whole_run_without_orphans_passes(suite: pytest.Pytester) -> None:
    """When every golden file is used, the session passes."""
    assert suite.runpytest_inprocess().ret == pytest.ExitCode.OK


def test_whole_run_fails_on_an_orphan(suite: pytest.Pytester) -> None:
    """A file that no test asked for fails the session that ran everything."""
    (suite.path / "tests" / "golden" / "stale.json").write_text("3\n")
    result = suite.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*golden files that no test uses*", "stale.json"])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-k", "test_a"], id="keyword"),
        pytest.param(["tests/test_it.py"], id="path"),
        pytest.param(["--deselect", "tests/test_it.py::test_a"], id="deselected"),
        pytest.param(["--setup-only"], id="setup only"),
    ],
)
def test_part_of_the_suite_does_not_look_for_orphans(
    suite: pytest.Pytester, arguments: list[str]
) -> None:
    """A run of some tests says nothing about files it did not use."""
    (suite.path / "tests" / "golden" / "stale.json").write_text("3\n")
    assert suite.runpytest_inprocess(*arguments).ret == pytest.ExitCode.OK


def test_run_with_a_failure_does_not_look_for_orphans(suite: pytest.Pytester) -> None:
    """A test that failed may not have got as far as its golden file, so nothing is said of it."""
    (suite.path / "tests" / "golden" / "late.json").write_text("3\n")
    (suite.path / "tests" / "test_late.py").write_text(
        "def test_late(golden):\n    assert 1 == 2\n    golden('late', '3\\n')\n"
    )
    result = suite.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("*golden files that no test uses*")


def test_update_is_refused_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """CI compares and never writes."""
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_inprocess("--update-golden")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--update-golden is refused when CI is set*"])
