"""The file with a training's history: a line per evaluation, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphrec.errors import RunError


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per epoch; the columns are all keys that occur, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: Path, *, texts: bool = False) -> list[dict[str, Any]]:
    """The rows of `write_history`; empty cells are None.

    Args:
        path: The file.
        texts: Whether cells that are no numbers stay texts; they are refused otherwise.

    Raises:
        RunError: The file is missing, damaged, or a line of it is not whole.
    """
    if not path.is_file():
        raise RunError(f"{path}: is missing; fit again")
    try:
        # A cut number is a number too, but every line that was written whole has an end.
        content = path.read_bytes().decode("utf-8")
        if not content.endswith("\n"):
            raise RunError(_cut(path, content.count("\n") + 1))
        lines = csv.DictReader(io.StringIO(content, newline=""))
        rows = []
        for row in lines:
            if None in row or None in row.values():
                raise RunError(_cut(path, lines.line_num))
            rows.append({key: _value(text, texts) for key, text in row.items()})
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path}: is damaged ({error}); fit again") from error


def _cut(path: Path, line: int) -> str:
    """What to say of a line that is not whole; the header is the first."""
    remedy = "remove that line to go on without it, or fit again" if line > 1 else "fit again"
    return f"{path}: line {line} is not whole; {remedy}"


def _value(text: str, texts: bool) -> Any:
    if text in ("", "True", "False"):
        return None if text == "" else text == "True"
    try:
        number = float(text)
    except ValueError:
        if texts:
            return text
        raise
    return int(number) if text.lstrip("-").isdigit() else number
