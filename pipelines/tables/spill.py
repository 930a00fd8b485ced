"""Provisional columns on disk between the two passes of fitting.

The first pass knows neither the final ids nor the scale of a number; it appends what it has, column by column, and
the second pass reads it back batch by batch. Plain reads and writes, so that nothing of it stays resident.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


class Spill:
    """A file of batches; each batch is a list of arrays with one dtype and width per position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._layout: list[tuple[np.dtype, tuple[int, ...]]] = []
        self._sizes: list[int] = []

    @property
    def rows(self) -> int:
        """Rows so far."""
        return sum(self._sizes)

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Write one batch."""
        self._layout = [(a.dtype, a.shape[1:]) for a in arrays]
        self._sizes.append(len(arrays[0]))
        for array in arrays:
            if array.size:
                self._file.write(memoryview(np.ascontiguousarray(array)).cast("B"))

    def read(self) -> Iterator[list[np.ndarray]]:
        """The batches again, in order; removes the file at the end."""
        self._file.close()
        with self._path.open("rb") as file:
            for size in self._sizes:
                yield [self._array(file, dtype, (size, *shape)) for dtype, shape in self._layout]
        self._path.unlink()

    def _array(self, file: object, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        return np.fromfile(file, dtype, count).reshape(shape)  # type: ignore[call-overload]
