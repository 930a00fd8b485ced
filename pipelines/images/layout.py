"""What the folders of a picture say: its class, and whether it trains, validates or tests."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import polars as pl
import torch

from graphrec.errors import DataError

from ..index_splits import IndexSplit

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2", ".avif"}
)
"""Extensions of files that are taken for images; what is in them is looked at, never the name alone."""

PART_OF = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""Names of folders, or values of a column, that say which part of a split a picture is in."""


def is_image_name(path: str) -> bool:
    """Whether a file of this name is taken for an image: by extension, and not hidden."""
    plain = PurePosixPath(path)
    hidden = any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in plain.parts)
    return plain.suffix.lower() in SUFFIXES and not hidden


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, separated by ``/``, folder by folder in order.

    Links are followed, to a folder that they lie in themselves excepted; a link to nothing is a file.

    Raises:
        DataError: A folder cannot be listed.
    """
    yield from _walk(str(folder), "", frozenset())


def _walk(folder: str, inside: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, f"{inside}{entry.name}/", above | {real})
        elif entry.is_file() or entry.is_symlink():
            yield inside + entry.name


def read_layout(paths: Sequence[str], name: str) -> tuple[list[str], list[str] | None]:
    """Class and part of each picture.

    Args:
        paths: Of the pictures below the folder or archive, separated by ``/``.
        name: Of the folder or archive.

    Returns:
        The classes, and the names of the folders of parts (None where there are none).

    Raises:
        DataError: A picture is in no folder of a class.
    """
    parts = [PurePosixPath(path).parts for path in paths]
    while len({p[0] for p in parts}) == 1 and min(map(len, parts)) > 2 and parts[0][0].lower() not in PART_OF:
        parts = [p[1:] for p in parts]
    splits: list[str] | None = None
    if all(p[0].lower() in PART_OF for p in parts) and max(map(len, parts)) > 2:
        splits, parts = [p[0] for p in parts], [p[1:] for p in parts]
    else:
        _warn_of_parts(parts, name)
    loose = [path for path, p in zip(paths, parts, strict=True) if len(p) < 2]
    if loose:
        raise DataError(
            f"{name}: {len(loose)} of {len(paths)} images are in no folder of a class ({loose[0]!r}); "
            "put each class into a folder, give a manifest, or open them with labelled=False"
        )
    return [p[0] for p in parts], splits


def _warn_of_parts(paths: Sequence[tuple[str, ...]], name: str) -> None:
    """Folders ``train`` and ``test`` beside a folder that is neither are classes, which few would mean."""
    named = {p[0] for p in paths if p[0].lower() in PART_OF and len(p) > 2}
    others = {p[0] for p in paths if p[0].lower() not in PART_OF and len(p) > 1}
    if len(named) > 1 and others:
        warnings.warn(
            f"{name}: the folders {', '.join(map(repr, sorted(named)))} are read as classes, since "
            f"{min(others)!r} beside them is no part of a split; if they are parts, take it out",
            stacklevel=2,
        )


def split_of(values: Sequence[str | None], name: str) -> IndexSplit:
    """A split from the part of each picture; None is in no part.

    Raises:
        DataError: A value names no part.
    """
    index: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for row, value in enumerate(values):
        if value is None:
            continue
        part = PART_OF.get(str(value).strip().lower())
        if part is None:
            raise DataError(
                f"{name}: row {row + 1}: {value!r} is no part of a split; say train, valid or test"
            )
        index[part].append(row)
    return IndexSplit.of(index["train"], index["valid"], index["test"], len(values), f"split of {name}")


def group_codes(column: pl.Series) -> torch.Tensor:
    """Number of each value's group, int64; null is a group of its own for every row."""
    codes = column.rank("dense").fill_null(0).cast(pl.Int64).to_numpy().copy()
    missing = codes == 0
    codes[missing] = codes.max(initial=0) + 1 + torch.arange(int(missing.sum())).numpy()
    return torch.from_numpy(codes - 1)
