"""Reads the words that describe a Python environment: a path, a uv command, requirements.

The words are never run by a shell, so whatever needs one is a finding here.
"""

import re
import shlex
from difflib import get_close_matches
from itertools import takewhile

from planner.findings import Findings

__all__ = [
    "absolute_path",
    "check_interpreter_path",
    "hide_credentials",
    "read_project_command",
    "read_requirement",
    "read_words",
]

_SHELL_WORD = re.compile(r"[();<>|&]+")
_CREDENTIALS = re.compile(
    r"(?<=://)(?:[^/@\s]*:[^/@\s]*|(?<=http://)[^/@\s]+|(?<=https://)[^/@\s]+)@"
)
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9._, -]*\])?"
    r"\s*((([<>=!~]=|[<>]|===)\s*[A-Za-z0-9._*+!-]+\s*,?\s*)*|@\s*[A-Za-z+]+://\S+)\s*(;.+)?"
)
_ARCHIVES = (".whl", ".tar.gz", ".zip")

# Options that `uv run` and `uv sync` share. Those that make the outcome depend on the day (such as
# --upgrade) or on the caller's shell (--active) are left out on purpose.
_OPTIONS_WITH_VALUE = frozenset(
    """
    --allow-insecure-host --cache-dir --config-file --config-setting --default-index --directory
    --exclude-newer --extra --extra-index-url --find-links --group --index --index-strategy
    --index-url --keyring-provider --link-mode --no-binary-package --no-build-isolation-package
    --no-build-package --no-editable-package --no-extra --no-group --no-sources-package --only-group
    --package --prerelease --project --python --resolution -f -i -p
    """.split()  # noqa: SIM905
)
_FLAGS = frozenset(
    """
    --all-extras --all-groups --all-packages --compile-bytecode --dev --exact --frozen --locked
    --managed-python --no-binary --no-build --no-build-isolation --no-cache --no-config
    --no-default-groups --no-dev --no-editable --no-index --no-managed-python --no-progress
    --no-python-downloads --no-sources --offline --only-dev --quiet --system-certs --verbose
    -n -q -v
    """.split()  # noqa: SIM905
)
_OVERLAY = "put the package into an extra of the project, or use 'uv pip install ...'"
_REFUSED = {
    "--active": "leave it out: the environment's folder is chosen by its content",
    "--env-file": "give the variables as env_vars of the group",
    "--isolated": "leave it out: every environment has a folder of its own",
    "--no-sync": "leave it out: the environment is built from the lock file",
    "--with": _OVERLAY,
    "--with-editable": _OVERLAY,
    "--with-requirements": _OVERLAY,
    "-w": _OVERLAY,
}


