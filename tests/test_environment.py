"""What a worker's environment holds: precedence, what is never inherited, what is never shown."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.environment import (
    RANK_CONTRACT,
    EnvironmentPolicy,
    EnvironmentSources,
    EnvVar,
    GroupEnvironment,
    Origin,
    environment_values,
    is_before_python,
    is_credential,
    overlay,
    plan_environment,
    rank_overrides,
)
from planner.findings import PlanError
from tests.strategies import environments, fresh, junk, planned

LADDER = ("class_options", "driver", "interpreter", "group", "forced")
ORIGINS = (Origin.CLASS, Origin.DRIVER, Origin.INTERPRETER, Origin.GROUP, Origin.FORCED)


def made(*policies: EnvironmentPolicy, **layers: Mapping[str, str]) -> GroupEnvironment:
    """The environment of a group; every finding is raised."""
    findings = fresh()
    policy = policies[0] if policies else EnvironmentPolicy()
    environment = plan_environment(EnvironmentSources(**layers), policy, findings)
    findings.check()
    return environment


def held(environment: GroupEnvironment) -> dict[str, str | None]:
    """Names and planned values, without the library's own default."""
    return {
        each.name: each.value
        for each in environment.variables
        if each.name != "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    }


def refusal(**layers: Mapping[str, Any]) -> list[str]:
    """The findings about some layers, one line each."""
    with pytest.raises(PlanError) as caught:
        made(**layers)
    return [str(finding) for finding in caught.value.findings]


@given(st.fixed_dictionaries({layer: environments() for layer in LADDER}))
def test_the_highest_layer_wins(layers: dict[str, dict[str, str]]) -> None:
    """For every name, the value and the origin of the highest layer that has it."""
    environment = made(**layers)
    expected: dict[str, tuple[str, Origin]] = {}
    for layer, origin in zip(LADDER, ORIGINS, strict=True):
        expected |= {name: (value, origin) for name, value in layers[layer].items()}
    found = {e.name: (e.value, e.origin) for e in environment.variables}
    found.pop("TORCH_NCCL_ASYNC_ERROR_HANDLING")
    assert found == expected
    assert [e.name for e in environment.variables] == sorted(e.name for e in environment.variables)


@given(environments(), environments(), environments())
def test_configure_worker_is_above_the_group_and_below_force(
    group: dict[str, str], configured: dict[str, str], forced: dict[str, str]
) -> None:
    """And the values that the process gets are those that were given."""
    sources = EnvironmentSources(group=group, forced=forced)
    environment = plan_environment(sources, EnvironmentPolicy(), fresh())
    extra = rank_overrides("worker", configured, fresh())
    variables = overlay(environment.variables, extra)
    values = environment_values(variables, sources, configured)
    values.pop("TORCH_NCCL_ASYNC_ERROR_HANDLING")
    assert values == {**group, **configured, **forced}


@given(st.fixed_dictionaries({layer: environments() for layer in LADDER}))
def test_the_order_of_the_input_does_not_matter(layers: dict[str, dict[str, str]]) -> None:
    """The same bytes, whatever order a mapping happens to have."""
    turned = {layer: dict(reversed(values.items())) for layer, values in layers.items()}
    assert made(**layers) == made(**turned)


@pytest.mark.parametrize(
    "name",
    [
        *RANK_CONTRACT,
        *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_PROCID", "PMI_RANK"),
        *("OMPI_COMM_WORLD_RANK", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        *("ROCR_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES"),
        *("ZE_AFFINITY_MASK", "TPU_VISIBLE_CHIPS", "RAY_ADDRESS", "RAY_JOB_ID", "VIRTUAL_ENV"),
        *("UV_PROJECT_ENVIRONMENT", "PYTHONHOME", "HOSTNAME", "PWD", "SHLVL", "_"),
    ],
)
def test_what_a_worker_never_inherits(name: str) -> None:
    """Whatever the policy says."""
    policy = EnvironmentPolicy(inherit=("*", name), credentials=(name,))
    assert held(made(policy, driver={name: "1", "KEPT": "2"})) == {"KEPT": "2"}


def test_a_policy_hands_on_by_name_and_pattern() -> None:
    """Or nothing at all."""
    driver = {"NCCL_DEBUG": "1", "PATH": "/bin", "OTHER": "2"}
    some = EnvironmentPolicy(inherit=("NCCL_*", "PATH"))
    assert held(made(some, driver=driver)) == {"NCCL_DEBUG": "1", "PATH": "/bin"}
    assert held(made(EnvironmentPolicy(inherit=()), driver=driver)) == {}


def test_names_that_no_environment_may_hold_are_not_handed_on() -> None:
    """Shells export functions under such names."""
    assert held(made(driver={"BASH_FUNC_x%%": "() {}", "a.b": "1", "GOOD": "1"})) == {"GOOD": "1"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HF_TOKEN", "x", True),
        ("WANDB_API_KEY", "x", True),
        ("aws_secret_access_key", "x", True),
        ("DB_PASSWORD", "x", True),
        ("GITHUB_PAT", "x", True),
        *((name, "x", True) for name in ("DB_PASS", "PGPASSWORD", "MYSQL_PWD", "SSHPASS")),
        *((name, "x", True) for name in ("OPENAI_KEYS", "HF_TOKENS", "BEARER", "API_BEARER")),
        *((name, "x", True) for name in ("CLIENTSECRET", "MINIO_SECRETKEY", "S3_ACCESSKEY")),
        *((name, "x", True) for name in ("AWS_SESSIONTOKEN", "MY_JWT", "GCP_CREDS")),
        *((name, "x", True) for name in ("PROXY_AUTHORIZATION", "OTEL_EXPORTER_OTLP_HEADERS")),
        ("HEADERS", "api-key=abc", True),
        ("HEADERS", "Authorization: Basic abc", True),
        ("HEADERS", "x=Bearer abcdefgh12", True),
        ("PEM", "-----BEGIN PRIVATE KEY-----", True),
        ("BLOB", "https://host/x?sv=1&sig=abc", True),
        ("EXTRA", "hf_abcdefghijkl", True),
        ("MODE", "bearer", False),
        ("NAME", "sk-learn", False),
        ("AZURE_STORAGE", "AccountName=me;AccountKey=abc==;Suffix=x", True),
        ("DSN", "Server=db;Uid=me;Pwd=x", True),
        ("DSN", "host=db user=me password=x", True),
        ("PIP_INDEX_URL", "https://ghp_abcdef@host/simple", True),
        ("REPOSITORY", "ssh://git@host/project", False),
        ("LINK", "http://host.name?mail=me@host", False),
        *((name, "/x", False) for name in ("PWD", "OLDPWD", "INIT_CWD", "BYPASS", "PASSIVE")),
        ("PROMPT", "echo pwd=here", False),
        ("VLLM_MAX_NUM_BATCHED_TOKENS", "8192", False),
        ("MAX_TOKENS", "8192", False),
        ("PROXY", "http://user:word@host:80", True),
        ("PROXY", "http://host:80/a@b", False),
        ("TOKENIZERS_PARALLELISM", "x", False),
        ("PATH", "x", False),
        ("KEYBOARD", "x", False),
        ("MONKEY", "x", False),
    ],
)
def test_what_looks_like_a_credential(name: str, value: str, expected: bool) -> None:
    """By a word of its name, or by a password in a URL."""
    assert is_credential(name, value) is expected


def test_credentials_are_withheld_unless_they_are_given() -> None:
    """Then they are in the environment of the process, never in the plan."""
    driver = {"HF_TOKEN": "hush1", "PROXY": "http://me:hush2@host", "LENT_TOKEN": "hush3"}
    policy = EnvironmentPolicy(credentials=("LENT_*",))
    sources = EnvironmentSources(driver=driver, group={"OWN_KEY": "hush4"}, forced={"A_KEY": "h5"})
    environment = plan_environment(sources, policy, fresh())
    assert environment.withheld == ("HF_TOKEN", "PROXY")
    assert held(environment) == {"LENT_TOKEN": None, "OWN_KEY": None, "A_KEY": None}
    assert "hush" not in repr(environment) + repr(sources)
    values = environment_values(environment.variables, sources)
    assert (values["LENT_TOKEN"], values["OWN_KEY"], values["A_KEY"]) == ("hush3", "hush4", "h5")


def test_a_secret_of_a_lower_layer_does_not_come_back_in_a_merge() -> None:
    """A path with a password in one entry is a secret as a whole."""
    sources = EnvironmentSources(
        driver={"PATH": "/bin"}, group={"PATH": "http://me:hush@host:/opt"}
    )
    environment = plan_environment(sources, EnvironmentPolicy(), fresh())
    assert held(environment) == {"PATH": None}
    assert environment_values(environment.variables, sources)["PATH"] == sources.group["PATH"]


def test_path_like_variables_merge() -> None:
    """The higher layer's entries first, each once, with both origins; force replaces."""
    environment = made(
        class_options={"PYTHONPATH": "/class:/both"},
        driver={"PYTHONPATH": "/driver:/both"},
        group={"PYTHONPATH": "/group"},
    )
    (path,) = [each for each in environment.variables if each.name == "PYTHONPATH"]
    assert path == EnvVar(
        name="PYTHONPATH",
        value="/group:/driver:/both:/class",
        origin=Origin.GROUP,
        merged=(Origin.DRIVER, Origin.CLASS),
    )
    assert held(made(driver={"PATH": "/a"}, forced={"PATH": "/only"})) == {"PATH": "/only"}


def test_variables_must_be_well_formed() -> None:
    """All findings at once, values never shown."""
    wrong: dict[Any, Any] = {"COUNT": 1, "NUL": "a\0b", "1BAD": "x", 7: "x", "FINE": "x"}
    assert refusal(group=wrong) == [
        (
            "env_vars['COUNT']: the value is of type int; environment values are strings: convert "
            "it with str()"
        ),
        "env_vars['NUL']: the value holds a NUL byte; remove it",
        (
            "env_vars['1BAD']: this is not a name of an environment variable; use letters, digits "
            "and underscores, not starting with a digit"
        ),
        (
            "env_vars[7]: this is not a name of an environment variable; use letters, digits and "
            "underscores, not starting with a digit"
        ),
    ]
    assert refusal(class_options={"A": 1})[0].startswith("runtime_env.env_vars['A']: ")
    assert refusal(forced={"A": None})[0].startswith("force_env_vars['A']: ")


@pytest.mark.parametrize("name", [*RANK_CONTRACT, "CUDA_VISIBLE_DEVICES"])
def test_the_rank_contract_is_overridden_by_force_only(name: str) -> None:
    """By nothing else; the error says how."""
    expected = (
        f"[{name!r}]: this variable is part of the rank contract, which the plan decides; leave "
        "it out, or give it in force_env_vars to override the plan"
    )
    assert refusal(group={name: "1"}) == [f"env_vars{expected}"]
    assert refusal(class_options={name: "1"}) == [f"runtime_env.env_vars{expected}"]
    findings = fresh()
    assert rank_overrides("answer", {name: "1"}, findings) == ()
    assert [str(each) for each in findings.found] == [f"answer{expected}"]
    assert held(made(forced={name: "1"})) == {name: "1"}


def test_what_must_exist_before_python_starts() -> None:
    """Given by the group it goes to the runtime environment; from the driver it is expected."""
    environment = made(group={"LD_PRELOAD": "/a.so"}, driver={"LD_LIBRARY_PATH": "/lib"})
    assert environment.before_python == ("LD_PRELOAD",)
    assert environment.expected == ("LD_LIBRARY_PATH",)
    assert [is_before_python(name) for name in ("PYTHONHASHSEED", "MALLOC_ARENA_MAX")] == [True] * 2
    assert not is_before_python("PYTHONPATH")
    assert refusal(group={"LD_PRELOAD": "$HOME/a.so"})[0].startswith(
        "env_vars['LD_PRELOAD']: it must exist before Python starts, and Ray's runtime environment "
        "would expand the '$' in its value"
    )
    assert "looks like a credential" in refusal(forced={"LD_PRELOAD": "http://a:b@c"})[0]


@pytest.mark.parametrize("patterns", ["PATH", 5, None, ("PATH", 3)])
@pytest.mark.parametrize("name", ["inherit", "credentials"])
def test_a_policy_is_made_of_patterns(name: str, patterns: Any) -> None:
    """A single text would be taken letter by letter."""
    with pytest.raises(PlanError) as caught:
        made(EnvironmentPolicy(**{name: patterns}))
    assert [str(each) for each in caught.value.findings] == [
        (
            f"environment_policy.{name}: {patterns!r} is not a tuple of patterns; give a tuple, "
            "as in ('NCCL_*',)"
        )
    ]


def test_a_policy_of_lists_is_as_good() -> None:
    """The plan has tuples."""
    patterns: Any = ["NCCL_*"]
    planned = made(EnvironmentPolicy(inherit=patterns), driver={"NCCL_DEBUG": "1", "A": "2"})
    assert held(planned) == {"NCCL_DEBUG": "1"}
    assert planned.inherit == ("NCCL_*",)


def test_sources_are_mappings() -> None:
    """All that are not, at once; no value is shown."""
    wrong: Any = {"group": 5, "forced": ["hush"]}
    assert refusal(**wrong) == [
        "sources.group: a value of type int; give a mapping from names to values",
        "sources.forced: a value of type list; give a mapping from names to values",
    ]


def test_sources_are_left_as_they_were() -> None:
    """No layer is written into: the next group starts from the same."""
    group, driver = {"A": "1"}, {"B": "2"}
    made(group=group, driver=driver, forced={"C": "3"})
    assert (group, driver) == ({"A": "1"}, {"B": "2"})
    assert held(made(driver=driver)) == {"B": "2"}


@given(
    st.dictionaries(st.text(max_size=3) | st.integers(), junk(), max_size=4),
    st.dictionaries(st.text(max_size=3) | st.integers(), junk(), max_size=4),
)
def test_junk_is_refused_in_words(group: Any, forced: Any) -> None:
    """A PlanError, or an environment of strings."""
    environment = planned(lambda: made(group=group, forced=forced))
    if environment is not None:
        assert all(isinstance(each.value, str) for each in environment.variables)
