"""Where shards are kept: a folder per data, schema and split, written aside and renamed when complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .schema import TableSchema
from .splits import Split

if TYPE_CHECKING:
    from .sources import Table

ENCODER_VERSION = 1
"""Part of every key: raise it when encoding the same rows gives something else."""

MAX_BYTES = 50 << 30
"""Size of the user's cache above which the least recently used entries are removed."""

_STALE_SECONDS = 2 * 86_400


def default_dir() -> Path:
    """``~/.cache/graphrec/tables`` or its counterpart on this platform; follows ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        root = Path(base)
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local")))
    else:
        root = Path.home() / ".cache"
    return root / "graphrec" / "tables"


def place(
    schema: TableSchema, split: Split, tables: Mapping[str, Table], cache_dir: str | Path | None
) -> tuple[Path, str | None]:
    """The folder of the cache, and the entry's key; no key means that the shards are not to be kept."""
    keep = cache_dir is not None or all(t.persistent for t in tables.values())
    if not keep:
        return Path(tempfile.gettempdir()), None
    store = Path(cache_dir).expanduser() if cache_dir is not None else default_dir()
    if not _writable(store):
        return Path(tempfile.gettempdir()), None
    return store, key_of(schema, split, tables)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


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


def scratch(store: Path) -> Path:
    """A new folder to write into, beside the entries."""
    return Path(
        tempfile.mkdtemp(prefix="graphrec-" if store == Path(tempfile.gettempdir()) else ".tmp-", dir=store)
    )


def publish(work: Path, target: Path) -> Path:
    """Rename a complete folder into place; when another process was first, its entry is used."""
    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(work, ignore_errors=True)
    if target.parent == default_dir():
        prune(target.parent, keep=target)
    return target


def prune(store: Path, keep: Path, max_bytes: int = MAX_BYTES) -> None:
    """Remove the least recently used entries above ``max_bytes``, and what interrupted runs left behind."""
    entries = []
    for folder in store.iterdir():
        if not folder.is_dir() or folder == keep:
            continue
        used = folder.stat().st_mtime
        if folder.name.startswith(".tmp-"):
            if time.time() - used > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        entries.append((used, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), folder))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total <= max_bytes:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size


def touch(folder: Path) -> None:
    """Mark an entry as used now."""
    try:
        os.utime(folder)
    except OSError:
        return
