"""A table of pictures: which columns hold path or bytes, label, part and group; names of classes."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from graphrec.errors import SchemaError

from ..frames import need, refuse_rows
from ..tables import open_table
from ..tables.sources import Table
from .layout import is_image_name
from .stores import BytesStore, FileStore

_IMAGE_NAMES = frozenset(
    {"image", "path", "file", "image_path", "img_path", "file_path", "filepath", "file_name", "filename"}
    | {"img", "image_file"}
)
_LABEL_NAMES = frozenset(
    {"label", "labels", "class", "class_name", "classname", "category", "target", "y", "class_id"}
    | {"label_name"}
)
_SPLIT_NAMES = frozenset({"split", "subset", "part", "partition"})


class Manifest:
    """A table of pictures, opened.

    Args:
        data: Whatever `open_table` takes.
        image: Column of paths or bytes; found if None.
        label: Column of labels; found if None.
        split: Column that says train, valid or test; found by its name if None.
        group: Column of what must stay together.
        weight: Column of weights.
        root: What relative paths are relative to; the table's folder if None.
        labelled: Whether labels are wanted.

    Raises:
        SchemaError: A column is missing, or which is which is not clear.
        DataError: A picture's cell is empty.
    """

    def __init__(
        self,
        data: Any,
        *,
        image: str | None,
        label: str | None,
        split: str | None,
        group: str | None,
        weight: str | None,
        root: str | os.PathLike[str] | None,
        labelled: bool,
    ) -> None:
        table = open_table(data)
        self.name = table.name
        kinds = pl.DataFrame(schema=table.columns)
        given = {"image": image, "label": label, "split": split, "group": group, "weight": weight}
        for argument, column in given.items():
            if column is not None:
                need(kinds, self.name, [column], argument)
        self.image = image or _find_image(table)
        if split is None:
            split = next((c for c in table.columns if c.lower() in _SPLIT_NAMES and c != label), None)
        self.split, self.group, self.weight = split, group, weight
        self.label = (label or self._find_label(table)) if labelled else None
        if self.label == self.image:
            raise SchemaError(
                f"{self.name}: column {self.label!r} holds the images; another holds the labels"
            )
        chosen = (self.image, self.label, self.split, self.group, self.weight)
        wanted = dict.fromkeys(c for c in chosen if c is not None)
        self.frame = table.collect(table.lazy.select(list(wanted)))
        self.root = Path(root).expanduser() if root is not None else _folder_of(table)
        self.classes = _class_names(table, self.label)

    def store(self) -> FileStore | BytesStore:
        """Where the pictures lie."""
        column = self.frame[self.image]
        if isinstance(column.dtype, pl.Struct):
            return self._from_struct(column)
        if column.dtype == pl.Binary:
            return self._encoded(column, [f"row {i + 1}" for i in range(len(column))])
        return self._files(column)

    def _from_struct(self, column: pl.Series) -> FileStore | BytesStore:
        """Hugging Face's form: bytes, with the path as the name, or the path alone."""
        paths = column.struct.field("path") if "path" in column.struct.fields else None
        data = column.struct.field("bytes")
        if paths is not None and data.null_count() == len(data):
            return self._files(paths)
        rows = [f"row {i + 1}" for i in range(len(column))]
        names = rows if paths is None else [p or row for p, row in zip(paths.to_list(), rows, strict=True)]
        return self._encoded(data, names)

    def _encoded(self, column: pl.Series, names: Sequence[str]) -> BytesStore:
        import pyarrow as pa

        refuse_rows(column.is_null(), self.name, f"column {self.image!r} is empty", "give every row an image")
        data = pa.chunked_array([column.to_arrow().cast(pa.large_binary())])
        return BytesStore(data, [f"{self.name}, {name}" for name in names])

    def _files(self, column: pl.Series) -> FileStore:
        if isinstance(column.dtype, pl.Categorical | pl.Enum):
            column = column.cast(pl.String)
        if column.dtype != pl.String:
            raise SchemaError(
                f"{self.name}: column {self.image!r} is {column.dtype}; it must hold paths, encoded bytes or "
                "structs of bytes and path"
            )
        bad = column.is_null() | (column.str.strip_chars() == "")
        refuse_rows(bad, self.name, f"column {self.image!r} is empty", "give every row a path")
        refuse_rows(
            column.str.contains("^[A-Za-z][A-Za-z0-9+.-]*://"),
            self.name,
            f"column {self.image!r} holds an address, not the path of a file",
            "download the images and give their paths, or a column of their bytes",
            values=column,
        )
        files = [os.path.join(self.root, os.path.expanduser(path)) for path in column.to_list()]
        if self.label is not None:
            self._warn_of_repeats(files, column, self.frame[self.label])
        return FileStore(files)

    def _warn_of_repeats(self, files: Sequence[str], paths: pl.Series, labels: pl.Series) -> None:
        """A picture that is listed twice may be trained and tested on, or be of two classes."""
        plain = [os.path.normpath(file) for file in files]
        rows = pl.DataFrame({"file": plain, "path": paths, "label": labels})
        found = (pl.len(), pl.col("label").n_unique().alias("labels"), pl.col("path").first())
        repeated = rows.group_by("file", maintain_order=True).agg(found).filter(pl.col("len") > 1)
        if not len(repeated):
            return
        torn = repeated.filter(pl.col("labels") > 1)
        odd = f", {len(torn)} of them with different labels" if len(torn) else ""
        shown = (torn if len(torn) else repeated)["path"][0]
        warnings.warn(
            f"{self.name}: {len(repeated)} images are listed more than once{odd}, such as {shown!r}; they "
            "may be trained and tested on: leave the repeats out, or keep them together with group=",
            UserWarning,
            stacklevel=4,
        )

    def _find_label(self, table: Table) -> str:
        named = [c for c in table.columns if c.lower() in _LABEL_NAMES and c != self.image]
        if len(named) == 1:
            return named[0]
        others = {
            c: t
            for c, t in table.columns.items()
            if c not in (self.image, self.split, self.group, self.weight)
        }
        possible = named or [c for c, t in others.items() if _can_be_label(t)]
        if len(possible) == 1:
            return possible[0]
        found = f"candidates are {', '.join(possible)}" if possible else f"it has {', '.join(table.columns)}"
        raise SchemaError(
            f"{self.name}: which column holds the labels is not clear; {found}: say label=..., or "
            "labelled=False if there are none"
        )


