"""A worker class whose results are tensors; tests of transports start it by name."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ray._private import worker

from planner.declare import dispatch
from planner.roles import AllByRank, Concatenate, PerShard, Reduce, Shard
from planner.slice_policies import Uneven

__all__ = ["TensorWorker"]


class TensorWorker:
    """One rank that makes tensors and says what it gets."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.mine = torch.zeros(0)

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Concatenate())
    def same(self, batch: Any) -> Any:
        """The rows as they came."""
        return batch

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Concatenate())
    def twice(self, batch: torch.Tensor) -> torch.Tensor:
        """Twice each row; the worker keeps what it returns."""
        self.mine = batch * 2
        return self.mine

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Concatenate())
    def twice_when(self, batch: torch.Tensor, path: str) -> torch.Tensor:
        """Twice each row, once a file is there."""
        self.wait_if(self.rank, path)
        return batch * 2

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=PerShard())
    def overwritten(self, batch: torch.Tensor) -> float:
        """Write to what was returned last; the sum of the rows."""
        self.mine.fill_(-1.0)
        return float(batch.sum())

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Concatenate())
    def kinds(self, batch: torch.Tensor) -> dict[str, Any]:
        """Tensors of many kinds, a row of each for each row."""
        rows = len(batch)
        return {
            "bfloat16": batch.to(torch.bfloat16),
            "fp8": batch.to(torch.float8_e4m3fn),
            "uint16": batch.to(torch.uint16),
            "bool": batch > 1,
            "columns": torch.arange(3.0 * rows).reshape(3, rows).t(),
            "complex": torch.complex(batch, -batch).conj(),
            "gradient": batch.clone().requires_grad_(),
            "words": [f"row {int(row)}" for row in batch],
            "array": batch.numpy().copy(),
        }

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=PerShard())
    def told(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Of each field its type, and its numbers as plain ones."""
        return {name: _told(value) for name, value in batch.items()}

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=AllByRank())
    def rows(self, batch: Any) -> list[Any]:
        """The rows that this rank got."""
        got: list[Any] = batch.tolist()
        return got

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Reduce("sum"))
    def total(self, batch: torch.Tensor) -> float:
        """The sum of the rows."""
        return float(batch.sum())

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=AllByRank())
    def placed(self, batch: torch.Tensor, /, scale: float) -> float:
        """The sum of the rows, which can't be given by name."""
        return float(batch.sum()) * scale

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=PerShard())
    def one_by_one(self, batch: torch.Tensor) -> Iterator[float]:
        """The rows one by one."""
        for row in batch:
            yield float(row)

    def fail(self, on: int) -> int:
        """Fail on one rank."""
        if self.rank == on:
            raise KeyError(f"rank {on} can't")
        return self.rank

    @dispatch(batch=Shard("data_parallel", Uneven()), returns=Concatenate())
    def failing(self, batch: torch.Tensor) -> torch.Tensor:
        """Fail on rank 0."""
        self.fail(0)
        return batch

    def wait_if(self, on: int, path: str) -> int:
        """Wait on one rank until a file is there."""
        while self.rank == on and not Path(path).exists():
            time.sleep(0.01)
        return self.rank

    def keeps_direct_objects(self) -> bool:
        """Whether Ray has made what it keeps of objects that are sent directly."""
        manager = worker.global_worker._rdt_manager
        return manager is not None and manager._rdt_store is not None

    def thread(self) -> str:
        """The name of the thread that runs methods."""
        return threading.current_thread().name

    def has_default_group(self) -> bool:
        """Whether the process has a default group of ``torch.distributed``."""
        return torch.distributed.is_initialized()

    def make_default_group(self) -> int:
        """Make the process's default group, as trainers do."""
        torch.distributed.init_process_group("gloo")
        return torch.distributed.get_world_size()


def _told(value: Any) -> tuple[str, Any]:
    if isinstance(value, torch.Tensor):
        plain = value.detach()
        return str(value.dtype), [complex(row) for row in plain.reshape(-1)]
    return type(value).__name__, list(value)
