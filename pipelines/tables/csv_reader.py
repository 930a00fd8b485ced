"""CSV in blocks of whole lines, so that memory stays flat however long the file is.

polars parses each block; its own scan maps the whole file, whose pages then count as resident memory.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 16 << 20
_GUESS_ROWS, _GUESS_FILES = 10_000, 10
_QUOTE, _NEWLINE = b'"', b"\n"


def open_binary(path: str) -> BinaryIO:
    """A file of bytes, decompressed if its name ends in .gz or .zst."""
    if path.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.lower().endswith(".zst"):
        import pyarrow as pa

        return cast(BinaryIO, pa.input_stream(path, compression="zstd"))
    return open(path, "rb")


def blocks(path: str, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The file in pieces of about ``size`` bytes that begin with the header and end at the end of a row.

    A line break between quotes does not end a row.
    """
    with open_binary(path) as file:
        header, rest = _header(file, size)
        yielded = False
        while piece := file.read(size):
            rest += piece
            end = _last_row_end(rest)
            if end:
                yield header + rest[:end]
                rest, yielded = rest[end:], True
        if rest.strip() or not yielded:
            yield header + rest


def _header(file: BinaryIO, size: int) -> tuple[bytes, bytes]:
    head = file.read(size)
    while (end := first_row_end(head)) == 0 and (more := file.read(size)):
        head += more
    end = end or len(head)
    header = head[:end]
    return header if header.endswith(_NEWLINE) else header + _NEWLINE, head[end:]


def first_row_end(data: bytes) -> int:
    """Where the first row ends, its line break included; 0 when it does not."""
    at = data.find(_NEWLINE)
    while at >= 0 and data.count(_QUOTE, 0, at) % 2:
        at = data.find(_NEWLINE, at + 1)
    return at + 1


def _last_row_end(data: bytes) -> int:
    at = data.rfind(_NEWLINE)
    quotes = data.count(_QUOTE, 0, max(at, 0))
    while at >= 0 and quotes % 2:
        before = data.rfind(_NEWLINE, 0, at)
        quotes -= data.count(_QUOTE, max(before, 0), at)
        at = before
    return at + 1


class PassedOver:
    """Counts what a reader passes over in silence: blank lines between rows, and rows with fewer values than
    the header has names, of which it makes nulls.

    Args:
        columns: Names in the header.
        separator: Between values.
    """

    def __init__(self, columns: int, separator: str) -> None:
        self.columns, self.separator = columns, separator.encode()
        self.count = self.blank = 0
        self.first = ""
        self._waiting = ("", 0)  # a path, and the blank lines that end the file as far as it was read

    def blank_lines(self, path: str, inside: int, after: int, rows: bool) -> None:
        """Take in the blank lines of a block; those that end a file part no rows.

        Args:
            inside: Of them, those before the block's last row.
            after: Those after it.
            rows: Whether it has rows at all.
        """
        before = self._waiting[1] if self._waiting[0] == path else 0
        self.blank += inside + before if rows else 0
        self._waiting = (path, after if rows else before + inside + after)

    def look(self, path: str, block: bytes) -> None:
        """Take in the rows of a block; more values than names are the reader's to refuse."""
        quoted = _QUOTE in block
        ends, separators = self._counts(block, quoted)
        if separators >= (ends + (not block.endswith(_NEWLINE))) * (self.columns - 1):
            return
        values = _between_quotes_blanked(block) if quoted else block
        start = 0
        for line in values.split(_NEWLINE):
            end = start + len(line)
            if line.strip() and line.count(self.separator) < self.columns - 1:
                self.count += 1
                shown = block[start : min(end, start + 60)].decode(errors="replace").strip()
                self.first = self.first or f"{shown!r} in {path}"
            start = end + 1

    def _counts(self, block: bytes, quoted: bool) -> tuple[int, int]:
        """Line ends and separators that are not between quotes."""
        if not quoted:
            return block.count(_NEWLINE), block.count(self.separator)
        data = np.frombuffer(block, np.uint8)
        outside = np.cumsum(data == _QUOTE[0], dtype=np.uint8) & 1 == 0
        ends, separators = (
            int(np.count_nonzero((data == sign) & outside)) for sign in b"\n" + self.separator
        )
        return ends, separators

    def warnings(self, name: str) -> Iterator[str]:
        """What to say of them; ``name`` is the table's."""
        if self.count:
            rows = "1 row has" if self.count == 1 else f"{self.count} rows have"
            yield (
                f"{rows} fewer values than the header has columns, and what is missing is taken for null; "
                f"the first is {self.first}"
            )
        if self.blank:
            yield f"{name}: skipped {self.blank} blank line{'s' * (self.blank > 1)} between rows"


