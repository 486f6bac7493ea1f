"""What a worker raises arrives: type, arguments, attributes and message, and never too much."""

import asyncio
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import TaskCancelledError

from runtime import RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.errors import ExecutionError, dual_error
from runtime.raised import LARGEST, fit_to_travel
from runtime.testing import InProcessCluster
from tests.exception_workers import (
    CodedError,
    FrozenError,
    GuardedError,
    StrictError,
    made,
    thrown,
)

BUILDER = RayWorkerBuilder("tests.exception_workers.Raising")


def sent(error: Exception) -> Any:
    """What arrives in another process."""
    return pickle.loads(cloudpickle.dumps(fit_to_travel(error)))  # noqa: S301


@pytest.fixture
def group() -> Iterator[RayWorkerGroup]:
    """Four workers in process."""
    with InProcessCluster([2, 2]) as cluster, RayWorkerGroup(cluster, BUILDER) as group:
        yield group


def test_a_type_with_its_own_constructor_arrives_whole() -> None:
    """No constructor is called: the message, the arguments and the attributes are as they were."""
    error = CodedError(7, "busy")
    error.add_note("on a Monday")
    came = sent(error)
    assert (type(came), str(came), came.args) == (CodedError, "7: busy", ("7: busy",))
    assert (came.code, came.text, came.retries) == (7, "busy", 3)
    assert came.__notes__ == ["on a Monday"]


def test_it_can_be_sent_on() -> None:
    """What has arrived can be sent on, also by plain pickle."""
    again = pickle.loads(pickle.dumps(sent(CodedError(7, "busy"))))  # noqa: S301
    assert (type(again), again.code, str(again)) == (CodedError, 7, "7: busy")


def test_what_cannot_be_serialised_arrives_as_text() -> None:
    """One attribute that can't be sent does not keep the rest."""
    came = sent(StrictError(place="/data"))
    assert (type(came), str(came)) == (StrictError, "no room in /data")
    assert (came.errno, came.filename, came.place) == (28, "/data", "/data")
    assert came.lock.startswith("<unlocked _thread.lock")


def test_a_type_that_guards_its_attributes_arrives() -> None:
    """An attrs exception that is frozen, and a dataclass that is."""
    for kind in (FrozenError, GuardedError):
        came = sent(kind(rank=1))
        assert (type(came), came.rank) == (kind, 1)


def test_a_type_that_is_not_there_has_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the type's name and message, and is of the nearest type that is there."""
    blob = cloudpickle.dumps(fit_to_travel(made("away")))
    there = sys.modules["only_there"]
    monkeypatch.delitem(sys.modules, "only_there")
    came = pickle.loads(blob)  # noqa: S301
    assert isinstance(came, LookupError)
    assert (type(came).__name__, str(came), came.page) == ("AwayError", "not here", 4)  # type: ignore[attr-defined]
    assert "only_there.AwayError" in came.__notes__[-1]
    onward = pickle.dumps(came)
    monkeypatch.setitem(sys.modules, "only_there", there)
    back: object = pickle.loads(onward)  # noqa: S301
    assert type(back) is there.AwayError


@pytest.mark.parametrize("how", ["value", "coded", "attributes", "chain"])
def test_what_is_too_large_is_cut(how: str) -> None:
    """The type stays, and texts say how much more there was."""
    error = fit_to_travel(made(how, size=300_000))
    assert type(error) is type(made(how))
    assert len(cloudpickle.dumps(error)) < 2 * LARGEST
    said = str(error)
    if how in {"value", "coded"}:
        assert said.endswith("more characters)")
        assert said.startswith(str(made(how))[:3])
    else:
        assert said == "short"
        assert error.__cause__ is None
    assert getattr(error, "body", "x").startswith("x")


def test_what_arrives_well_is_left_alone() -> None:
    """Most exceptions are sent as they are."""
    error = KeyError("a")
    assert fit_to_travel(error) is error
    assert vars(error) == {}
    assert str(sent(made("file"))) == "[Errno 2] nope: '/f'"


def test_the_callers_error_is_of_the_users_type(group: RayWorkerGroup) -> None:
    """``except CodedError`` catches it, with all that it carries; equal ones fold."""
    with pytest.raises(CodedError) as caught:
        group.call("do", "coded").result()
    error = caught.value
    assert isinstance(error, WorkerGroupError)
    assert (error.code, error.text, error.retries) == (7, "busy", 3)
    assert "ranks 0-3: CodedError: 7: busy" in str(error)
    assert type(error.__cause__) is CodedError


def test_the_callers_error_carries_what_built_in_types_do(group: RayWorkerGroup) -> None:
    """``errno`` and the like, and the parts of an exception group."""
    with pytest.raises(FileNotFoundError) as file:
        group.call("do", "file").result()
    assert (file.value.errno, file.value.filename) == (2, "/f")
    assert str(file.value).startswith("worker group 'Raising', do(): 4 of 4")
    with pytest.raises(ExceptionGroup) as several:
        group.call("do", "group").result()
    assert [type(each) for each in several.value.exceptions] == [ValueError, KeyError]
    assert isinstance(several.value, WorkerGroupError)
    with pytest.raises(StrictError) as strict:
        group.call("do", "strict").result()
    assert (strict.value.errno, strict.value.place) == (28, "/data")


