"""Heterophilous graphs of Platonov et al. (arXiv 2302.11640): features, edges and ten splits, one .npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from graphrec.errors import DataError

from .edges import UNDIRECTED, EdgePolicy, clean_edges

_KEYS = ("node_features", "node_labels", "edges", "train_masks", "val_masks", "test_masks")


def read_npz(path: str | Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an .npz, without pickles.

    Raises:
        DataError: The file or an array is missing, broken, or would need a pickle.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [k for k in keys if k not in file.files]
            if missing:
                raise DataError(f"{path}: array {missing[0]!r} is missing; it has {', '.join(file.files)}")
            return {k: file[k] for k in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error


def read_masked_npz(
    path: str | Path,
    *,
    policy: EdgePolicy = UNDIRECTED,
) -> Data:
    """Roman-empire, Minesweeper, Tolokers, filtered Chameleon and Squirrel, and other sets of this form.

    Args:
        path: The file: node_features (N, F), node_labels (N,), edges (E, 2), and masks (splits, N) for train,
            val and test.
        policy: The files list each undirected edge once; see `EdgePolicy`.

    Returns:
        x float32 (N, F), edge_index int64 (2, E), y int64 (N,), and masks bool (N, splits) as PyG has them;
        `node_split` takes one of them.

    Raises:
        DataError: The file is broken, or an edge, label, feature or mask cannot be right.
    """
    found = read_npz(path, _KEYS)
    x, y, edges = found["node_features"], found["node_labels"], found["edges"]
    if x.ndim != 2 or y.shape != (len(x),) or edges.ndim != 2 or edges.shape[1] != 2:
        raise DataError(
            f"{path}: features {x.shape}, labels {y.shape} and edges {edges.shape} do not fit together"
        )
    if edges.dtype.kind not in "iu" or x.dtype.kind not in "iufb":
        raise DataError(
            f"{path}: edges are {edges.dtype} and features {x.dtype}; must be whole numbers and numbers"
        )
    bad = ((edges < 0) | (edges >= len(x))).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{path}: edges: row {row + 1} {edges[row].tolist()}: nodes are 0 to {len(x) - 1}")
    if not np.isfinite(x).all():
        raise DataError(
            f"{path}: node_features: row {int((~np.isfinite(x)).any(axis=1).argmax()) + 1} is not finite"
        )
    wrong = ~((y >= 0) & (y == np.floor(y)))
    if wrong.any():
        raise DataError(
            f"{path}: node_labels: row {int(wrong.argmax()) + 1}: classes must be numbered from 0"
        )
    ends, _, _ = clean_edges(
        torch.from_numpy(edges.T.astype(np.int64)), len(x), None, policy, f"{path}: edges"
    )
    data = Data(
        x=torch.from_numpy(x.astype(np.float32)), edge_index=ends, y=torch.from_numpy(y.astype(np.int64))
    )
    for part in ("train", "val", "test"):
        data[f"{part}_mask"] = _masks(found[f"{part}_masks"], len(x), f"{path}: {part}_masks")
    twice = (data.train_mask.int() + data.val_mask.int() + data.test_mask.int() > 1).any(1).nonzero()
    if len(twice):
        raise DataError(f"{path}: node {int(twice[0])} is in two parts of one split")
    return data


def _masks(masks: np.ndarray, nodes: int, name: str) -> torch.Tensor:
    masks = masks if masks.ndim == 2 else masks[None]
    if masks.dtype != np.bool_ or masks.shape[1] != nodes:
        raise DataError(f"{name}: {masks.dtype} of shape {masks.shape}; must be bool (splits, {nodes})")
    return torch.from_numpy(np.ascontiguousarray(masks.T))
