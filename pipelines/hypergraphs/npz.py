"""The co-citation and co-authorship hypergraphs of HyperGCN (arXiv 1809.02589), as arrays in one .npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from graphrec.errors import DataError

from ..graphs.masked_npz import read_npz
from ..graphs.restricted_pickle import csr_to_dense
from .container import Hypergraph

_KEYS = ("x_data", "x_indices", "x_indptr", "x_shape", "labels", "edge_ptr", "edge_idx")


def read_hypergraph_npz(path: str | Path) -> Hypergraph:
    """CC-Cora, CC-Citeseer, CA-Cora and others of this form.

    Args:
        path: Features as a CSR matrix (x_data, x_indices, x_indptr, x_shape), labels (N,), and the vertices
            of hyperedge e at ``edge_idx[edge_ptr[e]:edge_ptr[e + 1]]``.

    Raises:
        DataError: The file is broken, or a vertex, label or feature cannot be right; names the array.
    """
    found = read_npz(path, _KEYS)
    for key in ("labels", "edge_ptr", "edge_idx", "x_indices", "x_indptr"):
        if found[key].dtype.kind not in "iu" or found[key].ndim != 1:
            raise DataError(
                f"{path}: {key} is {found[key].dtype} {found[key].shape}; must list whole numbers"
            )
    if found["x_shape"].shape != (2,):
        raise DataError(f"{path}: x_shape must hold rows and columns")
    rows, columns = (int(n) for n in found["x_shape"])
    x = csr_to_dense(found["x_data"], found["x_indices"], found["x_indptr"], (rows, columns), f"{path}: x")
    labels, ptr, vertices = found["labels"], found["edge_ptr"], found["edge_idx"]
    if labels.shape != (rows,) or labels.min(initial=0) < 0:
        raise DataError(f"{path}: labels must be {rows} classes from 0 up, got shape {labels.shape}")
    if len(ptr) < 1 or ptr[0] != 0 or ptr[-1] != len(vertices) or bool((np.diff(ptr) < 0).any()):
        raise DataError(
            f"{path}: edge_ptr must rise from 0 to {len(vertices)}, the length of edge_idx; cut short?"
        )
    owner = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    bad = (vertices < 0) | (vertices >= rows)
    if bad.any():
        at = int(bad.argmax())
        raise DataError(f"{path}: edge_idx: row {at + 1}: vertex {vertices[at]} is missing; there are {rows}")
    pairs = np.unique(np.stack([owner, vertices.astype(np.int64)]), axis=1)[::-1]
    return Hypergraph(
        torch.from_numpy(x),
        torch.from_numpy(np.ascontiguousarray(pairs)),
        len(ptr) - 1,
        torch.from_numpy(labels.astype(np.int64)),
        classes=tuple(range(int(labels.max(initial=-1)) + 1)),
        name=str(path),
    )
