"""Opening: from a path, a glob, a directory, an address or rows in memory to a checked `Table`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphrec.errors import DataError, SchemaError

from . import files as _files
from .arrow_types import refuse_arrow_type
from .csv_reader import guess_types
from .folders import folder_columns, folder_values
from .sources import Table

if TYPE_CHECKING:
    import polars as pl

_HUGE = "holds numbers too large for any type of a table; write them as text"


def open_table(data: Any, name: str | None = None) -> Table:
    """Open rows for reading, whatever they are in.

    Args:
        data: A path, a glob, a directory or a cloud address of parquet, CSV/TSV or Arrow IPC files, or a list
            of paths; a polars LazyFrame or DataFrame; a pandas DataFrame; an Arrow table, record batch or
            reader; a mapping from names to arrays; or a `Table`.
        name: What messages call it; the path by default.

    Raises:
        DataError: Nothing readable is there, or it holds no rows.
        SchemaError: Column names occur twice, or files of one table differ in their columns.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, str | os.PathLike):
        return _open_paths([os.fspath(data)], name or os.fspath(data))
    if isinstance(data, list | tuple) and data and all(isinstance(p, str | os.PathLike) for p in data):
        paths = [os.fspath(p) for p in data]
        return _open_paths(
            paths, name or (paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more")
        )
    return _open_memory(data, name)


def _open_paths(paths: list[str], name: str) -> Table:
    urls = [p for p in paths if _files.is_url(p)]
    if urls and len(urls) != len(paths):
        raise DataError(f"{name}: local paths and addresses are mixed; give one sort")
    if urls:
        return _open_urls(urls, name)
    found = list(dict.fromkeys(f for p in paths for f in _files.find(p)))
    kind = _files.common_format(found)
    if len(found) == 1:
        name = found[0]
    opener = {_files.PARQUET: _open_parquet, _files.CSV: _open_csv, _files.IPC: _open_ipc}[kind]
    return opener(found, name)


def _open_urls(urls: list[str], name: str) -> Table:
    import polars as pl

    kind = _files.format_of(urls[0].split("?", 1)[0])
    if kind == _files.CSV:
        return _from_lazy(pl.scan_csv(urls), name)
    return _from_lazy(pl.scan_ipc(urls) if kind == _files.IPC else pl.scan_parquet(urls), name)


def _open_parquet(files: list[str], name: str) -> Table:
    import polars as pl

    schema, total = _files.parquet_schema(files[0])
    _refuse_types(schema, files[0])
    first = {f.name: str(f.type) for f in schema}
    for path in files[1:]:
        other, rows = _files.parquet_schema(path)
        _files.refuse_differences(first, {f.name: str(f.type) for f in other}, files[0], path)
        total += rows
    if total == 0:
        raise DataError(f"{name}: holds no rows (0 rows in {len(files)} file{'s' * (len(files) > 1)})")
    hive = bool(folder_columns(files))
    lazy = pl.scan_parquet(files, hive_partitioning=hive, glob=False)
    columns = _schema_of(lazy, name)
    return Table(name, lazy, columns, files=files, kind=_files.PARQUET, rows=total)


def _open_csv(files: list[str], name: str) -> Table:
    header, separator = _files.csv_header(files[0])
    for path in files[1:]:
        names, other = _files.csv_header(path)
        _files.refuse_differences(dict.fromkeys(header, ""), dict.fromkeys(names, ""), files[0], path)
        if other != separator or names != header:
            raise SchemaError(
                f"{path}: its header is not in the order of {files[0]}; write both with one header"
            )
    import polars as pl

    try:
        guessed = guess_types(files, separator)
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise DataError(f"{name}: cannot be read ({_files.first_line(error)})") from error
    # No other reader knows numbers of 128 bits; as text they are categories, or numbers on request.
    wide = (pl.Int128, pl.UInt128)
    stored = {n: pl.String() if t in wide else t for n, t in zip(header, guessed, strict=True)}
    types, folders = folder_values(files, header)
    table = Table(
        name, None, {**stored, **types}, files=files, kind=_files.CSV, separator=separator, folders=folders
    )
    if table.sample(1).height == 0:
        raise DataError(f"{name}: holds a header and no rows")
    return table


def _open_ipc(files: list[str], name: str) -> Table:
    import polars as pl

    for path in files:
        _files.check_bytes(path, _files.IPC)
        _refuse_types(_ipc_schema(path), path)
    first: dict[str, str] = {}
    for path in files:
        schema = _schema_of(pl.scan_ipc(path), path)
        columns = {n: str(t) for n, t in schema.items()}
        first = first or columns
        _files.refuse_differences(first, columns, files[0], path)
    for column, kind in _schema_of(pl.scan_ipc(files[0]), files[0]).items():
        if problem := wide_problem(kind):
            raise SchemaError(f"{files[0]}: column {column!r} {problem}, or leave it out")
    lazy = pl.scan_ipc(files, hive_partitioning=bool(folder_columns(files)))
    return _refuse_empty(Table(name, lazy, _schema_of(lazy, name), files=files, kind=_files.IPC))


def _ipc_schema(path: str) -> Any:
    import pyarrow as pa

    try:
        with pa.memory_map(path) as source:
            return pa.ipc.open_file(source).schema
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({_files.first_line(error)})") from error


def _refuse_types(schema: Any, path: str) -> None:
    for field in schema:
        refuse_arrow_type(field.type, field.name, path, wide=False)


def _schema_of(lazy: pl.LazyFrame, name: str) -> pl.Schema:
    import polars as pl

    try:
        return lazy.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{name}: cannot be read ({_files.first_line(error)})") from error


def _refuse_empty(table: Table) -> Table:
    rows = table.frame.height if table.frame is not None else table.collect(table.lazy.head(1)).height
    if rows == 0:
        raise DataError(f"{table.name}: holds no rows")
    return table


def _from_lazy(lazy: pl.LazyFrame, name: str) -> Table:
    return _refuse_empty(Table(name, lazy, _schema_of(lazy, name)))


def _open_memory(data: Any, name: str | None) -> Table:
    import polars as pl

    if isinstance(data, pl.LazyFrame):
        return _from_lazy(data, name or "the lazy frame")
    name = name or "the data frame"
    frame = _to_polars(data, name)
    if frame.width == 0:
        raise DataError(f"{name}: has no columns")
    table = Table(name, frame.lazy(), frame.schema, kind="frame", frame=frame, rows=frame.height)
    return _refuse_empty(table)


def _to_polars(data: Any, name: str) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pa.RecordBatchReader):
        data = data.read_all()
    module = type(data).__module__.split(".", 1)[0]
    try:
        if isinstance(data, pa.Table | pa.RecordBatch):
            _files.refuse_duplicates(data.schema.names, name)
            return _from_arrow(data, name)
        if module == "pandas":
            return _from_pandas(data, name)
        if isinstance(data, Mapping):
            return _from_mapping(data, name)
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, OverflowError) as error:
        raise DataError(f"{name}: cannot be read as columns ({_files.first_line(error)})") from error
    raise DataError(
        f"cannot read rows from {type(data).__name__}; "
        "give a path, a polars, pandas or Arrow table, or a dict of arrays"
    )


