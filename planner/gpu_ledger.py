"""Which worker groups hold what of each bundle of a cluster: of its GPU, and of the rest."""

from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from planner.findings import Findings
from planner.group import FULL_GPU, GroupSpec
from planner.option_fit import asked_of_bundle

__all__ = ["BundleShare", "GpuLedger", "Holding", "bundle_shares", "held_amounts"]

UNIT = 10_000
"""Ray counts resources in ten-thousandths."""

Amounts = tuple[tuple[str, int], ...]
"""Resources by their names in Ray, in ten-thousandths."""


@frozen
class BundleShare:
    """What one worker takes of its bundle.

    Attributes:
        placement_group: The bundle's placement group.
        bundle: Its index there.
        share: In ten-thousandths of a GPU.
        others: What its options ask for beside that.
    """

    placement_group: int
    bundle: int
    share: int
    others: Amounts = ()

    @property
    def place(self) -> tuple[int, int]:
        """The placement group and the bundle."""
        return self.placement_group, self.bundle


@frozen(kw_only=True)
class Holding:
    """What one group holds.

    Attributes:
        group: Its name.
        key: What it is told by from other groups of that name.
        shares: What each of its workers takes.
    """

    group: str
    key: str
    shares: tuple[BundleShare, ...]


def bundle_shares(spec: GroupSpec) -> tuple[BundleShare, ...]:
    """What each worker of a group takes.

    Of the GPU, what ``configure_worker`` asked for, else its part; of the rest, what the group's
    options say.
    """
    asked: Sequence[int | None] = [each.gpu_share for each in spec.overrides]
    asked = asked or [None] * len(spec.slots)
    others = held_amounts(
        (resource, amount) for _, resource, amount in asked_of_bundle(spec.options)
    )
    return tuple(
        BundleShare(
            slot.placement_group, slot.bundle, spec.gpu_share if own is None else own, others
        )
        for slot, own in zip(spec.slots, asked, strict=True)
    )


def held_amounts(amounts: Iterable[tuple[str, float]]) -> Amounts:
    """Amounts as Ray counts them."""
    return tuple((resource, round(amount * UNIT)) for resource, amount in amounts)


