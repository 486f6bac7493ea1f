"""What a type checker sees of calls; mypy checks this file, nothing runs it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from planner.declare import dispatch
from planner.roles import Reduce, Shard
from runtime.call import Calls, CallView
from runtime.call_future import CallFuture
from runtime.remote_batches import RemoteBatch
from runtime.streams import Answer, CallStream

Array = npt.NDArray[np.float64]


class Worker:
    """A class that a driver can import."""

    @dispatch(batch=Shard("data_parallel"), returns=Reduce("mean"))
    def train_step(self, batch: Array, *, lr: float = 0.1) -> dict[str, float]:
        """A method with a declaration keeps its own type."""
        return {"loss": float(batch.sum()) * lr}

    def generate(self, prompts: list[str]) -> list[str]:
        """A plain method."""
        return prompts

    def tokens(self, prompts: list[str]) -> Iterator[str]:
        """A stream."""
        yield from prompts

    async def answer(self, prompt: str) -> str:
        """An async method."""
        return prompt

    async def chat(self, prompt: str) -> AsyncIterator[str]:
        """An async stream."""
        yield prompt


def checked(calls: Calls, batch: Array) -> None:
    """Results have the method's own type; arguments are checked against it."""
    step = calls.call(Worker.train_step, batch, lr=0.1)
    _ = assert_type(step, CallFuture[dict[str, float]])
    assert_type(calls.call(Worker.train_step, batch).result(), dict[str, float])
    assert_type(calls.call(Worker.generate, ["a"]).per_shard(), list[list[str]])
    assert_type(calls.call(Worker.generate, ["a"]).by_rank(), dict[int, list[str]])
    assert_type(calls.call(Worker.generate, ["a"]).held(), RemoteBatch[list[str]])
    assert_type(calls.call(Worker.generate, ["a"]).held().as_argument(), list[str])
    answered = calls.call(Worker.answer, "a")
    _ = assert_type(answered, CallFuture[str])
    assert_type(calls.call(Worker.tokens, ["a"]), CallStream[str])
    assert_type(calls.call(Worker.chat, "a"), CallStream[str])
    assert_type(calls.using(mesh="rollout").at(tensor_parallel=0), CallView)
    assert_type(calls.call("generate", ["a"]), Any)
    for answer in calls.call(Worker.tokens, ["a"]):
        assert_type(answer, Answer[str])


async def awaited(calls: Calls) -> None:
    """An awaited call gives its result."""
    assert_type(await calls.call(Worker.generate, ["a"]), list[str])


def refused(calls: Calls, batch: Array) -> None:
    """Each line is an error; an unused ``type: ignore`` would be one too."""
    _ = calls.call(Worker.train_step, "text")  # type: ignore[call-overload]
    _ = calls.call(Worker.train_step, batch, rate=0.1)  # type: ignore[call-arg, arg-type]
    _ = calls.call(Worker.generate)  # type: ignore[call-overload]
    number: int = calls.call(Worker.generate, ["a"]).result()  # type: ignore[assignment]
    assert number