def read_words(text: str, findings: Findings, path: str) -> list[str]:
    """The words of the text, by the shell's rules of quoting; what needs a shell is a finding."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        findings.fail(path, f"cannot be read: {error}", "close every quote")
    for word in words:
        if _SHELL_WORD.fullmatch(word) or "$" in word or "`" in word or word.startswith("~"):
            problem = f"{hide_credentials(word)!r} needs a shell, and none is used"
            remedy = "write paths in full, and put version limits such as 'numpy<2' in quotes"
            findings.add(path, problem, remedy)
    # What follows an operator is another command: to judge it as well would only confuse.
    return list(takewhile(lambda word: not _SHELL_WORD.fullmatch(word), words))


def _check_credentials(word: str, findings: Findings, path: str) -> None:
    if _CREDENTIALS.search(word):
        problem = f"{hide_credentials(word)!r} holds credentials, which a plan never does"
        remedy = "leave them to the node's settings of uv or pip, a netrc file or a keyring"
        findings.add(path, problem, remedy)


def check_interpreter_path(
    executable: str, working_directory: str, findings: Findings, path: str
) -> None:
    """Record what is wrong with the path of a prebuilt interpreter."""
    _check_credentials(executable, findings, path)
    executable = hide_credentials(executable)
    if not executable.startswith("/"):
        full = absolute_path(executable, working_directory)
        findings.add(path, f"{executable!r} is not an absolute path", f"give it in full: {full!r}")
    elif executable.endswith("/"):
        remedy = f"name the interpreter in it: {executable + 'bin/python'!r}"
        findings.add(path, f"{executable!r} is a folder", remedy)
    elif any(each in executable for each in " \t\n*?'\"\\{}!#"):
        # Ray hands this path to a shell when it starts a worker.
        remedy = "link the interpreter at a path without such characters"
        findings.add(path, f"Ray cannot start {executable!r}: a blank, quote or wildcard", remedy)


def read_project_command(
    arguments: list[str], working_directory: str, findings: Findings, path: str
) -> tuple[str, ...]:
    """The arguments of ``uv run`` as ``uv run --directory FOLDER`` and the other options."""
    for word in arguments:
        _check_credentials(word, findings, path)
    options = _options(arguments, findings, path)
    if not {name for name, _ in options} & {"--locked", "--frozen"}:
        problem = "without --locked or --frozen each node may resolve other versions"
        findings.add(path, problem, "add --locked")
    folder = working_directory
    for name in ("--directory", "--project"):
        for each, value in options:
            folder = absolute_path(value or "", folder) if each == name else folder
    rest = (
        word
        for name, value in options
        if name not in {"--directory", "--project", "--exact"}
        for word in (name, value)
        if word is not None
    )
    return ("uv", "run", "--directory", folder, *rest)


def _options(arguments: list[str], findings: Findings, path: str) -> list[tuple[str, str | None]]:
    """Each option with its value; whatever cannot be used is a finding."""
    options: list[tuple[str, str | None]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, attached = word.partition("=")
        followed = bool(rest) and not rest[0].startswith("-")
        if not name.startswith("-"):
            problem = f"{hide_credentials(word)!r} names a program or has no option"
            findings.add(path, problem, "leave it out: Ray starts its workers in the environment")
            break
        if word in _FLAGS:
            options.append((word, None))
            continue
        value = attached if equals else rest.pop(0) if followed else ""
        if name not in _OPTIONS_WITH_VALUE:
            findings.add(path, f"{name} cannot be used here", _remedy_for(name))
        elif not value:
            findings.add(path, f"{name} has no value", f"write '{name} VALUE'")
        options.append((name, value))
    return options


def _remedy_for(option: str) -> str:
    known = sorted(_OPTIONS_WITH_VALUE | _FLAGS)
    near = get_close_matches(option, known, n=3, cutoff=0.7)
    default = f"did you mean {' or '.join(near)}?" if near else "leave it out"
    return _REFUSED.get(option, default)


def read_requirement(text: str, working_directory: str, findings: Findings, path: str) -> str:
    """The requirement in its canonical form."""
    text = text.strip()
    local = text.removeprefix("file://")
    _check_credentials(text, findings, path)
    if text.startswith("-"):
        remedy = "set it in the node's configuration of uv or pip, and name packages only"
        findings.add(path, f"{hide_credentials(text)!r} is an option", remedy)
    elif "://" not in local and (local.startswith(("/", ".")) or local.endswith(_ARCHIVES)):
        if not local.endswith(_ARCHIVES):
            remedy = "build a wheel of it and name that"
            findings.add(path, f"the folder {local!r} has no fixed content", remedy)
        return absolute_path(local, working_directory)
    elif not re.match(r"[A-Za-z+]+://", text) and not _REQUIREMENT.fullmatch(text):
        remedy = "write it like 'vllm==0.11.0', 'name @ https://...' or '/folder/name.whl'"
        findings.add(path, f"{hide_credentials(text)!r} is not a requirement", remedy)
    return text


def absolute_path(folder: str, base: str) -> str:
    """The path without ``.`` and ``..``, read against the base unless it is absolute."""
    parts: list[str] = []
    for part in (folder if folder.startswith("/") else f"{base}/{folder}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def hide_credentials(text: str) -> str:
    """The text with user names and passwords in addresses replaced."""
    return _CREDENTIALS.sub("***@", text)
