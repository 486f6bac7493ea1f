"""A worker that trains one rank's share of a small network on images of digits.

It is a plain class. Its decorators say what becomes of a whole batch (train_digits_calls.py). They
set an attribute and change nothing else; train_digits.py, which cuts batches by hand, needs none.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from planner.declare import dispatch
from planner.roles import AllByRank, Reduce, Replicate, Shard
from planner.slice_policies import Uneven

__all__ = ["DigitsWorker"]

PIXELS, CLASSES = 64, 10
WIDTH, SPLIT_WIDTH = 64, 256
LEARNING_RATE = 3e-3
SEED = 0
WAIT_FOR_OTHERS = timedelta(seconds=60)
SLICE = Shard("data_parallel", Uneven())

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class DigitsWorker:
    """One rank: a slice of the network, and the process groups it trains it with.

    Args:
        mesh: The ranks of all workers as nested sequences, one level per axis.
        axis_names: One name per axis, outermost first.
        backend: ``"gloo"`` on CPUs, ``"nccl"`` on GPUs.
    """

    def __init__(self, mesh: Sequence[Any], axis_names: Sequence[str], backend: str) -> None:
        torch.set_num_threads(1)
        self._device = _device(backend)
        # RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are in the environment.
        dist.init_process_group(backend, timeout=WAIT_FOR_OTHERS)
        # The explicit ranks say who is whose neighbour, also for a permuted layout.
        groups = DeviceMesh(self._device.type, torch.tensor(mesh), mesh_dim_names=tuple(axis_names))
        self._data_group = groups.get_group("data_parallel")
        self._network = _network(groups.get_group("tensor_parallel")).to(self._device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)

    @dispatch(images=SLICE, labels=SLICE, returns=Reduce("mean"))
    def train_step(self, images: Images, labels: Labels) -> float:
        """Take one step on this replica's slice of a batch; gives the slice's mean loss."""
        self._optimizer.zero_grad()
        scores = self._network(self._tensor(images))
        loss = nn.functional.cross_entropy(scores, self._tensor(labels))
        torch.autograd.backward(loss)
        self._average_gradients()
        self._optimizer.step()
        return loss.item()

    @dispatch(images=Replicate(), returns=AllByRank())
    def predict(self, images: Images) -> Labels:
        """The most likely digit of each image."""
        with torch.no_grad():
            predicted: Labels = self._network(self._tensor(images)).argmax(dim=1).cpu().numpy()
        return predicted

    def close(self) -> None:
        """Leave the process groups, all ranks together."""
        dist.destroy_process_group()

    def _average_gradients(self) -> None:
        """Give every replica the mean gradient, in one message for all parameters."""
        gradients = [each.grad for each in self._network.parameters() if each.grad is not None]
        mean = torch.cat([each.flatten() for each in gradients])
        dist.all_reduce(mean, group=self._data_group)
        mean /= self._data_group.size()
        parts = torch.split(mean, [each.numel() for each in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _tensor(self, values: Images | Labels) -> Tensor:
        # A copy: arrays come out of Ray's store read-only.
        return torch.tensor(values, device=self._device)


class ColumnParallelLinear(nn.Module):
    """A linear layer whose outputs are split: each rank computes its own part of them."""

    def __init__(self, whole: nn.Linear, group: dist.ProcessGroup) -> None:
        super().__init__()
        self._group = group
        self._weight = _part(whole.weight, 0, group)
        self._bias = _part(whole.bias, 0, group)

    def forward(self, inputs: Tensor) -> Tensor:
        """This rank's part of the outputs."""
        shared = _sum_in_backward(inputs, self._group)
        return nn.functional.linear(shared, self._weight, self._bias)


class RowParallelLinear(nn.Module):
    """A linear layer whose inputs are split: the ranks' partial outputs are added up."""

    def __init__(self, whole: nn.Linear, group: dist.ProcessGroup) -> None:
        super().__init__()
        self._group = group
        self._weight = _part(whole.weight, 1, group)
        self._bias = nn.Parameter(whole.bias.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """The whole outputs, from this rank's part of the inputs."""
        partial = nn.functional.linear(inputs, self._weight)
        return _sum_in_forward(partial, self._group) + self._bias


class _SumInBackward(torch.autograd.Function):
    """Forward: nothing. Backward: the sum over the group, since every rank used the inputs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed(gradients[0], ctx.group), None


class _SumInForward(torch.autograd.Function):
    """Forward: the sum over the group. Backward: nothing, since a sum hands its gradient on."""

    @staticmethod
    def forward(_: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _summed(values, group)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


_sum_in_backward: Callable[[Tensor, dist.ProcessGroup], Tensor] = _SumInBackward.apply
_sum_in_forward: Callable[[Tensor, dist.ProcessGroup], Tensor] = _SumInForward.apply


def _network(tensor_group: dist.ProcessGroup) -> nn.Module:
    """One layer that every rank holds whole, then two that are split over the group.

    All ranks draw the same whole weights and keep their own part, so the network is the same
    one for any number of ranks.
    """
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Linear(PIXELS, WIDTH),
        nn.ReLU(),
        ColumnParallelLinear(nn.Linear(WIDTH, SPLIT_WIDTH), tensor_group),
        nn.ReLU(),
        RowParallelLinear(nn.Linear(SPLIT_WIDTH, CLASSES), tensor_group),
    )


def _part(whole: Tensor, dim: int, group: dist.ProcessGroup) -> nn.Parameter:
    if whole.shape[dim] % group.size():
        raise ValueError(f"{whole.shape[dim]} features cannot be split over {group.size()} ranks")
    return nn.Parameter(whole.detach().chunk(group.size(), dim)[group.rank()].clone())


def _summed(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def _device(backend: str) -> torch.device:
    if backend != "nccl":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device
