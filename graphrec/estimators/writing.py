"""Scores of a table of any size, written while they are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import ConfigError, RunError, SchemaError
from graphrec.pipelines.tables import Table, open_table
from graphrec.runs import atomic_file

from .scoring import score_batches

if TYPE_CHECKING:
    import pyarrow as pa

    from .classifier import CTRClassifier

WRITTEN = (".parquet", ".csv")


def write_scores(
    estimator: CTRClassifier, data: Any, out: str | Path, *, keep: Sequence[str] = (), overwrite: bool = False
) -> int:
    """Write one row of probabilities per row of a table, in its order; returns the number of rows.

    The columns are those of ``keep``, then ``probability``, or ``probability_<label>`` for several labels.

    Args:
        estimator: A fitted estimator.
        data: Anything that `open_table` takes.
        out: ``.parquet`` or ``.csv`` file; it appears when it is complete.
        keep: Input columns to copy; ``["all"]`` for all.
        overwrite: Replace ``out`` if it exists.

    Raises:
        ConfigError: The extension is neither, or a kept column is called as the scores are.
        RunError: ``out`` exists, or it cannot be written.
        SchemaError: A column to keep, or one that the model needs, is missing.
    """
    out = check_out(out, overwrite)
    table = open_table(data)
    kept = kept_columns(table, keep, score_names(estimator), out)
    estimator.schema_.check(table, require_labels=None)
    rows = 0
    try:
        with atomic_file(out) as temporary, contextlib.closing(_Writer(temporary)) as writer:
            for part in _parts(estimator, table, kept):
                writer.write(part)
                rows += len(part)
    except OSError as error:  # such as a full disk, of which Arrow does not name the file
        raise RunError(f"{out}: cannot be written ({error}); nothing is left of it") from error
    return rows


def kept_columns(table: Table, keep: Sequence[str], taken: Sequence[str], out: Path) -> list[str]:
    """The columns of a table that are to be copied into a file of scores.

    Args:
        table: The input.
        keep: Names, or ``["all"]``.
        taken: Names of the columns of scores.
        out: The file of scores.

    Raises:
        ConfigError: A column is called as the scores are, ``out`` is the table, or cannot hold a column.
        SchemaError: There is no such column.
    """
    kept = list(table.columns) if list(keep) == ["all"] else list(dict.fromkeys(keep))
    missing = [name for name in kept if name not in table.columns]
    if missing:
        raise SchemaError(
            f"{table.name}: column {missing[0]!r} of --keep is missing; it has {', '.join(table.columns)}"
        )
    both = [name for name in taken if name in kept]
    if both:
        raise ConfigError(
            f"--keep: {table.name} has a column {both[0]!r}, which is the name of the scores; rename it"
        )
    _refuse_unwritable(table, kept, out)
    return kept


def _refuse_unwritable(table: Table, kept: Sequence[str], out: Path) -> None:
    """Raise ConfigError when the scores would replace their own input, or CSV cannot hold a kept column."""
    if out.exists() and any(out.samefile(file) for file in table.files):
        raise ConfigError(f"--out: {out} is the table to be scored itself; name another file")
    import polars as pl

    kinds = {name: table.columns[name] for name in kept if out.suffix == ".csv"}
    unfit = [
        n for n, kind in kinds.items() if kind.is_nested() or kind in (pl.Duration, pl.Binary, pl.Object)
    ]
    if unfit:
        raise ConfigError(
            f"--keep: column {unfit[0]!r} is {kinds[unfit[0]]}, which CSV cannot hold; "
            "write .parquet, or leave it out"
        )


def check_out(out: str | Path, overwrite: bool) -> Path:
    """The file to write scores to.

    Raises:
        ConfigError: Its extension is none that can be written.
        RunError: It exists, and ``overwrite`` is false.
    """
    path = Path(out)
    if path.suffix not in WRITTEN:
        raise ConfigError(f"--out: {path} must end in {' or '.join(WRITTEN)}")
    if path.exists() and not overwrite:
        raise RunError(f"{path}: exists already; name another file, or allow --overwrite")
    return path


def score_names(estimator: CTRClassifier) -> list[str]:
    """Names of the score columns: one per label."""
    labels = estimator.schema_.labels
    return ["probability"] if len(labels) == 1 else [f"probability_{name}" for name in labels]


def _parts(estimator: CTRClassifier, table: Table, kept: list[str]) -> Iterator[pa.Table]:
    """Kept columns and scores side by side; the two are read in step, so memory stays flat."""
    import pyarrow as pa

    names = score_names(estimator)
    source = _Rows(table, kept) if kept else None
    for _, scores in score_batches(estimator, table):
        columns = {name: pa.array(scores[:, t]) for t, name in enumerate(names)}
        beside = source.take(len(scores)) if source else None
        if beside is None:
            yield pa.table(columns)
            continue
        for name, values in columns.items():
            beside = beside.append_column(name, values)
        yield beside


class _Rows:
    """The columns of a table in pieces of any wanted length."""

    def __init__(self, table: Table, columns: list[str]) -> None:
        import pyarrow as pa

        self._batches = (pa.Table.from_batches([batch]) for batch in table.batches(columns))
        self._left: pa.Table | None = None

    def take(self, rows: int) -> pa.Table:
        """The next ``rows`` rows."""
        import pyarrow as pa

        parts, missing = [], rows
        while missing:
            if self._left is None or not len(self._left):
                self._left = next(self._batches)
            parts.append(self._left.slice(0, missing))
            self._left = self._left.slice(missing)
            missing -= len(parts[-1])
        return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


class _CsvFile:
    """CSV written by polars, since Arrow's own writer knows neither all texts nor categories."""

    def __init__(self, path: Path) -> None:
        self._file, self._header = path.open("wb"), True

    def write_table(self, part: pa.Table) -> None:
        """Append rows, below the names if they are the first."""
        import polars as pl

        pl.DataFrame(pl.from_arrow(part)).write_csv(self._file, include_header=self._header)
        self._header = False

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class _Writer:
    """Parquet or CSV by the file's extension; opened by the first part, whose columns are those of the
    file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None

    def write(self, part: pa.Table) -> None:
        """Append rows."""
        if self._file is None:
            self._file = self._open(part.schema)
        self._file.write_table(part)

    def _open(self, schema: pa.Schema) -> Any:
        if self.path.suffix == ".csv":
            return _CsvFile(self.path)
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(self.path, schema, compression="zstd")

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()
