"""Provisional columns on disk between the two passes of fitting.

The first pass knows neither the final ids nor the scale of a number; it appends what it has, column by
column, and the second pass reads it back batch by batch. Plain reads and writes: nothing stays resident.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


def _narrow(array: np.ndarray) -> np.ndarray:
    """Codes in two bytes where they fit: the spill is written and read once, so its size is its cost."""
    if array.dtype == np.int32 and array.max(initial=0) < 1 << 16:
        return array.astype(np.uint16)
    return array


class Spill:
    """A file of batches; each batch is a list of arrays. Codes (int32) may come back as uint16."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._batches: list[list[tuple[np.dtype, tuple[int, ...]]]] = []

    @property
    def rows(self) -> int:
        """Rows so far."""
        return sum(batch[0][1][0] for batch in self._batches)

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Write one batch."""
        arrays = [_narrow(a) for a in arrays]
        self._batches.append([(a.dtype, a.shape) for a in arrays])
        for array in arrays:
            if array.size:
                self._file.write(np.ascontiguousarray(array).data.cast("B"))

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def read(self) -> Iterator[list[np.ndarray]]:
        """The batches again, in order; removes the file at the end."""
        self.close()
        with self._path.open("rb") as file:
            for batch in self._batches:
                yield [self._array(file, dtype, shape) for dtype, shape in batch]
        self._path.unlink()

    def _array(self, file: object, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        return np.fromfile(file, dtype, count).reshape(shape)  # type: ignore[call-overload]
