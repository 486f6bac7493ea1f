"""What the registry's text means, and when two environments are the same."""

from contextlib import suppress

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from planner.findings import PlanError
from planner.interpreter import (
    BuiltEnvironment,
    DriverInterpreter,
    InterpreterFacts,
    InterpreterPath,
    RequirementSet,
    UvProject,
    built_executable,
    describe_interpreter,
    interpreter_variables,
    local_sources_of,
    parse_interpreter,
    requirement_environment,
    virtual_env_of,
)

FACTS = InterpreterFacts(
    python_version="3.11.7",
    ray_version="2.60.0",
    driver_prefix="/opt/driver",
    working_directory="/home/me/project",
)

WORDS = ["uv", "run", "pip", "install", "--locked", "--extra", "--with=x", "a==1", "/p", "'", ";"]


def _built(text: str, facts: InterpreterFacts = FACTS) -> BuiltEnvironment:
    interpreter = parse_interpreter(text, facts)
    assert isinstance(interpreter, BuiltEnvironment)
    return interpreter


def _problems(text: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        parse_interpreter(text, FACTS, "registry")
    return [str(each) for each in caught.value.findings]


def test_a_class_that_is_not_registered_runs_in_the_drivers_interpreter() -> None:
    """None means the driver's own interpreter, and the plan says so."""
    interpreter = parse_interpreter(None, FACTS)
    assert interpreter == DriverInterpreter()
    assert describe_interpreter(interpreter) == (
        "the driver's own interpreter (the class is not in the registry)"
    )


def test_a_path_is_used_as_it_is() -> None:
    """A prebuilt interpreter is neither resolved nor changed."""
    interpreter = parse_interpreter("/opt/vllm/bin/python3", FACTS)
    assert interpreter == InterpreterPath(executable="/opt/vllm/bin/python3")
    assert describe_interpreter(interpreter) == "prebuilt: /opt/vllm/bin/python3"


def test_a_uv_run_command_becomes_a_project() -> None:
    """The project's folder is made absolute and put first; other options keep their order."""
    built = _built("uv run --locked --extra vllm --directory ../engine --extra=fp8")
    assert built.source == UvProject(
        command=(
            "uv", "run", "--directory", "/home/me/engine", "--locked",
            "--extra", "vllm", "--extra", "fp8",
        )
    )  # fmt: skip
    assert local_sources_of(built.source) == ("/home/me/engine",)
    assert describe_interpreter(built) == (
        f"built once per node, key {built.key}: "
        "uv run --directory /home/me/engine --locked --extra vllm --extra fp8"
    )


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ("", "/home/me/project"),
        ("--directory /src", "/src"),
        ("--project sub", "/home/me/project/sub"),
        ("--project sub --directory /src", "/src/sub"),
        ("--directory ./a/../b/.", "/home/me/project/b"),
    ],
)
def test_the_project_folder_is_read_as_uv_reads_it(options: str, folder: str) -> None:
    """--directory is relative to the driver's folder, and --project to that."""
    source = _built(f"uv run --locked {options}").source
    assert isinstance(source, UvProject)
    assert source.project == folder


def test_uv_pip_install_is_a_set_on_top_of_the_drivers_packages() -> None:
    """Requirements are sorted and counted once; wheels become absolute paths."""
    built = _built("uv pip install 'vllm==0.11.0' ./b/colours-1-py3-none-any.whl 'vllm==0.11.0'")
    assert built.source == RequirementSet(
        requirements=("/home/me/project/b/colours-1-py3-none-any.whl", "vllm==0.11.0"),
        inherits_driver_packages=True,
    )
    assert local_sources_of(built.source) == ("/home/me/project/b/colours-1-py3-none-any.whl",)
    assert describe_interpreter(built) == (
        f"built once per node, key {built.key}: /home/me/project/b/colours-1-py3-none-any.whl, "
        "vllm==0.11.0, over the driver's packages"
    )


