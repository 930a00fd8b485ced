"""Planetoid's citation graphs (Yang, Cohen, Salakhutdinov, arXiv 1603.08861), with their public split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from graphrec.errors import DataError

from .edges import SIMPLE, EdgePolicy, clean_edges
from .restricted_pickle import CSRFields, load_arrays

_PARTS = ("x", "tx", "allx", "y", "ty", "ally")


def read_planetoid(
    folder: str | Path,
    name: str,
    *,
    policy: EdgePolicy = SIMPLE,
    valid: int = 500,
) -> Data:
    """Cora, Citeseer or Pubmed from the files ``ind.<name>.*``.

    Args:
        folder: Where they lie.
        name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.
        policy: The files hold repeated edges and loops; see `EdgePolicy`.
        valid: Nodes after the training nodes that validate.

    Returns:
        x float32 (N, F), edge_index int64 (2, E), y int64 (N,), train_mask, val_mask and test_mask bool (N,):
        the public split. Nodes that the files give neither features nor a label (15 in Citeseer) have zeros
        and class -1, and are in no mask.

    Raises:
        DataError: A file is missing, broken, holds more than arrays, or does not fit the others.
    """
    base = Path(folder) / f"ind.{name.lower()}"
    parts = {part: _array(f"{base}.{part}") for part in _PARTS}
    test = _test_index(f"{base}.test.index", len(parts["tx"]))
    first = len(parts["allx"])
    if test.min() < first:
        raise DataError(
            f"{base}.test.index: node {test.min()} is one of the {first} of allx; another set's file?"
        )
    nodes = int(test.max()) + 1
    x = np.zeros((nodes, parts["allx"].shape[1]), np.float32)
    onehot = np.zeros((nodes, parts["ally"].shape[1]), np.float32)
    for whole, known, tested in ((x, "allx", "tx"), (onehot, "ally", "ty")):
        _refuse_widths(f"{base}.{tested}", parts[tested], whole.shape[1])
        whole[: len(parts[known])], whole[test] = parts[known], parts[tested]
    y = np.where(onehot.any(axis=1), onehot.argmax(axis=1), -1)
    edge_index, _, _ = clean_edges(_edges(f"{base}.graph", nodes), nodes, None, policy, f"{base}.graph")
    data = Data(x=torch.from_numpy(x), edge_index=edge_index, y=torch.from_numpy(y))
    train = len(parts["y"])
    data.train_mask = _mask(nodes, np.arange(train))
    data.val_mask = _mask(nodes, np.arange(train, min(train + valid, first)))
    data.test_mask = _mask(nodes, test)
    return data


def _array(path: str) -> np.ndarray:
    found = load_arrays(path)
    array = found.dense(path) if isinstance(found, CSRFields) else found
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype == object:
        raise DataError(f"{path}: holds {type(found).__name__}, not a matrix; is it another file?")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: row {int((~np.isfinite(array)).any(axis=1).argmax())} is not finite")
    return array


def _test_index(path: str, expected: int) -> np.ndarray:
    try:
        index = np.array(Path(path).read_text(encoding="utf-8").split(), dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(index) != expected or len(np.unique(index)) != expected or not expected:
        raise DataError(f"{path}: {len(np.unique(index))} different nodes for the {expected} rows of tx")
    return index


def _refuse_widths(path: str, array: np.ndarray, width: int) -> None:
    if array.shape[1] != width:
        raise DataError(
            f"{path}: {array.shape[1]} columns where the other file has {width}; another set's file?"
        )


def _edges(path: str, nodes: int) -> torch.Tensor:
    adjacency: Any = load_arrays(path)
    if not isinstance(adjacency, dict):
        raise DataError(f"{path}: holds {type(adjacency).__name__}, not a dict of neighbours")
    lengths = [len(v) for v in adjacency.values()]
    try:
        source = np.repeat(np.fromiter(adjacency, np.int64, len(adjacency)), lengths)
        target = np.fromiter((v for row in adjacency.values() for v in row), np.int64, sum(lengths))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a node is not a whole number ({error})") from error
    bad = (np.minimum(source, target) < 0) | (np.maximum(source, target) >= nodes)
    if bad.any():
        edge = int(bad.argmax())
        raise DataError(
            f"{path}: edge {source[edge]} -> {target[edge]} leads to a missing node; there are {nodes}"
        )
    return torch.from_numpy(np.stack([source, target]))


def _mask(nodes: int, index: np.ndarray) -> torch.Tensor:
    mask = torch.zeros(nodes, dtype=torch.bool)
    mask[torch.from_numpy(index)] = True
    return mask
