"""Calls on whole batches: ``group.call(Worker.train_step, batch, lr=0.1).result()``.

The roles of the arguments come from the worker's class or from the call; the plan is complete and
everything is checked before the first message leaves.
"""

import math
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from attrs import evolve

from planner.binding import Bound, bind, check_roles_named, check_row_facts
from planner.call import plan_call
from planner.call_requests import CallPlan, CallRequest
from planner.findings import Findings
from planner.mesh import NamedSharding
from planner.roles import Declaration, Reduce, Result, Role, Shard, declaration_of
from planner.signatures import Method, MethodKind, nearest
from planner.times import seconds_of
from planner.transports import LinkFacts, check_transport
from planner.whole_numbers import whole_number
from runtime.backend import Backend
from runtime.call_arguments import RowFacts, facts_of
from runtime.call_future import CallFuture
from runtime.call_results import Fold
from runtime.call_sending import CallOptions, CallState, Prepared, Target, check, send
from runtime.links import LinkState, link_facts
from runtime.remote_batches import RemoteBatch, Tools
from runtime.streams import CallStream

__all__ = ["CallView", "Calls", "new_call_state"]

P = ParamSpec("P")
R = TypeVar("R")

_PLANS_KEPT = 512

_NO_LINK = LinkFacts()
_BUFFERS = "give 1 or more, or math.inf for no limit"


