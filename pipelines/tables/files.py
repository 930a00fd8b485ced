"""Local files of a table: finding them, telling their format, and refusing broken ones before any work.

Every refusal is one line that names the file, what was found in it, and what would be right.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graphrec.errors import DataError, SchemaError

from .csv_reader import bare_names, first_row_end, open_binary

PARQUET, CSV, IPC = "parquet", "csv", "ipc"
SUFFIXES = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".csv": CSV,
    ".tsv": CSV,
    ".txt": CSV,
    ".arrow": IPC,
    ".ipc": IPC,
    ".feather": IPC,
}
_COMPRESSED = (".gz", ".zst")
_SAMPLE = 1 << 16
_MAGIC = {PARQUET: b"PAR1", IPC: b"ARROW1"}
_KINDS = "parquet, csv, tsv, arrow or feather"


def is_url(path: str) -> bool:
    """Whether ``path`` is a cloud or web address, which polars reads itself."""
    return "://" in path and not path.startswith("file://")


def format_of(path: str) -> str | None:
    """`PARQUET`, `CSV`, `IPC`, or None when the name does not tell."""
    name = path.lower()
    for suffix in _COMPRESSED:
        if name.endswith(suffix):
            kind = SUFFIXES.get(Path(name.removesuffix(suffix)).suffix)
            return kind if kind == CSV else None
    return SUFFIXES.get(Path(name).suffix)


def find(path: str) -> list[str]:
    """The data files behind a path, a glob or a directory, sorted by name.

    Raises:
        DataError: Nothing is there, or it cannot be read.
    """
    path = os.path.expanduser(path.removeprefix("file://"))
    if os.path.isdir(path):
        return _in_directory(path)
    if os.path.exists(path):
        _readable(path)
        return [path]
    if glob.has_magic(path):
        files = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f))
        if not files:
            raise DataError(f"{path}: no file matches this pattern; check the folder and the extension")
        for file in files:
            _readable(file)
        return files
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise DataError(f"{path}: no such file, and the folder {parent} does not exist either")
    raise DataError(f"{path}: no such file{_similar(path, parent)}")


def _similar(path: str, parent: str) -> str:
    import difflib

    try:
        close = difflib.get_close_matches(os.path.basename(path), os.listdir(parent), n=1)
    except OSError:
        return ""
    return f"; did you mean {close[0]!r}?" if close else ""


def _readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error


def _in_directory(path: str) -> list[str]:
    try:
        os.listdir(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be listed ({error.strerror}); check its permissions") from error
    files = []
    for folder, folders, names in os.walk(path):
        folders[:] = [f for f in folders if not f.startswith((".", "_"))]
        files += [os.path.join(folder, n) for n in names if not n.startswith((".", "_")) and format_of(n)]
    if not files:
        raise DataError(f"{path}: this folder holds no {_KINDS} file")
    for file in files:
        _readable(file)
    return sorted(files)


def common_format(files: Sequence[str]) -> str:
    """The one format of all files.

    Raises:
        DataError: It is unknown, or there are several.
    """
    kinds: dict[str, str] = {}
    for file in files:
        kind = format_of(file) or _sniff_format(file)
        kinds.setdefault(kind, file)
    if len(kinds) > 1:
        (a, first), (b, second) = list(kinds.items())[:2]
        raise DataError(f"{first} is {a} but {second} is {b}; give files of one format")
    return next(iter(kinds))


def _sniff_format(path: str) -> str:
    head = _head(path, 8)
    for kind, magic in _MAGIC.items():
        if head.startswith(magic):
            return kind
    raise DataError(f"{path}: the format is not clear from the name; use the extension of a {_KINDS} file")


def _head(path: str, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def check_bytes(path: str, kind: str) -> None:
    """Refuse a file that is empty, truncated or not of its kind by its first and last bytes.

    Raises:
        DataError: With the reason.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); was its writing interrupted?")
    magic = _MAGIC.get(kind)
    if magic is None:
        return
    with open(path, "rb") as file:
        head = file.read(len(magic))
        file.seek(max(0, size - len(magic)))
        tail = file.read()
    if not head.startswith(magic):
        hint = "; it looks like text: give it a .csv or .tsv name" if _looks_like_text(path) else ""
        raise DataError(f"{path}: not a {_title(kind)} file (it does not begin with {magic.decode()}){hint}")
    if not tail.endswith(magic):
        raise DataError(
            f"{path}: the {_title(kind)} file is truncated (its footer is missing); copy it again"
        )


