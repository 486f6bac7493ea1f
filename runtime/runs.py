"""The reference's four ways to call workers, and how their results are collected."""

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NoReturn, TypeVar

from planner.dispatch import (
    DispatchPlan,
    plan_one,
    plan_per_worker,
    plan_same,
    plan_sharded,
    slices_of,
)
from planner.findings import Findings, PlanError
from planner.launch import LaunchPlan
from planner.resizing import serving_mesh
from runtime.arguments import common_arguments
from runtime.backend import Backend
from runtime.call_sending import CallState
from runtime.calls import Sender
from runtime.ending import Session
from runtime.gather import Behind
from runtime.health import Health
from runtime.in_flight import InFlight
from runtime.results import MultiWorkerFuture
from runtime.roster import Roster

__all__ = ["Runs"]

T = TypeVar("T")


class Runs:
    """The part of ``RayWorkerGroup`` that the reference's programs call."""

    _sender: Sender
    _ended: bool
    _session: Session
    _health: Health
    _in_flight: InFlight
    _call_state: CallState

    @property
    def name(self) -> str:
        """The group's name."""
        raise NotImplementedError

    @property
    def plan(self) -> LaunchPlan:
        """What was carried out."""
        raise NotImplementedError

    @property
    def backend(self) -> Backend:
        """What carries its plans out."""
        raise NotImplementedError

    @property
    def identities(self) -> Roster:
        """Who each rank is."""
        raise NotImplementedError

    @property
    def world_size(self) -> int:
        """How many workers there are."""
        return self.plan.world_size

    def run_single_worker_single_data(
        self, method_name: str, worker_idx: int, *args: object, **kwargs: object
    ) -> Any:
        """Call one worker.

        Returns:
            The call's ``ObjectRef``; an ``ObjectRefGenerator`` for a streaming method.

        Raises:
            PlanError: The call cannot be made; nothing was sent.
        """
        self._check_alive()
        stages = _Stages()
        method = stages.tried(lambda: self._sender.method(method_name, len(args), tuple(kwargs)))
        plan = stages.tried(
            lambda: self._sender.plan(
                method_name,
                ("one", type(worker_idx), worker_idx),
                lambda findings: plan_one(worker_idx, self.world_size, findings),
            )
        )
        if method is None or plan is None:
            stages.fail()
        return self._sender.send(plan, method, kwargs, {})[0]

    def run_all_workers_single_data(
        self,
        method_name: str,
        *args: object,
        run_rank_0_only_axes: Sequence[str] | None = None,
        **kwargs: object,
    ) -> list[Any]:
        """Call every worker with the same arguments, or only those at coordinate 0 of some axes.

        Workers that ``resize`` has given up are left out.

        Returns:
            One future per called worker, in rank order.

        Raises:
            PlanError: The call cannot be made; nothing was sent.
        """
        self._check_alive()
        stages, absent = _Stages(), self._health.absent
        method = stages.tried(lambda: self._sender.method(method_name, len(args), tuple(kwargs)))
        plan = stages.tried(
            lambda: self._sender.plan(
                method_name,
                ("same", _key(run_rank_0_only_axes), absent),
                lambda findings: plan_same(
                    self.plan.mesh, self.world_size, run_rank_0_only_axes, findings, absent
                ),
            )
        )
        if method is None or plan is None:
            stages.fail()
        return self._sender.send(plan, method, kwargs, {})

    def run_all_workers_multiple_data(
        self,
        method_name: str,
        *args: object,
        run_rank_0_only_axes: Sequence[str] | None = None,
        common_kwargs: Mapping[str, object] | None = None,
        **kwargs: Sequence[object],
    ) -> list[Any]:
        """Call workers each with its own data: every argument is a list, one value per worker.

        Workers that ``resize`` has given up are left out.

        Args:
            method_name: What to call.
            args: Refused: name every data argument.
            run_rank_0_only_axes: Call only those at coordinate 0 of these axes.
            common_kwargs: Arguments that are the same for all.
            kwargs: Lists with one value per called worker, in rank order.

        Returns:
            One future per called worker, in rank order.

        Raises:
            PlanError: The call cannot be made; nothing was sent.
        """
        self._check_alive()
        stages, absent = _Stages(), self._health.absent
        common = stages.tried(
            lambda: common_arguments(common_kwargs, kwargs, self._sender.findings(method_name))
        )
        stages.tried(lambda: _check_data(kwargs or args, self._sender.findings(method_name)))
        named = (*(common or ()), *kwargs)
        method = stages.tried(lambda: self._sender.method(method_name, len(args), named))
        plan = stages.tried(
            lambda: self._sender.plan(
                method_name,
                ("multiple", _key(run_rank_0_only_axes), absent),
                lambda findings: plan_per_worker(
                    self.plan.mesh, self.world_size, run_rank_0_only_axes, findings, absent
                ),
            )
        )
        if common is None or method is None or plan is None or stages.errors:
            stages.tried(lambda: _check_slices(plan, kwargs, self._sender.findings(method_name)))
            stages.fail()
        return self._sender.send(plan, method, common, kwargs)

    def run_all_workers_sharded_data(
        self,
        method_name: str,
        *args: object,
        in_sharded_axes: Sequence[str] | None = None,
        replicate_on_axes: Sequence[str] | None = None,
        output_is_replicated: Sequence[str] | None = None,
        make_dummy_calls_to_free_axes: bool = False,
        common_kwargs: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> MultiWorkerFuture:
        """Call workers with slices cut over the group's axes.

        Workers that ``resize`` has given up are left out: their coordinates get no slice.

        Args:
            method_name: What to call.
            args: Refused: name every data argument.
            in_sharded_axes: Each coordinate of these gets its own slice; one level of nested
                lists per axis, in this order.
            replicate_on_axes: All coordinates of these get the same slice. On all other (free)
                axes only coordinate 0 is called.
            output_is_replicated: Results come back only from coordinate 0 of these axes and of
                the free ones.
            make_dummy_calls_to_free_axes: Call the rest of the free axes too, with None for
                every sharded argument.
            common_kwargs: Arguments that are the same for all.
            kwargs: Nested lists of slices.

        Returns:
            A future whose results follow the coordinates of the sharded axes.

        Raises:
            PlanError: The call cannot be made; nothing was sent.
        """
        self._check_alive()
        stages, absent = _Stages(), self._health.absent
        dummies = make_dummy_calls_to_free_axes
        common = stages.tried(
            lambda: common_arguments(common_kwargs, kwargs, self._sender.findings(method_name))
        )
        stages.tried(lambda: _check_dummies(dummies, self._sender.findings(method_name)))
        named = (*(common or ()), *kwargs)
        method = stages.tried(lambda: self._sender.method(method_name, len(args), named))
        axes = (in_sharded_axes, replicate_on_axes, output_is_replicated)
        plan = stages.tried(
            lambda: self._sender.plan(
                method_name,
                ("sharded", *map(_key, axes), dummies is True, absent),
                lambda findings: plan_sharded(
                    self.plan.mesh and serving_mesh(self.plan.mesh, absent),
                    *axes,
                    findings,
                    dummy_calls=dummies is True,
                ),
            )
        )
        if common is None or method is None or plan is None or stages.errors:
            stages.tried(lambda: _check_slices(plan, kwargs, self._sender.findings(method_name)))
            stages.fail()
        futures = self._sender.send(plan, method, common, kwargs)
        return MultiWorkerFuture.of_call(futures, plan, method_name)

    def get_all_worker_results(
        self,
        future_bundle: MultiWorkerFuture,
        return_generators_as_proxies: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """The results of a sharded call; see ``MultiWorkerFuture.get_results``."""
        if not isinstance(future_bundle, MultiWorkerFuture):
            Findings(f"worker group {self.name!r}").fail(
                "future_bundle",
                f"a value of type {type(future_bundle).__name__}",
                "give what run_all_workers_sharded_data returned; "
                "make a MultiWorkerFuture of a list of futures",
            )
        return future_bundle.get_results(self, return_generators_as_proxies, timeout)

    @property
    def _behind(self) -> Behind:
        """Says what holds ranks that have not begun a call."""
        return self._in_flight.behind if self._call_state.one_by_one else lambda _: ()

    def _check_alive(self) -> None:
        self._refuse_if_ended()
        self._health.check()

    def _refuse_if_ended(self) -> None:
        self._session.refuse_if_over(has_ended=self._ended)


class _Stages:
    """What is wrong about a call, over all the stages of checking it."""

    def __init__(self) -> None:
        self.errors: list[PlanError] = []

    def tried(self, stage: Callable[[], T]) -> T | None:
        """What a stage gives; None when it finds something wrong."""
        try:
            return stage()
        except PlanError as error:
            self.errors.append(error)
            return None

    def fail(self) -> NoReturn:
        """Raise everything that was found, as one error."""
        first, *others = self.errors
        if not others:
            raise first
        found = [finding for error in self.errors for finding in error.findings]
        kinds = {type(error) for error in self.errors}
        kind = type(first) if len(kinds) == 1 else PlanError
        raise kind(first.subject, list(dict.fromkeys(found)))


def _check_dummies(value: object, findings: Findings) -> None:
    if not isinstance(value, bool):
        path = "make_dummy_calls_to_free_axes"
        findings.fail(path, f"{value!r} is not a truth value", "give True or False")


def _check_data(data: Sized, findings: Findings) -> None:
    if not data:
        findings.fail("kwargs", "there is no data argument", "give at least one list of values")


def _check_slices(
    plan: DispatchPlan | None, data: Mapping[str, object], findings: Findings
) -> None:
    if plan is not None:
        for name, value in data.items():
            slices_of(plan, name, value, findings)
    findings.check()


def _key(axes: Sequence[str] | None) -> object:
    # Anything else is for the planner to refuse.
    return tuple(axes) if isinstance(axes, list | tuple) else (type(axes), axes)
