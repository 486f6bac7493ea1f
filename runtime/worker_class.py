"""A worker's class where it lives: imported by its name, described as data, asked what it needs.

It travels to the nodes by value, so it imports the standard library only.
"""

import difflib
import importlib
import inspect
import json
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Mapping, Sequence

from runtime.inherited import drop_inherited

__all__ = [
    "ask_configure_worker",
    "configures",
    "describe_class",
    "extend_search_path",
    "load_class",
    "probe_class",
]


def extend_search_path() -> None:
    """Look for modules where PYTHONPATH says too: Python itself has read it before it was set."""
    for entry in reversed(os.environ.get("PYTHONPATH", "").split(":")):
        if entry and entry not in sys.path:
            sys.path.insert(1, entry)


def load_class(full_name: str) -> Callable[..., object]:
    """Import a class by its full name, ``package.module.Class``; undecorated, if it was a Ray one.

    Raises:
        ImportError: No such module or class; the message says what was tried, and where.
        TypeError: The name is not that of a class.
    """
    parts = full_name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: object = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if module_name == missing or module_name.startswith(missing + "."):
                continue
            raise
        parent = found
        for part in parts[cut:]:
            parent = found
            if not hasattr(found, part):
                raise ImportError(
                    f"module {module_name!r} has no class {'.'.join(parts[cut:])!r}"
                    f"{_near(part, _names_in(found))}"
                )
            found = getattr(found, part)
        metadata = getattr(found, "__ray_metadata__", None)
        loaded = metadata.modified_class if metadata is not None else found
        if not isinstance(loaded, type):
            raise TypeError(
                f"{full_name} is a {type(loaded).__name__}, not a class; give the full name of a "
                f"class, as 'package.module.Class'{_near(parts[-1], _names_in(parent))}"
            )
        return loaded
    raise ImportError(
        f"no module of {full_name!r} can be imported in {sys.executable}"
        f"{_near(parts[0], [each.name for each in pkgutil.iter_modules()])}; put the folder that "
        f"holds {parts[0]!r} into env_vars={{'PYTHONPATH': ...}}, or install it there; the search "
        f"path is {sys.path}"
    )


def _names_in(module: object) -> list[str]:
    """The classes that a module, or a class, holds, and a package's modules."""
    held = vars(module) if isinstance(module, types.ModuleType | type) else {}
    modules = [each.name for each in pkgutil.iter_modules(getattr(module, "__path__", []))]
    return sorted([*(name for name, each in held.items() if _is_class(each)), *modules])


def _is_class(value: object) -> bool:
    return isinstance(value, type) or hasattr(value, "__ray_metadata__")


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    few = [each for each in names if not each.startswith("_")]
    return f"; it has {', '.join(few)}" if 0 < len(few) <= 8 else ""


def describe_class(cls: object) -> list[dict[str, object]]:
    """The methods of a class as plain data, sorted by name."""
    described = []
    for name in sorted(dir(cls)):
        held = inspect.getattr_static(cls, name)
        function = getattr(cls, name, None)
        hidden = name.startswith("__") and name != "__call__"
        if hidden or not callable(function) or inspect.isclass(function):
            continue
        bound = isinstance(held, staticmethod | classmethod)
        described.append(_describe(name, function, takes_self=not bound))
    return described


def _describe(name: str, function: Callable[..., object], *, takes_self: bool) -> dict[str, object]:
    kind = "plain"
    if inspect.isasyncgenfunction(function):
        kind = "async generator"
    elif inspect.iscoroutinefunction(function):
        kind = "async"
    elif inspect.isgeneratorfunction(function):
        kind = "generator"
    returns = getattr(function, "__ray_num_returns__", None)
    group = getattr(function, "__ray_concurrency_group__", None)
    return {
        "name": name,
        "kind": kind,
        "parameters": _parameters(function, takes_self=takes_self),
        "returns": returns if isinstance(returns, int) else 1,
        "options": [["concurrency_group", group]] if isinstance(group, str) else [],
        "dispatch": _declared(function),
    }


def _declared(function: Callable[..., object]) -> str:
    """What the class says about its arguments' roles, as JSON text; empty when it says nothing."""
    told = getattr(function, "__rankplan_dispatch__", "")
    return told if isinstance(told, str) else json.dumps(told, sort_keys=True)


def _parameters(function: Callable[..., object], *, takes_self: bool) -> list[list[object]] | None:
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    # A wrapper that hides its signature takes self in *args.
    if takes_self and found and found[0].kind not in variadic:
        found = found[1:]
    # Ray adds a parameter of its own to the methods of a class that it has decorated.
    return [
        [each.name, each.kind.description, each.default is each.empty and each.kind not in variadic]
        for each in found
        if each.name != "_ray_trace_ctx"
    ]


def configures(cls: object) -> bool:
    """Whether a class has ``configure_worker``."""
    return callable(getattr(cls, "configure_worker", None))


def probe_class(full_name: str) -> dict[str, object]:
    """What must be known of a class before its hosts can start; imports it in this process."""
    loaded = load_class(full_name)
    module, _, _ = full_name.rpartition(".")
    decorated: object = importlib.import_module(module) if module in sys.modules else None
    decorated = getattr(decorated, full_name.rpartition(".")[2], None)
    options = getattr(decorated, "_default_options", {}) if decorated is not loaded else {}
    methods = describe_class(loaded)
    return {
        "asynchronous": any(str(method["kind"]).startswith("async") for method in methods),
        "configures": configures(loaded),
        "options": dict(options),
    }


def ask_configure_worker(
    full_name: str,
    environment: Mapping[str, str],
    questions: Sequence[tuple[float, object]],
    num_gpus_per_node: int,
    from_node: Mapping[str, object],
) -> list[object]:
    """Ask a class's ``configure_worker`` once per worker, in the group's environment.

    Where the class has none, there is no answer.
    """
    before, path = dict(os.environ), list(sys.path)
    drop_inherited(from_node, os.environ)
    os.environ.update(environment)
    extend_search_path()
    try:
        loaded: object = load_class(full_name)
        if not configures(loaded):
            return []
        configure: Callable[..., object] = getattr(loaded, "configure_worker")  # noqa: B009
        accepted = inspect.signature(configure).parameters.values()
        extra = (
            {"num_gpus_per_node": num_gpus_per_node}
            if any(
                each.name == "num_gpus_per_node" or each.kind is each.VAR_KEYWORD
                for each in accepted
            )
            else {}
        )
        answers: list[object] = []
        for num_gpus, bundle_indices in questions:
            asked = {"num_gpus": num_gpus, "bundle_indices": bundle_indices, **extra}
            try:
                answers.append(configure(**asked))
            except Exception as error:
                told = ", ".join(f"{name}={value!r}" for name, value in asked.items())
                error.add_note(f"raised by configure_worker({told})")
                raise
        return answers
    finally:
        os.environ.clear()
        os.environ.update(before)
        sys.path[:] = path
