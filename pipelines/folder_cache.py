"""Folders that keep what was made once: written aside, renamed when complete, the oldest removed in time."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphrec.errors import DataError

MAX_BYTES = 50 << 30
"""Size of a user's cache above which the least recently used entries are removed."""

_STALE_SECONDS = 2 * 86_400


def user_cache(kind: str) -> Path:
    """``~/.cache/graphrec/<kind>`` or its counterpart on this platform; follows ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        root = Path(base)
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local")))
    else:
        root = Path.home() / ".cache"
    return root / "graphrec" / kind


def writable(folder: Path) -> bool:
    """Whether a folder is there, or could be made, and takes files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@contextmanager
def room_in(store: Path, remedy: str) -> Iterator[None]:
    """Name the folder that has no room left, of which the system says no more than that.

    Raises:
        DataError: The disk, or what one may write on it, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(f"{store}: has no room for the encoded rows ({error.strerror}); {remedy}") from error


def scratch(store: Path) -> Path:
    """A new folder to write into, beside the entries."""
    return Path(
        tempfile.mkdtemp(prefix="graphrec-" if store == Path(tempfile.gettempdir()) else ".tmp-", dir=store)
    )


def publish(work: Path, target: Path, bounded: bool = False) -> Path:
    """Rename a complete folder into place; when another process was first, its entry is used.

    Args:
        work: The complete folder.
        target: Where it is to be.
        bounded: Remove the least recently used entries beside it above `MAX_BYTES`.
    """
    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(work, ignore_errors=True)
    if bounded:
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
