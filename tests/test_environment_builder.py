"""Environments are built for real, found again, and checked before a worker starts in them."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from runtime import bounded_program, environment_builder
from runtime.environment_builder import BuildSpec, build_environment, digest_of_sources, find_uv
from tests.environment_cases import (
    PYTHON,
    RAY,
    colours_wheel,
    fake_ray_wheel,
    fake_uv,
    left_in,
    plain_spec,
    ready,
    what_it_prints,
)
from tests.wheels import write_wheel


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and locks of the test's own."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_two_versions_of_a_package_live_side_by_side(tmp_path: Path) -> None:
    """Each environment has its own version and the driver's packages; the driver has neither."""
    code = "import colours, attrs, sys; print(colours.VERSION, sys.prefix)"
    for version in ("1.0", "2.0"):
        spec = plain_spec(tmp_path, colours_wheel(tmp_path, version), key=version)
        executable = ready(build_environment(spec))
        folder = tmp_path / "environments" / version
        assert executable == str(folder / "bin" / "python")
        assert what_it_prints(executable, code) == f"{version} {folder}"
    assert importlib.util.find_spec("colours") is None


def test_a_package_of_the_environment_wins_over_the_drivers(tmp_path: Path) -> None:
    """The driver's packages stand behind the environment's own."""
    newer = write_wheel(tmp_path, "rich", "99.0", "WINNER = 'environment'\n")
    executable = ready(build_environment(plain_spec(tmp_path, newer)))
    assert what_it_prints(executable, "import rich; print(rich.WINNER)") == "environment"


def test_an_environment_is_built_once_and_then_found(tmp_path: Path) -> None:
    """The second call finds the first one's work, although the package is no longer there."""
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    first = build_environment(spec)
    Path(spec["requirements"][0]).unlink()
    second = build_environment(spec)
    assert (first["built"], second["built"]) == (True, False)
    assert ready(first) == ready(second)


