"""Labels and splits of hypergraphs, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.array_labels import label_codes
from graphrec.pipelines.hypergraphs import Hypergraph
from graphrec.pipelines.index_splits import IndexSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def labels_of(X: Hypergraph, y: Any) -> tuple[Tensor, NDArray[Any]]:
    """Class number of every vertex, -1 where unlabelled, and the classes."""
    if not isinstance(X, Hypergraph):
        raise ConfigError(f"fit takes a graphrec.pipelines.hypergraphs.Hypergraph, got {type(X).__name__}")
    if y is not None:
        return _given(y, X.num_vertices)
    if X.y is None:
        raise DataError(f"{X.name}: has no labels; read it with label= or pass y")
    classes = np.asarray(X.classes) if X.classes else np.arange(int(X.y.max()) + 1 if len(X.y) else 0)
    return X.y, classes


def _given(y: Any, count: int) -> tuple[Tensor, NDArray[Any]]:
    """`label_codes`, but that the number -1 is no label, as it is in `Hypergraph.y` and for nodes."""
    classes, codes = label_codes(y, count)
    if classes.dtype.kind != "i" or classes[0] >= 0:
        return codes, classes
    if classes[0] < -1:
        vertex = int(codes.argmin())
        raise DataError(
            f"y: vertex {vertex} is of class {classes[0]}; classes are numbered from 0 on, -1 is no label"
        )
    return codes - 1, classes[1:]


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
    """Refuse a split that is not of X, or whose vertices have no label or, to train on, only one.

    Raises:
        ConfigError: It is no split.
        DataError: It does not fit.
    """
    if not isinstance(split, IndexSplit):
        raise ConfigError(
            f"split: should be a graphrec.pipelines.index_splits.IndexSplit, found {type(split).__name__}"
        )
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
