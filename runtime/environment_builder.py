"""Makes sure that one Python environment is on this node, building it when it is not.

This module and ``bounded_program`` travel to each node by value, where rankplan may not be
installed: they import the standard library only, and take and return plain data.

How it stays correct. An environment is built in a folder that no one else uses, and published by
creating the link ``<key>`` that points to it, as the very last step. Creating a link either
succeeds for exactly one builder or fails, on network file systems too; so the link is the mark of
completeness, a reader never sees half an environment, and of two builders the second discards his
own. No lock is needed for that. The lock only avoids doing the work twice on one host. It is held
on an open file, so the kernel frees it whichever way its holder ends. It lies in a node-local
folder, because locks on network file systems are not always there. A link, and not a rename,
because the scripts of an environment hold the absolute path at which they were installed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from runtime.bounded_program import ProgramError, run_program, tail_of, without_secrets

__all__ = ["BuildOutcome", "BuildSpec", "build_environment", "digest_of_sources", "find_uv"]


class BuildSpec(TypedDict):
    """One environment, as plain data. Exactly one of the first three is not empty.

    Attributes:
        executable: Path of a prebuilt interpreter, which is only checked.
        uv_arguments: What follows ``uv sync`` for a locked project.
        requirements: Packages to install.
        inherits_packages: Whether this process's packages stay visible behind the requirements.
        sources: Local files and project folders that the environment is made of.
        sources_digest: What ``digest_of_sources`` must give for them; empty without sources.
        folder: Folder of environments.
        key: Name of the environment in it.
        python: Version of Python that workers need; the first two parts must be equal.
        ray: Version of Ray that workers need.
        deadline_seconds: Time for everything, waiting included.
    """

    executable: str
    uv_arguments: list[str]
    requirements: list[str]
    inherits_packages: bool
    sources: list[str]
    sources_digest: str
    folder: str
    key: str
    python: str
    ray: str
    deadline_seconds: float


class BuildOutcome(TypedDict):
    """How it went on one host.

    Attributes:
        host: Name of the host.
        executable: The interpreter; empty when there is none.
        built: Whether this call built it; False when it was there already.
        problem: What went wrong and what would help; empty when all is well.
        output: The last lines of the builder's output, without secrets.
    """

    host: str
    executable: str
    built: bool
    problem: str
    output: str


_PROBE = """
import json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3], "ray": "", "error": ""}
try:
    import ray
    found["ray"] = ray.__version__
except BaseException as error:
    found["error"] = "%s: %s" % (type(error).__name__, error)
print()
print(json.dumps(found))
"""


def build_environment(spec: BuildSpec) -> BuildOutcome:
    """Make sure that the environment is here and fit for Ray workers; never raises."""
    deadline = time.monotonic() + spec["deadline_seconds"]
    outcome = BuildOutcome(
        host=socket.gethostname(), executable="", built=False, problem="", output=""
    )
    try:
        if spec["executable"]:
            outcome["executable"] = _checked(spec["executable"], spec, deadline)
        else:
            outcome["executable"], outcome["built"] = _find_or_build(spec, deadline)
    except ProgramError as error:
        outcome["problem"], outcome["output"] = str(error), error.output
    except OSError as error:
        outcome["problem"] = f"{type(error).__name__}: {error}"
    return outcome


def digest_of_sources(sources: list[str] | tuple[str, ...]) -> str:
    """Digest of the named files, and of what fixes the content of the named project folders.

    A project's content is fixed by the ``pyproject.toml``, ``uv.lock`` and ``.python-version`` of
    its folder and of the folders above, up to the one with the lock file.

    Raises:
        FileNotFoundError: A file is not there, or a folder belongs to no locked project.
    """
    total = hashlib.sha256()
    for source in sorted(sources):
        path = Path(source)
        files = _files_of_project(path) if path.suffix not in {".whl", ".gz", ".zip"} else [path]
        for file in files:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{source}\0{file.name}\0{content}\0".encode())
    return total.hexdigest() if sources else ""


def find_uv() -> str | None:
    """The uv program: on the path, beside this interpreter, or where its installer puts it."""
    beside = [Path(sys.executable).parent / "uv", Path.home() / ".local/bin/uv"]
    return shutil.which("uv") or next(
        (str(each) for each in beside if os.access(each, os.X_OK)), None
    )


def _files_of_project(folder: Path) -> list[Path]:
    found: list[Path] = []
    for each in (folder, *folder.parents):
        names = ("pyproject.toml", "uv.lock", ".python-version")
        found += [each / name for name in names if (each / name).is_file()]
        if (each / "uv.lock").is_file():
            return found
    raise FileNotFoundError(f"{folder} belongs to no project with a uv.lock; make it by 'uv lock'")


def _find_or_build(spec: BuildSpec, deadline: float) -> tuple[str, bool]:
    """The environment's interpreter, and whether it was built by this call."""
    published = Path(spec["folder"], spec["key"])
    if not _is_complete(published):
        _check_sources(spec)
        with _lock(published, deadline):
            if not _is_complete(published):
                return str(_python_of(published)), _build_and_publish(spec, published, deadline)
    return _checked(str(_python_of(published)), spec, deadline), False


