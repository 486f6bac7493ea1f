"""Train a small network on images of handwritten digits: from a plan to a clean end.

Four ranks, 2 data-parallel x 2 tensor-parallel, on a Ray cluster that is started on this machine
for them. The driver (this file) plans and sends; the workers (digits_worker.py) compute.

    python examples/train_digits.py
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from statistics import fmean

import numpy as np
import numpy.typing as npt
import ray
from attrs import frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from planner import (
    GroupArguments,
    LaunchPlan,
    NamedSharding,
    ResourceInsufficientError,
    plan_cluster,
    predict_launch,
)
from planner.conversions import to_device_mesh
from planner.shapes import laptop
from planner.show import launch_view, mesh_view
from runtime import ExecutionError, RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

__all__ = [
    "AXES",
    "Digits",
    "NotEnoughError",
    "TrainingError",
    "check",
    "check_cores",
    "choose_backend",
    "load_digits",
    "main",
    "predicted",
    "tested",
]

AXES = NamedSharding([[0, 1], [2, 3]], ["data_parallel", "tensor_parallel"])
WORKER = "digits_worker.DigitsWorker"
RANKS_PER_CORE = 2
ROWS_PER_REPLICA = 64
TEST_ROWS = 360
WANTED_ACCURACY = 0.95
SEED = 0


class NotEnoughError(Exception):
    """This machine lacks something that the program needs; the message says what."""


class TrainingError(Exception):
    """The training did not do what it should; the message says what."""


@frozen
class Digits:
    """scikit-learn's images of handwritten digits, shuffled and cut in two.

    Attributes:
        images: For training: one row of 64 pixels, from 0 to 1, per image.
        labels: The digit of each.
        test_images: For the test: ``TEST_ROWS`` other images.
        test_labels: The digit of each.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; gives its exit code.

    Returns:
        0 when all went well, 1 when the training failed, 2 when something is missing.
    """
    options = _parsed(arguments)
    console = Console(highlight=False)
    if options.plan_only:
        show(predicted(use_gpus=options.device == "gpu"), console)
        return 0
    try:
        run(options.epochs, options.device, console)
    except (NotEnoughError, ResourceInsufficientError) as error:
        console.print(f"Not enough: {error}", style="bold red", markup=False)
        return 2
    except (TrainingError, ExecutionError) as error:
        console.print(f"Failed: {error}", style="bold red", markup=False)
        return 1
    finally:
        ray.shutdown()
    return 0


def run(epochs: int, device: str, console: Console) -> None:
    """Plan, start, train, test and end.

    Raises:
        NotEnoughError: This machine lacks something.
        TrainingError: The network did not learn, or its replicas differ.
    """
    digits = load_digits()
    cores = len(os.sched_getaffinity(0))
    check_cores(cores, AXES.size)
    console.print("Starting a Ray cluster on this machine ...")
    ray.init(
        address="local",
        # A rank's bundle reserves one CPU. Ranks may share a core, so Ray is told of more.
        num_cpus=max(cores, AXES.size),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    backend, why = choose_backend(device, int(ray.cluster_resources().get("GPU", 0)), AXES.size)
    console.print(why)
    console.print(f"Starting {AXES.size} workers ...")
    mesh = to_device_mesh(AXES)
    with (
        RayVirtualCluster([AXES.size], use_gpus=backend == "nccl") as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder(WORKER, mesh.mesh, mesh.mesh_dim_names, backend),
            name_prefix="digits",
            sharding_annotations=AXES,
            gpu_visibility="shared",
        ) as group,
    ):
        show(group.plan, console)
        losses = train(group, digits, epochs, console)
        accuracy = tested(group, digits)
        if not group.shutdown(cleanup_method="close"):
            raise TrainingError("the workers did not end well")
    check(losses, accuracy)
    console.print(
        f"Test accuracy {accuracy:.4f} on {TEST_ROWS} images, the same on both data-parallel "
        "replicas. Every worker has ended."
    )


def predicted(*, use_gpus: bool) -> LaunchPlan:
    """The plan for a machine with just enough of everything, made from data alone."""
    ranks = AXES.size
    return predict_launch(
        plan_cluster(bundle_ct_per_node_list=[ranks], use_gpus=use_gpus),
        GroupArguments(
            worker_class=WORKER,
            bundle_counts=(),  # the cluster says it
            name_prefix="digits",
            mesh=AXES,
            gpu_visibility="shared",
        ),
        laptop(cpus=ranks, gpus=ranks if use_gpus else 0),
    )


def show(plan: LaunchPlan, console: Console) -> None:
    """Print the axes, and who runs where, as wide as the console is."""
    console.print(mesh_view(AXES))
    console.print(launch_view(plan))


def train(group: RayWorkerGroup, digits: Digits, epochs: int, console: Console) -> list[float]:
    """Show every image to the network once per epoch.

    Returns:
        The loss of the first batch, then the mean loss of each epoch.
    """
    replicas = AXES.get_axis_size("data_parallel")
    steps = len(digits.labels) // (replicas * ROWS_PER_REPLICA)
    shuffled = np.random.default_rng(SEED)
    losses: list[float] = []
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
    with Progress(TextColumn("training"), *columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("training", total=epochs * steps, loss=float("nan"))
        for epoch in range(1, epochs + 1):
            order = shuffled.permutation(len(digits.labels))
            batches = order[: steps * replicas * ROWS_PER_REPLICA]
            seen: list[float] = []
            for slices in batches.reshape(steps, replicas, ROWS_PER_REPLICA):
                seen.append(train_step(group, digits, slices))
                bar.update(task, advance=1, loss=seen[-1])
            losses = losses or seen[:1]
            losses.append(fmean(seen))
            bar.console.print(f"epoch {epoch:2}  loss {losses[-1]:.4f}")
    return losses


def train_step(group: RayWorkerGroup, digits: Digits, slices: npt.NDArray[np.int64]) -> float:
    """Send one slice of a batch to each replica and wait; gives the mean loss of the replicas."""
    future = group.run_all_workers_sharded_data(
        "train_step",
        images=[digits.images[rows] for rows in slices],
        labels=[digits.labels[rows] for rows in slices],
        in_sharded_axes=["data_parallel"],  # each replica gets its own slice,
        replicate_on_axes=["tensor_parallel"],  # the two halves of a replica the same one,
        output_is_replicated=["tensor_parallel"],  # and one of them answers for both
    )
    return fmean(group.get_all_worker_results(future))


def tested(group: RayWorkerGroup, digits: Digits) -> float:
    """The share of test images that are recognised, after a check that all replicas agree.

    Raises:
        TrainingError: Two replicas give different answers, so they hold different networks.
    """
    future = group.run_all_workers_sharded_data(
        "predict",
        common_kwargs={"images": digits.test_images},
        replicate_on_axes=AXES.names,
        output_is_replicated=["tensor_parallel"],
    )
    first, *others = group.get_all_worker_results(future)
    for replica, answers in enumerate(others, start=1):
        differ = int(np.count_nonzero(answers != first))
        if differ:
            raise TrainingError(
                f"replicas 0 and {replica} disagree on {differ} of {TEST_ROWS} test images"
            )
    return float(np.mean(first == digits.test_labels))


def check(losses: Sequence[float], accuracy: float) -> None:
    """Refuse a training that did not work.

    Raises:
        TrainingError: The loss did not fall, or too few test images are recognised.
    """
    if losses[-1] >= losses[0]:
        raise TrainingError(
            f"the loss did not fall: {losses[0]:.4f} at first, {losses[-1]:.4f} at the end"
        )
    if accuracy < WANTED_ACCURACY:
        raise TrainingError(
            f"test accuracy {accuracy:.4f} is below {WANTED_ACCURACY}: train for more epochs"
        )


def check_cores(cores: int, ranks: int) -> None:
    """Refuse a machine on which the ranks would only wait for each other.

    Raises:
        NotEnoughError: There are too few cores.
    """
    needed = -(-ranks // RANKS_PER_CORE)
    if cores < needed:
        raise NotEnoughError(
            f"{ranks} ranks need {needed} CPU cores ({RANKS_PER_CORE} ranks may share one), and "
            f"this process may use {cores}. Run it on a machine with more, or let it use more"
        )


def choose_backend(device: str, gpus: int, ranks: int) -> tuple[str, str]:
    """The torch backend for a choice of ``--device``, and why it is that one.

    Raises:
        NotEnoughError: GPUs were asked for, and there is not one for each rank.
    """
    have = f"{gpus} GPU" if gpus == 1 else f"{gpus or 'no'} GPUs"
    if gpus < ranks and device == "gpu":
        raise NotEnoughError(
            f"nccl needs a GPU for each of the {ranks} ranks, and this machine has {have}. "
            "Leave out --device gpu to train on CPUs"
        )
    if device == "cpu":
        return "gloo", "Training on CPUs with gloo, as asked."
    if gpus < ranks:
        return "gloo", f"Training on CPUs with gloo: {ranks} ranks, and this machine has {have}."
    return "nccl", f"Training on {ranks} of {have} with nccl."


def load_digits() -> Digits:
    """The images that come with scikit-learn.

    Raises:
        NotEnoughError: A package is not installed.
    """
    missing = [name for name in ("torch", "sklearn") if find_spec(name) is None]
    if missing:
        raise NotEnoughError(
            f"{' and '.join(missing)} cannot be imported. pip install 'rankplan[examples]'"
        )
    from sklearn import datasets

    found = datasets.load_digits()
    order = np.random.default_rng(SEED).permutation(len(found.target))
    images = (found.data[order] / 16.0).astype(np.float32)
    labels = found.target[order].astype(np.int64)
    return Digits(images[TEST_ROWS:], labels[TEST_ROWS:], images[:TEST_ROWS], labels[:TEST_ROWS])


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a small network on images of digits: 2 data-parallel x 2 "
        "tensor-parallel ranks on this machine."
    )
    parser.add_argument("--epochs", type=int, default=12, help="how often to see every image")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu"],
        default="auto",
        help="auto takes GPUs when there is one for each rank",
    )
    parser.add_argument(
        "--plan-only",
        action="store_true",
        help="print who would run where and end; starts nothing, needs neither Ray nor a GPU",
    )
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs {options.epochs}: give 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
