"""The folder format of the TU collection (Morris et al., arXiv 2007.08663): ``<NAME>_A.txt`` and more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import DataError

from .assemble import assemble
from .container import GraphSet
from .edges import AS_LISTED, EdgePolicy
from .features import one_hot


def read_tu_folder(
    folder: str | Path,
    name: str | None = None,
    *,
    policy: EdgePolicy = AS_LISTED,
) -> GraphSet:
    """Read a set as the collection's own archives unpack.

    ``x`` holds the node attributes followed by the one-hot node labels (all columns), a constant 1 where
    there are neither; ``edge_attr`` likewise. ``y`` holds classes, or float targets where the set has
    ``_graph_attributes.txt`` and no ``_graph_labels.txt``.

    Args:
        folder: Where the files lie.
        name: Of the set; the folder's name by default.
        policy: See `EdgePolicy`. The collection lists both directions of an edge.

    Raises:
        DataError: A file is missing, cut short, or does not fit the others; names file and row.
    """
    base = Path(folder) / (name or Path(folder).name)
    owner = _column(f"{base}_graph_indicator.txt")
    labels, y, classes = _targets(str(base))
    graphs = len(y)
    _refuse(
        f"{base}_graph_indicator.txt",
        (owner < 1) | (owner > graphs),
        f"must be a graph from 1 to {graphs}",
        owner,
    )
    missing = np.flatnonzero(np.bincount(owner - 1, minlength=graphs) == 0)
    if len(missing):
        raise DataError(
            f"{labels}: row {missing[0] + 1}: graph {missing[0] + 1} has no nodes in "
            f"{base}_graph_indicator.txt"
        )
    edges = _table(f"{base}_A.txt", 2).astype(np.int64)
    nodes = len(owner)
    wrong = ((edges < 1) | (edges > nodes)).any(axis=1)
    _refuse(f"{base}_A.txt", wrong, f"leads to a missing node; nodes are 1 to {nodes}", edges)
    across = np.asarray(owner[edges[:, 0] - 1] != owner[edges[:, 1] - 1])
    _refuse(f"{base}_A.txt", across, "joins nodes of two graphs", edges)
    x = _features(f"{base}_node", nodes)
    order = np.argsort(owner, kind="stable")
    place = np.empty(nodes, np.int64)
    place[order] = np.arange(nodes)
    return assemble(
        torch.ones(nodes, 1) if x is None else x[torch.from_numpy(order)],
        owner[order] - 1,
        place[edges - 1],
        y,
        edge_attr=_features(f"{base}_edge", len(edges)),
        classes=classes,
        name=str(folder),
        edge_name=f"{base}_A.txt",
        policy=policy,
    )


def _targets(base: str) -> tuple[str, Tensor, list[int]]:
    labels, attributes = f"{base}_graph_labels.txt", f"{base}_graph_attributes.txt"
    if Path(labels).exists() or not Path(attributes).exists():
        values, codes = np.unique(_column(labels), return_inverse=True)
        return labels, torch.from_numpy(codes.astype(np.int64)), values.tolist()
    return attributes, torch.from_numpy(_table(attributes).astype(np.float32)), []


def _features(base: str, rows: int) -> Tensor | None:
    """Attributes and one-hot labels of nodes or edges, float32 (rows, width); None without files."""
    parts = []
    for path, is_label in ((f"{base}_attributes.txt", False), (f"{base}_labels.txt", True)):
        if not Path(path).exists():
            continue
        values = _table(path)
        if len(values) != rows:
            raise DataError(
                f"{path}: {len(values)} rows for {rows} in the other files; cut short, or another set's?"
            )
        parts += [one_hot(c) for c in values.T] if is_label else [torch.from_numpy(values.astype(np.float32))]
    return torch.cat(parts, dim=1) if parts else None


def _column(path: str) -> np.ndarray:
    values = _table(path, 1)[:, 0]
    _refuse(path, values != np.floor(values), "is not a whole number", values)
    return values.astype(np.int64)


def _table(path: str, width: int | None = None) -> np.ndarray:
    """Numbers between commas, float64 (rows, columns); an empty file has no rows."""
    import polars as pl

    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; the set is not complete, or has another name than its folder")
    try:
        text = pl.read_csv(path, has_header=False, infer_schema=False, truncate_ragged_lines=False)
    except pl.exceptions.NoDataError:
        return np.zeros((0, width or 1))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if width and text.width != width:
        raise DataError(f"{path}: has {text.width} columns where {width} are right")
    frame = text.select(pl.all().str.strip_chars().cast(pl.Float64, strict=False))
    values = frame.fill_null(float("nan")).to_numpy()
    _refuse(path, ~np.isfinite(values).all(axis=1), "is not a row of finite numbers", text)
    return values


def _refuse(path: str, wrong: Any, why: str, values: Any) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        found = values[row]
        shown = found.rows()[0] if hasattr(found, "rows") else np.asarray(found).tolist()
        raise DataError(f"{path}: row {row + 1} ({str(shown).strip('()[],')}) {why}")