def _between_quotes_blanked(block: bytes) -> bytes:
    """The block with blanks for what stands between quotes, line breaks and separators among it."""
    data = np.frombuffer(block, np.uint8).copy()
    data[np.cumsum(data == _QUOTE[0], dtype=np.uint8) % 2 == 1] = ord(" ")
    return data.tobytes()


_PERHAPS_BLANK = re.compile(rb"\n[\r\n ]")
_BLANK_LINE = re.compile(rb"(?<=\n) *\r?(?:\n|(?<=[ \r])\Z)")


def without_blank_lines(block: bytes) -> tuple[bytes, int, int]:
    """A block without its blank lines, which are no rows; between quotes they are text.

    Returns:
        The rest, and how many there were before its last row and after it.
    """
    if _PERHAPS_BLANK.search(block) is None:  # one pass, three times as fast as looking for each
        return block, 0, 0
    outside = _between_quotes_blanked(block) if _QUOTE in block else block
    spans = [found.span() for found in _BLANK_LINE.finditer(outside)]
    if not spans:
        return block, 0, 0
    edges = [0, *(edge for span in spans for edge in span), len(block)]
    rows = b"".join(block[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
    last = len(outside.rstrip(b" \r\n"))
    after = sum(start >= last for start, _ in spans)
    return rows, len(spans) - after, after


def bare_names(header: bytes, separator: str) -> bytes:
    """A header line without the blanks around its names; as it is where names stand in quotes."""
    if _QUOTE in header:
        return header
    return separator.encode().join(name.strip() for name in header.split(separator.encode()))


def _with_bare_names(block: bytes, separator: str) -> bytes:
    header = block[: first_row_end(block) - 1]
    bare = bare_names(header, separator)
    return block if bare == header.rstrip(b"\r") else bare + block[len(header) :]


def guess_types(files: Sequence[str], separator: str) -> list[pl.DataType]:
    """Types of the columns of files with one header, in their order, by the first rows of the first files."""
    import io

    import polars as pl

    first = files[:_GUESS_FILES]
    starts = (next(blocks(path, BLOCK_BYTES // len(first))) for path in first)
    heads: list[IO[bytes]] = [io.BytesIO(without_blank_lines(start)[0]) for start in starts]
    scan = pl.scan_csv(heads, separator=separator, infer_schema_length=_GUESS_ROWS)
    return scan.collect_schema().dtypes()


def read_csv(
    files: Sequence[str],
    columns: Sequence[str],
    schema: Mapping[str, Any],
    separator: str,
    folders: Mapping[str, Mapping[str, Any]] | None = None,
    passed: PassedOver | None = None,
) -> Iterator[pl.DataFrame]:
    """Columns of CSV files, block by block.

    Args:
        files: Paths, with one header.
        columns: Names to read, in the order wanted.
        schema: Name to type of all columns, those of the files in their order.
        separator: Between values.
        folders: Path to the columns that its folders say, name to value; these are not in the file.
        passed: Looks at every block that is read.
    """
    import polars as pl

    for path in files:
        fixed = (folders or {}).get(path, {})
        stored = {name: kind for name, kind in schema.items() if name not in fixed}
        wanted = [name for name in columns if name not in fixed] or list(stored)[:1]
        constants = [pl.lit(value, schema[name]).alias(name) for name, value in fixed.items()]
        for block in blocks(path):
            rows = _with_bare_names(block, separator)
            rows, inside, after = without_blank_lines(rows) if len(stored) > 1 else (rows, 0, 0)
            if passed is not None:
                passed.look(path, rows)
            frame = pl.read_csv(rows, columns=wanted, schema=stored, separator=separator)
            if passed is not None:
                passed.blank_lines(path, inside, after, rows=frame.height > 0)
            if frame.height:
                yield frame.with_columns(constants).select(columns)