def _can_be_label(kind: Any) -> bool:
    text = kind in (pl.String, pl.Boolean) or isinstance(kind, pl.Categorical | pl.Enum)
    return bool(text or kind.is_integer())


def _find_image(table: Table) -> str:
    """The column of pictures: by type, else by name, else by values that look like names of images."""
    binary = [c for c, t in table.columns.items() if t == pl.Binary or _has_bytes(t)]
    text = [c for c, t in table.columns.items() if t == pl.String]
    sample = table.sample(20)
    named = [c for c in text if c.lower() in _IMAGE_NAMES]
    filled = [c for c in text if any(is_image_name(v) for v in sample[c].drop_nulls().to_list())]
    for possible in (binary, [c for c in named if c in filled], filled, named):
        if len(possible) == 1:
            return possible[0]
        if possible:
            raise SchemaError(
                f"{table.name}: which column holds the images is not clear; candidates are "
                f"{', '.join(possible)}: say image=..."
            )
    kinds = ", ".join(f"{c} ({t})" for c, t in table.columns.items())
    raise SchemaError(
        f"{table.name}: no column holds images (paths, bytes, or structs of bytes and path); it has {kinds}"
    )


def _has_bytes(kind: Any) -> bool:
    return isinstance(kind, pl.Struct) and any(
        f.name == "bytes" and f.dtype == pl.Binary for f in kind.fields
    )


def _folder_of(table: Table) -> Path:
    return Path(table.files[0]).parent if table.files else Path()


def _class_names(table: Table, label: str | None) -> tuple[str, ...] | None:
    """Names of classes that Hugging Face's datasets writes into the metadata of parquet files."""
    if label is None or table.kind != "parquet" or not table.files:
        return None
    import pyarrow.parquet as pq

    metadata = pq.read_schema(table.files[0]).metadata or {}
    try:
        features: Mapping[str, Any] = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return None
