"""The digits example with whole batches in and whole results out.

The worker's class says what becomes of each argument and result (digits_worker.py), and rankplan
cuts, sends and combines. Compare ``train_step`` and ``tested`` in train_digits.py, from which
everything that is not a call is taken.

    python examples/train_digits_calls.py
"""

import os
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import ray
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent.parent))

from examples.digits_worker import DigitsWorker
from examples.train_digits import (
    AXES,
    ROWS_PER_REPLICA,
    SEED,
    WORKER,
    Digits,
    TrainingError,
    check,
    check_cores,
    load_digits,
    show,
)
from planner.conversions import to_device_mesh
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

EPOCHS = 12
ROWS = 2 * ROWS_PER_REPLICA


def main() -> None:
    """Plan, start, train, test and end."""
    console = Console(highlight=False)
    cores = len(os.sched_getaffinity(0))
    check_cores(cores, AXES.size)
    digits = load_digits()
    console.print("Starting a Ray cluster on this machine ...")
    ray.init(
        address="local",
        num_cpus=max(cores, AXES.size),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    console.print(f"Starting {AXES.size} workers ...")
    mesh = to_device_mesh(AXES)
    with (
        RayVirtualCluster([AXES.size], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder(WORKER, mesh.mesh, mesh.mesh_dim_names, "gloo"),
            name_prefix="digits",
            sharding_annotations=AXES,
        ) as group,
    ):
        show(group.plan, console)
        losses = train(group, digits, EPOCHS, console)
        accuracy = tested(group, digits)
        group.shutdown(cleanup_method="close")
    ray.shutdown()
    check(losses, accuracy)
    console.print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}, test accuracy {accuracy:.4f}")


def train(group: RayWorkerGroup, digits: Digits, epochs: int, console: Console) -> list[float]:
    """Show every image to the network once per epoch; gives the mean loss of each epoch."""
    shuffled = np.random.default_rng(SEED)
    losses = []
    for _ in track(range(epochs), "training", console=console):
        order, seen = shuffled.permutation(len(digits.labels)), []
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            step = group.call(DigitsWorker.train_step, digits.images[rows], digits.labels[rows])
            seen.append(step.result())
        losses.append(fmean(seen))
    return losses


def tested(group: RayWorkerGroup, digits: Digits) -> float:
    """The share of test images that every rank recognises, after a check that all agree."""
    answers = group.call(DigitsWorker.predict, digits.test_images).by_rank()
    if any(not np.array_equal(each, answers[0]) for each in answers.values()):
        raise TrainingError("the replicas hold different networks")
    return float(np.mean(answers[0] == digits.test_labels))


if __name__ == "__main__":
    main()
