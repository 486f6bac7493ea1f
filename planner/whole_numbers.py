"""Telling whole numbers from other values: Python's, numpy's, but no truth value."""

import operator

__all__ = ["whole_number"]


def whole_number(value: object) -> int | None:
    """The value as an ``int`` when it is a whole number, else None."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        # numpy's arrays have the method, and use it only when they hold a single number.
        return None