class Calls:
    """Calls on a group, or on a part of it, in one stated way.

    Every method of the worker's class is a method of it: ``calls.train_step(batch, lr=0.1)`` is
    ``calls.call("train_step", batch, lr=0.1)``.
    """

    _options = CallOptions()

    @property
    def _target(self) -> Target:
        """The group whose ranks are called."""
        raise NotImplementedError

    @overload  # what yields gives values too: the first that matches wins
    def call(  # type: ignore[overload-overlap]
        self,
        method: Callable[Concatenate[Any, P], Iterator[R] | AsyncIterator[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> CallStream[R]: ...
    @overload
    def call(
        self,
        method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> CallFuture[R]: ...
    @overload
    def call(
        self, method: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> CallFuture[R]: ...
    @overload
    def call(self, method: str, /, *args: object, **kwargs: object) -> Any: ...
    def call(self, method: Any, /, *args: object, **kwargs: object) -> Any:
        """Call a method of the workers' class.

        Args:
            method: Its name; or the function in the class, ``Worker.train_step``, which gives its
                name and lets a type checker see arguments and result.
            args: Its arguments.
            kwargs: Its arguments.

        Returns:
            A ``CallFuture``, or a ``CallStream`` for a method that yields its values.

        Raises:
            PlanError: The call can't be made; nothing was sent.
            HalfSentError: Sending broke in the middle.
        """
        self._target._check_alive()
        prepared = self._prepare(method, args, kwargs)
        return send(self._target, self._options, prepared)

    def plan_call(self, method: Any, /, *args: object, **kwargs: object) -> CallPlan:
        """The plan of a call, which is not made: who gets what, in how many objects and bytes.

        Raises:
            PlanError: The call can't be made.
        """
        prepared = self._prepare(method, args, kwargs)
        check(self._target, self._options, prepared)
        return prepared.plan

    def using(
        self,
        *,
        mesh: str | None = None,
        roles: Mapping[str, Role] | None = None,
        returns: Result | Fold | None = None,
        free: str | Sequence[str] | None = None,
        dummy_calls: bool | None = None,
        weights: Mapping[str, Any] | None = None,
        groups: Mapping[str, Any] | None = None,
        timed: bool | None = None,
        buffer: float | None = None,
        timeout: float | None = None,
        transport: str | None = None,
    ) -> "CallView":
        """The same calls made in another way; what is not given stays as it is.

        Args:
            mesh: The name of the mesh whose axes count; see ``add_mesh``.
            roles: Roles of arguments; they come before what the class declares.
            returns: How results combine; a function makes one result of a list of them.
            free: Axes along which only coordinate 0 is called.
            dummy_calls: Whether the others along free axes get dummy calls.
            weights: A weight for each row of an argument, by the argument's name.
            groups: A label for each row of an argument, by the argument's name.
            timed: Whether workers report when they began and ended.
            buffer: How many values a worker's stream may be ahead of its consumer; 16 unless
                given, ``math.inf`` for no limit.
            timeout: Seconds that a wait for the answers may take.
            transport: The direct transport for which results stay in the memory of their makers:
                held, they go by it to the groups of a link, past the object store, which is
                ``"object store"`` here. See ``runtime.transports``.

        Raises:
            PlanError: There is no such mesh, or an option is not what it must be.
        """
        findings = Findings(f"worker group {self._target.name!r}, using()")
        meshes = self._target._call_state.meshes
        if mesh is not None and mesh not in meshes:
            findings.add("mesh", f"there is no mesh {mesh!r}", nearest(mesh, meshes))
        if buffer is not None and buffer != math.inf and whole_number(buffer) is None:
            findings.add("buffer", f"{buffer!r} is not a number of values", _BUFFERS)
        elif buffer is not None and buffer < 1:
            findings.add("buffer", f"{buffer} values hold nothing", _BUFFERS)
        if timeout is not None and not seconds_of(timeout):
            findings.add("timeout", f"{timeout!r} is not a time", "give seconds, more than 0")
        kept_for = check_transport("transport", transport, findings)
        if isinstance(returns, type) and issubclass(returns, Result):
            findings.add("returns", f"{returns!r} is a class", f"give {returns.__name__}(...)")
        findings.check()
        old = self._options
        fold = returns if callable(returns) else None
        changes: dict[str, Any] = {
            "mesh": mesh,
            "roles": None if roles is None else {**old.roles, **roles},
            "returns": Reduce(getattr(fold, "__name__", "function")) if fold else returns,
            "fold": fold,
            "free": (free,) if isinstance(free, str) else free,
            "dummy_calls": dummy_calls,
            "rows": RowFacts(
                {**old.rows.weights, **(weights or {})}, {**old.rows.groups, **(groups or {})}
            ),
            "timed": timed,
            "buffer": buffer,
            "timeout": timeout,
            "transport": None if transport is None else kept_for,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        if returns is not None:
            given["fold"] = fold
        return CallView(self._target, evolve(old, **given))

    def add_mesh(self, name: str, mesh: NamedSharding) -> None:
        """Give the group's ranks other axes, under a name for ``using(mesh=name)``.

        Raises:
            PlanError: The name is taken, or the mesh does not have the group's ranks.
        """
        findings = Findings(f"worker group {self._target.name!r}, add_mesh()")
        meshes = self._target._call_state.meshes
        if name in meshes:
            findings.add("name", f"{name!r} is taken", "choose another name")
        mine = sorted(meshes[""].ranks)
        if sorted(mesh.ranks) != mine:
            findings.add(
                "mesh",
                f"it has {mesh.size} ranks from {min(mesh.ranks)} to {max(mesh.ranks)}",
                f"arrange the group's ranks, {mine[0]} to {mine[-1]}, each once",
            )
        findings.check()
        meshes[name] = mesh

    def at(self, **coords: int) -> "CallView":
        """Calls on a part of the ranks: those at some coordinates, along the axes that are left.

        Raises:
            PlanError: There is no such axis or coordinate.
        """
        view = CallView(
            self._target,
            evolve(self._options, at=tuple(sorted({**dict(self._options.at), **coords}.items()))),
        )
        view.mesh  # noqa: B018  # checks the coordinates
        return view

    @property
    def mesh(self) -> NamedSharding:
        """The ranks that may be called, and their axes."""
        mesh = self._target._call_state.meshes[self._options.mesh]
        part = mesh.get_ranks(**dict(self._options.at))
        return part if isinstance(part, NamedSharding) else NamedSharding([part], ["rank"])

    def stage(
        self, method: Any, argument: str, batches: Sequence[Any], ahead: int | None = None
    ) -> Iterator[RemoteBatch[Any]]:
        """Cut and store many batches ahead of a loop that calls with them.

        Args:
            method: The method that the loop calls.
            argument: Its argument that the batches are for.
            batches: The batches.
            ahead: How many are stored before the loop asks for them; None for all.

        Returns:
            For each batch what to give in its place.

        Raises:
            PlanError: A batch can't be cut for that argument.
        """
        from runtime.staging import staged

        return staged(self, method, argument, batches, ahead)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]:
            if name.startswith("_"):
                raise AttributeError(name)
            sender = self._target._sender
            if name not in sender.methods:
                known = [*sender.methods, *(each for each in dir(type(self)) if each[0] != "_")]
                raise AttributeError(
                    f"worker group {sender.group!r}: neither it nor {sender.worker_class} has "
                    f"{name!r}; {nearest(name, known)}"
                )
            return lambda *args, **kwargs: self.call(name, *args, **kwargs)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._target._sender.methods]

    def _prepare(
        self, method: Any, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> Prepared:
        name = method if isinstance(method, str) else getattr(method, "__name__", method)
        bound = self._bound(name, len(args), tuple(kwargs))
        return self._planned(bound, dict(zip(bound.names, (*args, *kwargs.values()), strict=True)))

    def _planned(self, bound: Bound, values: Mapping[str, Any]) -> Prepared:
        roles = self._roles(bound)
        findings = self._target._sender.findings(bound.method.name)
        known, backend = dict(roles.arguments), self._target.backend
        rows = self._options.rows
        check_row_facts("weights", rows.weights, known, values, findings)
        check_row_facts("groups", rows.groups, known, values, findings)
        facts = tuple(
            facts_of(backend, name, value, known.get(name), rows, findings)
            for name, value in values.items()
        )
        findings.check()
        request = CallRequest(
            group=self._target.name,
            method=bound.method.name,
            mesh=self.mesh if self._options.at else self._whole_mesh,
            roles=roles,
            arguments=facts,
            streams=bound.method.kind.streams,
            folds=self._options.fold is not None,
            transport=self._options.transport,
            link=self._link_facts(),
            timed=self._options.timed,
        )
        plan = self._plan(request)
        filled = [each.name for each in plan.arguments if each.name not in values]
        if filled:
            bound = evolve(bound, names=(*bound.names, *filled))
            values = {**values, **dict.fromkeys(filled)}
        return Prepared(bound=bound, values=values, plan=plan)

    def _prepare_batch(self, method: Any, argument: str, batch: Any) -> Prepared:
        """One argument of a call, planned without the others."""
        name = method if isinstance(method, str) else getattr(method, "__name__", method)
        sender = self._target._sender
        findings = sender.findings(name)
        found = sender.methods.get(name)
        if found is None:
            remedy = nearest(name, sender.methods)
            findings.fail("method", f"there is no method {name!r}", remedy)
        bound = Bound(method=found, names=(argument,))
        if not isinstance(dict(self._roles(bound).arguments).get(argument), Shard):
            findings.fail("argument", f"{argument!r} is not sharded", "name one with a Shard role")
        return self._planned(bound, {argument: batch})

    @property
    def _whole_mesh(self) -> NamedSharding:
        return self._target._serving_mesh(self._options.mesh)

    @property
    def _link_state(self) -> LinkState:
        return self._target._call_state.links

    def _link_facts(self) -> LinkFacts:
        state, target = self._link_state, self._target
        if not state.started_for:
            return _NO_LINK
        actors = target._sender.actors
        serving = {rank: actors[rank] for rank in self._whole_mesh.ranks}
        return link_facts(state, target.backend, serving)

    def _plan(self, request: CallRequest) -> CallPlan:
        plans = self._target._call_state.plans
        if any(
            each.weights or each.groups or (each.row_bytes and len(each.row_bytes) > 1)
            for each in request.arguments
        ):
            # Facts about single rows are never the same twice, and would only fill the store.
            return plan_call(request)
        found = plans.get(request)
        if found is None:
            if len(plans) >= _PLANS_KEPT:
                plans.clear()
            found = plans[request] = plan_call(request)
        return found

    def _bound(self, name: Any, positional: int, keywords: tuple[str, ...]) -> Bound:
        state, sender = self._target._call_state, self._target._sender
        key = (name, positional, keywords)
        found = state.bound.get(key) if isinstance(name, str) else None
        if found is None:
            findings = sender.findings(name)
            found = bind(sender.methods, sender.worker_class, name, positional, keywords, findings)
            if found.method.returns != 1:
                findings.fail(
                    "method_name",
                    f"{name}() returns {found.method.returns} objects",
                    "call it by run_all_workers_single_data, or return one",
                )
            state.bound[key] = found
        return found

    def _roles(self, bound: Bound) -> Declaration:
        state, options, method = self._target._call_state, self._options, bound.method
        declared = state.roles.get(method.name)
        if declared is None:
            findings = self._target._sender.findings(method.name)
            declared = Declaration()
            if method.declared:
                declared = declaration_of(method.declared, findings)
            names = [name for name, _ in declared.arguments]
            check_roles_named(method, names, bound.names, "@dispatch({}=...)", findings)
            findings.check()
            state.roles[method.name] = declared
        given = options.roles or options.returns or options.free is not None
        if not given and options.dummy_calls is None:
            return declared
        roles = {**dict(declared.arguments), **options.roles}
        findings = self._target._sender.findings(method.name)
        check_roles_named(method, options.roles, bound.names, "roles[{!r}]", findings)
        findings.check()
        dummy = declared.dummy_calls if options.dummy_calls is None else options.dummy_calls
        return Declaration(
            arguments=tuple(sorted(roles.items(), key=lambda named: named[0])),
            returns=options.returns or declared.returns,
            free=declared.free if options.free is None else options.free,
            dummy_calls=dummy,
        )


class CallView(Calls):
    """Calls on a group in another way than its own; owns no process."""

    def __init__(self, target: Target, options: CallOptions) -> None:
        self._group = target
        self._options = options

    @property
    def _target(self) -> Target:
        return self._group

    def __repr__(self) -> str:
        return f"<calls on {self._group!r}: {self.mesh!r}>"


def new_call_state(
    backend: Backend,
    mesh: NamedSharding | None,
    world_size: int,
    methods: Iterable[Method],
    started_for: str = "",
) -> CallState:
    """What a new group remembers; a group without axes has one axis, its ranks."""
    own = mesh or NamedSharding(range(world_size), ["rank"])
    at_once = {MethodKind.ASYNC, MethodKind.ASYNC_GENERATOR}
    return CallState(
        Tools(backend),
        {"": own},
        one_by_one=all(each.kind not in at_once for each in methods),
        links=LinkState(started_for),
    )
