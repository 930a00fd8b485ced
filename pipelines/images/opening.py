"""Opening: from a folder, an archive, a manifest, arrays or pictures in memory to a checked `ImageSet`."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor

from graphrec.errors import ConfigError, DataError

from ..index_splits import IndexSplit
from ..tables.files import format_of, is_url
from .archives import is_archive, read_archives
from .arrays import as_pixels
from .checks import Check, OnCorrupt, check_images
from .container import ImageSet
from .labels import as_column, as_weights, code_labels
from .layout import SUFFIXES, files_below, group_codes, is_image_name, read_layout, split_of
from .manifest import Manifest
from .stores import ArrayStore, BytesStore, FileStore, PilStore


def open_images(
    data: Any,
    labels: Any = None,
    *,
    image: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    root: str | os.PathLike[str] | None = None,
    sample_weight: Any = None,
    classes: Sequence[str] | None = None,
    labelled: bool = True,
    on_corrupt: OnCorrupt = "raise",
    check: Check = "header",
    name: str | None = None,
) -> ImageSet:
    """Open pictures, whatever they are in, and check every one.

    Args:
        data: A folder with a folder per class (below ``train``, ``val`` and ``test`` if it is split); a tar
            or zip archive of such a folder, or a folder of archives; a manifest: parquet, CSV or Arrow files,
            or a polars, pandas or Arrow table, with a column of paths, of encoded bytes, or of Hugging Face's
            structs of both; an array or tensor uint8 (N, H, W, 3), (N, 3, H, W) or (N, H, W); a list of paths
            (a column or an array of them as well), of encoded images or of PIL images; one image, as a file
            or encoded; a pattern such as ``"new/*.jpg"``; or an `ImageSet`.
        labels: Class of each, for arrays and lists: whole numbers, booleans or text (N,).
        image: Column of a manifest with paths or bytes; found by type, name and values if None.
        label: Column of labels; found by its name, or as the only one that can be.
        split: Column that says train, valid or test; found by its name.
        group: Column of what must not be torn apart by a split, such as the patient.
        weight: Column of weights: how much a picture counts.
        root: What relative paths in a manifest are relative to; its folder if None.
        sample_weight: Weights (N,), for what has no columns.
        classes: The classes of a fitted model, in order; another label is then an error. None sorts the
            values.
        labelled: False reads no labels, for predicting.
        on_corrupt: "raise" refuses broken files by name; "skip" leaves them out.
        check: How every file is looked at; see `check_images`.
        name: What messages call the set.

    Raises:
        DataError: Nothing is there, a file is broken, a label is missing or unknown, or sizes do not match.
        SchemaError: Columns of a manifest are missing or not clear.
        ConfigError: Arguments contradict each other.
    """
    columns = {"image": image, "label": label, "split": split, "group": group, "weight": weight}
    if isinstance(data, ImageSet):
        data = _weighted(data, sample_weight)
        return data if classes is None or not labelled else data.with_classes(classes)
    data = _listed(data)
    kind = kind_of(data)
    if kind != "manifest":
        _refuse_columns(columns, root, kind)
    if kind in ("array", "list"):
        found = _open_array(data, name) if kind == "array" else _open_list(data, name)
        found = _with_labels(found, labels, classes, labelled)
    elif labels is not None:
        raise ConfigError(f"labels: a {kind} brings its own; give labels with arrays and lists only")
    elif kind == "manifest":
        manifest = Manifest(data, **columns, root=root, labelled=labelled)
        found = _open_manifest(manifest, classes, name)
    else:
        found = _open_folder(Path(data).expanduser(), classes, labelled, name)
    return _checked(_weighted(found, sample_weight), check, on_corrupt)


def _weighted(found: ImageSet, sample_weight: Any) -> ImageSet:
    """The set with weights that the caller gave."""
    if sample_weight is None:
        return found
    if found.weights is not None:
        raise ConfigError(f"sample_weight: {found.title} brings weights of its own; give one or the other")
    return replace(found, weights=as_weights(sample_weight, len(found), "sample_weight"))


def _listed(data: Any) -> Any:
    """A column or an array of paths, and a single encoded image, as a list; anything else as it is."""
    if isinstance(data, bytes):
        return [data]
    column = hasattr(data, "to_list") and not hasattr(data, "columns")
    paths = isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "OU"
    return data.tolist() if paths else data.to_list() if column else data


def kind_of(data: Any) -> str:
    """``"array"``, ``"list"``, ``"manifest"`` or ``"folder"``.

    Raises:
        DataError: It is no path, or an address in the web.
    """
    if isinstance(data, np.ndarray | Tensor):
        return "array"
    if isinstance(data, list | tuple):
        tables = [isinstance(v, str | os.PathLike) and format_of(os.fspath(v)) is not None for v in data]
        return "manifest" if data and all(tables) else "list"
    if not isinstance(data, str | os.PathLike):
        return "manifest"
    text = os.fspath(data)
    if not text:
        raise DataError("the path is empty; name an image, a folder, an archive or a manifest")
    if is_image_name(Path(text).name):
        if is_url(text):
            raise DataError(f"{text}: images are not read from the web; download it, or give its bytes")
        return "list"
    if is_url(text) or format_of(text) is not None or any(c in text for c in "*?["):
        return "manifest"
    path = Path(text).expanduser()
    if path.is_dir() and not _holds_images(path) and any(map(format_of, files_below(path))):
        return "manifest"
    return "folder"


def _holds_images(folder: Path) -> bool:
    """Whether a picture or an archive lies below; looks no further than the first."""
    return any(is_image_name(f) or is_archive(Path(f)) for f in files_below(folder))


def _refuse_columns(columns: dict[str, str | None], root: Any, kind: str) -> None:
    given = [key for key, value in {**columns, "root": root}.items() if value is not None]
    if given:
        raise ConfigError(f"{given[0]}: is for manifests; these images are in a {kind}")


def _open_array(data: Any, name: str | None) -> ImageSet:
    title = name or "the array"
    pixels = as_pixels(data, title)
    return ImageSet(ArrayStore(pixels), torch.arange(len(pixels)), title=title)


def _open_list(data: Any, name: str | None) -> ImageSet:
    alone = isinstance(data, str | os.PathLike)
    title = name or (os.fspath(data) if alone else "the list")
    data = _named_files(os.path.expanduser(data), title) if alone else list(data)
    if not data:
        raise DataError(f"{title}: holds no image")
    numbers = [f"image {i}" for i in range(len(data))]
    store: PilStore | FileStore | BytesStore
    if all(isinstance(v, Image.Image) for v in data):
        store = PilStore(data, numbers)
    elif all(isinstance(v, str | os.PathLike) for v in data):
        store = FileStore([os.path.expanduser(os.fspath(v)) for v in data])
    elif all(isinstance(v, bytes) for v in data):
        store = BytesStore.of(data, numbers)
    else:
        kinds = " and ".join(sorted({type(v).__name__ for v in data}))
        raise DataError(
            f"{title}: holds {kinds}; give paths, PIL images or encoded ones (bytes), all of a kind, or one "
            "array of all images"
        )
    return ImageSet(store, torch.arange(len(data)), title=title)


def _named_files(path: str, title: str) -> list[str]:
    """The image of that name, or those that the pattern fits."""
    if os.path.exists(path):
        return [path]
    found = sorted(f for f in glob.glob(path, recursive=True) if is_image_name(os.path.basename(f)))
    if not found:
        what = "no image fits this pattern" if glob.has_magic(path) else "no such file"
        raise DataError(f"{title}: {what}")
    return found


def _with_labels(found: ImageSet, labels: Any, classes: Sequence[str] | None, labelled: bool) -> ImageSet:
    if not labelled:
        return found
    if labels is None:
        raise DataError(
            f"{found.title}: no labels; give one for each image (labels=..., y of an estimator), or "
            "labelled=False to predict"
        )
    column = as_column(labels, len(found), found.title)
    codes, names = code_labels(column, found.title, classes)
    return replace(found, labels=codes, classes=names, kind=column.dtype)


def _open_manifest(manifest: Manifest, classes: Sequence[str] | None, name: str | None) -> ImageSet:
    title, frame = name or manifest.name, manifest.frame
    found = ImageSet(manifest.store(), torch.arange(len(frame)), title=title)
    if len(frame) == 0:
        raise DataError(f"{title}: holds no rows")
    if manifest.label is not None:
        column = frame[manifest.label]
        if manifest.classes is not None and column.dtype.is_integer():
            column = _named(column, manifest.classes, title)
            classes = manifest.classes if classes is None else classes
        codes, names = code_labels(column, title, classes)
        found = replace(found, labels=codes, classes=names, kind=column.dtype)
    if manifest.split is not None:
        values = frame[manifest.split].cast(pl.String).to_list()
        found = replace(found, split=split_of(values, title))
    if manifest.group is not None:
        found = replace(found, groups=group_codes(frame[manifest.group]))
    if manifest.weight is not None:
        numbers = frame[manifest.weight].cast(pl.Float64, strict=False).to_numpy()
        weights = as_weights(numbers, len(frame), f"{title}, column {manifest.weight!r}")
        found = replace(found, weights=weights)
    return found


def _named(column: pl.Series, names: Sequence[str], title: str) -> pl.Series:
    """Numbers of classes by their names."""
    low, high = column.min(), column.max()
    if column.null_count() == 0 and not 0 <= int(low) <= int(high) < len(names):  # type: ignore[arg-type]
        raise DataError(f"{title}: column {column.name!r} goes to {high!r}, but names {len(names)} classes")
    return pl.Series(column.name, [None if v is None else names[v] for v in column.to_list()], pl.String)


def _open_folder(path: Path, classes: Sequence[str] | None, labelled: bool, name: str | None) -> ImageSet:
    title = name or str(path)
    store, inside = _find(path)
    found = ImageSet(store, torch.arange(len(store)), title=title)
    if not labelled:
        return found
    names, splits = read_layout(inside, title)
    codes, known = code_labels(pl.Series("class", names, pl.String), title, classes)
    parts = None if splits is None else split_of(splits, title)
    return replace(found, labels=codes, classes=known, split=parts)


def _find(path: Path) -> tuple[FileStore | BytesStore, list[str]]:
    """The pictures of a folder or an archive, and their paths inside it, sorted."""
    if path.is_file() and is_archive(path):
        return read_archives([path], str(path))
    if path.is_file():
        raise DataError(f"{path}: is neither an image, nor an archive, nor a table")
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    files = sorted(files_below(path))
    inside = [f for f in files if is_image_name(f)]
    if inside:
        return FileStore([str(path / f) for f in inside]), inside
    archives = [path / f for f in files if is_archive(Path(f))]
    if archives:
        return read_archives(archives, str(path))
    what = f"{len(files)} files, but none" if files else "no files; none"
    some = ", ".join(sorted(SUFFIXES)[:6])
    raise DataError(f"{path}: this folder holds {what} with the extension of an image ({some}, ...)")


def _checked(found: ImageSet, check: Check, on_corrupt: OnCorrupt) -> ImageSet:
    if not isinstance(found.store, FileStore | BytesStore):
        return found
    facts, broken = check_images(found.store, found.title, check, on_corrupt)
    found = replace(found, facts=facts)
    if not broken:
        return found
    kept = torch.tensor([row for row in range(len(found)) if row not in broken])
    skipped = tuple(f"{found.store.name(row)} ({why})" for row, why in broken.items())
    split = None if found.split is None else _narrowed(found.split, kept)
    return replace(found.subset(kept), skipped=skipped, split=split)


def _narrowed(split: IndexSplit, kept: Tensor) -> IndexSplit:
    """A split of what is left."""
    place = torch.full((split.total,), -1)
    place[kept] = torch.arange(len(kept))
    parts = (place[part][place[part] >= 0] for part in (split.train, split.valid, split.test))
    train, valid, test = parts
    return IndexSplit.of(train, valid, test, len(kept), split.name)
