"""The worker of the benchmarks of whole batches: what it does costs the same on every side."""

import numpy as np
import numpy.typing as npt

__all__ = ["BatchWorker"]

Rows = npt.NDArray[np.float64]


class BatchWorker:
    """Takes rows, and gives rows."""

    def step(self, batch: Rows) -> Rows:
        """The rows again."""
        return batch

    def read(self, batch: Rows) -> float:
        """One number of all rows."""
        return float(batch[:, 0].sum())
