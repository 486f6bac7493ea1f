"""At which address the ranks meet: one of rank 0's that every other node reaches."""

from collections.abc import Mapping, Sequence

from planner.preflight import (
    HostLook,
    PreflightReport,
    PreflightRow,
    State,
    exclude_remedy,
    verdict_on,
)

__all__ = ["choose_meeting_address", "judge_reach", "meeting_candidates"]


def meeting_candidates(first: HostLook, others: Sequence[HostLook]) -> tuple[str, ...]:
    """The addresses of rank 0 that other nodes might reach, the likeliest first.

    Ray's own address of the node comes first, since the nodes talk over it already; then those
    on interfaces that the others have too. Loopback and link-local ones reach nobody.
    """
    interfaces = {name for look in others for name, _ in look.addresses}
    own = [each for each in first.addresses if not _is_local(each[1])]
    own.sort(key=lambda each: (each[0] not in interfaces, ":" in each[1], each))
    ordered = [*([first.address] if not _is_local(first.address) else []), *(a for _, a in own)]
    return tuple(dict.fromkeys(ordered)) or (first.address,)


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "169.254.", "fe80:")) or address in {"::1", "localhost", ""}


def judge_reach(
    first: HostLook,
    port: int,
    candidates: Sequence[str],
    reached: Mapping[int, Sequence[str]],
    looks: Mapping[int, HostLook],
) -> PreflightReport:
    """Whether every other node reaches rank 0, at one address that all share.

    Args:
        first: Rank 0's host.
        port: The port it held open.
        candidates: The addresses that were tried.
        reached: For one rank of each other node, the addresses that answered.
        looks: What those ranks saw.
    """
    shared = choose_meeting_address(candidates, reached)
    rows: list[PreflightRow] = []
    for rank, answered in sorted(reached.items(), key=lambda pair: pair[0]):
        look = looks[rank]
        if not answered:
            found = (
                f"it can't reach rank 0 on node {first.address} at {', '.join(candidates)} "
                f"port {port}"
            )
            remedy = (
                "open the network between the nodes (firewall, interface), or "
                + exclude_remedy(look.node_id)
            )
            rows.append(verdict_on([look], "rank 0", State.FAILED, found, remedy))
        elif shared is None:
            found = f"it reaches rank 0 only at {', '.join(answered)}, which others do not"
            remedy = "put all nodes into one network"
            rows.append(verdict_on([look], "rank 0", State.FAILED, found, remedy))
        else:
            rows.append(verdict_on([look], "rank 0", State.GOOD, f"{shared} port {port}"))
    return PreflightReport(rows=tuple(rows))


def choose_meeting_address(
    candidates: Sequence[str], reached: Mapping[int, Sequence[str]]
) -> str | None:
    """The first address that every other node reached; None when there is none."""
    return next(
        (each for each in candidates if all(each in answered for answered in reached.values())),
        None,
    )
