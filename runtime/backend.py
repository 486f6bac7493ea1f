"""The one door to the outside: everything the runtime does to the world, as a small interface.

``RayBackend`` (runtime/ray_backend.py) carries it out on Ray. Group, launch, calls, results and
teardown know only this interface, so they run unchanged over plain objects in one process.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import frozen

from planner.class_source import ClassFacts
from planner.gpu_ledger import BundleShare
from planner.group import GroupSpec, HostRequest
from planner.interpreter import Interpreter
from planner.inventory import BundleFacts

if TYPE_CHECKING:
    from runtime.direct import Direct

__all__ = [
    "Actor",
    "Backend",
    "Cluster",
    "Looked",
    "OutOfTimeError",
    "Reference",
    "WordsOfDeath",
]

Actor = Any
"""A host actor: ``actor.call.remote(...)`` and ``.options(...)``, as Ray's handles have them."""

Reference = Any
"""What a call gives at once: stands for one object, or for a stream of objects."""


@frozen
class WordsOfDeath:
    """What the cluster says of a process that is gone.

    Attributes:
        told: Its text.
        at: When it died, in seconds of the cluster's clock; None when not known.
        preempted: Whether its node was taken away.
    """

    told: str
    at: float | None = None
    preempted: bool = False


@frozen
class Looked:
    """What is known of calls that have answered, without fetching what is large.

    Attributes:
        values: The values that are here.
        errors: What stands in the place of a value.
    """

    values: Mapping[Reference, Any]
    errors: Mapping[Reference, BaseException]


class OutOfTimeError(TimeoutError):
    """A wait took longer than it was allowed to."""


class Backend(Protocol):
    """What a worker group needs of the world."""

    @property
    def is_up(self) -> bool:
        """Whether there is a cluster to talk to."""

    @property
    def session(self) -> str:
        """Which cluster that is, and as whom this process is there; empty for none.

        What was started in one session is nobody's in the next, also on the same cluster.
        """

    @property
    def direct(self) -> "Direct":
        """What moves results from worker to worker past the object store."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def pause(self, seconds: float) -> None:
        """Let time pass."""

    async def rest(self, seconds: float) -> None:
        """Let time pass; the other tasks of the event loop go on."""

    def waits_until(self, ends: float) -> None:
        """Note that somebody waits, in pieces, until that time at most; infinity for no deadline.

        Where nothing is under way any more, only a wait without a deadline never ends.
        """

    def start_host(self, request: HostRequest, group: Any) -> Actor:
        """Submit one host actor; returns at once."""

    def start_companion(self, node_id: str, name: str) -> Actor:
        """Submit a ``runtime.companion.Companion`` on a node; returns at once."""

    def death(self, actor: Actor) -> BaseException | None:
        """The error of an actor that is known here to be gone; at no cost while it lives."""

    def words_of_death(self, error: BaseException) -> "WordsOfDeath | None":
        """What an error says of a process that is gone; None when it says nothing of the kind."""

    def sees(self, shown: Mapping[str, Any]) -> bool:
        """Whether this process is on the same machine as a worker, told by its vitals."""

    def remains_here(self, shown: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What ``remains_of`` of a companion gives, if this process can read it by itself."""

    def is_gone(self, shown: Mapping[str, Any], *, force: bool) -> bool | None:
        """Whether the process of an actor that was killed is gone; ``force`` ends it.

        None for a process that can't be seen from here.
        """

    def live_nodes(self) -> frozenset[str]:
        """The ids of the nodes that are there."""

    def entry(self, actor: Actor, method: str) -> Callable[..., Reference]:
        """What calls one plain method of an actor's worker: takes only the method's arguments."""

    def put(self, value: object) -> Reference:
        """Serialise a value once; the reference stands for it in any number of calls."""

    def is_reference(self, value: object) -> bool:
        """Whether a value stands for an object."""

    def is_stream(self, value: object) -> bool:
        """Whether a value stands for a stream of objects."""

    def wait(
        self, references: Sequence[Reference], count: int, timeout: float | None
    ) -> tuple[list[Reference], list[Reference]]:
        """Wait for some of them: those that are ready, and the rest."""

    def get(self, references: Sequence[Reference], timeout: float | None) -> list[Any]:
        """All their values; the first error in time is raised without waiting for the rest.

        Raises:
            OutOfTimeError: Not all were there in time.
        """

    async def fetch(self, references: Sequence[Reference]) -> list[Any]:
        """``get`` of what is ready; the other tasks of the event loop go on."""

    def look(self, references: Sequence[Reference]) -> Looked:
        """The errors of some that are ready, and those of their values that are here already.

        A value that is somewhere else, or in the store, is left there: it is in neither.
        """

    def cancel(self, reference: Reference) -> None:
        """End a call that is queued, or a stream that runs; others run to their end."""

    def end_of(self, stream: Reference) -> Reference:
        """What is ready when a stream that was cancelled has ended on its worker."""

    def cause_of(self, error: BaseException) -> BaseException:
        """The user's own exception inside the cluster's, where there is one.

        Where its traceback stayed on its worker, that is with it as text: ``rankplan_trace``.
        """

    def kill(self, actor: Actor) -> None:
        """End an actor at once; one that is dead already stays so."""

    def names(self) -> frozenset[str]:
        """The names of live actors."""

    def landed(self, groups: Sequence[Any]) -> tuple[BundleFacts, ...]:
        """On which node each bundle of some placement groups landed.

        Those of a placement group that was removed are not in it.
        """

    def held(self, groups: Sequence[Any]) -> Mapping[tuple[int, int], int]:
        """How many workers, actors and tasks of anyone each bundle of some placement groups holds.

        By placement group and bundle. One that can't be looked at is not in it: its node is lost,
        its placement group is removed, or there is no cluster.
        """

    def interpreter_of(self, worker_class: str) -> Interpreter:
        """What the registry says about a class."""

    def prepare_interpreter(self, interpreter: Interpreter, node_ids: Sequence[str]) -> str | None:
        """Put an interpreter on the nodes; gives its path, None for the driver's own."""

    def class_facts(
        self, worker_class: str, runtime_env: Mapping[str, Any], node_id: str
    ) -> tuple[ClassFacts, str]:
        """What must be known of a class before its hosts start, and how it was found."""

    def ask_configure_worker(
        self,
        spec: GroupSpec,
        environment: Mapping[str, str],
        bundle_indices: Sequence[object],
        num_gpus_per_node: int,
        node_id: str,
    ) -> list[Any]:
        """What the class's ``configure_worker`` answers for each slot."""


@runtime_checkable
class Cluster(Protocol):
    """What a worker group needs of the cluster that it is on."""

    @property
    def backend(self) -> Backend:
        """What carries plans out on it."""

    @property
    def use_gpus(self) -> bool:
        """Whether a bundle holds a GPU."""

    @property
    def max_colocated_worker_groups(self) -> int:
        """How many groups may share the bundles."""

    @property
    def num_gpus_per_node(self) -> int:
        """How many GPUs a node has."""

    @property
    def bundle_counts(self) -> tuple[int, ...]:
        """How many bundles each placement group has, or will have; reserves nothing."""

    def get_placement_groups(self) -> list[Any]:
        """The placement groups, reserved now when they are not yet."""

    def claim(self, group: str, shares: Sequence[BundleShare]) -> str:
        """Note what a group takes of the bundles; gives the key to release it by."""

    def release(self, group: str) -> None:
        """Note that a group has ended; does nothing where that is known."""

    def workers_beside(self, group: str) -> Mapping[tuple[int, int], int]:
        """How many workers of other groups each bundle holds, by placement group and bundle."""
