"""CSV in blocks of whole lines, so that memory stays flat however long the file is.

polars parses each block; its own scan maps the whole file, whose pages then count as resident memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 16 << 20
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
    while (end := _first_row_end(head)) == 0 and (more := file.read(size)):
        head += more
    end = end or len(head)
    header = head[:end]
    return header if header.endswith(_NEWLINE) else header + _NEWLINE, head[end:]


def _first_row_end(data: bytes) -> int:
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


def read_csv(
    files: Sequence[str], columns: Sequence[str], schema: Mapping[str, Any], separator: str
) -> Iterator[pl.DataFrame]:
    """Columns of CSV files, block by block.

    Args:
        files: Paths, with one header.
        columns: Names to read, in the order wanted.
        schema: Name to type of all columns, in the order of the file.
        separator: Between values.
    """
    import polars as pl

    for path in files:
        for block in blocks(path):
            frame = pl.read_csv(block, columns=list(columns), schema=dict(schema), separator=separator)
            if frame.height:
                yield frame.select(columns)
