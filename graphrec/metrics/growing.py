"""Arrays of a whole evaluation, collected batch by batch in one block of memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .arrays import Array


class GrowingArray:
    """Rows that are appended, in one array whose capacity doubles.

    A list of the batches' arrays would keep each of them where the heap had room among the temporaries of
    its batch. What is freed around it may be a few bytes too small for those of the next batch, which then
    take new memory: the heap grew with the rows, by memory that held nothing.
    """

    def __init__(self) -> None:
        self._block: Array | None = None
        self._rows = 0

    def __len__(self) -> int:
        """Rows so far."""
        return self._rows

    def append(self, values: Array) -> None:
        """Copy rows to the end.

        Args:
            values: (n, ...).

        Raises:
            ValueError: Their dtype or row shape is not that of the first ones.
        """
        kind = (values.dtype, values.shape[1:])
        if self._block is not None and kind != (self._block.dtype, self._block.shape[1:]):
            raise ValueError(
                f"rows of {values.dtype} {values.shape[1:]} after {self._block.dtype} {self._block.shape[1:]}"
            )
        end = self._rows + len(values)
        if self._block is None or end > len(self._block):
            capacity = end if self._block is None else max(end, 2 * len(self._block))
            block = np.empty((capacity, *values.shape[1:]), values.dtype)
            if self._block is not None:
                block[: self._rows] = self._block[: self._rows]
            self._block = block
        self._block[self._rows : end] = values
        self._rows = end

    @property
    def array(self) -> Array:
        """All rows (N, ...), a view that further rows leave as it is.

        Raises:
            ValueError: Nothing was appended yet, so neither dtype nor shape are known.
        """
        if self._block is None:
            raise ValueError("nothing was appended yet")
        return self._block[: self._rows]


def collect(batches: Iterator[Any]) -> tuple[Array | None, list[int]]:
    """All rows of the arrays, None without any, and how many rows each had."""
    rows, counts = GrowingArray(), []
    for values in batches:
        rows.append(values)
        counts.append(len(values))
    return (rows.array if counts else None), counts
