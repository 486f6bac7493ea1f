"""What was raised on a worker can be read where it is raised again; and values come in a thread."""

import asyncio
import pickle
import threading
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from runtime.errors import WorkerGroupError
from runtime.gather import Gathered, error_of
from runtime.ray_backend import RAY, RayBackend
from runtime.roster import Roster

TOLD = """ray::Host.named() (pid=9, ip=10.0.0.1)
  File "/code/runtime/host.py", line 301, in call
    result = bound(*args, **kwargs)
  File "/home/me/lib/train.py", line {line}, in step
    raise {kind}("boom")
{kind}: boom"""


def _raised(line: int, cause: Exception) -> Exception:
    """A worker's exception as ``ray.get`` raises it."""
    text = TOLD.format(line=line, kind=type(cause).__name__)
    sent: Any = RayTaskError("step", text, cause, proctitle="p", pid=9, ip="10.0.0.1")
    raised: Exception = sent.as_instanceof_cause()
    return raised


def _error(*raised: Exception) -> WorkerGroupError:
    errors = {rank: RAY.cause_of(each) for rank, each in enumerate(raised)}
    return error_of("step()", Gathered(errors=errors), Roster(RAY, {}))


def test_the_traceback_of_the_first_failure_is_shown_once() -> None:
    """As a note on the worker's own exception, and its line in the message."""
    error = _error(_raised(41, ValueError("boom")), _raised(7, KeyError("boom")))
    notes = ["\n".join(getattr(each, "__notes__", [])) for each in error.errors.values()]
    assert notes[0].count('File "/home/me/lib/train.py", line 41, in step') == 1
    assert notes[1] == ""
    assert error.__cause__ is error.errors[0]
    assert "\n    raised at lib/train.py:41 in step\n" in str(error)
    assert "lib/train.py:7" not in str(error)
    assert error.report.causes[1][0].frames == ("lib/train.py:7 in step",)


def test_an_error_told_twice_has_one_note() -> None:
    """As when one future is waited for again."""
    errors = {0: RAY.cause_of(_raised(41, ValueError("boom")))}
    told = [error_of("step()", Gathered(errors=errors), Roster(RAY, {})) for _ in range(2)]
    assert len(getattr(errors[0], "__notes__", [])) == 1
    assert str(told[0]) == str(told[1])


def test_the_traceback_travels_with_the_error() -> None:
    """To another process; the error itself has no attribute of it."""
    error = _error(_raised(41, ValueError("boom")))
    assert not hasattr(error, "rankplan_trace")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert "line 41, in step" in getattr(again.__cause__, "__notes__", [""])[0]


IN_A_GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/venv/site-packages/ray/_private/function_manager.py", line 740, in actor_method
  |     return method(__ray_actor, *args, **kwargs)
  |   File "/code/runtime/host.py", line 301, in call
  |     result = bound(*args, **kwargs)
  |   File "/home/me/lib/train.py", line 41, in step
  |     raise ExceptionGroup("several", parts)
  | ExceptionGroup: several (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: a
    +---------------- 2 ----------------
    | KeyError: 'b'
    +------------------------------------"""


def test_an_exception_group_is_told_with_its_parts() -> None:
    """And with where it was raised, though Ray shows its own frames there."""
    cause = ExceptionGroup("several", [ValueError("a"), KeyError("b")])
    sent: Any = RayTaskError("step", IN_A_GROUP, cause, proctitle="p", pid=9, ip="10.0.0.1")
    error = error_of("step()", Gathered(errors={0: RAY.cause_of(sent)}), Roster(RAY, {}))
    assert str(error).splitlines()[1:] == [
        "  rank 0: ExceptionGroup: several (2 sub-exceptions)",
        "    1. ValueError: a",
        "    2. KeyError: 'b'",
        "    raised at lib/train.py:41 in step",
    ]
    note = error.errors[0].__notes__[0]
    assert "function_manager" not in note
    assert note.endswith("    | KeyError: 'b'\n    +------------------------------------")


def test_an_error_of_ray_itself_has_no_traceback_of_a_worker() -> None:
    """It is what it is."""
    error = RuntimeError("no worker raised this")
    assert RAY.cause_of(error) is error
    assert not hasattr(error, "rankplan_trace")


def test_values_that_are_elsewhere_come_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the other tasks of an event loop go on."""
    threads: list[threading.Thread] = []

    def get(_: RayBackend, references: list[int], timeout: float | None) -> list[int]:
        threads.append(threading.current_thread())
        assert timeout is None
        return [10 * each for each in references]

    monkeypatch.setattr(RayBackend, "get", get)
    assert asyncio.run(RAY.fetch([1, 2])) == [10, 20]
    assert threads != [threading.current_thread()]
