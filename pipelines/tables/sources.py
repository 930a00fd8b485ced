"""Reading: one `Table` over everything that holds rows, read in batches, never as a whole."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphrec.errors import DataError, SchemaError

from . import files as _files
from .csv_reader import PassedOver, read_csv
from .folders import folder_columns

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_UNPARSED = re.compile(r"could not parse `(?P<text>.*?)` as dtype `.*?` at column '(?P<column>.*?)'")

_REMEDIES = {
    "invalid utf-8": "; it is in another encoding: convert it to UTF-8",
    "found more fields": "; a row has more values than the header: quote what holds the separator",
}

BATCH_ROWS = 131_072
"""Rows that are read at a time; a row group of this size or less is read at once."""


class Table:
    """Rows behind one name, read lazily.

    Args:
        name: What messages call it: the path, or ``"the data frame"``.
        lazy: All rows as a polars LazyFrame; None for CSV files, which have a reader of their own.
        columns: Name to polars type, in order.
        files: The local files, when it is made of files.
        kind: ``"parquet"``, ``"csv"``, ``"ipc"``, ``"frame"`` or ``"lazy"``.
        frame: The rows themselves when they are in memory.
        separator: Of a CSV file.
        folders: Of CSV files: path to the columns that its folders say, name to value.
    """

    def __init__(
        self,
        name: str,
        lazy: pl.LazyFrame | None,
        columns: Mapping[str, pl.DataType],
        *,
        files: Sequence[str] = (),
        kind: str = "lazy",
        frame: pl.DataFrame | None = None,
        rows: int | None = None,
        separator: str = ",",
        folders: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.name, self.columns = name, dict(columns)
        self.files, self.kind, self.frame, self.separator = tuple(files), kind, frame, separator
        self._folders = folders or {}
        self._rows = rows
        self.lazy = self._csv_scan() if lazy is None else lazy
        self._seen_through = False  # whether CSV files were read to their end once, and warned of
        self.all_numbers: set[str] = set()  # text columns that were found to hold numbers only
        self._value_counts: dict[str, dict[str | None, int]] = {}

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {len(self.columns)} columns, {self.kind})"

    def n_rows(self) -> int:
        """Number of rows; counted once."""
        import polars as pl

        if self._rows is None and self.kind == _files.CSV:
            self._rows = sum(b.num_rows for b in self.batches(list(self.columns)[:1]))
        elif self._rows is None:
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

        Files go by path, size, modification time and a sample of their bytes, rows in memory by content.
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

            counted = pl.len().alias("__rows")
            if self.kind == _files.CSV:
                frames = self._csv_frames([column], [])
                found = pl.concat([f.group_by(column).agg(counted) for f in frames])
                self._rows = int(found["__rows"].sum())
            else:
                found = self.collect(self.lazy.group_by(column).agg(counted))
            counts: dict[str | None, int] = {}
            for text, rows in zip(text_of(found[column]).to_list(), found["__rows"].to_list(), strict=True):
                counts[text] = counts.get(text, 0) + rows
            self._value_counts[column] = counts
        return self._value_counts[column]

    def failure(self, error: BaseException) -> DataError:
        """The one-line DataError for a reader's exception."""
        found = _UNPARSED.search(str(error))
        if found:
            return SchemaError(
                f"{self.name}: column {found['column']!r} begins with numbers but has {found['text']!r}; "
                "clean it, or quote its values to have it read as text"
            )
        reason = _files.first_line(error)
        remedy = next((text for words, text in _REMEDIES.items() if words in reason), "")
        return DataError(f"{self.name}: cannot be read ({reason}){remedy}")

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        """Up to ``rows`` rows from the beginning, and from the end where that is cheap."""
        import polars as pl

        if self.frame is not None:
            return self.frame.gather_every(max(1, self.frame.height // rows)).head(rows)
        if self.kind == _files.PARQUET and self.n_rows() > 2 * rows:
            half = rows // 2
            parts = [self.lazy.head(half), self.lazy.slice(self.n_rows() - half, half)]
            return pl.concat([self.collect(p) for p in parts])
        if self.kind == _files.CSV:
            return self._csv_head(rows)
        return self.collect(self.lazy.head(rows))

    def _csv_head(self, rows: int) -> pl.DataFrame:
        import polars as pl

        found, count = [], 0
        for frame in self._csv_frames(list(self.columns), []):
            found.append(frame.head(rows - count))
            count += len(found[-1])
            if count >= rows:
                break
        return pl.concat(found) if found else pl.DataFrame(schema=self.columns)

    def batches(
        self, columns: Sequence[str], *, text: Sequence[str] = (), rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Read the columns in order, at most about ``rows`` rows at a time.

        Args:
            columns: Names to read.
            text: Columns that are wanted as strings. Parquet then keeps its dictionary pages (codes instead
                of one string per row), and CSV keeps digits as they are written (``"007"``).
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
        return set(self.columns) - set(folder_columns(self.files))

    def _parquet_batches(self, columns: list[str], text: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        strings = _string_leaves(self.files[0], text)
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
        if self.kind == _files.CSV:
            yield from (_record_batch(f) for f in self._csv_frames(columns, text))
            return
        try:
            for frame in self.lazy.select(columns).collect_batches(chunk_size=rows, maintain_order=True):
                if frame.height:
                    yield _record_batch(frame)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self.failure(error) from error

    def _csv_frames(self, columns: list[str], text: list[str]) -> Iterator[pl.DataFrame]:
        import polars as pl

        # Whole numbers with gaps are often written as 7.0; read those as numbers, to meet 7 elsewhere.
        inside = set(self.columns).difference(*self._folders.values())
        strings = {c: pl.String() for c in text if c in inside and not self.columns[c].is_float()}
        passed = None if self._seen_through else PassedOver(len(inside), self.separator)
        types = {**self.columns, **strings}
        try:
            yield from read_csv(self.files, columns, types, self.separator, self._folders, passed)
        except (pl.exceptions.PolarsError, OSError, EOFError) as error:
            raise self.failure(error) from error
        self._seen_through = True
        for message in passed.warnings(self.name) if passed is not None else ():
            warnings.warn(message, UserWarning, stacklevel=2)

    def _csv_scan(self) -> pl.LazyFrame:
        """The rows of CSV files for queries, from the reader that `batches` has: polars' own scan takes a
        blank line for a row in some queries and not in others.
        """
        import polars as pl
        from polars.io.plugins import register_io_source

        def read(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            for frame in self._csv_frames(list(self.columns) if columns is None else columns, []):
                taken = frame if rows is None else frame.head(rows)
                yield taken if predicate is None else taken.filter(predicate)
                rows = None if rows is None else rows - taken.height
                if rows == 0:
                    return

        return register_io_source(read, schema=pl.Schema(self.columns), is_pure=True)


def _string_leaves(path: str, columns: Sequence[str]) -> list[str]:
    """Paths of the strings in these columns, inside lists too, as the parquet reader calls them."""
    import pyarrow.parquet as pq

    schema = pq.read_metadata(path).schema
    leaves = [schema.column(i) for i in range(len(schema))]
    strings = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    return [s for s in strings if any(s == c or s.startswith(f"{c}.") for c in columns)]


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
