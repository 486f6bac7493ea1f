"""The example's decisions: what is enough, which backend, when a training has failed."""

import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from examples import train_digits, train_digits_calls
from examples.train_digits import NotEnoughError, TrainingError
from planner import GpuVisibility
from planner.conversions import to_device_mesh
from runtime import RayVirtualCluster, RayWorkerBuilder, RayWorkerGroup

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@pytest.mark.parametrize(("cores", "ranks"), [(2, 4), (64, 4), (1, 2)])
def test_ranks_may_share_a_core_in_pairs(cores: int, ranks: int) -> None:
    """Two ranks on a core are enough cores."""
    train_digits.check_cores(cores, ranks)


def test_too_few_cores_are_told_with_both_numbers() -> None:
    """One core for four ranks is refused, with what is needed and what is there."""
    with pytest.raises(NotEnoughError, match=r"4 ranks need 2 CPU cores .* may use 1"):
        train_digits.check_cores(1, 4)


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("auto", 0, ("gloo", "this machine has no GPUs")),
        ("auto", 1, ("gloo", "this machine has 1 GPU.")),
        ("auto", 4, ("nccl", "Training on 4 of 4 GPUs")),
        ("gpu", 8, ("nccl", "Training on 4 of 8 GPUs")),
        ("cpu", 8, ("gloo", "as asked")),
    ],
)
def test_the_backend_follows_the_gpus(device: str, gpus: int, expected: tuple[str, str]) -> None:
    """GPUs are used when there is one for each rank, and the reason is told."""
    backend, why = train_digits.choose_backend(device, gpus, 4)
    assert (backend, expected[1] in why) == (expected[0], True), why


def test_gpus_asked_for_and_missing_are_told() -> None:
    """``--device gpu`` never falls back to CPUs without a word."""
    with pytest.raises(NotEnoughError, match="each of the 4 ranks, and this machine has 3 GPUs"):
        train_digits.choose_backend("gpu", 3, 4)


@pytest.mark.parametrize(
    ("losses", "accuracy", "problem"),
    [
        ([2.3, 2.3], 0.99, "the loss did not fall: 2.3000 at first, 2.3000 at the end"),
        ([2.3, 0.1], 0.9499, "test accuracy 0.9499 is below 0.95"),
    ],
)
def test_a_training_that_did_not_work_fails(
    losses: list[float], accuracy: float, problem: str
) -> None:
    """A loss that does not fall, or too few images recognised, is an error."""
    with pytest.raises(TrainingError, match=re.escape(problem)):
        train_digits.check(losses, accuracy)


class Answers:
    """Stands for a worker group whose replicas have answered."""

    def __init__(self, *replicas: npt.NDArray[np.int64]) -> None:
        self._replicas = list(replicas)

    def run_all_workers_sharded_data(self, _: str, **__: object) -> None:
        """Send nothing."""

    def get_all_worker_results(self, _: None) -> list[npt.NDArray[np.int64]]:
        """What the replicas answer."""
        return self._replicas


def test_accuracy_is_the_share_of_right_answers() -> None:
    """Two equal replicas that miss 36 of 360 images have 0.9."""
    digits = train_digits.load_digits()
    answers = digits.test_labels.copy()
    answers[:36] += 1
    group = cast("RayWorkerGroup", Answers(answers, answers.copy()))
    assert train_digits.tested(group, digits) == 0.9


def test_replicas_that_disagree_are_an_error() -> None:
    """Equal accuracy does not hide that two replicas hold different networks."""
    digits = train_digits.load_digits()
    first, second = digits.test_labels.copy(), digits.test_labels.copy()
    first[0] += 1
    second[1] += 1
    group = cast("RayWorkerGroup", Answers(first, second))
    with pytest.raises(TrainingError, match="replicas 0 and 1 disagree on 2 of 360 test images"):
        train_digits.tested(group, digits)


def test_the_images_are_shuffled_and_no_test_image_is_trained_on() -> None:
    """Training and test together are all images of the set, each once."""
    digits = train_digits.load_digits()
    both = np.concatenate([digits.images, digits.test_images])
    assert (both.shape, float(both.max())) == ((1797, 64), 1.0)
    assert len(digits.test_labels) == train_digits.TEST_ROWS
    assert set(digits.test_labels.tolist()) == set(range(10))


def test_the_predicted_plan_gives_each_rank_a_gpu_of_its_own() -> None:
    """With GPUs every rank sees all four of the node and has one of them."""
    plan = train_digits.predicted(use_gpus=True)
    assert plan.gpu_visibility is GpuVisibility.SHARED
    assert [worker.local_rank for worker in plan.workers] == [0, 1, 2, 3]
    assert {worker.visible for worker in plan.workers} == {("0", "1", "2", "3")}


def test_plan_only_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """``--plan-only`` prints both axes and all ranks, and ends well."""
    assert train_digits.main(["--plan-only"]) == 0
    printed = capsys.readouterr().out
    assert [f"digits-0-{rank}" in printed for rank in range(4)] == [True] * 4
    assert r"data_parallel \ tensor_parallel" in printed


def test_a_number_of_epochs_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """``--epochs 0`` is refused by the command line, with what would work."""
    with pytest.raises(SystemExit) as refused:
        train_digits.main(["--epochs", "0"])
    assert refused.value.code == 2
    assert "--epochs 0: give 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("program", [train_digits, train_digits_calls])
def test_four_ranks_learn(cluster_of_nodes: "Cluster", program: Any) -> None:
    """Three epochs on real processes: the loss falls, and both replicas hold the same network."""
    digits = train_digits.load_digits()
    mesh = to_device_mesh(train_digits.AXES)
    with (
        RayVirtualCluster([4], use_gpus=False) as cluster,
        RayWorkerGroup(
            cluster,
            RayWorkerBuilder(
                "examples.digits_worker.DigitsWorker", mesh.mesh, mesh.mesh_dim_names, "gloo"
            ),
            name_prefix="digits",
            sharding_annotations=train_digits.AXES,
        ) as group,
    ):
        losses = program.train(group, digits, 3, Console(quiet=True))
        assert losses[-1] < losses[0]
        # One digit in ten is guessed.
        assert program.tested(group, digits) > 0.5
        assert group.shutdown(cleanup_method="close")
