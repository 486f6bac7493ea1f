"""A frozen sequence of whole numbers that stays small and quick at a million entries."""

# Why not tuple[int, ...]: a million distinct ints take 40 MB, and every comparison, hash or pickle
# walks a million objects. Why not a numpy array: it is mutable, `==` gives an array, and it has no
# hash. Bytes are immutable, compare by memcmp, keep their hash, and numpy reads them in place. The
# byte order is fixed, so that a plan is the same bytes on every machine.

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

__all__ = ["Indices"]

_DTYPE = np.dtype("<i8")


@frozen(repr=False)
class Indices:
    """A frozen sequence of whole numbers: equal by value, hashable, 8 bytes an entry.

    As plain data it is the list that ``tolist`` gives; ``Indices.of`` reads it back.

    Attributes:
        packed: The numbers as little-endian 64-bit integers, one after the other.
    """

    packed: bytes = field(default=b"")

    @classmethod
    def of(cls, numbers: "Iterable[int] | npt.NDArray[np.int64]") -> Self:
        """The given numbers in the given order."""
        listed = numbers if isinstance(numbers, np.ndarray) else list(numbers)
        return cls(np.asarray(listed, dtype=_DTYPE).tobytes())

    @property
    def array(self) -> npt.NDArray[np.int64]:
        """The numbers as a read-only array of one dimension, without a copy."""
        return np.frombuffer(self.packed, dtype=_DTYPE)

    def tolist(self) -> list[int]:
        """The numbers as a new list of plain ints."""
        listed: list[int] = self.array.tolist()
        return listed

    def as_slice(self) -> "slice[int, int, int] | None":
        """The same indices as a ``slice`` with a positive step, or None where there is none.

        Indexing an array or tensor by a slice gives a view, by a list of indices a copy.
        """
        array = self.array
        if array.size < 2:
            start = int(array[0]) if array.size else 0
            return slice(start, start + array.size, 1)
        step = int(array[1] - array[0])
        if step < 1 or not bool(np.all(array[1:] - array[:-1] == step)):
            return None
        return slice(int(array[0]), int(array[-1]) + 1, step)

    def __len__(self) -> int:
        return len(self.packed) // _DTYPE.itemsize

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def __getitem__(self, index: int) -> int:
        return int(self.array[index])

    def __repr__(self) -> str:
        shown = ", ".join(str(number) for number in self.array[:8].tolist())
        return f"Indices([{shown}{f', ... {len(self)} in all' if len(self) > 8 else ''}])"