def test_without_uv_the_environment_is_built_by_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requirement sets need no uv."""
    monkeypatch.setattr(environment_builder, "find_uv", lambda: None)
    executable = ready(build_environment(plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))))
    assert what_it_prints(executable, "import colours; print(colours.VERSION)") == "1.0"


def _project(tmp_path: Path) -> Path:
    """A locked project that needs colours and (a stand-in for) ray."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f"""
        [project]
        name = "engine"
        version = "0"
        requires-python = ">={".".join(PYTHON.split(".")[:2])}"
        dependencies = ["ray"]
        [project.optional-dependencies]
        bright = ["colours"]
        [tool.uv]
        package = false
        [tool.uv.sources]
        ray = {{ path = "{fake_ray_wheel(tmp_path)}" }}
        colours = {{ path = "{colours_wheel(tmp_path, "1.0")}" }}
        """,
        encoding="utf-8",
    )
    uv = find_uv()
    assert uv is not None
    command = [uv, "lock", "--directory", str(folder), "--python", sys.executable]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _project_spec(tmp_path: Path, project: Path) -> BuildSpec:
    spec = plain_spec(tmp_path)
    spec["uv_arguments"] = ["--directory", str(project), "--locked", "--extra", "bright"]
    spec["sources"] = [str(project)]
    spec["sources_digest"] = digest_of_sources([str(project)])
    return spec


def test_a_locked_project_is_built_outside_its_folder(tmp_path: Path) -> None:
    """The environment is the project's, with the extra, and the project's folder stays clean."""
    project = _project(tmp_path)
    executable = ready(build_environment(_project_spec(tmp_path, project)))
    assert what_it_prints(executable, "import colours; print(colours.VERSION)") == "1.0"
    assert sorted(each.name for each in project.iterdir()) == ["pyproject.toml", "uv.lock"]


def test_a_project_that_differs_from_the_drivers_is_not_built(tmp_path: Path) -> None:
    """A node's old copy of the project would give another environment under the same key."""
    project = _project(tmp_path)
    spec = _project_spec(tmp_path, project)
    with (project / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert build_environment(spec)["problem"] == (
        f"{project} differs from the driver's; bring this node's copy up to date and plan again"
    )


def test_a_missing_project_is_named(tmp_path: Path) -> None:
    """A folder that is not on the node is told by its name."""
    spec = plain_spec(tmp_path)
    spec["uv_arguments"] = ["--directory", "/no/such/project"]
    spec["sources"] = ["/no/such/project"]
    assert build_environment(spec)["problem"] == (
        "its sources cannot be read on this node: /no/such/project belongs to no project with a "
        "uv.lock; make it by 'uv lock'"
    )


def test_a_project_needs_uv_and_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without uv there is no way to build a locked project."""
    monkeypatch.setattr(environment_builder, "find_uv", lambda: None)
    spec = plain_spec(tmp_path)
    spec["uv_arguments"] = ["--locked"]
    assert build_environment(spec)["problem"] == (
        "uv is not on this node; install it, or give a prebuilt interpreter"
    )


def test_a_prebuilt_interpreter_is_used_as_it_is(tmp_path: Path) -> None:
    """Nothing is built, and the path comes back unchanged."""
    spec = plain_spec(tmp_path)
    spec["executable"] = sys.executable
    assert ready(build_environment(spec)) == sys.executable
    assert not (tmp_path / "environments").exists()


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    """Ray would leave a worker pending for ever without a word."""
    spec = plain_spec(tmp_path)
    spec["executable"] = "/no/such/python"
    assert build_environment(spec)["problem"] == (
        "/no/such/python is not an executable file on this node"
    )


def test_an_interpreter_that_is_none_is_found_out(tmp_path: Path) -> None:
    """A program that runs, but not Python, is refused with what it said."""
    spec = plain_spec(tmp_path)
    spec["executable"] = "/bin/echo"
    outcome = build_environment(spec)
    assert outcome["problem"] == "/bin/echo does not behave like a Python"
    assert outcome["output"].startswith("-c")


def test_an_environment_without_ray_is_refused(tmp_path: Path) -> None:
    """The error says what it has and what is needed, and nothing is published."""
    spec = plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))
    spec["inherits_packages"] = False
    minor = ".".join(PYTHON.split(".")[:2])
    assert build_environment(spec)["problem"] == (
        f"the environment has Python {PYTHON} and no usable Ray (ModuleNotFoundError: No module "
        f"named 'ray'); workers need Python {minor} and Ray {RAY}, as the driver has"
    )
    assert left_in(tmp_path) == []


def test_another_ray_is_refused(tmp_path: Path) -> None:
    """Workers with another Ray could not talk to the cluster."""
    spec = plain_spec(tmp_path, fake_ray_wheel(tmp_path, "1.2.3"))
    assert (
        f"the environment has Python {PYTHON} and Ray 1.2.3; workers need"
        in (build_environment(spec)["problem"])
    )


def test_another_minor_python_is_refused(tmp_path: Path) -> None:
    """Pickled functions do not travel between minor versions of Python."""
    spec = plain_spec(tmp_path)
    spec["executable"] = sys.executable
    spec["python"] = "3.99.1"
    assert build_environment(spec)["problem"] == (
        f"{sys.executable} has Python {PYTHON} and Ray {RAY}; workers need Python 3.99 and "
        f"Ray {RAY}, as the driver has"
    )


def test_a_failure_shows_the_end_of_the_builders_output_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last lines tell what went wrong; passwords in them are replaced."""
    monkeypatch.setenv("INDEX_TOKEN", "hunter2-token")
    fake_uv(
        tmp_path,
        monkeypatch,
        "seq 1000\n"
        "echo fetching https://user:hunter2@index.example/simple?token=hunter2x >&2\n"
        "echo with hunter2-token\n"
        "exit 3",
    )
    outcome = build_environment(plain_spec(tmp_path, "colours"))
    assert outcome["problem"] == "'uv venv --no-project' failed with exit code 3"
    lines = outcome["output"].splitlines()
    assert lines[-2:] == [
        "fetching https://***@index.example/simple?token=***",
        "with ***",
    ]
    assert (len(lines), lines[0]) == (30, "973")


def test_the_drivers_own_environment_does_not_mislead_the_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VIRTUAL_ENV, PYTHONPATH and the like of this process do not reach the builder."""
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON"):
        monkeypatch.setenv(name, "/misleading")
    executable = ready(build_environment(plain_spec(tmp_path, colours_wheel(tmp_path, "1.0"))))
    assert executable.startswith(str(tmp_path))


def test_the_digest_follows_contents(tmp_path: Path) -> None:
    """A changed file gives another digest; the order of the files does not matter."""
    first, second = colours_wheel(tmp_path, "1.0"), colours_wheel(tmp_path, "2.0")
    both = digest_of_sources([first, second])
    assert digest_of_sources([second, first]) == both
    Path(first).write_bytes(b"other")
    assert digest_of_sources([first, second]) != both
    assert digest_of_sources([]) == ""


def test_the_builder_works_where_rankplan_is_not_installed(tmp_path: Path) -> None:
    """It travels by value and imports the standard library only."""
    for module in (bounded_program, environment_builder):
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        sent = ray.cloudpickle.dumps(build_environment)
    finally:
        for module in (bounded_program, environment_builder):
            ray.cloudpickle.unregister_pickle_by_value(module)
    (tmp_path / "sent").write_bytes(sent)
    code = (
        "import json, pickle, sys; sys.modules['runtime'] = sys.modules['planner'] = None; "
        "build = pickle.load(open(sys.argv[1], 'rb')); "
        "print(json.dumps(build(json.loads(sys.argv[2]))))"
    )
    spec = plain_spec(tmp_path)
    spec["executable"] = "/no/such/python"
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "sent"), json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["problem"] == (
        "/no/such/python is not an executable file on this node"
    )
