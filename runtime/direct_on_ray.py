"""Direct transports on Ray: links that Ray knows of, and results that stay with their makers."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import ray
from attrs import field, frozen
from ray import ObjectRef
from ray._private import worker
from ray.actor import ActorHandle
from ray.exceptions import RayError

from planner.transports import held_apart_text
from runtime import linking
from runtime.backend import Backend, OutOfTimeError, Reference
from runtime.batch_bytes import pack

if TYPE_CHECKING:
    from ray.experimental.collective.collective import RemoteCommunicatorManager

__all__ = ["DIRECT_ON_RAY", "DirectOnRay", "Kept", "copies_of"]


@frozen
class Kept:
    """A reference to a result in its maker's memory; equal when the object is the same.

    Ray lets it be an argument of linked actors only, given by position, and nobody but its maker
    can read it; so whoever wants its value here gets a copy, which the maker puts into the store.

    Attributes:
        object: Ray's reference.
        home: Its maker.
        transport: What it is kept for.
    """

    object: ObjectRef[Any]
    home: ActorHandle[Any] = field(eq=False, repr=False)
    transport: str = field(eq=False)
    _copy: list[ObjectRef[Any]] = field(factory=list, init=False, eq=False, repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("; ".join(held_apart_text(self.transport)))

    def stored(self) -> ObjectRef[Any]:
        """A copy in the store, made once; a busy maker makes it beside its calls.

        Only what is there may be copied. Ray starts the calls of its own lane in the order in
        which they were sent: one that waits for its argument would hold up all transfers of the
        maker, those among them on which that argument depends.
        """
        if not self._copy:
            beside = self.home.apply.options(concurrency_group="_ray_system")
            self._copy.append(beside.remote(pack, self.object))
        return self._copy[0]

    def failure(self) -> BaseException | None:
        """What stands in its place when its maker has failed; None when it is there."""
        try:
            ray.get(self.object)
        except ValueError as error:
            # Ray says so of every object of this kind that is there.
            return error if isinstance(error, RayError) else None
        except Exception as error:  # noqa: BLE001  # any type: it is the user's
            return error
        return None


def copies_of(
    backend: Backend, references: Sequence[Reference], timeout: float | None
) -> tuple[list[ObjectRef[Any]], float | None]:
    """What stands in the store for results, once all of them are there, and the seconds left.

    Args:
        backend: What waits for them.
        references: Those that stay with their makers, and others.
        timeout: Seconds it may take; None waits without end.

    Raises:
        OutOfTimeError: Not all were there in time.
        Exception: What stands in the place of one; the others are not waited for.
    """
    ends = None if timeout is None else backend.now() + timeout
    waiting, left = list(references), timeout
    while waiting:
        ready, _ = backend.wait(waiting, 1, left)
        if not ready:
            raise OutOfTimeError(f"not all were there after {timeout:g} s")
        ready, waiting = backend.wait(waiting, len(waiting), 0)
        for error in backend.look(ready).errors.values():
            raise error
        left = None if ends is None else max(0.0, ends - backend.now())
    return [each.stored() if isinstance(each, Kept) else each for each in references], left


class DirectOnRay:
    """``Direct`` by Ray's direct transport."""

    def __init__(self) -> None:
        self._ended: set[str] = set()

    ability = staticmethod(linking.ability)
    open_meeting = staticmethod(linking.open_meeting)
    join = staticmethod(linking.join)
    leave = staticmethod(linking.leave)

    def lacking(self) -> str:
        """Torch, which Ray imports in this process too."""
        try:
            _manager()
        except Exception as error:  # noqa: BLE001  # a broken torch raises anything
            return f"can't import torch ({type(error).__name__}: {error})"
        return ""

    def note(self, name: str, transport: str, actors: Sequence[ActorHandle[Any]]) -> None:
        """As Ray's ``create_collective_group``, which has no deadline, does at its end."""
        from ray.experimental.collective.communicator import CommunicatorHandle

        linking.make_store()
        _manager().add_remote_communicator(
            CommunicatorHandle(list(actors), name, transport.upper())
        )

    def forget(self, name: str) -> None:
        """Take it out of Ray's list."""
        _manager().remove_remote_communicator(name)

    def holds(self, name: str) -> bool:
        """Ray takes a link out of its list when a transfer fails."""
        return any(each.name == name for each in _manager().get_collective_groups())

    def note_ended(self, actors: Sequence[ActorHandle[Any]]) -> None:
        """Only of those that can hold results: others are not asked about."""
        self._ended.update(
            actor._actor_id.hex()
            for actor in actors
            if getattr(actor, "_ray_enable_tensor_transport", False)
        )

    def was_ended(self, actor: ActorHandle[Any]) -> bool:
        """As it was noted."""
        return actor._actor_id.hex() in self._ended

    def entry(
        self, actor: ActorHandle[Any], method: str, transport: str, options: Mapping[str, Any]
    ) -> Callable[..., Kept]:
        """The option ``tensor_transport``."""
        call = getattr(actor, method).options(tensor_transport=transport, **options)

        def send(*args: object, **kwargs: object) -> Kept:
            made = call.remote(*args, **kwargs)
            _note_warned(made)
            return Kept(made, actor, transport)

        return send

    def transport_of(self, reference: Reference) -> str:
        """As it was made."""
        return reference.transport if isinstance(reference, Kept) else ""

    def argument(self, reference: Reference) -> Reference:
        """Ray's own reference."""
        return reference.object if isinstance(reference, Kept) else reference


def _manager() -> "RemoteCommunicatorManager":
    """Ray's list of links; importing it imports torch, which only those need who link."""
    from ray.experimental.collective.collective import RemoteCommunicatorManager

    return RemoteCommunicatorManager.get()


def _note_warned(made: ObjectRef[Any]) -> None:
    """Tell Ray that its warning was given of an object that goes back to its maker too.

    Every whole does, for its maker cuts parts out of it. Where warnings are errors, Ray would raise
    this one in the middle of the transfers that it starts, and leave out the rest.
    """
    with contextlib.suppress(AttributeError, KeyError):
        manager: Any = worker.global_worker.rdt_manager
        with manager._lock:
            known = manager._managed_rdt_metadata
            known[made.hex()] = known[made.hex()]._replace(sent_to_src_actor_and_others_warned=True)


DIRECT_ON_RAY = DirectOnRay()
"""One for this process."""
