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
