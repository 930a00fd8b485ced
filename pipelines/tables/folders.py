"""Columns that are folders, as many tools write them: rows of ``year=2024/part.csv`` have the year 2024."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    import polars as pl

_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_columns(files: Sequence[str]) -> list[str]:
    """Names of ``key=value`` folders on the way to the files, in order."""
    parts = [p.split("=", 1)[0] for p in Path(files[0]).parent.parts if "=" in p[1:]]
    return list(dict.fromkeys(parts)) if all(all(f"{k}=" in f for k in parts) for f in files) else []


def folder_values(
    files: Sequence[str], header: Sequence[str]
) -> tuple[dict[str, pl.DataType], dict[str, dict[str, Any]]]:
    """The columns that the folders of CSV files say, with the types that polars gives those of parquet files.

    Args:
        files: Paths.
        header: Columns that the files have themselves, which come first.

    Returns:
        Name to type, and path to name to value; both empty where no folder says anything.
    """
    names = [name for name in folder_columns(files) if name not in header]
    columns = {name: _typed([_text(path, name) for path in files]) for name in names}
    values = {path: {n: c[i] for n, c in columns.items()} for i, path in enumerate(files)} if names else {}
    return {name: column.dtype for name, column in columns.items()}, values


def _text(path: str, name: str) -> str | None:
    part = next(p for p in Path(path).parent.parts if p.startswith(f"{name}="))
    text = unquote(part.split("=", 1)[1])
    return None if text == _NULL else text


def _typed(texts: Sequence[str | None]) -> pl.Series:
    """Whole numbers, numbers or dates if all are, else text."""
    import polars as pl

    values = pl.Series(texts, dtype=pl.String)
    for typed in (
        values.cast(pl.Int64, strict=False),
        values.cast(pl.Float64, strict=False),
        values.str.to_date("%Y-%m-%d", strict=False),
    ):
        if typed.null_count() == values.null_count():
            return typed
    return values
