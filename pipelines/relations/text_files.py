"""Text files, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from graphrec.errors import DataError


def read_text(path: str | Path) -> str:
    """The whole file as text.

    Raises:
        DataError: It is missing, cut short, or not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); missing or cut short") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
