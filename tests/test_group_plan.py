"""From a caller's arguments to what the hosts are started with."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.accelerators import GpuVisibility
from planner.configured import (
    configure_questions,
    configured_variables,
    plan_overrides,
    with_overrides,
)
from planner.environment import EnvironmentPolicy, EnvironmentSources, Origin
from planner.findings import PlanError
from planner.group import (
    GroupSpec,
    HostRequest,
    gpu_share_of,
    plan_hosts,
    with_environment_before_python,
)
from planner.interpreter import DriverInterpreter
from planner.mesh import NamedSharding
from planner.options import JsonObject
from tests.strategies import junk, planned, spec_of

MESH = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])


def refusal(**arguments: Any) -> list[str]:
    """The findings about a group on two placement groups of two bundles."""
    with pytest.raises(PlanError) as caught:
        spec_of([2, 2], **arguments)
    return [str(finding) for finding in caught.value.findings]


def test_a_group_with_nothing_special() -> None:
    """One worker per bundle, and the plan says which interpreter runs it."""
    spec = spec_of([2, 1], name_prefix="")
    assert spec.name == "Worker"
    assert [slot.name(spec.name) for slot in spec.slots] == [
        "Worker-0-0",
        "Worker-0-1",
        "Worker-1-0",
    ]
    assert not spec.keeps_order
    assert spec.gpu_visibility is GpuVisibility.ISOLATED
    assert spec.interpreter == DriverInterpreter()
    assert spec.notes == (
        "package.Worker is not in the registry: it runs in the driver's interpreter",
    )


def test_tied_groups_override_workers_per_node() -> None:
    """The order is the caller's."""
    spec = spec_of([2, 2], bundle_indices_list=[(1, [1, 0])], workers_per_node=99)
    assert [(slot.placement_group, slot.bundle) for slot in spec.slots] == [(1, 1), (1, 0)]
    assert spec.keeps_order


def test_hosts_are_requested_in_slot_order() -> None:
    """Without a runtime environment: hosts start fast."""
    hosts = plan_hosts(spec_of([1, 1], gpu_share=5000, options={"num_cpus": 2}))
    assert hosts == tuple(
        HostRequest(
            name=f"g-{node}-0",
            placement_group=node,
            bundle=0,
            gpu_share=5000,
            runtime_env=JsonObject(),
            options=JsonObject('{"num_cpus":2}'),
            asynchronous=False,
        )
        for node in range(2)
    )


def test_the_classes_variables_do_not_make_a_runtime_environment() -> None:
    """They are set by the host; what must precede Python is shared by all, and slow: a note."""
    own = {"env_vars": {"A": "1"}}
    sources = EnvironmentSources(class_options={"A": "1"})
    spec = spec_of([1], options={"runtime_env": own}, sources=sources)
    assert not spec.runtime_env
    slow = spec_of([1], sources=EnvironmentSources(group={"LD_PRELOAD": "/a.so"}))
    assert slow.runtime_env.value() == {"env_vars": {"LD_PRELOAD": "/a.so"}}
    assert "the group has a Ray runtime environment (env_vars): hosts start about twice as" in (
        " ".join(slow.notes)
    )
    pip = spec_of([1], options={"runtime_env": {"pip": ["x"], "env_vars": {"A": "1"}}})
    assert pip.runtime_env.value() == {"pip": ["x"]}


def test_what_the_nodes_lack_before_python_goes_into_the_runtime_environment() -> None:
    """When the hosts report that, the group is planned again."""
    sources = EnvironmentSources(driver={"LD_LIBRARY_PATH": "/lib"})
    spec = spec_of([1], sources=sources)
    assert spec.environment.expected == ("LD_LIBRARY_PATH",)
    again = with_environment_before_python(spec, spec.environment.expected)
    assert again.runtime_env.value() == {"env_vars": {"LD_LIBRARY_PATH": "/lib"}}
    assert again.environment.expected == ()
    assert again.notes[-1].startswith("LD_LIBRARY_PATH must exist before Python starts")
    dollar = spec_of([1], sources=EnvironmentSources(driver={"LD_PRELOAD": "$X"}))
    with pytest.raises(PlanError, match="would expand the '\\$' in its value"):
        with_environment_before_python(dollar, ["LD_PRELOAD"])


