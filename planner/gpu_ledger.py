"""Which worker groups hold which share of the GPU of each bundle of a cluster."""

from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from planner.findings import Findings
from planner.group import FULL_GPU, GroupSpec

__all__ = ["BundleShare", "GpuLedger", "bundle_shares"]


@frozen
class BundleShare:
    """What one worker takes of the GPU of its bundle.

    Attributes:
        placement_group: The bundle's placement group.
        bundle: Its index there.
        share: In ten-thousandths of a GPU.
    """

    placement_group: int
    bundle: int
    share: int


def bundle_shares(spec: GroupSpec) -> tuple[BundleShare, ...]:
    """What each worker of a group takes: what ``configure_worker`` asked for, else its part."""
    asked: Sequence[int | None] = [each.gpu_share for each in spec.overrides]
    asked = asked or [None] * len(spec.slots)
    return tuple(
        BundleShare(slot.placement_group, slot.bundle, spec.gpu_share if own is None else own)
        for slot, own in zip(spec.slots, asked, strict=True)
    )


@frozen(kw_only=True)
class GpuLedger:
    """What the groups on a cluster hold of its GPUs, bundle by bundle.

    Workers without a share are noted and never refused: CPUs are shared as classes ask for them.

    Attributes:
        colocated: How many groups the cluster was made for.
        budget: What can be held of each bundle's GPU, in ten-thousandths: 0 without GPUs.
        holders: Each group with what it holds, sorted by name.
    """

    colocated: int
    budget: int = FULL_GPU
    holders: tuple[tuple[str, tuple[BundleShare, ...]], ...] = ()

    def with_group(self, name: str, shares: Iterable[BundleShare]) -> "GpuLedger":
        """The ledger with one more group.

        Raises:
            PlanError: The shares of some bundle would add up to more than its GPU.
        """
        wanted = tuple(shares)
        held: dict[tuple[int, int], int] = {}
        for _, mine in self.holders:
            for each in mine:
                place = (each.placement_group, each.bundle)
                held[place] = held.get(place, 0) + each.share
        over = [
            each
            for each in wanted
            if each.share + held.get((each.placement_group, each.bundle), 0) > self.budget
            and each.share
        ]
        if over:
            self._refuse(name, over, held)
        return evolve(self, holders=tuple(sorted([*self.holders, (name, wanted)], key=_name_of)))

    def without_group(self, name: str) -> "GpuLedger":
        """The ledger without a group."""
        return evolve(self, holders=tuple(pair for pair in self.holders if pair[0] != name))

    def workers_beside(self, name: str) -> dict[tuple[int, int], int]:
        """How many workers of other groups each bundle holds, by placement group and bundle."""
        places = (
            (each.placement_group, each.bundle)
            for group, mine in self.holders
            if group != name
            for each in mine
        )
        return dict(Counter(places))

    def _refuse(
        self, name: str, over: Sequence[BundleShare], held: dict[tuple[int, int], int]
    ) -> None:
        findings = Findings(f"worker group {name!r}")
        first = over[0]
        place = (first.placement_group, first.bundle)
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
        holders = {
            group: each.share
            for group, mine in self.holders
            for each in mine
            if (each.placement_group, each.bundle) == place and each.share
        }
        groups = ", ".join(map(repr, holders))
        verb = "holds" if len(holders) == 1 else "hold"
        greedy = [repr(group) for group, share in holders.items() if share > fair]
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


def _name_of(pair: tuple[str, tuple[BundleShare, ...]]) -> str:
    return pair[0]
