"""Text files, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from graphrec.errors import DataError


def read_text(path: str | Path) -> str:
    """The whole file as text, without a byte order mark.

    Raises:
        DataError: It is missing, cut short, or not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); missing or cut short") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_lines(path: str | Path) -> list[str]:
    """The lines of `read_text`.

    Line feeds, carriage returns or both end them, and nothing else: other separators of Unicode, which
    ``str.splitlines`` also takes, occur inside of texts and words.
    """
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