@pytest.mark.parametrize("how", ["coded", "file", "strict", "group", "value", "guarded", "frozen"])
def test_the_callers_error_can_be_pickled(group: RayWorkerGroup, how: str) -> None:
    """With its type, its report and each rank's own exception."""
    with pytest.raises(WorkerGroupError) as caught:
        group.call("do", how, ranks=[1, 2]).result()
    error = caught.value
    again: Any = pickle.loads(pickle.dumps(error))  # noqa: S301
    kind: type = type(made(how))
    assert str(again) == str(error)
    assert type(again).__name__ == type(error).__name__
    assert kind in type(again).__mro__
    assert again.report == error.report
    assert {rank: str(each) for rank, each in again.errors.items()} == {
        rank: str(each) for rank, each in error.errors.items()
    }
    assert type(again.__cause__) is type(error.__cause__)


def test_what_ends_a_process_is_the_ranks_death(group: RayWorkerGroup) -> None:
    """It does not reach the caller as it is."""
    with pytest.raises(WorkerGroupError) as caught:
        group.call("leave", how="exit").result()
    assert caught.value.report.dead == (0, 1, 2, 3)


@pytest.mark.parametrize("how", ["cancelled", "generator", "base"])
def test_what_is_no_exception_is_a_failure_too(group: RayWorkerGroup, how: str) -> None:
    """By its own name and with its rank; the ranks take calls again."""
    with pytest.raises(WorkerGroupError) as caught:
        group.call("throw", how=how).result(timeout=9.0)
    thrown_here = thrown(how)
    assert type(caught.value.__cause__) is type(thrown_here)
    assert str(caught.value.__cause__) == str(thrown_here)
    assert caught.value.report.failed == (0, 1, 2, 3)
    assert caught.value.report.causes[0][0].frames
    assert group.call("echo", value=5).by_rank() == dict.fromkeys(range(4), 5)


def test_what_an_async_method_gave_up_is_a_failure() -> None:
    """Left to itself Ray never answers such a call; one that was cancelled stays so."""
    builder = RayWorkerBuilder("tests.batch_workers.AsyncWorker")
    with InProcessCluster([2]) as cluster, RayWorkerGroup(cluster, builder) as group:
        with pytest.raises(WorkerGroupError) as caught:
            group.call("give_up").result(timeout=9.0)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert caught.value.report.failed == (0, 1)
        with group.call("count") as stream:
            assert next(iter(stream)).value == 0
        cluster.pause(1.0)
        assert group.call("was_closed").by_rank() == {0: True, 1: True}


def test_what_cannot_say_what_it_is_is_named(group: RayWorkerGroup) -> None:
    """Its type is part of the text that arrives in its place, with its rank and its notes."""
    with pytest.raises(WorkerGroupError, match=r"MuteError: \(its message can't be") as caught:
        group.call("do", how="mute", ranks=[2]).result()
    assert caught.value.report.failed == (2,)
    assert "raised by rank 2" in caught.value.__cause__.__notes__[0]  # type: ignore[union-attr]


def test_an_interrupt_in_a_worker_stays_there(group: RayWorkerGroup) -> None:
    """As on Ray, the call counts as cancelled and the worker goes on."""
    with pytest.raises(TaskCancelledError) as caught:
        group.call("leave", how="interrupt").result()
    assert isinstance(caught.value, WorkerGroupError)
    assert caught.value.report.failed == (0, 1, 2, 3)
    assert all(group.ping().values())


@pytest.mark.parametrize("kind", [UnicodeDecodeError, UnicodeEncodeError])
def test_a_type_that_takes_its_own_arguments_only_is_caught(
    kind: type[UnicodeDecodeError] | type[UnicodeEncodeError],
) -> None:
    """As that type; what it carries is there, and what it says is the group's."""
    text: Any = b"abc" if kind is UnicodeDecodeError else "abc"
    cause: Any = kind("utf8", text, 1, 2, "bad")
    error: Any = dual_error(cause, "it failed")
    assert isinstance(error, kind)
    assert isinstance(error, ExecutionError)
    assert (str(error), error.args) == ("it failed", ("it failed",))
    assert (error.start, error.end, error.reason, error.object) == (1, 2, "bad", text)
    error.__cause__ = cause
    again: Any = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again).__name__, str(again)) == (type(error).__name__, "it failed")


def test_a_type_that_cannot_be_joined_is_caught_as_its_nearest_base() -> None:
    """Not only as what no worker has raised."""

    class ClosedError(LookupError):
        def __init_subclass__(cls) -> None:
            raise TypeError("no types of this one")

    error: Any = dual_error(ClosedError("x"), "it failed")
    assert isinstance(error, ExecutionError)
    assert LookupError in type(error).__mro__
    assert ClosedError not in type(error).__mro__
    assert str(error) == "it failed"
