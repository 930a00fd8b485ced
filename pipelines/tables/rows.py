"""Moving encoded rows about: columns to a matrix, parts to spills, blocks to batches of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphrec.errors import DataError

from .schema import TableSchema
from .shards import Block, concatenate
from .spill import Spill
from .splits import PART_NAMES
from .targets import one_class

_SLICE = 8192
"""Rows that are interleaved at a time: their ids fit the second-level cache."""


def interleave(columns: Sequence[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
    """(rows, len(columns)) row-major matrix of the columns."""
    out = np.empty((rows, len(columns)), dtype)
    for start in range(0, rows if columns else 0, _SLICE):
        stop = min(start + _SLICE, rows)
        for j, column in enumerate(columns):
            out[start:stop, j] = column[start:stop]
    return out


def spill_parts(arrays: list[np.ndarray], parts: np.ndarray, spills: dict[str, Spill], work: Path) -> None:
    for code, name in enumerate(PART_NAMES):
        rows = np.flatnonzero(parts == code)
        if not len(rows):
            continue
        if name not in spills:
            spills[name] = Spill(work / f"{name}.spill")
        whole = len(rows) == len(parts)
        spills[name].append(arrays if whole else [a[rows] for a in arrays])


def rebatch(blocks: Iterator[Block], size: int) -> Iterator[Block]:
    """Blocks of exactly ``size`` rows (the last one may be shorter), in order."""
    waiting: list[Block] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count < size:
            continue
        merged, start = concatenate(waiting), 0
        while count - start >= size:
            yield merged.rows(start, start + size)
            start += size
        waiting = [merged.rows(start, count)] if start < count else []
        count -= start
    if count:
        yield concatenate(waiting)


class Classes:
    """Which classes of each label the training rows have."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.negative = np.zeros(len(labels), bool)
        self.positive = np.zeros(len(labels), bool)

    def update(self, labels: np.ndarray) -> None:
        self.negative |= (labels == 0).any(0)
        self.positive |= (labels == 1).any(0)

    def refuse_one_class(self, schema: TableSchema, where: str) -> None:
        for i, name in enumerate(schema.labels):
            classes = schema[name].classes or (0, 1)
            if not (self.negative[i] and self.positive[i]):
                raise DataError(one_class(where, name, classes, positive=bool(self.positive[i])))
