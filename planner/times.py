"""Telling times from other values: numbers of seconds, none of them below 0."""

__all__ = ["seconds_of"]


def seconds_of(value: object) -> float | None:
    """The value when it is a time in seconds, 0 or more, else None; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return value
