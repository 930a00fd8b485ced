"""Pictures in tar and zip archives, read into memory without unpacking to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from graphrec.errors import DataError

from ..tables.files import first_line
from .layout import is_image_name
from .stores import BytesStore

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
MAX_BYTES = 8 << 30
"""Archives with more than this in pictures are to be unpacked: they are held in memory."""


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_archives(paths: list[Path], name: str) -> tuple[BytesStore, list[str]]:
    """All pictures of some archives.

    Returns:
        The pictures, and their paths inside the archives.

    Raises:
        DataError: An archive is broken or too large, or there is no picture in any.
    """
    names, inside, data, total = [], [], [], 0
    for path in paths:
        for member, content in _members(path):
            total += len(content)
            if total > MAX_BYTES:
                raise DataError(f"{path}: more than {MAX_BYTES >> 30} GiB of images; unpack it to a folder")
            inside.append(member)
            names.append(f"{path}/{member}")
            data.append(content)
    if not names:
        raise DataError(f"{name}: no image in {', '.join(path.name for path in paths)}")
    return BytesStore.of(data, names), inside


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the pictures of an archive, sorted by path."""
    try:
        reader = _zip_members if path.name.lower().endswith(".zip") else _tar_members
        yield from sorted(reader(path))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken archive ({first_line(error)}); copy it again") from error


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and is_image_name(member.filename):
                yield member.filename, archive.read(member)


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and is_image_name(member.name) else None
            if file is not None:
                yield member.name.removeprefix("./"), file.read()