def _build_and_publish(spec: BuildSpec, published: Path, deadline: float) -> bool:
    published.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(published)
    suffix = secrets.token_hex(4)
    place = published.with_name(f"{published.name}.{_place()}.{os.getpid()}.{suffix}")
    try:
        _build(spec, place, deadline)
        _checked(str(_python_of(place)), spec, deadline)
        return _publish(place, published)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def _is_complete(published: Path) -> bool:
    return published.is_symlink() and _python_of(published).exists()


def _check_sources(spec: BuildSpec) -> None:
    """What is built here must be made of what the driver saw, or equal keys would lie."""
    if not spec["sources"]:
        return
    try:
        here = digest_of_sources(spec["sources"])
    except OSError as error:
        raise ProgramError(f"its sources cannot be read on this node: {error}") from error
    if here != spec["sources_digest"]:
        names = ", ".join(spec["sources"])
        raise ProgramError(
            f"{names} differs from the driver's; bring this node's copy up to date and plan again"
        )


@contextlib.contextmanager
def _lock(published: Path, deadline: float) -> Iterator[None]:
    """Hold the host's lock on this environment; the kernel frees it when the holder dies."""
    folder = Path(tempfile.gettempdir(), f"rankplan-locks-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(str(published).encode()).hexdigest()[:32]
    # The file is never removed: a lock on a removed file would exclude nobody.
    with (folder / name).open("a+", encoding="utf-8") as file:
        while not _taken(file.fileno()):
            if time.monotonic() > deadline:
                file.seek(0)
                raise ProgramError(
                    f"process {file.read()} on this host was still building it when the deadline "
                    "passed; allow more time"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_leftovers(published: Path) -> None:
    """Remove what dead builders of this host left; other hosts' builders may still be at work."""
    if published.is_symlink() and not _is_complete(published):
        published.unlink()
    for place in published.parent.glob(f"{published.name}.{_place()}.*"):
        builder = int(place.name.split(".")[-2])
        if builder == os.getpid() or not Path(f"/proc/{builder}").exists():
            shutil.rmtree(place, ignore_errors=True)


def _place() -> str:
    """Where a process number means something: the host and its space of process numbers."""
    space = Path("/proc/self/ns/pid")
    number = space.readlink().name if space.is_symlink() else ""
    return re.sub(r"\W+", "-", f"{socket.gethostname()}-{number}").strip("-")


def _publish(place: Path, published: Path) -> bool:
    """Link the finished environment; False when another host was first, and ours is discarded."""
    try:
        published.symlink_to(place.name)
    except FileExistsError as error:
        if not published.is_symlink():
            problem = f"{published} is in the way and is no environment of rankplan; remove it"
            raise ProgramError(problem) from error
        # A network file system may answer so to a repeated request that had succeeded.
        if published.readlink() == Path(place.name):
            return True
        shutil.rmtree(place, ignore_errors=True)
        return False
    return True


def _build(spec: BuildSpec, place: Path, deadline: float) -> None:
    uv = find_uv()
    if spec["uv_arguments"]:
        if uv is None:
            raise ProgramError("uv is not on this node; install it, or give a prebuilt interpreter")
        arguments = spec["uv_arguments"]
        if not {"--python", "-p"} & set(arguments):
            arguments = [*arguments, "--python", sys.executable]
        run_program([uv, "sync", *arguments], deadline, UV_PROJECT_ENVIRONMENT=str(place))
        return
    python = str(_python_of(place))
    if uv:
        run_program([uv, "venv", "--no-project", "--python", sys.executable, str(place)], deadline)
        install = [uv, "pip", "install", "--python", python]
    else:
        run_program([sys.executable, "-m", "venv", str(place)], deadline)
        install = [python, "-m", "pip", "install"]
    run_program([*install, *spec["requirements"]], deadline)
    if spec["inherits_packages"]:
        _inherit_packages(place)


def _inherit_packages(place: Path) -> None:
    """Let the environment see this process's packages, behind its own.

    ``addsitedir`` appends to the search path, so the environment's packages win, and it reads the
    ``.pth`` files there too, so that editable packages are seen.
    """
    shared = [each for each in sys.path if Path(each).name in {"site-packages", "dist-packages"}]
    (packages,) = place.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({each!r})\n" for each in shared]
    (packages / "_rankplan_inherited.pth").write_text("".join(lines), encoding="utf-8")


def _checked(executable: str, spec: BuildSpec, deadline: float) -> str:
    """The interpreter, if Ray workers start in it: the same Ray, the same minor Python."""
    if not os.access(executable, os.X_OK):
        raise ProgramError(f"{executable} is not an executable file on this node")
    text = run_program([executable, "-c", _PROBE], deadline)
    answers = [line for line in text.splitlines() if line.startswith('{"python"')]
    if not answers:
        raise ProgramError(f"{executable} does not behave like a Python", tail_of(text))
    found = json.loads(answers[-1])
    python, ray, error = found["python"], found["ray"], without_secrets(found["error"])
    minor = spec["python"].split(".")[:2]
    if error or python.split(".")[:2] != minor or ray != spec["ray"]:
        name = executable if spec["executable"] else "the environment"
        has = f"Ray {ray}" if ray else f"no usable Ray ({error})"
        raise ProgramError(
            f"{name} has Python {python} and {has}; workers need Python {'.'.join(minor)} and "
            f"Ray {spec['ray']}, as the driver has"
        )
    return executable
