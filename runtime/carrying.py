"""Lets a ``NamedSharding`` reach a process whose interpreter lacks rankplan.

The source of its class travels with it. Where rankplan can be imported, the value is of rankplan's
own class; elsewhere the few modules that the class needs are made from the source, under their own
names, so that the value, and the errors that it raises, are understood wherever they go next.

What this module pickles travels by value: it imports the standard library only, but for the class.
"""

import copyreg
import functools
import importlib
import inspect
import json
import sys
import types
import zlib
from collections.abc import Callable
from typing import Any

from planner import findings, mesh, whole_numbers
from planner.mesh import NamedSharding

__all__ = ["carry_named_sharding"]


def carry_named_sharding() -> None:
    """Have this process pickle every ``NamedSharding`` with the source of its class."""
    try:
        # Each needs those before it only.
        text = {each.__name__: inspect.getsource(each) for each in (findings, whole_numbers, mesh)}
    except OSError:
        # Without source there is nothing to carry; where rankplan is installed, all is well.
        return
    carried = zlib.compress(json.dumps(text).encode())
    copyreg.pickle(NamedSharding, functools.partial(_reduced, carried))


# In quotes: annotations travel with a function, and this one's class may not be there.
def _reduced(
    carried: bytes, value: "NamedSharding"
) -> tuple[Callable[..., Any], tuple[object, ...]]:
    return _restored, (carried, value.layout.tolist(), value.names)


def _restored(carried: bytes, layout: object, names: list[str]) -> object:
    try:
        made = importlib.import_module("planner.mesh").NamedSharding
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("planner"):
            raise
        made = _module_from(carried).NamedSharding
        copyreg.pickle(made, functools.partial(_reduced, carried))
    return made(layout, names)


def _module_from(carried: bytes) -> types.ModuleType:
    """``planner.mesh``, made here; whatever another package named planner holds stays as it is."""
    try:
        importlib.import_module("planner")
    except ModuleNotFoundError:
        package = types.ModuleType("planner", "The part of rankplan that a NamedSharding needs.")
        package.__path__ = []
        sys.modules.setdefault("planner", package)
    for name, source in json.loads(zlib.decompress(carried)).items():
        module = types.ModuleType(name)
        try:
            exec(compile(source, f"<rankplan: {name}>", "exec"), module.__dict__)  # noqa: S102
        except ModuleNotFoundError as error:
            raise ImportError(
                f"a NamedSharding has come to {sys.executable}, which lacks {error.name!r}: "
                f"install {error.name!r} there, or send axes as plain lists"
            ) from error
        # Complete before anyone finds it; of two threads the first one's stays.
        sys.modules.setdefault(name, module)
    return sys.modules["planner.mesh"]
