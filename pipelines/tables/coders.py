"""Coders: one per field, from an Arrow column to ids or floats; here those of categories and lists.

Each works in two modes. While fitting, `fit` turns a batch into provisional values (and learns from the
training rows), `finish` fixes what was learned, and `final` turns provisional values into final ones.
Afterwards `encode` goes from a batch to final values at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphrec.errors import SchemaError

from .features import Field, FieldKind
from .schema import Column, Role
from .values import Factor, factorize, flatten, pad
from .vocabulary import Codebook

if TYPE_CHECKING:
    import pyarrow as pa

Rows = np.ndarray | None
"""Indices of the training rows of a batch; None when all are."""


class Coder(Protocol):
    """See the module's docstring."""

    column: Column

    def fit(self, array: pa.Array, train: Rows) -> np.ndarray: ...
    def finish(self) -> None: ...
    def final(self, raw: np.ndarray) -> np.ndarray: ...
    def encode(self, array: pa.Array) -> np.ndarray: ...
    def field(self) -> Field: ...
    def counts(self) -> np.ndarray: ...
    def state(self) -> dict[str, Any]: ...


def quotient_of(column: Column, size: int) -> int:
    """Number of remainders of quotient-remainder compression, 0 without it."""
    if column.quotient_remainder is False:
        return 0
    if column.quotient_remainder is True:
        return max(1, int(np.ceil(np.sqrt(size))))
    return int(column.quotient_remainder)


class CategoryCoder:
    """A categorical column to ids."""

    def __init__(self, column: Column, book: Codebook) -> None:
        self.column, self.book = column, book

    def fit(self, array: pa.Array, train: Rows) -> np.ndarray:
        """(n,) int32 provisional codes; counts the training rows."""
        factor = factorize(array)
        lookup = self.book.codes(factor)
        rows = factor.codes if train is None else factor.codes[train]
        self.book.count(lookup, np.bincount(rows, minlength=len(lookup)))
        return lookup[factor.codes]

    def finish(self) -> None:
        """Fix the vocabulary."""
        self.book.finish()

    def final(self, raw: np.ndarray) -> np.ndarray:
        """(n,) int32 ids of provisional codes."""
        return self.book.ids(raw)

    def encode(self, array: pa.Array) -> np.ndarray:
        """(n,) int32 ids."""
        factor = factorize(array)
        return self.book.codes(factor)[factor.codes]

    def field(self) -> Field:
        """The encoded field."""
        size = self.book.vocabulary.size
        quotient = quotient_of(self.column, size)
        vocabulary = self.book.vocabulary.name
        return Field(self.column.name, FieldKind.CATEGORICAL, size, vocabulary=vocabulary, quotient=quotient)

    def counts(self) -> np.ndarray:
        """(size,) int64 training rows by id."""
        return self.book.vocabulary.counts

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs besides the vocabulary."""
        return {}


class ListCoder(CategoryCoder):
    """A list column, or strings with a separator, to ids padded with 0 on the right."""

    def __init__(self, column: Column, book: Codebook, width: int | None = None) -> None:
        super().__init__(column, book)
        self.width = width
        self._longest = 1

    @property
    def _keep(self) -> str:
        return "last" if self.column.role is Role.SEQUENCE else "first"

    def _local(self, array: pa.Array) -> tuple[np.ndarray, Factor]:
        """(n, max_length) codes into distinct items, 1 more than the factor's, and the items' factor."""
        if not _is_list(array):
            return self._split(factorize(array))
        lengths, factor = flatten(array)
        return pad(factor.codes + 1, lengths, self.column.max_length, keep=self._keep), factor

    def _split(self, rows: Factor) -> tuple[np.ndarray, Factor]:
        import polars as pl

        separator = self.column.separator
        if separator is None:
            raise SchemaError(
                f"column {self.column.name!r} holds text, not lists; give it a separator or another role"
            )
        parts = rows.values.str.split(separator).fill_null(pl.Series([[]], dtype=pl.List(pl.String)))
        parts = parts.list.eval(pl.element().str.strip_chars().filter(pl.element().str.strip_chars() != ""))
        lengths = np.append(parts.list.len().to_numpy(), 0).astype(np.int64)
        items = parts.explode(empty_as_null=False).rename("item")
        factor = factorize(_to_arrow(items))
        table = pad(factor.codes + 1, lengths, self.column.max_length, keep=self._keep)
        return table[rows.codes], factor

    def fit(self, array: pa.Array, train: Rows) -> np.ndarray:
        """(n, max_length) int32 provisional codes; counts the training rows."""
        local, factor = self._local(array)
        lookup = np.concatenate([np.zeros(1, np.int32), self.book.codes(factor)])
        seen = local if train is None else local[train]
        times = np.bincount(seen.ravel(), minlength=len(lookup))
        self.book.count(lookup[1:], times[1:])
        used = np.flatnonzero(seen.any(0)) if len(seen) else np.zeros(0)
        self._longest = max(self._longest, int(used[-1]) + 1 if len(used) else 1)
        return lookup[local]

    def finish(self) -> None:
        """Fix the vocabulary, and the length to the longest training row."""
        super().finish()
        self.width = self._longest

    def final(self, raw: np.ndarray) -> np.ndarray:
        """(n, width) int32 ids of provisional codes."""
        return self.book.ids(self._cut(raw))

    def _cut(self, raw: np.ndarray) -> np.ndarray:
        """Narrow to the width that was learned: drop the first items of a longer sequence."""
        width = self.width or 1
        if self._keep == "first" or not raw[:, width:].any():
            return np.ascontiguousarray(raw[:, :width])
        lengths = (raw != 0).sum(1)
        start = np.maximum(lengths - width, 0)
        return np.take_along_axis(raw, start[:, None] + np.arange(width), axis=1)

    def encode(self, array: pa.Array) -> np.ndarray:
        """(n, width) int32 ids."""
        local, factor = self._local(array)
        lookup = np.concatenate([np.zeros(1, np.int32), self.book.codes(factor)])
        return lookup[self._cut(local)]

    def field(self) -> Field:
        """The encoded field."""
        size = self.book.vocabulary.size
        return Field(
            self.column.name,
            FieldKind.SEQUENCE if self.column.role is Role.SEQUENCE else FieldKind.MULTI,
            size,
            length=self.width or 1,
            pooling=self.column.pooling,
            vocabulary=self.book.vocabulary.name,
            quotient=quotient_of(self.column, size),
        )

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs besides the vocabulary."""
        return {"width": self.width}


def _is_list(array: pa.Array) -> bool:
    import pyarrow as pa

    kind = array.type
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_null(kind)
    )


def _to_arrow(series: Any) -> pa.Array:
    import polars as pl
    import pyarrow as pa

    array = series.to_arrow(compat_level=pl.CompatLevel.newest())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
