"""Reading: one `Table` over everything that holds rows.

`open_table` takes a path, a glob, a directory, a cloud address, a list of paths, a polars, pandas or Arrow
table, or a dict of arrays, checks it, and gives a `Table` that is read in batches, never as a whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import DataError, SchemaError

from . import files as _files

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

BATCH_ROWS = 131_072
"""Rows that are read at a time; a row group of this size or less is read at once."""


class Table:
    """Rows behind one name, read lazily.

    Args:
        name: What messages call it: the path, or ``"the data frame"``.
        lazy: All rows as a polars LazyFrame.
        columns: Name to polars type, in order.
        files: The local files, when it is made of files.
        kind: ``"parquet"``, ``"csv"``, ``"ipc"``, ``"frame"`` or ``"lazy"``.
        frame: The rows themselves when they are in memory.
        separator: Of a CSV file.
    """

    def __init__(
        self,
        name: str,
        lazy: pl.LazyFrame,
        columns: Mapping[str, pl.DataType],
        *,
        files: Sequence[str] = (),
        kind: str = "lazy",
        frame: pl.DataFrame | None = None,
        rows: int | None = None,
        separator: str = ",",
    ) -> None:
        self.name, self.lazy, self.columns = name, lazy, dict(columns)
        self.files, self.kind, self.frame, self.separator = tuple(files), kind, frame, separator
        self._rows = rows
        self._value_counts: dict[str, dict[str | None, int]] = {}

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {len(self.columns)} columns, {self.kind})"

    def n_rows(self) -> int:
        """Number of rows; counted once."""
        import polars as pl

        if self._rows is None:
            self._rows = int(self.collect(self.lazy.select(pl.len())).item())
        return self._rows

    @property
    def persistent(self) -> bool:
        """Whether the same rows can be found again by another process: they lie in local files."""
        return bool(self.files)

    @cached_property
    def _digest(self) -> str:
        import polars as pl

        if self.files:
            return _files.file_digest(self.files)
        frame = self.frame if self.frame is not None else self.collect(self.lazy)
        digest = hashlib.sha256(f"{pl.__version__}{[(n, str(t)) for n, t in self.columns.items()]}".encode())
        digest.update(_row_hashes(frame))
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Hexadecimal digest that changes when the rows do.

        Files go by path, size, modification time and a sample of their bytes; rows in memory by their content.
        """
        return self._digest

    def collect(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Run a query on this table, with its errors turned into a one-line DataError."""
        import polars as pl

        try:
            return lazy.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self.failure(error) from error

    def value_counts(self, column: str) -> dict[str | None, int]:
        """Rows of each value of a column, by its text; null and NaN under None. Counted once."""
        from .values import text_of

        if column not in self._value_counts:
            import polars as pl

            found = self.collect(self.lazy.group_by(column).agg(pl.len().alias("__rows")))
            counts: dict[str | None, int] = {}
            for text, rows in zip(text_of(found[column]).to_list(), found["__rows"].to_list(), strict=True):
                counts[text] = counts.get(text, 0) + rows
            self._value_counts[column] = counts
        return self._value_counts[column]

    def failure(self, error: BaseException) -> DataError:
        """The one-line DataError for a reader's exception."""
        return DataError(f"{self.name}: cannot be read ({_files.first_line(error)})")

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        """Up to ``rows`` rows from the beginning, and from the end where that is cheap."""
        import polars as pl

        if self.frame is not None:
            return self.frame.gather_every(max(1, self.frame.height // rows)).head(rows)
        if self.kind == _files.PARQUET and self.n_rows() > 2 * rows:
            half = rows // 2
            parts = [self.lazy.head(half), self.lazy.slice(self.n_rows() - half, half)]
            return pl.concat([self.collect(p) for p in parts])
        return self.collect(self.lazy.head(rows))

    def batches(
        self, columns: Sequence[str], *, text: Sequence[str] = (), rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Read the columns in order, at most about ``rows`` rows at a time.

        Args:
            columns: Names to read.
            text: Columns that are wanted as strings. Parquet then keeps its dictionary pages (codes instead of
                one string per row), and CSV keeps digits as they are written (``"007"``).
            rows: Largest batch.

        Raises:
            DataError: The rows cannot be read.
        """
        if self.kind == _files.PARQUET and self.files and set(columns) <= self._stored:
            yield from self._parquet_batches(list(columns), [c for c in text if c in columns], rows)
        else:
            yield from self._polars_batches(list(columns), [c for c in text if c in columns], rows)

    @cached_property
    def _stored(self) -> set[str]:
        return set(self.columns) - set(_files.hive_columns(self.files))

    def _parquet_batches(self, columns: list[str], text: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        import polars as pl
        import pyarrow as pa
        import pyarrow.parquet as pq

        strings = [c for c in text if self.columns[c] == pl.String]
        for path in self.files:
            try:
                with pq.ParquetFile(path, read_dictionary=strings, pre_buffer=False) as file:
                    # One call per row group: a batch that spans two would decode both dictionaries again.
                    for group in range(file.num_row_groups):
                        yield from file.iter_batches(rows, [group], columns, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: broken parquet file ({_files.first_line(error)})") from error

    def _polars_batches(self, columns: list[str], text: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        import polars as pl

        if self.frame is not None:
            for start in range(0, self.frame.height, rows):
                yield _record_batch(self.frame.select(columns).slice(start, rows))
            return
        lazy = self.lazy
        if self.kind == _files.CSV and text:
            lazy = scan_csv(self.files, self.separator, dict.fromkeys(text, pl.String))
        try:
            for frame in lazy.select(columns).collect_batches(chunk_size=rows, maintain_order=True):
                if frame.height:
                    yield _record_batch(frame)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self.failure(error) from error


def _row_hashes(frame: pl.DataFrame) -> bytes:
    if not frame.width or not frame.height:
        return b""
    try:
        return frame.hash_rows().to_numpy().tobytes()
    except Exception:  # polars cannot hash every nested type; Arrow can write them all
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, frame.to_arrow().schema) as writer:
            writer.write_table(frame.to_arrow())
        return hashlib.sha256(sink.getvalue()).digest()


def _record_batch(frame: pl.DataFrame) -> pa.RecordBatch:
    import polars as pl
    import pyarrow as pa

    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def scan_csv(files: Sequence[str], separator: str, overrides: Mapping[str, Any] | None = None) -> pl.LazyFrame:
    """Scan CSV files; types come from the first 10,000 rows except those in ``overrides``."""
    import polars as pl

    return pl.scan_csv(
        list(files),
        separator=separator,
        schema_overrides=dict(overrides or {}),
        infer_schema_length=10_000,
        try_parse_dates=True,
    )


def open_table(data: Any, name: str | None = None) -> Table:
    """Open rows for reading, whatever they are in.

    Args:
        data: A path, a glob, a directory or a cloud address of parquet, CSV/TSV or Arrow IPC files, or a list of
            paths; a polars LazyFrame or DataFrame; a pandas DataFrame; an Arrow table, record batch or reader;
            a mapping from names to arrays; or a `Table`.
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
        return _open_paths(paths, name or (paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"))
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
    scans = {_files.PARQUET: pl.scan_parquet, _files.CSV: pl.scan_csv, _files.IPC: pl.scan_ipc}
    lazy = scans[kind or _files.PARQUET](urls)
    return _from_lazy(lazy, name)


def _open_parquet(files: list[str], name: str) -> Table:
    import polars as pl

    schema, total = _files.parquet_schema(files[0])
    first = {f.name: str(f.type) for f in schema}
    for path in files[1:]:
        other, rows = _files.parquet_schema(path)
        _files.refuse_differences(first, {f.name: str(f.type) for f in other}, files[0], path)
        total += rows
    if total == 0:
        raise DataError(f"{name}: holds no rows (0 rows in {len(files)} file{'s' * (len(files) > 1)})")
    hive = bool(_files.hive_columns(files))
    lazy = pl.scan_parquet(files, hive_partitioning=hive, glob=False)
    columns = _schema_of(lazy, name)
    return Table(name, lazy, columns, files=files, kind=_files.PARQUET, rows=total)


def _open_csv(files: list[str], name: str) -> Table:
    header, separator = _files.csv_header(files[0])
    for path in files[1:]:
        names, other = _files.csv_header(path)
        _files.refuse_differences(dict.fromkeys(header, ""), dict.fromkeys(names, ""), files[0], path)
        if other != separator or names != header:
            raise SchemaError(f"{path}: its header is not in the order of {files[0]}; write both with one header")
    lazy = scan_csv(files, separator)
    table = Table(name, lazy, _schema_of(lazy, name), files=files, kind=_files.CSV, separator=separator)
    if table.collect(lazy.head(1)).height == 0:
        raise DataError(f"{name}: holds a header and no rows")
    return table


def _open_ipc(files: list[str], name: str) -> Table:
    import polars as pl

    for path in files:
        _files.check_bytes(path, _files.IPC)
    first: dict[str, str] = {}
    for path in files:
        schema = _schema_of(pl.scan_ipc(path), path)
        columns = {n: str(t) for n, t in schema.items()}
        first = first or columns
        _files.refuse_differences(first, columns, files[0], path)
    lazy = pl.scan_ipc(files)
    return _refuse_empty(Table(name, lazy, _schema_of(lazy, name), files=files, kind=_files.IPC))


def _schema_of(lazy: pl.LazyFrame, name: str) -> pl.Schema:
    import polars as pl

    try:
        return lazy.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
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
            return pl.DataFrame(pl.from_arrow(data))
        if module == "pandas":
            return _from_pandas(data, name)
        if isinstance(data, Mapping):
            return _from_mapping(data, name)
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, OverflowError) as error:
        raise DataError(f"{name}: cannot be read as columns ({_files.first_line(error)})") from error
    raise DataError(
        f"cannot read rows from {type(data).__name__}; give a path, a polars, pandas or Arrow table, or a dict of arrays"
    )


def _from_pandas(data: Any, name: str) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    if not hasattr(data, "columns"):
        raise DataError(f"{name}: is a pandas {type(data).__name__}; give a DataFrame")
    _files.refuse_duplicates(data.columns, name)
    columns = {}
    for column in data.columns:
        try:
            columns[str(column)] = pl.from_arrow(pa.Array.from_pandas(data[column]))
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
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
        array = values if isinstance(values, pl.Series) else np.asarray(values) if hasattr(values, "dtype") else values
        column = pl.Series(str(key), array, strict=not (isinstance(array, np.ndarray) and array.dtype == object))
        if length is not None and len(column) != length:
            raise DataError(f"{name}: column {str(key)!r} has {len(column)} values, the ones before it {length}")
        columns[str(key)], length = column, len(column)
    return pl.DataFrame(columns)


def as_path(value: str | os.PathLike[str]) -> Path:
    """Expand ``~`` in a path."""
    return Path(value).expanduser()
