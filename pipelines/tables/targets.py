"""Labels, weights and groups: the columns that a loss and a metric need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import DataError

from .schema import Column, Scalar, TableSchema
from .values import as_floats, factorize, stable_hash

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def class_text(value: Scalar) -> str:
    """The string that a class is compared by."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def class_lookup(classes: Sequence[Scalar]) -> dict[str, float]:
    """Strings that mean the negative (0.0) and the positive (1.0) class."""
    texts = [class_text(c) for c in classes]
    known = {texts[0]: 0.0, texts[1]: 1.0}
    if set(texts) <= {"0", "1", "false", "true"}:
        known |= {"0": known.get("0", known.get("false", 0.0)), "1": known.get("1", known.get("true", 1.0))}
        known |= {"false": known["0"], "true": known["1"]}
    return known


def order_classes(values: Sequence[Any]) -> tuple[Scalar, Scalar]:
    """The two values with the positive one last: the larger number, True, or the last in the alphabet."""
    low, high = sorted(values, key=_sort_key)
    return low, high


def _sort_key(value: Any) -> tuple[int, Any]:
    try:
        return 0, value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return 1, str(value)


def encode_label(array: pa.Array, column: Column, where: str) -> np.ndarray:
    """(n,) float32 label in {0, 1}, NaN for null.

    Raises:
        DataError: It holds a value that is none of the two classes.
    """
    assert column.classes is not None, "a label without classes"
    factor = factorize(array)
    known = class_lookup(column.classes)
    lookup = np.full(len(factor.values) + 1, np.nan, np.float32)
    for i, text in enumerate(factor.values.to_list()):
        if text is not None and text not in known:
            rows = int((factor.codes == i).sum())
            if rows:
                raise DataError(unknown_class(where, column, text, rows))
        lookup[i] = np.nan if text is None else known.get(text, np.nan)
    return lookup[factor.codes]


def unknown_class(where: str, column: Column, value: str, rows: int) -> str:
    """The message for a label value that is none of the two classes."""
    low, high = column.classes or ("?", "?")
    return (
        f"{where}: label column {column.name!r} holds {value!r} in {rows} rows; "
        f"expected the two values {low!r} and {high!r}"
    )


def encode_weight(array: pa.Array, name: str, where: str) -> np.ndarray:
    """(n,) float32 weights.

    Raises:
        DataError: A weight is negative, missing or infinite.
    """
    values, bad = as_floats(array)
    if bad is not None:
        raise DataError(
            f"{where}: weight column {name!r} has text such as {bad.example!r}; weights are numbers"
        )
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        raise DataError(bad_weight(where, name, float(values[wrong][0]), int(wrong.sum())))
    return values.astype(np.float32)


def one_class(where: str, name: str, classes: tuple[Scalar, Scalar], positive: bool) -> str:
    """The message for training rows of one class."""
    found, other = classes[::-1] if positive else classes
    return (
        f"{where}: label column {name!r} has only {found!r} in the training rows, never {other!r}; "
        "check the file and the split"
    )


def bad_weight(where: str, name: str, example: float, rows: int) -> str:
    """The message for weights that cannot be used."""
    found = "missing (null or NaN)" if np.isnan(example) else f"{example:g}"
    return (
        f"{where}: weight column {name!r} is {found} in {rows} rows; weights must be finite and not negative"
    )


def encode_group(array: pa.Array) -> np.ndarray:
    """(n,) int64 group ids: a stable hash of the value, on which all files agree; null is 0."""
    factor = factorize(array)
    hashes = stable_hash(factor.values).astype(np.int64)
    return np.append(hashes, np.int64(0))[factor.codes]


class Targets:
    """Encodes labels, weights and groups of a batch.

    Args:
        schema: Which columns they are.
        columns: Columns that the table has; groups and weights are left out when absent.
        require_labels: Whether labels must be there; otherwise missing ones become NaN. None leaves labels,
            weights and groups unread: a prediction needs none, whatever they hold.
        where: Name of the table, for messages.
    """

    def __init__(
        self, schema: TableSchema, columns: Sequence[str], require_labels: bool | None, where: str
    ) -> None:
        have = set(columns if require_labels is not None else ())
        self.labels = [schema[c] for c in schema.labels]
        self.have_labels = bool(require_labels) or (
            bool(self.labels) and all(c.name in have for c in self.labels)
        )
        self.weight = schema.weight if schema.weight in have else None
        self.group = schema.group if schema.group in have else None
        self.where = where

    @property
    def columns(self) -> list[str]:
        """Columns to read."""
        labels = [c.name for c in self.labels] if self.have_labels else []
        return [*labels, *(c for c in (self.weight, self.group) if c is not None)]

    def encode(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """(n, T) labels, (n,) weights or None, (n,) groups or None."""
        labels = np.full((batch.num_rows, len(self.labels)), np.nan, np.float32)
        if self.have_labels:
            for i, column in enumerate(self.labels):
                labels[:, i] = encode_label(batch.column(column.name), column, self.where)
        weights = (
            None if self.weight is None else encode_weight(batch.column(self.weight), self.weight, self.where)
        )
        groups = None if self.group is None else encode_group(batch.column(self.group))
        return labels, weights, groups


def distinct_text(series: pl.Series) -> list[str | None]:
    """Distinct values as strings, null included."""
    from .values import text_of

    return text_of(series).unique(maintain_order=True).to_list()
