"""Workers of which the source says something else than the class that is imported."""

from typing import Any

__all__ = ["AsksNothing", "AsksUnseen"]


def _wants_nothing(**_: object) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    return {}, {}, {}


class _Registered:
    """A base that gives its classes a method that their source does not show."""

    def __init_subclass__(cls) -> None:
        setattr(cls, "configure_worker", staticmethod(_wants_nothing))  # noqa: B010


class AsksUnseen(_Registered):
    """It has ``configure_worker``; reading it does not show that."""


class AsksNothing:
    """It has none; reading it shows one."""

    if not __name__:

        @staticmethod
        def configure_worker(**_: object) -> None:
            """Never defined."""
