"""Knowing how to make one worker from a class that is named, never imported here."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from ray.util.placement_group import PlacementGroup

from planner.class_name import check_class_name
from planner.findings import Findings
from planner.group import FULL_GPU, GroupArguments
from runtime.handle import WorkerHandle
from runtime.ray_backend import RAY
from runtime.starting import Ground, StartRequest, start_group

__all__ = ["RayWorkerBuilder"]


class RayWorkerBuilder:
    """Makes one worker from a class named by its full name, ``"package.module.Class"``.

    The class is imported where its worker runs, never here; it may be plain or decorated with
    ``@ray.remote(...)``.

    Args:
        ray_actor_class_fqn: The full name of the class.
        args: Positional arguments of its constructor.
        kwargs: Keyword arguments of its constructor.

    Raises:
        PlanError: The name cannot be that of an importable class.
    """

    def __init__(self, ray_actor_class_fqn: str, *args: object, **kwargs: object) -> None:
        _check_class_name(ray_actor_class_fqn)
        self.ray_actor_class_fqn = ray_actor_class_fqn
        self.args = args
        self.kwargs = kwargs

    def __call__(
        self,
        placement_group: PlacementGroup,
        placement_group_bundle_index: int,
        num_gpus: float,
        bundle_indices: tuple[int, Sequence[int]] | None = None,
        **extra_options: object,
    ) -> WorkerHandle:
        """Start one worker in a bundle and wait until its constructor has returned.

        Args:
            placement_group: Where it runs.
            placement_group_bundle_index: In which bundle.
            num_gpus: Its share of a GPU.
            bundle_indices: What ``configure_worker`` is told; the leader of a tied group gets
                ``(node_idx, [bundle, ...])``, the others None.
            extra_options: Actor options; they win over the class's own.

        Raises:
            PlanError: An argument is wrong; nothing was started.
            WorkerGroupError: The constructor failed; of its exception's own type too.
        """
        _check_place(placement_group, num_gpus, bundle_indices)
        options = dict(extra_options)
        env_vars = _env_vars(options.get("runtime_env"))
        launched = start_group(
            StartRequest(
                backend=RAY,
                constructor=(self.args, self.kwargs),
                ground=lambda: Ground(groups=(placement_group,)),
                arguments=GroupArguments(
                    worker_class=self.ray_actor_class_fqn,
                    bundle_counts=(placement_group.bundle_count,),
                    bundle_indices_list=[(0, [placement_group_bundle_index])],
                    name_prefix=options.pop("name", ""),
                    is_alone=True,
                    gpu_share=int(num_gpus * FULL_GPU + 1e-6),
                    options=options,
                ),
                env_vars=env_vars,
                bundle_indices=(bundle_indices,),
            )
        )
        return WorkerHandle(launched.actors[0], launched.plan.workers[0].name, launched.described)

    def create_worker_async(
        self,
        placement_group: PlacementGroup,
        placement_group_bundle_index: int,
        num_gpus: float,
        bundle_indices: tuple[int, Sequence[int]] | None = None,
        **extra_options: object,
    ) -> "Future[WorkerHandle]":
        """Start one worker without waiting; ``.result()`` gives it, or raises what went wrong."""
        future: Future[WorkerHandle] = Future()

        def start() -> None:
            try:
                handle = self(
                    placement_group,
                    placement_group_bundle_index,
                    num_gpus,
                    bundle_indices,
                    **extra_options,
                )
            except BaseException as error:  # noqa: BLE001  # handed to whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(handle)

        threading.Thread(target=start, name="rankplan-start", daemon=True).start()
        return future


def _check_place(group: object, num_gpus: object, bundle_indices: object) -> None:
    findings = Findings("worker builder")
    if not isinstance(group, PlacementGroup):
        findings.add(
            "placement_group", f"a value of type {type(group).__name__}", "give a placement group"
        )
    known = isinstance(num_gpus, int | float) and not isinstance(num_gpus, bool)
    if not known or not isinstance(num_gpus, int | float) or not 0 <= num_gpus <= 1:
        findings.add("num_gpus", f"{num_gpus!r} is not a share of one bundle's GPU", "give 0 to 1")
    pair = isinstance(bundle_indices, list | tuple) and len(bundle_indices) == 2
    if bundle_indices is not None and not pair:
        findings.add(
            "bundle_indices",
            f"{bundle_indices!r} is not a pair",
            "give (node_idx, [bundle, ...]), or None",
        )
    findings.check()


def _env_vars(runtime_env: object) -> Mapping[str, str]:
    if not isinstance(runtime_env, Mapping) or "env_vars" not in runtime_env:
        return {}
    given: object = runtime_env["env_vars"]
    if not isinstance(given, Mapping):
        Findings("worker builder").fail(
            "runtime_env.env_vars", f"a value of type {type(given).__name__}", "give a mapping"
        )
    return given


def _name_to_give(given: type) -> str:
    if "<locals>" in given.__qualname__:
        return "define it at the top of a module: workers import it by its name"
    if given.__module__ == "__main__":
        return (
            "move it to a module of its own, because workers import it by its name and cannot "
            f"import the driver's script, and give 'that_module.{given.__qualname__}'"
        )
    return f"give {f'{given.__module__}.{given.__qualname__}'!r}"


def _check_class_name(name: object) -> None:
    findings = Findings("worker builder")
    # What @ray.remote makes of a class is no class; the class is in it.
    decorated = getattr(getattr(name, "__ray_metadata__", None), "modified_class", name)
    given = getattr(decorated, "__ray_actor_class__", decorated)
    if isinstance(given, type):
        problem = f"{given.__name__} is a class, not the full name of one"
        findings.fail("ray_actor_class_fqn", problem, _name_to_give(given))
    check_class_name("ray_actor_class_fqn", name, findings)
    findings.check()