@pytest.mark.parametrize(
    "requirement",
    [
        "numpy",
        "numpy<2",
        "numpy >=1.26, !=2.0.*",
        "ray[default,serve]==2.60.0",
        "torch==2.8.0+cu128",
        "tomli~=2.0; python_version < '3.12'",
        "thing @ https://files.example/thing-1-py3-none-any.whl",
        "thing @ git+ssh://git@code.example/thing.git@v1",
    ],
)
def test_requirements_of_every_usual_form_are_taken(requirement: str) -> None:
    """The forms that pip takes pass unchanged."""
    source = requirement_environment([requirement], FACTS).source
    assert source == RequirementSet(requirements=(requirement,), inherits_driver_packages=False)


def test_a_file_address_of_a_wheel_is_a_local_source() -> None:
    """Its content counts, whichever way the file is named."""
    named = requirement_environment(
        ["file:///w/a-1.whl", "b @ file:///w/b-1.whl ; python_version > '3'"], FACTS
    )
    assert local_sources_of(named.source) == ("/w/a-1.whl", "/w/b-1.whl")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["registry: a text that starts with '' is neither a path nor a uv command"]),
        ("python", ["registry: 'python' is not an absolute path"]),
        ("/opt/env/", ["registry: '/opt/env/' is a folder"]),
        ("'/opt/my env/bin/python'", ["registry: Ray cannot start '/opt/my env/bin/python'"]),
        ("conda run x", ["registry: a text that starts with 'conda' is neither"]),
        ("uv", ["registry: a text that starts with 'uv' is neither"]),
        ("uv sync --locked", ["registry: a text that starts with 'uv' is neither"]),
        ("TOKEN=abc uv run", ["registry: a text that starts with 'TOKEN' is neither"]),
        ("uv run 'x", ["registry: cannot be read: No closing quotation; close every quote"]),
        ("uv run --extra vllm", ["registry: without --locked or --frozen"]),
        ("uv run --locked python", ["registry: 'python' names a program or has no option"]),
        ("uv run --locked --extra", ["registry: --extra has no value"]),
        ("uv run --locked --extra --dev", ["registry: --extra has no value"]),
        ("uv run --locked --with x", ["registry: --with cannot be used here; put the package"]),
        (
            "uv run --locked --extr x",
            ["registry: --extr cannot be used here; did you mean --extra"],
        ),
        ("uv run --locked; rm x", ["registry: ';' needs a shell"]),
        ("uv run --locked --extra $X", ["registry: '$X' needs a shell"]),
        ("uv run --locked --directory ~/x", ["registry: '~/x' needs a shell"]),
        ("uv pip install", ["registry: no requirement is given"]),
        ("uv pip install --pre x", ["registry[0]: '--pre' is an option"]),
        ("uv pip install ./src", ["registry[0]: the folder './src' has no fixed content"]),
        ("uv pip install 'a b' c", ["registry[0]: 'a b' is not a requirement"]),
        ("uv pip install numpy<2", ["registry: '<' needs a shell"]),
        (
            "uv run --extra $X --wiht y",
            [
                "registry: '$X' needs a shell",
                "registry: --wiht cannot be used here; leave it out",
                "registry: without --locked",
            ],
        ),
        (
            "uv pip install 'a b' -r ./src",
            ["registry[0]: 'a b'", "registry[1]: '-r' is an option", "registry[2]: the folder"],
        ),
    ],
)
def test_a_text_that_cannot_be_planned_is_refused_with_every_reason(
    text: str, problems: list[str]
) -> None:
    """Each finding names the place, what was given and what would work."""
    found = _problems(text)
    assert [each[: len(start)] for each, start in zip(found, problems, strict=True)] == problems


@pytest.mark.parametrize(
    "text",
    [
        "uv run --locked --index https://me:hunter2@index.example/simple",
        "uv run --locked --index https://hunter2@index.example/simple",
        "uv pip install 'x @ git+https://hunter2@code.example/x.git'",
        "https://me:hunter2@files.example/python",
        "TOKEN=hunter2 uv run",
    ],
)
def test_a_secret_is_refused_and_never_repeated(text: str) -> None:
    """Credentials stay out of plans, and out of the error that says so."""
    assert "hunter2" not in " ".join(_problems(text))