def _title(kind: str) -> str:
    return {PARQUET: "parquet", IPC: "Arrow IPC", CSV: "CSV"}[kind]


def _looks_like_text(path: str) -> bool:
    head = _head(path, 4096)
    return bool(head) and all(b >= 32 or b in b"\t\r\n" for b in head)


def parquet_schema(path: str) -> tuple[Any, int]:
    """Arrow schema and number of rows from the footer.

    Raises:
        DataError: The footer cannot be read.
        SchemaError: Two columns have one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_bytes(path, PARQUET)
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: broken parquet file ({first_line(error)}); write or copy it again"
        ) from error
    refuse_duplicates(schema.names, path)
    return schema, rows


def refuse_duplicates(names: Iterable[str], where: str) -> None:
    """Raise SchemaError when a name occurs twice."""
    counts = Counter(str(n) for n in names)
    twice = [n for n, k in counts.items() if k > 1]
    if twice:
        raise SchemaError(
            f"{where}: the column name {twice[0]!r} occurs {counts[twice[0]]} times; rename one of them"
        )


def csv_header(path: str) -> tuple[list[str], str]:
    """Column names, without the blanks around them, and separator of a CSV or TSV file.

    Raises:
        DataError: The first line cannot be read as text.
        SchemaError: Two columns have one name.
    """
    check_bytes(path, CSV)
    try:
        line = _first_text_line(path)
    except EOFError as error:
        raise DataError(f"{path}: the compressed file is truncated ({error}); copy it again") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"{path}: not a text file ({first_line(error)}); expected UTF-8 CSV or TSV"
        ) from error
    if not line.strip():
        raise DataError(f"{path}: the first line is blank; expected a header with the column names")
    separator = "\t" if _stem(path).endswith(".tsv") else max(",\t;|", key=line.count)
    if "\r" in line:
        raise DataError(f"{path}: its lines end in carriage returns alone; write them with \\n or \\r\\n")
    try:
        names = next(csv.reader([bare_names(line.encode(), separator).decode()], delimiter=separator))
    except csv.Error as error:
        raise DataError(
            f"{path}: a name in its header opens or closes with a quote alone, {line[:60]!r}; "
            "quote names at both ends, and double quotes inside"
        ) from error
    if _looks_like_values(names):
        raise DataError(f"{path}: its first line holds values, not column names; add a header line")
    refuse_duplicates(names, path)
    return names, separator


def _looks_like_values(names: Sequence[str]) -> bool:
    """Numbers, as no one would name columns: one of them twice, or most, with some empty or with a point."""
    if any(_is_number(n) and n and names.count(n) > 1 for n in names):
        return True
    odd = len(set(names)) < len(names) or any(not n or "." in n for n in names)
    return len(names) > 1 and odd and sum(_is_number(n) for n in names) > len(names) / 2


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text
    return True


def _stem(path: str) -> str:
    name = path.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def _first_text_line(path: str) -> str:
    with open_binary(path) as file:
        start = file.read(1 << 20)
    return start[: first_row_end(start) or len(start)].decode("utf-8-sig").rstrip("\r\n")


def refuse_differences(first: dict[str, str], other: dict[str, str], first_file: str, file: str) -> None:
    """Raise SchemaError when a file's columns (name -> type) are not those of the first file."""
    for name, kind in first.items():
        if name not in other:
            raise SchemaError(
                f"{file}: column {name!r} is missing, which {first_file} has; give files of one schema"
            )
        if other[name] != kind:
            raise SchemaError(
                f"{file}: column {name!r} is {other[name]} but {kind} in {first_file}; write one type"
            )
    extra = [n for n in other if n not in first]
    if extra:
        raise SchemaError(f"{file}: column {extra[0]!r} is not in {first_file}; give files of one schema")


def file_digest(paths: Sequence[str]) -> str:
    """Digest of paths, sizes, modification times, and of the first, middle and last bytes (the footer)."""
    digest = hashlib.sha256()
    for path in paths:
        stat = os.stat(path)
        digest.update(f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        with open(path, "rb") as file:
            for start in (0, stat.st_size // 2, stat.st_size - _SAMPLE):
                file.seek(max(0, start))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, shortened."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".:") if lines else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
