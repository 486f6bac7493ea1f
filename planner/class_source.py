"""What must be known of a worker's class before its hosts start, read from its source.

Importing an inference engine's worker can take 40 seconds, so nobody imports a class just to
learn whether it has ``async`` methods. Its source usually says so. Where it does not (a base
that can't be found, an unknown decorator), the answer is None, and the class must be imported.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import field, frozen

__all__ = ["AssumedClass", "ClassFacts", "ReadModule", "scan_class"]

ReadModule = Callable[[str], "tuple[str, bool] | None"]
"""Gives, by a module's full name, its source and whether it is a package (its ``__init__``).

None when there is none to be found.
"""


@frozen(kw_only=True)
class ClassFacts:
    """What must be known of a class before its hosts can start.

    Attributes:
        asynchronous: Whether it has ``async`` methods.
        configures: Whether it has ``configure_worker``.
        options: What its decorator says.
    """

    asynchronous: bool = False
    configures: bool = False
    options: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class AssumedClass:
    """What a launch counts on, of a class that no host has imported yet.

    Attributes:
        configures: Whether it has ``configure_worker``: if so, the plan holds its answers.
        found: How that was found, such as ``read from its source``.
    """

    configures: bool
    found: str


_PLAIN_BASES = frozenset(
    {"object", "ABC", "abc.ABC", "Protocol", "typing.Protocol", "Generic", "typing.Generic"}
    | {"torch.nn.Module", "nn.Module", "Exception"}
)
_DEEPEST = 16


class _Unknown(Exception):  # noqa: N818
    """The source does not tell."""


def scan_class(full_name: str, read: ReadModule) -> ClassFacts | None:
    """The facts of a class, or None when its source does not tell.

    Args:
        full_name: ``package.module.Class``.
        read: Gives sources; the only way to the outside.
    """
    module, _, name = full_name.rpartition(".")
    try:
        return _scan(module, name, read, 0)
    except _Unknown:
        return None


def _scan(module: str, name: str, read: ReadModule, depth: int) -> ClassFacts:
    found_source = read(module) if module else None
    if found_source is None or depth > _DEEPEST:
        raise _Unknown
    source, is_package = found_source
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, SystemError) as error:
        raise _Unknown from error
    imported = _imports(tree, module, is_package)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(found) == 1 and not _assigned(tree.body, name):
        return _class_facts(found[0], module, imported, read, depth)
    if not found and name in imported:
        target, _, attribute = imported[name].rpartition(".")
        return _scan(target, attribute, read, depth + 1)
    raise _Unknown


def _class_facts(
    node: ast.ClassDef, module: str, imported: Mapping[str, str], read: ReadModule, depth: int
) -> ClassFacts:
    options = _decorator_options(node, imported)
    if any(keyword.arg != "metaclass" for keyword in node.keywords) or any(
        ast.unparse(keyword.value) not in {"ABCMeta", "abc.ABCMeta"} for keyword in node.keywords
    ):
        raise _Unknown
    if any(_gives_another_name(each) for each in node.body):
        raise _Unknown
    if _assigned(node.body, "configure_worker"):
        raise _Unknown
    bases = [_base_facts(base, module, imported, read, depth) for base in node.bases]
    methods = list(_methods(node.body))
    return ClassFacts(
        asynchronous=any(isinstance(each, ast.AsyncFunctionDef) for each in methods)
        or any(base.asynchronous for base in bases),
        configures=any(each.name == "configure_worker" for each in methods)
        or any(base.configures for base in bases),
        options=options,
    )


def _methods(nodes: Iterable[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a class body, those under an ``if`` or ``try`` included."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif not isinstance(node, ast.ClassDef):
            yield from _methods(ast.iter_child_nodes(node))


def _gives_another_name(node: ast.stmt) -> bool:
    """Whether something made elsewhere, perhaps an async function, becomes an attribute."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute)


def _base_facts(
    base: ast.expr, module: str, imported: Mapping[str, str], read: ReadModule, depth: int
) -> ClassFacts:
    text = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
    head, _, rest = text.partition(".")
    full = imported.get(head, "")
    known = f"{full}.{rest}" if rest and full else full or text
    if text in _PLAIN_BASES or known in _PLAIN_BASES:
        return ClassFacts()
    if not isinstance(base, ast.Name | ast.Attribute | ast.Subscript):
        raise _Unknown
    if full:
        target, _, attribute = known.rpartition(".")
        return _scan(target, attribute, read, depth + 1)
    if rest:
        raise _Unknown
    return _scan(module, text, read, depth + 1)


def _decorator_options(node: ast.ClassDef, imported: Mapping[str, str]) -> dict[str, object]:
    options: dict[str, object] = {}
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        text = ast.unparse(called)
        if text != "ray.remote" and imported.get(text) != "ray.remote":
            raise _Unknown
        if isinstance(decorator, ast.Call):
            for keyword in decorator.keywords:
                if keyword.arg is None:
                    raise _Unknown
                options[keyword.arg] = _literal(keyword.value)
    return options


def _literal(node: ast.expr) -> object:
    try:
        value: object = ast.literal_eval(node)
    except ValueError as error:
        raise _Unknown from error
    return value


def _imports(tree: ast.Module, module: str, is_package: bool) -> dict[str, str]:
    """Local name -> full name, for the imports at the top of a module."""
    # One dot is the package that a module is in; for a package, that is itself.
    inside = f"{module}.__init__" if is_package else module
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            package = inside.rsplit(".", node.level)[0] if node.level else ""
            origin = ".".join(part for part in (package, node.module or "") if part)
            for alias in node.names:
                names[alias.asname or alias.name] = f"{origin}.{alias.name}"
    return names


def _assigned(nodes: Iterable[ast.AST], name: str) -> bool:
    """Whether a module gives the name, or an attribute of what has it, another value."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_head(each) == name for target in targets for each in _parts(target)):
                return True
        elif _assigned(ast.iter_child_nodes(node), name):
            return True
    return False


def _parts(target: ast.expr) -> list[ast.expr]:
    if isinstance(target, ast.Starred):
        return _parts(target.value)
    if isinstance(target, ast.Tuple | ast.List):
        return [part for each in target.elts for part in _parts(each)]
    return [target]


def _head(target: ast.expr) -> str:
    while isinstance(target, ast.Attribute):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""