@frozen(kw_only=True)
class GpuLedger:
    """What the groups on a cluster hold, bundle by bundle.

    Workers that take nothing are noted and never refused.

    Attributes:
        colocated: How many groups the cluster was made for.
        budget: What can be held of each bundle's GPU, in ten-thousandths: 0 without GPUs.
        others: What each bundle holds beside its GPU; None where that is not known.
        holders: What each group holds, sorted by name.
    """

    colocated: int
    budget: int = FULL_GPU
    others: Amounts | None = None
    holders: tuple[Holding, ...] = ()

    def with_group(self, name: str, shares: Iterable[BundleShare], key: str = "") -> "GpuLedger":
        """The ledger with one more group.

        Args:
            name: The group's name.
            shares: What each of its workers takes.
            key: What it is told by from other groups of that name.

        Raises:
            PlanError: What is taken of some bundle would add up to more than it holds.
        """
        wanted = tuple(shares)
        held: dict[tuple[int, int], int] = {}
        for holding in self.holders:
            for each in holding.shares:
                held[each.place] = held.get(each.place, 0) + each.share
        over = [
            each
            for each in wanted
            if each.share + held.get(each.place, 0) > self.budget and each.share
        ]
        if over:
            self._refuse(name, over, held)
        if self.others is not None:
            self._check_others(name, wanted, dict(self.others))
        more = Holding(group=name, key=key or name, shares=wanted)
        return evolve(self, holders=tuple(sorted([*self.holders, more], key=_name_of)))

    def without_group(self, key: str) -> "GpuLedger":
        """The ledger without a group."""
        return evolve(self, holders=tuple(each for each in self.holders if each.key != key))

    def workers_beside(self, key: str) -> dict[tuple[int, int], int]:
        """How many workers of other groups each bundle holds, by placement group and bundle."""
        return dict(
            Counter(
                each.place
                for holding in self.holders
                if holding.key != key
                for each in holding.shares
            )
        )

    def _check_others(self, name: str, wanted: Sequence[BundleShare], room: dict[str, int]) -> None:
        """Refuse what others have taken; what no bundle could hold is told of the options."""
        asked = {resource for each in wanted for resource, amount in each.others if amount}
        if not asked:
            return
        held: dict[tuple[str, tuple[int, int]], dict[str, int]] = {}
        for holding in self.holders:
            for each in holding.shares:
                for resource, amount in each.others:
                    if amount and resource in asked:
                        mine = held.setdefault((resource, each.place), {})
                        mine[holding.group] = mine.get(holding.group, 0) + amount
        findings = Findings(f"worker group {name!r}")
        for resource in sorted(asked):
            short = [
                (each, amount, held[resource, each.place])
                for each in wanted
                for own, amount in each.others
                if own == resource
                and (resource, each.place) in held
                and amount + sum(held[resource, each.place].values()) > room.get(resource, 0)
            ]
            if short:
                first, amount, holders = short[0]
                more = f" (and so in {len(short) - 1} more bundles)" if len(short) > 1 else ""
                total = amount + sum(holders.values())
                told = ", ".join(
                    f"{group!r} holds {_shown(taken)}" for group, taken in sorted(holders.items())
                )
                findings.add(
                    f"options, {resource}",
                    f"each worker asks for {_shown(amount)} of {resource}, and of the "
                    f"{_shown(room.get(resource, 0))} of bundle {first.bundle} of placement group "
                    f"{first.placement_group} {told} already{more}",
                    f"end one of them, have workers ask for less, or make the cluster with "
                    f"bundle_resources={{{resource!r}: {_shown(total)}}}",
                )
        findings.check()

    def _refuse(
        self, name: str, over: Sequence[BundleShare], held: dict[tuple[int, int], int]
    ) -> None:
        findings = Findings(f"worker group {name!r}")
        first = over[0]
        place = first.place
        bundle = f"bundle {first.bundle} of placement group {first.placement_group}"
        more = f" (and so in {len(over) - 1} more bundles)" if len(over) > 1 else ""
        wants = f"{first.share / FULL_GPU:g}"
        if not self.budget:
            findings.fail(
                "cluster",
                f"its worker in {bundle} wants {wants} of a GPU, and the cluster's bundles hold "
                f"none{more}",
                "have its configure_worker ask for num_gpus=0, or make the cluster with "
                "use_gpus=True",
            )
        fair = FULL_GPU // self.colocated
        if not held.get(place, 0):
            findings.fail(
                "cluster",
                f"its worker in {bundle} wants {wants} of a GPU, and the bundle holds "
                f"{self.budget / FULL_GPU:g}{more}",
                f"have its configure_worker ask for num_gpus={fair / FULL_GPU:g} at most",
            )
        holders = [
            (holding.group, each.share)
            for holding in self.holders
            for each in holding.shares
            if each.place == place and each.share
        ]
        groups = ", ".join(repr(group) for group, _ in holders)
        verb = "holds" if len(holders) == 1 else "hold"
        greedy = [repr(group) for group, share in holders if share > fair]
        greedy += [repr(name)] if first.share > fair else []
        remedy = (
            f"have configure_worker of {', '.join(greedy)} ask for num_gpus={fair / FULL_GPU:g} at "
            "most"
            if greedy
            else "make the cluster with max_colocated_worker_groups="
            f"{max(len(holders), self.colocated) + 1}"
        )
        findings.fail(
            "cluster",
            f"its bundles are shared by at most {self.colocated} groups, and {groups} {verb} "
            f"{held[place] / FULL_GPU:g} of the GPU of {bundle} already, of which it wants "
            f"{wants}{more}",
            f"end one of them, or {remedy}",
        )


def _name_of(holding: Holding) -> tuple[str, str]:
    return holding.group, holding.key


def _shown(amount: int) -> str:
    whole, rest = divmod(amount, UNIT)
    return f"{amount / UNIT:g}" if rest else str(whole)
