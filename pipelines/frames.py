"""Small tables read whole: columns to arrays, with errors that name the table and the row.

Rows count from 1, a header apart, as a spreadsheet's reader would count them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from graphrec.errors import DataError, SchemaError

from .tables import open_table


def read_frame(data: Any, name: str) -> tuple[pl.DataFrame, str]:
    """All rows of a table, and what messages call it.

    Args:
        data: Whatever `open_table` takes; besides, a polars DataFrame without rows.
        name: Used when the data has no path of its own.

    Raises:
        DataError: Nothing readable is there.
    """
    if isinstance(data, pl.DataFrame):
        return data, name
    table = open_table(data, name if not _is_path(data) else None)
    return table.collect(table.lazy), table.name


def _is_path(data: Any) -> bool:
    first = data[0] if isinstance(data, list | tuple) and data else data
    return isinstance(first, str) or hasattr(first, "__fspath__") or hasattr(data, "lazy")


def need(frame: pl.DataFrame, name: str, columns: Sequence[str], argument: str = "") -> None:
    """Refuse a table that lacks one of the columns.

    Raises:
        SchemaError: Names the first missing column and the nearest one, or all there are.
    """
    for column in columns:
        if column not in frame.columns:
            close = difflib.get_close_matches(column, frame.columns, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(frame.columns)}"
            told = f" (argument {argument})" if argument else ""
            raise SchemaError(f"{name}: column {column!r}{told} is missing; {hint}")


def id_column(frame: pl.DataFrame, column: str, name: str) -> pl.Series:
    """A column of ids: whole numbers from 0 up, or text.

    Returns:
        The column as Int64 or String.

    Raises:
        SchemaError: It has another type.
        DataError: It holds a null or a negative number.
    """
    need(frame, name, [column])
    ids = frame[column]
    if isinstance(ids.dtype, pl.Categorical | pl.Enum):
        ids = ids.cast(pl.String)
    if frame.height == 0 and not ids.dtype.is_integer() and ids.dtype != pl.String:
        ids = ids.cast(pl.Int64)
    if not ids.dtype.is_integer() and ids.dtype != pl.String:
        raise SchemaError(f"{name}: column {column!r} is {ids.dtype}; ids must be whole numbers or text")
    refuse_rows(ids.is_null(), name, f"column {column!r} is empty", "give every row an id")
    if not ids.dtype.is_integer():
        return ids
    refuse_rows(ids < 0, name, f"column {column!r} holds a negative id", "number from 0 up", values=ids)
    return ids.cast(pl.Int64)


def refuse_rows(bad: pl.Series, name: str, found: str, remedy: str, values: pl.Series | None = None) -> None:
    """Raise for the first row that is True, and say how many more there are.

    Raises:
        DataError: ``{name}: row {n}: {found}; {remedy}``.
    """
    rows = bad.fill_null(True).arg_true()
    if not len(rows):
        return
    first = int(rows[0])
    value = f" ({values[first]!r})" if values is not None else ""
    more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
    raise DataError(f"{name}: row {first + 1}{more}: {found}{value}; {remedy}")


def positions(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Where each id stands in ``known``, Int64; null where it does not."""
    if ids.dtype != known.dtype and not (ids.dtype.is_integer() and known.dtype.is_integer()):
        ids, known = ids.cast(pl.String), known.cast(pl.String)
    index = pl.DataFrame({"id": known}).with_row_index("at")
    found = pl.DataFrame({"id": ids}).join(index, on="id", how="left", maintain_order="left")
    return found["at"].cast(pl.Int64)


def number_columns(frame: pl.DataFrame, leave_out: Sequence[str]) -> list[str]:
    """Columns of numbers, booleans or lists of numbers, in order, without those named."""
    return [c for c, t in frame.schema.items() if c not in leave_out and _is_number(t)]


def _is_number(kind: Any) -> bool:
    inner = getattr(kind, "inner", None) if isinstance(kind, pl.List | pl.Array) else kind
    return inner is not None and (inner.is_numeric() or inner == pl.Boolean)


def matrix(frame: pl.DataFrame, columns: Sequence[str], name: str) -> np.ndarray:
    """Columns of numbers, side by side; a column of lists gives as many as its lists are long.

    Returns:
        float32 (rows, width).

    Raises:
        SchemaError: A column is missing or holds no numbers.
        DataError: A value is null, NaN or infinite, or lists differ in length.
    """
    need(frame, name, columns)
    parts = [_numbers(frame[c], name) for c in columns]
    return np.concatenate(parts, axis=1) if parts else np.zeros((frame.height, 0), np.float32)


def _numbers(column: pl.Series, name: str) -> np.ndarray:
    if not _is_number(column.dtype):
        raise SchemaError(
            f"{name}: column {column.name!r} is {column.dtype}; features must be numbers or lists of them"
        )
    if isinstance(column.dtype, pl.List | pl.Array):
        values = _lists(column, name)
    else:
        values = column.cast(pl.Float32).to_numpy().reshape(-1, 1)
    bad = ~np.isfinite(values).all(axis=1)
    refuse_rows(
        pl.Series(bad) | column.is_null(),
        name,
        f"column {column.name!r} is null, NaN or infinite",
        "fill it or leave the column out",
    )
    return values


def _lists(column: pl.Series, name: str) -> np.ndarray:
    lists = column.cast(pl.List(pl.Float32))
    lengths = lists.list.len()
    width = int(lengths.max() or 0) if len(lists) else 0  # type: ignore[arg-type]
    refuse_rows(
        lengths.fill_null(-1) != width,
        name,
        f"column {column.name!r} holds a list that is not {width} long",
        "make all lists equally long",
    )
    flat = lists.explode() if width else pl.Series(dtype=pl.Float32)
    return flat.fill_null(float("nan")).to_numpy().reshape(len(lists), width)


def class_codes(column: pl.Series, name: str, *, unlabelled: bool = False) -> tuple[np.ndarray, list[Any]]:
    """Labels as codes of their sorted values.

    Args:
        column: Whole numbers, booleans or text.
        name: Of the table.
        unlabelled: Whether null (or NaN, or text without a letter) is allowed; it becomes -1.

    Returns:
        int64 (rows,), and the classes, whole numbers, booleans or text as the labels are: numbers in their
        order, text in that of the alphabet.

    Raises:
        SchemaError: The labels are fractions or of another type.
        DataError: A label is missing.
    """
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype.is_float():  # pandas has whole numbers with gaps so
        known = column.fill_nan(None)
        column = known.cast(pl.Int64) if bool((known.drop_nulls() % 1 == 0).all()) else known
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Boolean)):
        raise SchemaError(
            f"{name}: column {column.name!r} is {column.dtype}; classes must be whole numbers, true/false "
            "or text"
        )
    if column.dtype == pl.String:
        column = column.set(column.str.strip_chars() == "", None)
    if not unlabelled:
        refuse_rows(
            column.is_null(), name, f"column {column.name!r} has no label", "label it or leave the row out"
        )
    values = column.drop_nulls().unique().sort()
    codes = positions(column, values).fill_null(-1).to_numpy()
    return codes.astype(np.int64), values.to_list()
