"""Launches that are refused, or can't be cleaned up after, on the in-process backend."""

import logging

import pytest

from planner.findings import PlanError
from runtime import ExecutionError, RayWorkerBuilder, RayWorkerGroup, WorkerGroupError
from runtime.in_process_actor import InProcessActor
from runtime.in_process_backend import World
from runtime.testing import InProcessCluster


def test_configure_worker_that_its_source_does_not_show() -> None:
    """The launch is refused, and nothing is left of it."""
    with InProcessCluster([2]) as cluster:
        with pytest.raises(ExecutionError) as caught:
            RayWorkerGroup(cluster, RayWorkerBuilder("tests.hidden_workers.AsksUnseen"))
        assert str(caught.value) == (
            "worker group 'AsksUnseen': tests.hidden_workers.AsksUnseen: it was taken (read from "
            "its source) for a class without configure_worker, so nobody asked what its workers "
            "need, and it has one on rank 0 on node 10.0.0.0, GPU 0, pid 1001 and 1 more ranks; "
            "define configure_worker in the body of the class or of a base, where its source "
            "shows it, and bring the same version to every node"
        )
        assert cluster.live == []


def test_configure_worker_that_is_only_in_the_source() -> None:
    """Noticed when it is asked, before any host starts."""
    with InProcessCluster([2]) as cluster:
        with pytest.raises(ExecutionError, match="it has none on node node-0, where it was asked"):
            RayWorkerGroup(cluster, RayWorkerBuilder("tests.hidden_workers.AsksNothing"))
        assert next(cluster.backend.numbers) == 1001


def test_an_error_of_the_ending_does_not_hide_that_of_the_launch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The launch's error is raised with a note, the other is logged, and the rest is ended."""
    kill = World.kill

    def refuse(world: World, actor: InProcessActor) -> None:
        if actor.process.name == "stuck-0-1":
            raise ConnectionError("nobody answers")
        kill(world, actor)

    builder = RayWorkerBuilder("tests.fault_workers.Picky", 2)
    with InProcessCluster([3]) as cluster:
        monkeypatch.setattr(World, "kill", refuse)
        with (
            caplog.at_level(logging.ERROR, logger="rankplan"),
            pytest.raises(KeyError, match="rank 2 is picky") as caught,
        ):
            RayWorkerGroup(cluster, builder, name_prefix="stuck")
        assert isinstance(caught.value, WorkerGroupError)
        (note,) = [each for each in caught.value.__notes__ if "could not all be ended" in each]
        assert "could not all be ended: stuck-0-1: ConnectionError: nobody answers; " in note
        (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert note in record.getMessage()
        assert record.exc_info
        assert isinstance(record.exc_info[1], ConnectionError)
        assert cluster.live == ["stuck-0-1"]


def test_an_error_while_waiting_for_the_end_is_a_note_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything has been ended; only nobody can say so."""
    asked: list[int] = []
    names = World.names

    def unreachable(world: World) -> frozenset[str]:
        asked.append(1)
        if len(asked) > 1:
            raise PlanError("this test", [])
        return names(world)

    builder = RayWorkerBuilder("tests.fault_workers.Picky", 0)
    with InProcessCluster([2]) as cluster:
        monkeypatch.setattr(World, "names", unreachable)
        with pytest.raises(KeyError, match="rank 0 is picky") as caught:
            RayWorkerGroup(cluster, builder)
        assert any("the wait for their end: PlanError" in each for each in caught.value.__notes__)
        assert not cluster.backend.processes
