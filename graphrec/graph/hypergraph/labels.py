"""Labels and splits of hypergraphs, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.hypergraphs import Hypergraph
from graphrec.pipelines.index_splits import IndexSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def labels_of(X: Hypergraph, y: Any) -> tuple[Tensor, NDArray[Any]]:
    """Class number of every vertex, -1 where unlabelled, and the classes."""
    if not isinstance(X, Hypergraph):
        raise ConfigError(f"fit takes a graphrec.pipelines.hypergraphs.Hypergraph, got {type(X).__name__}")
    if y is not None:
        values = np.asarray(y)
        if values.shape != (X.num_vertices,):
            raise DataError(f"y has shape {values.shape}, must be ({X.num_vertices},)")
        classes, codes = np.unique(values, return_inverse=True)
        return torch.from_numpy(codes.astype(np.int64)), classes
    if X.y is None:
        raise DataError(f"{X.name}: has no labels; read it with label= or pass y")
    classes = np.asarray(X.classes) if X.classes else np.arange(int(X.y.max()) + 1 if len(X.y) else 0)
    return X.y, classes


def truth_of(X: Any, y: Any, classes: NDArray[Any]) -> NDArray[np.int64]:
    """Position in ``classes`` of each vertex's label, -1 where it has none."""
    if y is None:
        if not isinstance(X, Hypergraph) or X.y is None:
            raise DataError("evaluate: there are no labels; pass y")
        return X.y.numpy()
    values = np.asarray(y)
    order = np.argsort(classes)
    place = order[np.searchsorted(classes, values, sorter=order).clip(max=len(classes) - 1)]
    return np.where(classes[place] == values, place, -1)


def check_split(X: Hypergraph, codes: Tensor, split: IndexSplit) -> None:
    """Raise DataError unless the split is of X, and all that train or validate are labelled."""
    if split.total != X.num_vertices:
        raise DataError(
            f"{split.name}: splits {split.total} vertices, {X.name} has {X.num_vertices}; it belongs to "
            "another hypergraph"
        )
    for part in ("train", "valid"):
        index = getattr(split, part)
        bare = index[codes[index] < 0]
        if len(bare):
            raise DataError(f"{split.name}: vertex {int(bare[0])} is to {part} and has no label")
    if not len(split.train):
        raise DataError(f"{split.name}: no vertex trains")
