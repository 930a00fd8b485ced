"""Where shards are kept: a folder per data, schema and split; see `graphrec.pipelines.folder_cache`."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphrec.errors import DataError

from ..folder_cache import user_cache, writable
from .schema import TableSchema
from .splits import Split

if TYPE_CHECKING:
    from .sources import Table

ENCODER_VERSION = 1
"""Part of every key: raise it when encoding the same rows gives something else."""

_PARTS = "parts.json"


def default_dir() -> Path:
    """The user's cache of tables."""
    return user_cache("tables")


def place(
    schema: TableSchema, split: Split, tables: Mapping[str, Table], cache_dir: str | Path | None
) -> tuple[Path, str | None]:
    """The folder of the cache, and the entry's key; no key means that the shards are not to be kept."""
    keep = cache_dir is not None or all(t.persistent for t in tables.values())
    if not keep:
        return Path(tempfile.gettempdir()), None
    store = Path(cache_dir).expanduser() if cache_dir is not None else default_dir()
    if not writable(store):
        return Path(tempfile.gettempdir()), None
    return store, key_of(schema, split, tables)


def key_of(schema: TableSchema, split: Split, tables: Mapping[str, Table]) -> str:
    """Digest of everything that decides the encoded rows."""
    columns = [
        c.model_dump(mode="json", exclude={"note", "dtype"}) for c in schema.columns if c.role != "ignored"
    ]
    content = {
        "version": ENCODER_VERSION,
        "columns": columns,
        "group": schema.group,
        "split": split.describe(),
        "tables": {name: table.fingerprint() for name, table in tables.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def write_parts(folder: Path, names: Sequence[str]) -> None:
    """Say in an entry which parts it has, so that one that lost a part is told from one that had none."""
    (folder / _PARTS).write_text(json.dumps(list(names)), encoding="utf-8")


def parts_of(folder: Path) -> list[str]:
    """What `write_parts` said.

    Raises:
        DataError: Nothing.
    """
    try:
        return [str(name) for name in json.loads((folder / _PARTS).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / _PARTS}: does not say which parts there are ({error})") from error
