"""Host actors as plain objects in this process, on virtual time: ``Backend`` without a cluster.

Their code runs here, one call at a time, in an order drawn from a seed. While it runs, it finds
what belongs to the process that it is meant to be: see ``runtime.in_process_surroundings``. This
process's real environment is never written, so child processes and C libraries see that one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ray.exceptions import ObjectLostError, TaskCancelledError

from planner.actor_names import group_of
from runtime import host
from runtime.faults import FaultKind
from runtime.in_process_being import being
from runtime.in_process_objects import Item, Job, ProcessDiedError, Stream, copied
from runtime.in_process_surroundings import LeavingError, Surroundings, replace_names
from runtime.worker_class import load_class

if TYPE_CHECKING:
    from runtime.in_process_backend import World

__all__ = ["Process"]

CALL_SECONDS = 0.001
"""How long a call takes at most, unless it sleeps or a fault makes it longer."""

_RAISED = (Exception, KeyboardInterrupt)


def _why_left(left: SystemExit) -> str:
    if isinstance(left, LeavingError):
        return str(left)
    code = left.code
    # Ray says it so.
    return f"it exits with an exit code {code if isinstance(code, int) else int(bool(code))}"


class Process:
    """One pretended process: a queue of calls, and the object that takes them.

    Args:
        world: Where it is.
        name: Its actor's name.
        node_id: Its node.
        make: Makes the object that takes the calls.
    """

    def __init__(
        self, world: "World", name: str, node_id: str, make: Callable[["Process"], object]
    ) -> None:
        self.world, self.name, self.node_id = world, name, node_id
        self.pid = next(world.numbers)
        self.rank = -1
        self.group = group_of(name)
        self.bundle: tuple[object, int] | None = None
        replace_names(world)
        self.around = Surroundings(
            self.pid, lambda: world.time.now, f"{world.seed}/{name}/{self.pid}"
        )
        self.death: str | None = None
        self.died_at = 0.0
        self.is_stopped = False
        self.running: dict[Job, tuple[str, float]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._queue: deque[Job] = deque()
        self._frozen: list[Callable[[], None]] = []
        self.body: Any = make(self)

    @property
    def is_asynchronous(self) -> bool:
        """Whether many calls run at once."""
        return isinstance(self.body, host.AsyncHost)

    @property
    def queued(self) -> int:
        """How many calls have not begun."""
        return len(self._queue)

    def submit(self, job: Job) -> None:
        """Queue a call."""
        if self.death is not None:
            error = ProcessDiedError(self.death, self.died_at)
            self.world.after(0.0, lambda: job.fail(error))
            return
        self._queue.append(job)
        self.world.after(0.0, self.go_on)

    def go_on(self) -> None:
        """Begin what can begin now."""
        while self._queue and self.death is None and not self.is_stopped:
            job = self._queue[0]
            if self.running and not self.is_asynchronous:
                return
            try:
                missing = job.waits_for()
                if missing is not None:
                    # Ray too starts a call when its arguments are there; those behind it wait.
                    missing.when_ready(lambda: self.world.after(0.0, self.go_on))
                    return
                self._queue.popleft()
                args, kwargs = job.resolved()
            except Exception as error:  # noqa: BLE001  # an argument is a failed call's result
                if self._queue and self._queue[0] is job:
                    self._queue.popleft()
                job.fail(error)
                continue
            self._begin(job, args, kwargs)

    def cancel(self, reference: Item | Stream) -> None:
        """Drop the call of a future that has not begun; end a stream after the next value."""
        for job in list(self._queue):
            if reference is job.stream or any(reference is each for each in job.answers):
                self._queue.remove(job)
                job.fail(TaskCancelledError())
        for job in self.running:
            if job.stream is reference and job.stream is not None:
                job.stream.finish(TaskCancelledError())

    def die(self, why: str) -> None:
        """End it; everything it was to answer fails."""
        if self.death is not None:
            return
        self.death, self.died_at = why, self.world.time.now
        jobs = [*self.running, *self._queue]
        self.running.clear()
        self._queue.clear()
        for task in self.tasks:
            task.cancel()
        self.body = None
        for job in jobs:
            job.fail(ProcessDiedError(why, self.died_at))
        self.world.gone(self)

    def inside(self) -> AbstractContextManager[None]:
        """Be this process: its environment, pid and random numbers, and virtual time."""
        return being(self)

    def check_faults(self, worker_class: str) -> None:
        """Refuse a class that lacks what a fault of this group is to strike.

        Raises:
            PlanError: Such a fault would never strike.
        """
        self.world.faults.check_methods(self.group, load_class(worker_class))

    def _begin(self, job: Job, args: list[Any], kwargs: dict[str, Any]) -> None:
        method = "__init__" if job.entry == "start" else str(args[0]) if args else job.entry
        self.running[job] = (method, self.world.time.now)
        if job.entry == "start":
            self.rank = int(args[0]["environment"].get("RANK", -1))
        fault = self.world.fault(self, method) if job.entry in _FAULTY else None
        seconds = self.world.random.random() * CALL_SECONDS + (fault.seconds if fault else 0.0)
        match fault.kind if fault else None:
            case FaultKind.HANG:
                return
            case FaultKind.DEATH:
                why = f"its process died (injected, in {method}())"
                self.world.after(seconds, lambda: self.die(why))
            case FaultKind.RAISES if fault is not None:
                error = fault.error
                self._end(job, seconds, lambda: job.fail(copied(error)))
            case FaultKind.LOST_RESULT:
                lost = ObjectLostError("0" * 56, None, "")
                self._run(job, args, kwargs, seconds, lost)
            case _:
                self._run(job, args, kwargs, seconds, None)

    def _run(
        self,
        job: Job,
        args: list[Any],
        kwargs: dict[str, Any],
        seconds: float,
        lost: Exception | None,
    ) -> None:
        """Run a call; where its answer is lost, an error comes in place of it."""

        def answer(value: object) -> None:
            if lost is not None:
                job.fail(lost)
            elif job.stream is not None:
                job.stream.finish()
            else:
                job.succeed(value)

        entry = getattr(self.body, job.entry)
        if self.is_asynchronous:
            if job.stream is not None:
                values = entry(*args, **kwargs)
                running = _streamed(self, job, job.stream, values, seconds, answer)
            else:
                running = _awaited(self, job, entry(*args, **kwargs), seconds, answer)
            self.world.run_task(self, running)
        elif job.stream is not None:
            self._produce(job, job.stream, entry(*args, **kwargs), seconds, answer)
        else:
            self._call(job, lambda: entry(*args, **kwargs), seconds, answer)

    def _call(
        self,
        job: Job,
        run: Callable[[], object],
        seconds: float,
        answer: Callable[[object], None],
    ) -> None:
        try:
            with self.inside():
                value = run()
        except _RAISED as error:
            failed = copied(error)
            self._end(job, seconds + self.around.ahead, lambda: job.fail(failed))
        except SystemExit as left:
            self._leave(left, seconds + self.around.ahead)
        else:
            self._end(job, seconds + self.around.ahead, lambda: answer(value))

    def _produce(
        self,
        job: Job,
        stream: Stream,
        values: Generator[object, None, None],
        seconds: float,
        answer: Callable[[object], None],
    ) -> None:
        def produce() -> None:
            if self.death is not None:
                return
            if stream.is_finished:
                self._call(job, values.close, 0.0, lambda _: stream.finish())
                return
            item = Item(self.world)
            try:
                with self.inside():
                    item.set(next(values))
            except StopIteration:
                self._end(job, self.around.ahead, lambda: answer(None))
            except _RAISED as error:
                failed = copied(error)
                self._end(job, self.around.ahead, lambda: job.fail(failed))
            except SystemExit as left:
                self._leave(left, self.around.ahead)
            else:
                self.world.after(self.around.ahead, lambda: arrived(item))

        def arrived(item: Item) -> None:
            if self.death is None:
                stream.add(item)
                stream.when_wanted(lambda: self.world.after(0.0, produce))

        self.world.after(seconds, produce)

    def _leave(self, left: SystemExit, seconds: float) -> None:
        self.world.after(seconds, lambda: self.die(_why_left(left)))

    def _end(self, job: Job, seconds: float, finish: Callable[[], None]) -> None:
        def ended() -> None:
            if self.death is None and self.is_stopped:
                self._frozen.append(ended)
            elif self.death is None:
                self.running.pop(job, None)
                finish()
                self.go_on()

        self.world.after(seconds, ended)

    def stop(self) -> None:
        """Freeze it, as SIGSTOP does."""
        self.is_stopped = True

    def go(self) -> None:
        """Let it run again, as SIGCONT does."""
        self.is_stopped = False
        frozen, self._frozen = self._frozen, []
        for each in frozen:
            self.world.after(0.0, each)
        self.world.after(0.0, self.go_on)


async def _caught_up() -> None:
    """Wait until all have come to the time of this worker, whose code may have slept."""
    loop, due = asyncio.get_running_loop(), asyncio.Event()
    loop.call_at(loop.time(), due.set)
    await due.wait()


async def _awaited(
    process: Process,
    job: Job,
    running: Coroutine[Any, Any, object],
    seconds: float,
    answer: Callable[[object], None],
) -> None:
    try:
        await asyncio.sleep(seconds)
        value = await running
        await _caught_up()
    except _RAISED as error:
        failed = copied(error)
        await _caught_up()
        job.fail(failed)
    except SystemExit as left:
        process.die(_why_left(left))
    else:
        answer(value)
    finally:
        running.close()
        process.running.pop(job, None)


async def _streamed(
    process: Process,
    job: Job,
    stream: Stream,
    values: AsyncGenerator[object, None],
    seconds: float,
    answer: Callable[[object], None],
) -> None:
    try:
        await asyncio.sleep(seconds)
        async for value in values:
            item = Item(process.world)
            item.set(value)
            await _caught_up()
            stream.add(item)
            wanted = asyncio.Event()

            def go_on(wanted: asyncio.Event = wanted) -> None:
                wanted.set()
                process.world.settle_soon()

            stream.when_wanted(go_on)
            await wanted.wait()
            if stream.is_finished:
                break
        await values.aclose()
    except _RAISED as error:
        job.fail(copied(error))
    except SystemExit as left:
        process.die(_why_left(left))
    else:
        answer(None)
    finally:
        process.running.pop(job, None)


_FAULTY = frozenset({"start", "call", "drain", "stream", "serve", "serve_stream"})
