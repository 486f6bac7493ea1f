"""What exceptions say, as the message of a failed call tells it."""

from collections.abc import Sequence

from attrs import frozen

from planner.outcomes import ranks_text

__all__ = ["Said", "late_start_text", "message_text"]

MOST_PARTS = 8
"""How many exceptions of a group are told, at each depth."""

MOST_OF_PART = 300
"""How many characters of each of them are told."""

NO_MESSAGE = "(no message)"

CANCELLED = (
    "the call was cancelled: it raised KeyboardInterrupt or its process got SIGINT, or else "
    "somebody cancelled it, which Ray does not tell apart; the worker goes on"
)


@frozen(kw_only=True)
class Said:
    """What an exception says.

    Attributes:
        kind: The name of its type.
        module: Where that type is from.
        text: Its text.
        parts: The exceptions of a group.
    """

    kind: str
    module: str = ""
    text: str = ""
    parts: tuple["Said", ...] = ()


def message_text(said: Said) -> str:
    """What it says in lines without blanks around them; of a group, what each part says too."""
    lines = [line.strip() for line in said.text.strip().splitlines() if line.strip()]
    is_rays = said.module.startswith("ray.")
    if is_rays and said.kind == "TaskCancelledError":
        return CANCELLED
    told = [line for line in lines if "exit detail" in line or "died" in line.lower()]
    if is_rays and told:
        return " ".join(told[:2])
    return "\n".join([*(lines or [NO_MESSAGE]), *_part_lines(said.parts, "")])


def _part_lines(parts: Sequence[Said], number: str) -> list[str]:
    lines = []
    for place, part in enumerate(parts[:MOST_PARTS], 1):
        text = " ".join(part.text.split())
        left = len(text) - MOST_OF_PART
        more = f"... ({left:,} more characters)" if left > 0 else ""
        lines.append(f"{number}{place}. {part.kind}: {text[:MOST_OF_PART] or NO_MESSAGE}{more}")
        lines += _part_lines(part.parts, f"{number}{place}.")
    left = len(parts) - MOST_PARTS
    return lines + ([f"{number} and {left} more".strip()] if left > 0 else [])


def late_start_text(ranks: Sequence[int]) -> str:
    """What to do about ranks that were not up in time."""
    return (
        f"start_timeout is over: give a longer one if {ranks_text(ranks)} only needed more time; "
        "else see in the log of that process, on its node, what it waits for"
    )
