"""Runs a program that has a deadline, leaves no orphans, and whose output keeps no secrets.

This module travels to other nodes by value: it imports the standard library only.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["ProgramError", "run_program", "tail_of", "without_secrets"]


class ProgramError(Exception):
    """A program did not do what was asked.

    Attributes:
        output: The last lines of what it wrote, without secrets.
    """

    def __init__(self, problem: str, output: str = "") -> None:
        super().__init__(problem)
        self.output = output


# Variables that would lead a builder to another environment than the one it is to build.
_MISLEADING = frozenset(
    """
    CONDA_PREFIX PYTHONHOME PYTHONPATH UV_NO_SYNC UV_PROJECT UV_PYTHON UV_SYSTEM_PYTHON
    UV_WORKING_DIR UV_WORKING_DIRECTORY VIRTUAL_ENV
    """.split()  # noqa: SIM905
)

_OUTPUT_KEPT = 65536  # bytes

# Runs a command as the leader of a process group, and ends the whole group when the builder is no
# more: its end of the pipe is then closed, whichever way it died.
_LEADER = """
import os, signal, subprocess, sys, threading
def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
os._exit(code if code >= 0 else 128 - code)
"""


def run_program(command: list[str], deadline: float, **variables: str) -> str:
    """Run a program to its end, or end it and all it started at the deadline.

    Args:
        command: The program and its arguments; no shell reads them.
        deadline: Reading of ``time.monotonic`` at which the program is ended.
        variables: Added to this process's environment, less the variables that mislead builders.

    Returns:
        The end of what it wrote, standard output and errors together.

    Raises:
        ProgramError: It failed, or had not ended at the deadline.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    words = [Path(word).name if word.startswith("/") else word for word in command[:3]]
    name = words[0] if "-c" in words else " ".join(words)
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", _LEADER, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | variables,
            start_new_session=True,
        ) as process:
            try:
                code: int | None = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _OUTPUT_KEPT))
        text = output.read().decode(errors="replace")
    if code is None:
        raise ProgramError(f"{name!r} had not ended when the deadline passed", tail_of(text))
    if code:
        raise ProgramError(f"{name!r} failed with exit code {code}", tail_of(text))
    return text


def tail_of(text: str) -> str:
    """The last lines of the text, without secrets."""
    return without_secrets("\n".join(text.strip().splitlines()[-30:])[-4000:])


def without_secrets(text: str) -> str:
    """The text without passwords in addresses, and without the values of secret variables."""
    text = re.sub(r"(?<=://)[^/@\s]+@", "***@", text)
    text = re.sub(
        r"(?i)([?&][\w-]*(?:token|key|secret|password|sig)[\w-]*=)[^&\s]+", r"\1***", text
    )
    for name, value in os.environ.items():
        if re.search(r"(?i)token|secret|passw|credential|_key$", name) and len(value) > 5:
            text = text.replace(value, "***")
    return text