def wide_problem(kind: pl.DataType) -> str | None:
    """Why a column of this type cannot be read at all; None when it can."""
    import polars as pl

    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    if isinstance(inner, pl.Decimal) and inner.precision > 38:
        return f"is {kind}, of 256 bits, which polars cannot read; cast it to 38 digits or float64"
    return None


def _from_arrow(data: Any, name: str) -> pl.DataFrame:
    import polars as pl

    for field in data.schema:
        refuse_arrow_type(field.type, field.name, name)
    return pl.DataFrame(pl.from_arrow(data))


def _from_pandas(data: Any, name: str) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    if not hasattr(data, "columns"):
        raise DataError(f"{name}: is a pandas {type(data).__name__}; give a DataFrame")
    _files.refuse_duplicates(data.columns, name)
    columns = []
    for column, values in data.items():
        try:
            inner = values.array
            arrow = hasattr(inner, "__arrow_array__")  # taken from the series it is ten times as slow
            array = pa.array(inner, from_pandas=True) if arrow else pa.Array.from_pandas(values)
            refuse_arrow_type(array.type, str(column), name)
            columns.append(pl.Series(str(column), array))
        except OverflowError as error:
            raise DataError(f"{name}: column {str(column)!r} {_HUGE}") from error
        except (pa.ArrowException, TypeError) as error:
            raise DataError(
                f"{name}: column {str(column)!r} mixes types ({_files.first_line(error)}); give it one type"
            ) from error
    return pl.DataFrame(columns)


def _from_mapping(data: Mapping[Any, Any], name: str) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    columns, length = {}, None
    for key, values in data.items():
        refuse_arrow_type(getattr(values, "type", ""), str(key), name)
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
        array = (
            values
            if isinstance(values, pl.Series)
            else np.asarray(values)
            if hasattr(values, "dtype")
            else values
        )
        try:
            objects = isinstance(array, np.ndarray) and array.dtype == object
            column = pl.Series(str(key), array, strict=not objects)
            if objects and column.dtype == pl.Object:  # as polars takes any array whose first value is None
                column = pl.Series(str(key), list(array))
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            problem = _HUGE if "too large" in str(error) else f"has no one type ({_files.first_line(error)})"
            raise DataError(f"{name}: column {str(key)!r} {problem}") from error
        if length is not None and len(column) != length:
            raise DataError(
                f"{name}: column {str(key)!r} has {len(column)} values, the ones before it {length}"
            )
        columns[str(key)], length = column, len(column)
    return pl.DataFrame(columns)
