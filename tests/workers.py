"""Worker classes that Ray tests start by name; the workers' processes import them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

__all__ = [
    "Caller",
    "Colocated",
    "CountedPickle",
    "Crooked",
    "Decorated",
    "Engine",
    "FailsToStart",
    "NewerEngine",
    "NotPicklable",
    "Plain",
    "Recorder",
    "TwoPartError",
    "Witness",
    "undecorated_behaviour",
]

ENVIRONMENT_AT_IMPORT = dict(os.environ)


class Witness:
    """Records which rank's environment it was unpickled in."""

    def __init__(self, seen: str | None = None) -> None:
        self.seen = seen

    def __reduce__(self) -> tuple[Callable[[], "Witness"], tuple[()]]:
        return _witness, ()


def _witness() -> Witness:
    return Witness(os.environ.get("RANK", "none"))


class CountedPickle:
    """Counts how often it is pickled, in the process that holds it."""

    def __init__(self) -> None:
        self.times = 0

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        self.times += 1
        return str, (f"pickled {self.times}",)


class NotPicklable:
    """Cannot be sent to any process."""

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        raise TypeError("this object stays where it is")


class TwoPartError(Exception):
    """An exception that Python cannot unpickle: its constructor takes other arguments."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


def undecorated_behaviour(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method as careless decorators do: without ``functools.wraps``."""

    def wrapper(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    return wrapper


class Recorder:
    """A plain worker: remembers what it was made and called with."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args = args
        self.kwargs = kwargs
        self.calls: list[object] = []
        self.taken = 0
        self.environment_at_start = dict(os.environ)

    def rank(self) -> int:
        """The worker's global rank."""
        return int(os.environ["RANK"])

    def pid(self) -> int:
        """The worker's process."""
        return os.getpid()

    def environment(self) -> dict[str, str]:
        """The environment now."""
        return dict(os.environ)

    def environment_at_import(self) -> dict[str, str]:
        """The environment when this module was imported."""
        return ENVIRONMENT_AT_IMPORT

    def made_with(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """The constructor's arguments."""
        return self.args, self.kwargs

    def witnessed(self) -> list[str | None]:
        """In which ranks' environments the constructor's arguments were unpickled."""
        held = [*self.args, *self.kwargs.values()]
        return [each.seen for each in held if isinstance(each, Witness)]

    def place(self) -> tuple[str, list[str]]:
        """The worker's node and its GPUs as Ray counts them."""
        context = ray.get_runtime_context()
        return context.get_node_id(), [str(gpu) for gpu in ray.get_gpu_ids()]

    def tell(self, data: object = "nothing", common: object = "nothing") -> tuple[int, Any, Any]:
        """Remember a call; give the rank and what it got."""
        self.calls.append((data, common))
        return self.rank(), data, common

    def told(self) -> list[object]:
        """What was remembered, which is forgotten now."""
        calls, self.calls = self.calls, []
        return calls

    def echo(self, *args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
        """The arguments, whatever they are called."""
        return args, kwargs

    def exactly(self, first: int, /, second: int, *, third: int = 3) -> tuple[int, int, int]:
        """One parameter of each kind."""
        return first, second, third

    def size_of(self, data: bytes) -> int:
        """How long an argument is."""
        return len(data)

    def block(self, size: int) -> bytes:
        """A large result."""
        return bytes(size)

    def count(self, number: int) -> Iterator[tuple[int, int]]:
        """A stream: the rank with 0, 1, 2 ..."""
        for index in range(number):
            yield self.rank(), index

    def meet(self, folder: str, parties: int, steps: int) -> Iterator[int]:
        """A stream that goes on only while the other ranks' streams do too."""
        for step in range(steps):
            yield step
            Path(folder, f"{step}-{self.rank()}").touch()
            ends = time.monotonic() + 20
            while len(list(Path(folder).glob(f"{step}-*"))) < parties:
                if time.monotonic() > ends:
                    raise TimeoutError(f"nobody else reached step {step}")
                time.sleep(0.005)

    def breaks_off(self, rank: int, after: int) -> Iterator[int]:
        """A stream that fails on one rank."""
        yield from range(after)
        if self.rank() == rank:
            raise LookupError(f"rank {rank} has no value {after}")

    def take(self, number: int) -> Iterator[int]:
        """A stream that remembers how far it was read."""
        for index in range(number):
            self.taken += 1
            yield index

    def taken_so_far(self) -> int:
        """How many values ``take`` has given."""
        return self.taken

    @ray.method(num_returns=2)
    def pair(self, data: int = 0) -> tuple[int, int]:
        """Two objects for one call."""
        return self.rank(), data

    @undecorated_behaviour
    def wrapped(self, *args: object, **kwargs: object) -> tuple[object, ...]:
        """A method behind a careless decorator."""
        return (self.rank(), args, kwargs)

    def fail_on(self, ranks: list[int], message: str = "it broke") -> int:
        """Raise on some ranks."""
        if self.rank() in ranks:
            raise KeyError(message)
        return self.rank()

    def fail_oddly(self) -> None:
        """Raise what cannot be unpickled."""
        raise TwoPartError(7, "out of luck")

    def exit_on(self, rank: int) -> int:
        """End the process of one rank."""
        if self.rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.rank()

    def pause(self, seconds: float, rank: int = -1) -> int:
        """Take a while, on one rank or on all."""
        if rank in {-1, self.rank()}:
            time.sleep(seconds)
        return self.rank()

    def leave_mark(self, folder: str = "") -> None:
        """Clean up: write a file with the rank's name."""
        Path(folder or os.environ["MARKS"], str(self.rank())).touch()

    def clean_up_badly(self) -> None:
        """Clean up: fail on rank 1."""
        if self.rank() == 1:
            raise OSError("nothing to clean")

    def set_variable(self, name: str, value: str) -> None:
        """Change the environment of this process."""
        os.environ[name] = value

    def _hidden(self) -> str:
        """A method that is called by name all the same."""
        return "hidden"


class Plain:
    """To be decorated, twice."""

    def __init__(self, label: str = "none", extra: object = None) -> None:
        self.label = label
        self.extra = extra

    def about(self) -> dict[str, Any]:
        """What the process has been given."""
        context = ray.get_runtime_context()
        return {
            "label": self.label,
            "extra": self.extra,
            "resources": context.get_assigned_resources(),
            "environment": dict(os.environ),
            "environment_at_import": ENVIRONMENT_AT_IMPORT,
        }


Decorated = ray.remote(num_cpus=1, runtime_env={"env_vars": {"FROM_CLASS": "class", "OVER": "1"}})(
    Plain
)


@ray.remote(num_cpus=0, max_restarts=3)
class Colocated(Recorder):
    """Decorated where it is defined; asks for no CPU."""


class Engine:
    """Asks for resources as the reference's workers do: three items."""

    def __init__(self, model: str = "none", **kwargs: object) -> None:
        self.model = model
        self.kwargs = kwargs
        self.environment_at_start = dict(os.environ)

    @staticmethod
    def configure_worker(
        num_gpus: float, bundle_indices: tuple[int, list[int]] | None
    ) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """No GPU for a tied group's members; the leader is told its bundles."""
        alone = bundle_indices is not None and len(bundle_indices[1]) == 1
        told = "none" if bundle_indices is None else str(bundle_indices)
        resources = {"num_gpus": num_gpus if alone else 0}
        return (
            resources,
            {"BUNDLES": told, "FROM_GROUP": "configured", "ASKED_WITH": str(num_gpus)},
            {"bundle_indices": bundle_indices, "fraction": num_gpus},
        )

    def about(self) -> dict[str, Any]:
        """What the process has been given."""
        return {
            "model": self.model,
            "kwargs": self.kwargs,
            "environment": self.environment_at_start,
            "environment_at_import": ENVIRONMENT_AT_IMPORT,
            "gpus": [str(gpu) for gpu in ray.get_gpu_ids()],
        }


class NewerEngine(Engine):
    """Asks for resources in the newer form: four items, told the GPUs per node."""

    @staticmethod
    def configure_worker(  # type: ignore[override]
        num_gpus: float, bundle_indices: tuple[int, list[int]] | None, num_gpus_per_node: int = 0
    ) -> tuple[dict[str, Any], dict[str, str], None, dict[str, Any]]:
        """Add to Ray's runtime environment."""
        del num_gpus, bundle_indices
        extra = {"env_vars": {"BEFORE_PYTHON": str(num_gpus_per_node)}}
        return {}, {"GPUS_PER_NODE": str(num_gpus_per_node)}, None, extra


class Crooked:
    """Its ``configure_worker`` is asked for whatever the environment says, and gives that."""

    @staticmethod
    def configure_worker(
        num_gpus: float, bundle_indices: tuple[int, list[int]] | None
    ) -> tuple[Any, ...]:
        """Wrong in several ways at once."""
        del num_gpus, bundle_indices
        return {"num_gpus": 2}, {"RANK": "9", "COUNT": 1}, ["no", "mapping"]


class FailsToStart:
    """Its constructor fails on some ranks, in one of several ways."""

    def __init__(self, how: str = "", ranks: tuple[int, ...] = (), marks: str = "") -> None:
        rank = int(os.environ["RANK"])
        if marks:
            Path(marks, str(rank)).touch()
        if rank not in ranks:
            return
        match how:
            case "raise":
                raise LookupError(f"no weights for rank {rank}")
            case "oddly":
                raise TwoPartError(rank, "no luck")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                raise SystemExit(3)
            case "hang":
                time.sleep(600)
            case _:
                raise AssertionError(how)

    def fine(self) -> str:
        """Only workers whose constructor returned can say so."""
        return "fine"


class _Underscored(Plain):
    """A class whose name starts with an underscore."""


class Caller:
    """Calls another worker through its handle."""

    def __init__(self, other: Any = None) -> None:
        self.other = other

    def ask(self, other: Any = None) -> Any:
        """The other worker's rank, plainly and as a stream."""
        handle = self.other if other is None else other
        stream = [ray.get(ref) for ref in handle.count.remote(2)]
        return ray.get(handle.rank.remote()), stream