def test_withheld_credentials_are_noted() -> None:
    """By name, with the two ways of handing them on."""
    spec = spec_of([1], sources=EnvironmentSources(driver={"HF_TOKEN": "hush"}))
    assert spec.notes[-1] == (
        "not handed on, they look like credentials: HF_TOKEN (give them in env_vars, or name them "
        "in EnvironmentPolicy.credentials)"
    )
    lent = EnvironmentPolicy(credentials=("HF_*",))
    spec = spec_of([1], sources=EnvironmentSources(driver={"HF_TOKEN": "hush"}), policy=lent)
    assert "HF_TOKEN" not in " ".join(spec.notes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"mesh": [[0, 1]]},
            (
                "sharding_annotations: a value of type list; give a NamedSharding(layout, "
                "names), or "
                "None"
            ),
        ),
        (
            {"mesh": NamedSharding([[0, 1, 2]], ["dp", "tp"])},
            (
                "sharding_annotations: its 3 ranks (dp=1 x tp=3) are not the ranks 0 to 3 of the 4 "
                "workers; arrange exactly the ranks 0 to 3, or start 3 workers"
            ),
        ),
        (
            {"mesh": NamedSharding([1, 2, 3, 4], ["dp"])},
            (
                "sharding_annotations: its 4 ranks (dp=4) are not the ranks 0 to 3 of the 4 "
                "workers; "
                "arrange exactly the ranks 0 to 3, or start 4 workers"
            ),
        ),
        (
            {"gpu_visibility": "all"},
            "gpu_visibility: 'all' is not a mode; use one of 'isolated', 'shared', 'unmasked'",
        ),
        (
            {"name_prefix": "-"},
            (
                "name_prefix: '-' cannot be part of an actor's name; start with a letter or digit, "
                "use letters, digits and _ . : @ / + -, 200 characters at most"
            ),
        ),
        (
            {"options": {"runtime_env": "env"}},
            "options.runtime_env: a value of type str; give a mapping",
        ),
        (
            {"options": {"num_gpu": 1}},
            (
                "options.num_gpu: this is not an actor option that a worker can have; did you mean "
                "'num_gpus'? use one of "
            ),
        ),
        (
            {"options": {"runtime_env": {"env_var": {"A": "1"}}}},
            (
                "options.runtime_env['env_var']: Ray knows no such key, and would leave it out "
                "with a warning; did you mean 'env_vars'?"
            ),
        ),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], expected: str) -> None:
    """What was given, and what would work."""
    (found,) = refusal(**arguments)
    assert found[: len(expected)] == expected


def test_all_findings_of_a_group_come_at_once() -> None:
    """Under one subject."""
    with pytest.raises(PlanError) as caught:
        spec_of(
            [2, 2],
            workers_per_node=[1],
            name_prefix="bad name",
            mesh="mesh",
            gpu_visibility=None,
            sources=EnvironmentSources(group={"RANK": "1"}),
            options={"lifetime": "detached"},
        )
    assert caught.value.subject == "worker group 'bad name'"
    assert [finding.path for finding in caught.value.findings] == [
        "workers_per_node",
        "name_prefix",
        "sharding_annotations",
        "gpu_visibility",
        "env_vars['RANK']",
        "options.lifetime",
    ]


def test_a_plugins_key_of_a_runtime_environment_is_let_through() -> None:
    """Ray may be told of more than is known here."""
    spec = spec_of([1], options={"runtime_env": {"my_plugin": {"a": 1}, "_hidden": 2}})
    assert spec.runtime_env.value() == {"my_plugin": {"a": 1}, "_hidden": 2}


def notes_of(*runtime_envs: Mapping[str, object]) -> tuple[str, ...]:
    """What the plan says of a group whose workers were given these by ``configure_worker``."""
    spec = spec_of([len(runtime_envs)], gpu_share=5000)
    answers: list[object] = [({}, {}, {}, each) for each in runtime_envs]
    return with_overrides(spec, answers).notes[len(spec.notes) :]


