"""Where the user's code raised, read from a traceback's text."""

import traceback

import pytest

from planner.tracebacks import MOST_CHARACTERS, frames_of, readable

OWN = ("runtime/host.py",)

FROM_RAY = """\x1b[36mray::Host.named()\x1b[39m (pid=15260, ip=10.0.0.1, repr=<Host>)
         ^^^^^^^^
  File "/code/rankplan/runtime/host.py", line 301, in call
    result = bound(*args, **kwargs)
             ^^^^^^^^^^^^^^^^^^^^^^
  File "/home/me/lib/models.py", line 9, in look_up
    return {}["x"]
           ~~^^^^^
KeyError: 'x'

The above exception was the direct cause of the following exception:

\x1b[36mray::Host.named()\x1b[39m (pid=15260, ip=10.0.0.1, repr=<Host>)
           ^^^^^^^^^^^^^^^
  File "/code/rankplan/runtime/host.py", line 301, in call
    result = bound(*args, **kwargs)
  File "/home/me/lib/train.py", line 41, in step
    return self.forward(batch)
           ^^^^^^^^^^^^^^^^^^^
  File "/home/me/lib/train.py", line 8, in forward
    raise ValueError("boom") from error
ValueError: boom
  File "/not/a/frame.py", line 1, in the_message
"""


def test_the_innermost_frame_of_the_users_code_comes_first() -> None:
    """Not those that led to it, not the host's, nor what a message looks like."""
    assert frames_of(FROM_RAY, OWN) == ("lib/train.py:8 in forward", "lib/train.py:41 in step")


def test_frames_are_few() -> None:
    """Of a deep recursion the end."""

    def down(left: int) -> None:
        if not left:
            raise ValueError("deep")
        down(left - 1)

    with pytest.raises(ValueError, match="deep") as raised:
        down(10)
    text = "".join(traceback.format_exception(raised.value))
    found = frames_of(text, OWN)
    assert len(found) == 3
    assert all(each.startswith("tests/test_tracebacks.py:") for each in found)
    assert frames_of("ValueError: no frames", OWN) == ()


def test_frames_of_the_carrier_alone_are_none() -> None:
    """The host raised by itself."""
    text = FROM_RAY.partition("The above")[0].replace("/home/me/lib/models.py", "x/runtime/host.py")
    assert frames_of(text, OWN) == ()


def test_a_traceback_is_made_readable() -> None:
    """No colours, no marks below nothing; its source lines keep theirs."""
    lines = readable(FROM_RAY).splitlines()
    assert lines[:2] == [
        "ray::Host.named() (pid=15260, ip=10.0.0.1, repr=<Host>)",
        '  File "/code/rankplan/runtime/host.py", line 301, in call',
    ]
    assert "           ~~^^^^^" in lines
    assert "           ^^^^^^^^^^^^^^^" not in lines


def test_of_a_long_traceback_the_end_is_told() -> None:
    """With how much there is before it."""
    frame = '  File "/lib/deep.py", line 7, in down\n'
    text = "Traceback (most recent call last):\n" + frame * 200 + "ValueError: boom"
    told = readable(text)
    assert told.startswith("... (3,857 characters before)\n")
    assert told.endswith(f"{frame}ValueError: boom")
    assert MOST_CHARACTERS - 100 < len(told) < MOST_CHARACTERS + 100
    assert frames_of(told, OWN) == ("lib/deep.py:7 in down",) * 3


def test_a_long_message_does_not_hide_the_frames() -> None:
    """It is cut, and told by the error itself."""
    told = readable(FROM_RAY + "x" * 10_000)
    assert told.endswith("more characters)")
    assert frames_of(told, OWN) == frames_of(FROM_RAY, OWN)
    assert readable("x" * 10_000) == "x" * 500 + "... (9,500 more characters)"


GROUP_FROM_RAY = """+ Exception Group Traceback (most recent call last):
  |   File "python/ray/_raylet.pyx", line 2205, in ray._raylet.execute_task
  |   File "/venv/lib/python3.11/site-packages/ray/_private/function_manager.py", line 740, in call
  |     return method(__ray_actor, *args, **kwargs)
  |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |   File "/code/rankplan/runtime/host.py", line 301, in call
  |     result = bound(*args, **kwargs)
  |   File "/home/me/lib/train.py", line 41, in step
  |     raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])
  | ExceptionGroup: several (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/home/me/lib/part.py", line 9, in load
    |     raise ValueError("a")
    | ValueError: a
    +---------------- 2 ----------------
    | KeyError: 'b'
    +------------------------------------
"""


def test_the_frames_of_an_exception_group_are_the_users() -> None:
    """Ray shows all of its own there; what the parts raised is below them."""
    assert frames_of(GROUP_FROM_RAY, OWN) == ("lib/train.py:41 in step",)
    told = readable(GROUP_FROM_RAY)
    assert frames_of(told, OWN) == ("lib/train.py:41 in step",)
    assert "/ray/" not in told
    assert "method(__ray_actor" not in told
    assert told.startswith('Exception Group Traceback (most recent call last):\n  File "/code')
    assert '    |   File "/home/me/lib/part.py", line 9, in load\n' in told
    assert told.endswith("    | KeyError: 'b'\n    +------------------------------------")


def test_what_a_worker_has_cut_of_a_message_counts() -> None:
    """What is left out here comes on top of it."""
    frames = FROM_RAY.partition("ValueError: boom")[0]
    told = readable(f"{frames}ValueError: {'x' * 4_000}... (5,000 more characters)\na note")
    assert told.endswith(f"{'x' * 488}... (8,519 more characters)")
    near = readable(f"{frames}ValueError: {'x' * 480}... (5,000 more characters)\na note")
    assert near.endswith(f"{'x' * 480}... (5,007 more characters)")
