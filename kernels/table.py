"""The table of launch settings: rows by operator, architecture, head dimension and dtype, kept in JSON files.

Rows come from ``configurations.json`` beside this file, derived from static limits (registers and shared
memory), and from the file that ``python -m graphrec.kernels.tune`` fills on a GPU, whose rows win.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

SHIPPED = Path(__file__).with_name("configurations.json")
FORMAT = 1
ANY = "any"
"""The architecture of rows that hold where none of their own is listed, and the dtype of rows for all."""


Key = tuple[str, str, int, str]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        operator: whose kernels.
        architecture: "sm_90" and the like, "interpreter", or "any".
        dim: padded head dimension (or what an operator has in its place) up to which the row holds.
        dtype: "float32", "float16" or "bfloat16", or "any" for operators that do not tell them apart.
        settings: launch settings by name.
        source: where the settings come from.
        milliseconds: what was measured with them, None when nothing was.
    """

    operator: str
    architecture: str
    dim: int
    dtype: str
    settings: Mapping[str, int]
    source: str = "static limits"
    milliseconds: float | None = None

    @property
    def key(self) -> Key:
        """What the row is found by."""
        return self.operator, self.architecture, self.dim, self.dtype


def user_file() -> Path:
    """``~/.config/graphrec/kernels.json`` or its counterpart here; follows ``XDG_CONFIG_HOME``."""
    base = os.environ.get("XDG_CONFIG_HOME")
    if base:
        root = Path(base)
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        root = Path(os.environ.get("APPDATA", str(Path.home() / "AppData" / "Roaming")))
    else:
        root = Path.home() / ".config"
    return root / "graphrec" / "kernels.json"


def read(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        ValueError: the file is no such table; the message names it and says what is wrong.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise ValueError(f"its format must be {FORMAT}")
        rows = [Row(**one) for one in held["rows"]]
        for row in rows:
            _check(row)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no table of kernel settings: {error}; mend or remove it") from error
    return rows


def _check(row: Row) -> None:
    sound = isinstance(row.settings, Mapping) and all(
        isinstance(value, int) and value >= 1 for value in row.settings.values()
    )
    if not sound or not row.settings:
        raise ValueError(f"settings of {row.key} must be whole numbers by name, got {row.settings!r}")


def write(path: Path, rows: Iterable[Row]) -> None:
    """Put rows into a file, one per line and in order, in one step: no reader ever sees half of it."""
    lines = [
        json.dumps(asdict(replace(row, settings=dict(row.settings)))) for row in sorted(rows, key=_order)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    body = ",\n  ".join(lines)
    temporary.write_text(f'{{"format": {FORMAT}, "rows": [\n  {body}\n]}}\n', encoding="utf-8")
    os.replace(temporary, path)


def _order(row: Row) -> tuple[str, str, str, int]:
    return row.operator, row.architecture, row.dtype, row.dim


def architecture(device: torch.device | None = None) -> str:
    """What kernels are compiled for here: "sm_90" and the like, or "any" without a GPU."""
    if not torch.cuda.is_available():
        return ANY
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@lru_cache(maxsize=1)
def rows() -> dict[Key, Row]:
    """All rows that hold, the user's before the shipped ones; files are read once, see :func:`forget`."""
    held = {row.key: row for row in read(SHIPPED)}
    user = user_file()
    return held | {row.key: row for row in read(user)} if user.is_file() else held


def forget() -> None:
    """Read the files again on the next look-up."""
    rows.cache_clear()
    _nearest.cache_clear()


_TRIAL: dict[str, Mapping[str, int]] = {}


@contextmanager
def trying(operator: str, settings: Mapping[str, int]) -> Iterator[None]:
    """Settings that go before the table, in every thread: what the tuner times."""
    _TRIAL[operator] = settings
    try:
        yield
    finally:
        del _TRIAL[operator]


def find(operator: str, dim: int, dtype: torch.dtype | None, kind: str) -> Row | None:
    """The row for an architecture, or else for any; of several that of the nearest ``dim`` from above."""
    name = ANY if dtype is None else str(dtype).removeprefix("torch.")
    if operator in _TRIAL:
        return Row(operator, kind, dim, name, _TRIAL[operator], "on trial")
    return _nearest(operator, dim, name, kind)


@lru_cache(maxsize=1024)
def _nearest(operator: str, dim: int, dtype: str, kind: str) -> Row | None:
    for wanted in (kind, ANY):
        near = [row for row in rows().values() if row.key[:2] == (operator, wanted) and row.dtype == dtype]
        above = [row for row in near if row.dim >= dim]
        if near:
            return min(above, key=lambda row: row.dim) if above else max(near, key=lambda row: row.dim)
    return None