def test_the_plan_says_when_configure_worker_makes_a_start_slow() -> None:
    """By a profiler, or a variable that must exist before Python starts; and for whom."""
    own = {"nsight": "default"}
    early = {"env_vars": {"LD_PRELOAD": "/a.so", "LATE": "1"}}
    assert notes_of({}, {"env_vars": {"LATE": "1"}}) == ()
    assert notes_of({}, own) == (
        (
            "configure_worker gives 1 of 2 workers (g-0-1) a Ray runtime environment of their own "
            "(nsight): each of them starts about four times as slowly"
        ),
    )
    assert notes_of(own, early) == (
        (
            "configure_worker gives 2 of 2 workers (g-0-0, g-0-1) a Ray runtime environment of "
            "their own (LD_PRELOAD, nsight): each of them starts about four times as slowly"
        ),
    )
    assert notes_of(early, early) == (
        (
            "configure_worker gives all workers a Ray runtime environment (LD_PRELOAD): hosts "
            "start about twice as slowly"
        ),
    )


def test_misspelt_keys_of_configure_worker_are_findings() -> None:
    """With the worker whose answer it was."""
    with pytest.raises(PlanError) as caught:
        overridden(({}, {}, {}, {"env_var": {}}))
    (found,) = caught.value.findings
    assert found.path == "g-0-0.runtime_env['env_var']"
    assert found.remedy == "did you mean 'env_vars'?"


def test_what_must_exist_before_python_merges_too() -> None:
    """The group's entries are in the worker's runtime environment, after its own."""
    sources = EnvironmentSources(group={"LD_LIBRARY_PATH": "/group"})
    spec = spec_of([1], sources=sources)
    (made,) = plan_overrides(spec, [({}, {"LD_LIBRARY_PATH": "/cfg"}, {})])
    assert made.runtime_env.value() == {"env_vars": {"LD_LIBRARY_PATH": "/cfg:/group"}}


def overridden(*answers: object) -> GroupSpec:
    """A group with what ``configure_worker`` answered for each of its workers."""
    from attrs import evolve

    spec = spec_of([len(answers)], gpu_share=5000)
    return evolve(spec, overrides=plan_overrides(spec, answers))


def test_whom_configure_worker_is_told_about() -> None:
    """The leader of a tied group gets its node and bundles, the others None."""
    tied = spec_of([3, 1], bundle_indices_list=[(0, [0, 2]), (1, [0])])
    assert configure_questions(tied) == ((0, [0, 2]), None, (1, [0]))
    assert configure_questions(spec_of([2])) == ((0, [0]), (0, [1]))
    assert configure_questions(tied, [None, "as", "said"]) == (None, "as", "said")


@pytest.mark.parametrize(
    ("use_gpus", "colocated", "share"),
    [(True, 1, 10_000), (True, 2, 5000), (True, 3, 3333), (False, 1, 0), (False, 2, 0)],
)
def test_groups_share_gpus_alike(use_gpus: bool, colocated: int, share: int) -> None:
    """Rounded down, so that all fit; nothing without GPUs."""
    assert gpu_share_of(use_gpus=use_gpus, colocated=colocated) == share


def test_answers_of_configure_worker() -> None:
    """Three items or four; None stands for nothing."""
    spec = overridden(
        ({"num_gpus": 0}, {"B": "2", "A_KEY": "hush"}, {"seed": 1, "model": object()}),
        ({"num_gpus": 0.25, "num_cpus": 9}, None, None, {"env_vars": {"EARLY": "1"}}),
        [{}, {}, {}],
    )
    first, second, third = spec.overrides
    assert [each.gpu_share for each in spec.overrides] == [0, 2500, None]
    assert [(each.name, each.value, each.origin) for each in first.environment] == [
        ("A_KEY", None, Origin.CONFIGURE_WORKER),
        ("B", "2", Origin.CONFIGURE_WORKER),
    ]
    assert first.constructor == ("model", "seed")
    assert [(each.name, each.value) for each in second.environment] == [("EARLY", "1")]
    assert third.environment == ()
    hosts = plan_hosts(spec)
    assert [host.gpu_share for host in hosts] == [0, 2500, 5000]
    assert [host.runtime_env.value() for host in hosts] == [{}, {}, {}]


