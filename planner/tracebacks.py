"""What a traceback says, read from its text: where in the user's code an exception was raised."""

import re
from collections.abc import Sequence

__all__ = ["WAS_CUT", "frames_of", "readable"]

MOST_FRAMES = 3
"""How many frames of the user's code are told, the innermost first."""

MOST_CHARACTERS = 4_000
"""How many characters of a traceback's frames are told: its end, which says where."""

MOST_OF_MESSAGE = 500
"""How many characters are told of the message below the frames; the error itself tells it, too."""

MOST_OF_PARTS = 3_000
"""How many are told below those of an exception group: where each of its parts was raised, too."""

WAS_CUT = re.compile(r"\.\.\. \((\d[\d,]*) more characters\)[\"')\]}]*$", re.MULTILINE)
"""The end of a message that its worker has cut already."""

_FRAME = re.compile(
    r'^ *File "(?P<file>[^"\n]*)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINK = re.compile(
    r"^(The above exception was the direct cause of the following exception:"
    r"|During handling of the above exception, another exception occurred:)$",
    re.MULTILINE,
)
_MARKS = re.compile(r"^[ \t]*[~^]+[ \t]*$")
_GROUP = re.compile(r"^ *\+ Exception Group Traceback", re.MULTILINE)
_OF_GROUP = re.compile(r"^ ? ?[|+] ?", re.MULTILINE)
"""What stands in front of each line of a group's own traceback."""

_OF_RAY = re.compile(r"(^|/)ray/(_private|util/tracing|_raylet)[./]")
"""Files of Ray's, whose frames carry a call; in the traceback of a group it does not hide them."""


def frames_of(text: str, own: Sequence[str]) -> tuple[str, ...]:
    """Where the last exception of a traceback was raised: ``lib/train.py:41 in step``.

    Args:
        text: The traceback, as Python or Ray prints it.
        own: The ends of the paths of files whose frames only carry the call to the user's code.

    Returns:
        The innermost frames, the one that raised first; empty when the text has none.
    """
    last = _last_part(_plain(text))
    frames = [each.groupdict() for each in _FRAME.finditer(last)]
    carried = [place for place, each in enumerate(frames) if each["file"].endswith(tuple(own))]
    told = frames[carried[-1] + 1 :] if carried else frames
    return tuple(
        f"{_short(each['file'])}:{each['line']} in {each['name']}"
        for each in reversed(told[-MOST_FRAMES:])
    )


def readable(text: str) -> str:
    """A traceback from elsewhere for people: without colours, lone marks, and what is too long."""
    is_group = bool(_GROUP.search(text))
    lines = _plain(text).strip().splitlines()
    kept = [
        line
        for place, line in enumerate(lines)
        if not _MARKS.match(line) or (place and _is_source(lines[place - 1]))
    ]
    frames, message = _parted("\n".join(kept))
    message = _shortened(message, MOST_OF_PARTS if is_group else MOST_OF_MESSAGE)
    if len(frames) > MOST_CHARACTERS:
        end = frames[-MOST_CHARACTERS:].partition("\n")[2]
        frames = f"... ({len(frames) - len(end):,} characters before)\n{end}"
    return f"{frames}{message}"


def _shortened(message: str, most: int) -> str:
    """Its beginning, and how much more there is, or was before its worker cut it."""
    if len(message) <= most:
        return message
    cut = WAS_CUT.search(message)
    if cut is None or cut.end() <= most:
        return f"{message[:most]}... ({len(message) - most:,} more characters)"
    kept = min(most, cut.start())
    left = len(message) - kept - len(cut[0]) + int(cut[1].replace(",", ""))
    return f"{message[:kept]}... ({left:,} more characters)"


def _plain(text: str) -> str:
    """Without colours; the frames of an exception group as those of any other exception."""
    text = _COLOUR.sub("", text)
    if not _GROUP.search(text):
        return text
    kept: list[str] = []
    is_rays = False
    for line in _OF_GROUP.sub("", text).splitlines(keepends=True):
        frame = _FRAME.match(line)
        if frame or not line.startswith("    "):
            is_rays = frame is not None and bool(_OF_RAY.search(frame["file"]))
        if not is_rays:
            kept.append(line)
    return "".join(kept)


def _is_source(line: str) -> bool:
    """Whether a line of a traceback shows a line of source, which marks may stand below."""
    return line.startswith("    ") and not _MARKS.match(line)


def _parted(text: str) -> tuple[str, str]:
    """All up to the last frame of the exception that arrived, and the rest: its message."""
    links = list(_LINK.finditer(text))
    ends = links[-1].end() if links else 0
    was_frame = False
    for line in text[ends:].splitlines(keepends=True):
        if was_frame and not line.startswith(" "):
            break
        was_frame = was_frame or bool(_FRAME.match(line))
        ends += len(line)
    return (text[:ends], text[ends:]) if was_frame else ("", text)


def _last_part(text: str) -> str:
    """The frames of the exception that arrived, and not of those that led to it."""
    frames, _ = _parted(text)
    links = list(_LINK.finditer(frames))
    return frames[links[-1].end() :] if links else frames


def _short(path: str) -> str:
    return "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])