def test_equal_content_has_equal_keys_and_any_difference_another() -> None:
    """The key follows versions, files and description, and not the order of requirements."""
    text = "uv run --locked --extra vllm"
    project = _built(text)
    behind = _built("uv pip install a==1 b==2")
    keys = {
        project.key,
        behind.key,
        _built("uv run --locked --extra fp8").key,
        _built(text, evolve(FACTS, python_version="3.12.1")).key,
        _built(text, evolve(FACTS, ray_version="2.61.0")).key,
        _built(text, evolve(FACTS, content_digest="abc")).key,
        _built(text, evolve(FACTS, working_directory="/elsewhere")).key,
        _built("uv pip install a==1 b==2", evolve(FACTS, driver_prefix="/opt/other")).key,
        requirement_environment(["a==1", "b==2"], FACTS).key,
    }
    assert len(keys) == 9
    assert _built(text) == project
    assert _built("uv pip install b==2 a==1") == behind
    alone = requirement_environment(["a==1"], FACTS)
    assert alone == requirement_environment(["a==1"], evolve(FACTS, driver_prefix="/opt/other"))


def test_a_key_is_the_same_on_every_machine() -> None:
    """The key is part of paths on shared folders: it may only change with the content."""
    assert requirement_environment(["a==1"], FACTS).key == "8ba8ad69cba90fff1b25fdb54c132f8f"


@pytest.mark.parametrize(
    ("executable", "folder"),
    [
        ("/opt/env/bin/python", "/opt/env"),
        ("/opt/env/bin/python3.11", "/opt/env"),
        ("/opt/env/bin/pypy3", "/opt/env"),
        ("/usr/bin/python3", None),
        ("/usr/local/bin/python3", None),
        ("/bin/python", None),
        ("/opt/env/python", None),
        ("/opt/env/bin/start-worker", None),
        ("python", None),
    ],
)
def test_virtual_env_is_the_folder_and_not_the_executable(
    executable: str, folder: str | None
) -> None:
    """VIRTUAL_ENV must hold the environment's folder; a system's Python has none."""
    assert virtual_env_of(executable) == folder


def test_the_interpreter_of_a_built_environment_belongs_to_its_folder() -> None:
    """The folder of what is built is found again from its interpreter."""
    assert built_executable("/cache/environments/", "k") == "/cache/environments/k/bin/python"
    assert virtual_env_of(built_executable("/cache", "k")) == "/cache/k"


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)),
)
def test_any_text_is_an_interpreter_or_a_plan_error(text: str) -> None:
    """No input ends in another error."""
    with suppress(PlanError):
        assert describe_interpreter(parse_interpreter(text, FACTS))


@given(st.lists(st.sampled_from(["a==1", "b", "c<2", "d[x]"]), min_size=1))
def test_the_order_of_requirements_does_not_matter(requirements: list[str]) -> None:
    """The same set gives the same environment."""
    expected = requirement_environment(sorted(requirements), FACTS)
    assert requirement_environment(requirements, FACTS) == expected


@pytest.mark.parametrize(
    ("executable", "prefix", "folder"),
    [
        ("/cache/k/bin/python", "/home/me/venv", "/cache/k"),
        ("/usr/bin/python3", "/home/me/venv", None),
        (None, "/home/me/venv", "/home/me/venv"),
        (None, "/usr", None),
    ],
)
def test_variables_of_the_workers_environment(
    executable: str | None, prefix: str, folder: str | None
) -> None:
    """Its folder, under both names; nothing outside an environment."""
    expected = {"VIRTUAL_ENV": folder, "UV_PROJECT_ENVIRONMENT": folder} if folder else {}
    assert interpreter_variables(executable, prefix, "/usr") == expected
