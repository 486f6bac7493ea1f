"""What a worker's process does to be linked with others, so that tensors go between them.

The module travels to the workers by value, so it imports the standard library only; torch and Ray's
collectives are imported where they are needed. Ray's own gloo group would take the process's
default group of ``torch.distributed``, which is the worker's; so this makes one beside it.
"""

import re
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

__all__ = [
    "REMEDY",
    "TRANSFER_SECONDS",
    "ability",
    "join",
    "leave",
    "make_store",
    "open_meeting",
]

TRANSFER_SECONDS = 60.0
"""How long a tensor may take from one worker to another, where Ray does not say."""

REMEDY = "end the link, recover the groups, and link them again"
"""What helps after a transfer has failed."""

Links = MutableMapping[str, Any]
"""What a process keeps of its links, by name."""


def ability(links: Links) -> dict[str, object]:
    """Whether this process can be linked."""
    del links
    try:
        distributed: Any = import_module("torch.distributed")
    except Exception as error:  # noqa: BLE001  # a broken torch raises anything
        return {"problem": f"{type(error).__name__}: {error}", "has_gloo": False}
    return {"problem": "", "has_gloo": bool(distributed.is_gloo_available())}


def open_meeting(links: Links, name: str, seconds: float) -> int:
    """The port at which the others of a link find each other; this process serves it."""
    distributed: Any = import_module("torch.distributed")
    links[name] = store = distributed.TCPStore(
        "0.0.0.0",  # noqa: S104  # nodes reach it at the address that the plan says
        0,
        is_master=True,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
    )
    return int(store.port)


def join(
    links: Links,
    name: str,
    meeting: tuple[str, int],
    address: str,
    rank: int,
    members: Sequence[str],
    seconds: float,
) -> None:
    """Connect with all others of a link, under the link's name for Ray.

    Args:
        links: What this process keeps of its links.
        name: The link.
        meeting: Where its members find each other.
        address: This node's address.
        rank: This process's number in the link.
        members: All of them, for messages.
        seconds: How long it may take.
    """
    distributed: Any = import_module("torch.distributed")
    collective: Any = import_module("ray.util.collective")
    limit, size = timedelta(seconds=seconds), len(members)
    make_store()
    store = links.get(name) or distributed.TCPStore(*meeting, is_master=False, timeout=limit)
    gloo = distributed.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = limit
    options._devices = [gloo.create_device(hostname=address)]
    group = gloo(store, rank, size, options)
    links[name] = store, group
    # Ray makes a group of a class that it knows by a name.
    kind = f"RANKPLAN_{name}"
    collective.register_collective_backend(kind, _group_class(name, group, members))
    collective.init_collective_group(size, rank, kind, name)


def make_store() -> None:
    """Make what this process keeps of objects that are sent directly.

    Ray makes it when it is first used, without a lock: of two threads that are the first, one
    would keep what it gets where the other never looks.
    """
    worker: Any = import_module("ray._private.worker")
    _ = worker.global_worker.rdt_manager.rdt_store


def leave(links: Links, name: str) -> None:
    """Give up a link; one that is not there does nothing."""
    links.pop(name, None)
    collective: Any = import_module("ray.util.collective")
    if collective.is_group_initialized(name):
        collective.destroy_collective_group(name)


def _group_class(name: str, group: Any, members: Sequence[str]) -> type:
    """A class of Ray's collective groups that sends and receives over a process group."""
    base: Any = import_module("ray.util.collective.collective_group.base_collective_group")
    constants: Any = import_module("ray._private.ray_constants")
    seconds = getattr(constants, "RDT_FETCH_FAIL_TIMEOUT_SECONDS", TRANSFER_SECONDS)
    limit = timedelta(seconds=seconds)

    def refused(*_: object, **__: object) -> None:
        raise NotImplementedError("a link only sends from one worker to another")

    def send(_: object, tensors: list[Any], options: Any) -> None:
        with _told(f"link {name!r}: sending to {members[options.dst_rank]} failed"):
            group.send(tensors, options.dst_rank, 0).wait(limit)

    def receive(_: object, tensors: list[Any], options: Any) -> None:
        with _told(f"link {name!r}: nothing came from {members[options.src_rank]}"):
            group.recv(tensors, options.src_rank, 0).wait(limit)

    given = {
        **dict.fromkeys(base.BaseGroup.__abstractmethods__, refused),
        "check_backend_availability": classmethod(lambda _: True),
        "send": send,
        "recv": receive,
    }
    made: type = type("Link", (base.BaseGroup,), given)
    return made


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what failed, and what to do, in place of where in its own source gloo has noticed."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[[^\]]*:\d+\] *", "", str(error).strip())
        raise RuntimeError(f"{what}: {reason}; {REMEDY}") from None