def test_variables_of_configure_worker_that_must_precede_python() -> None:
    """They are in the worker's own runtime environment, whichever item named them."""
    spec = overridden(
        ({}, {"PYTHONHASHSEED": "7"}, {}),
        ({}, {}, {}, {"env_vars": {"MALLOC_ARENA_MAX": "2"}, "nsight": "default"}),
        ({}, {}, {}),
    )
    assert [host.runtime_env.value() for host in plan_hosts(spec)] == [
        {"env_vars": {"PYTHONHASHSEED": "7"}},
        {"env_vars": {"MALLOC_ARENA_MAX": "2"}, "nsight": "default"},
        {},
    ]


def test_credentials_of_configure_worker_are_in_no_plan() -> None:
    """Not as a variable of the fourth item, and not anywhere else in it."""
    spec = overridden(*[({}, {}, {}, {"env_vars": {"HF_TOKEN": "hush"}})] * 3)
    assert "hush" not in repr(spec)
    assert spec.overrides[0].environment[0].value is None
    assert configured_variables(({}, {}, {}, {"env_vars": {"HF_TOKEN": "hush"}})) == {
        "HF_TOKEN": "hush"
    }
    with pytest.raises(PlanError, match=r"runtime_env\.pip\[0\]: it looks like a credential"):
        overridden(*[({}, {}, {}, {"pip": ["--index-url=https://me:hush@host/simple"]})] * 3)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "g-0-0: it returned NoneType, not three or four items; return (resources, "),
        (({}, {}), "g-0-0: it returned tuple, not three or four items; return (resources, "),
        (({}, {}, [1]), "g-0-0.init_kwargs: it is of type list; return a mapping"),
        (
            ({"num_gpus": 1.5}, {}, {}),
            (
                "g-0-0.resources['num_gpus']: 1.5 is not a share of one bundle's GPU; return a "
                "number "
                "from 0 to 1"
            ),
        ),
        (({"num_gpus": True}, {}, {}), "g-0-0.resources['num_gpus']: True is not a share"),
        (
            ({}, {"N": 1}, {}),
            (
                "g-0-0.env_vars['N']: the value is of type int; environment values are strings: "
                "convert it with str()"
            ),
        ),
        (({}, {"RANK": "1"}, {}), "g-0-0.env_vars['RANK']: this variable is part of the rank"),
        (({}, {}, {}, {"pip": object()}), "g-0-0.runtime_env.pip: a value of type object cannot"),
    ],
)
def test_answers_that_cannot_be(answer: object, expected: str) -> None:
    """With the worker that it was for."""
    with pytest.raises(PlanError) as caught:
        overridden(answer)
    (finding,) = caught.value.findings
    assert str(finding)[: len(expected)] == expected
    assert caught.value.subject == "configure_worker of package.Worker"


@given(junk(), junk(), junk(), junk(), junk())
def test_junk_is_refused_in_words(
    workers: object, tied: object, prefix: object, mesh: object, visibility: object
) -> None:
    """A PlanError, or a group with workers."""
    spec = planned(
        lambda: spec_of(
            [2],
            workers_per_node=workers,
            bundle_indices_list=tied,
            name_prefix=prefix,
            mesh=mesh,
            gpu_visibility=visibility,
        )
    )
    assert spec is None or len(spec.slots) > 0


@given(st.dictionaries(st.text(max_size=5), junk(), max_size=3), junk())
def test_junk_options_and_answers_are_refused_in_words(options: Any, answer: object) -> None:
    """A PlanError, or a value."""
    planned(lambda: spec_of([1], options=options))
    spec = spec_of([1])
    overrides = planned(lambda: plan_overrides(spec, [answer]))
    assert overrides is None or len(overrides) == 1
