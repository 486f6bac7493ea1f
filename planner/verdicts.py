"""Whether a bundle fits: now, when something is free, or never."""

from attrs import frozen

from planner.amounts import amount_text

__all__ = ["Fits", "FitsWhenFree", "NeverFits", "Verdict"]


@frozen(kw_only=True)
class Fits:
    """The bundle fits now.

    Attributes:
        node_id: The node on which it is planned.
    """

    node_id: str

    @property
    def lacks(self) -> tuple[str, ...]:
        """Nothing: a kind for grouping verdicts."""
        return ()


@frozen(kw_only=True)
class FitsWhenFree:
    """The bundle fits once something else lets go of what it holds.

    Attributes:
        node_id: The node on which it is planned.
        missing: What must become free there: resource and amount in its unit.
    """

    node_id: str
    missing: tuple[tuple[str, int], ...]

    @property
    def lacks(self) -> tuple[str, ...]:
        """What kind of verdict it is, and the names of what is missing."""
        return ("now", *(name for name, _ in self.missing))

    def text(self, node: str) -> str:
        """What it waits for; ``node`` is what a reader knows its node by."""
        amounts = ", ".join(amount_text(name, amount) for name, amount in self.missing)
        return f"it fits on node {node} once {amounts} more is free there"


@frozen(kw_only=True)
class NeverFits:
    """The bundle cannot fit, even with nothing else running.

    Attributes:
        resource: The first thing missing: ``GPU``, ``CPU``, ``memory``, a custom resource;
            ``node`` when no further node may be used at all, ``segment`` for a whole one.
        missing: How much of it, in its unit.
        closest: The node that came closest; None when none may be used.
        has: How much of it that node has in all; without one, how many there are to choose from.
        left: How much of it this plan leaves there.
    """

    resource: str
    missing: int
    closest: str | None
    has: int
    left: int

    @property
    def lacks(self) -> tuple[str, ...]:
        """What kind of verdict it is, and the name of what is missing."""
        return ("ever", self.resource)

    def text(self, node: str) -> str:
        """What is missing; ``node`` is what a reader knows the closest node by."""
        if self.closest is None:
            beside = f" more beside the {self.has} it has" if self.has else ""
            return f"there is no {self.resource} for one{beside}"
        lacks = amount_text(self.resource, self.missing)
        has = amount_text(self.resource, self.has)
        left = amount_text(self.resource, self.left)
        taken = f", of which this plan leaves {left}" if self.left < self.has else ""
        return f"{lacks} missing on the closest node {node}, which has {has}{taken}"


Verdict = Fits | FitsWhenFree | NeverFits
