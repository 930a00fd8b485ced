"""Features, labels and splits of hypergraphs, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

from graphrec.errors import ConfigError, DataError
from graphrec.module_estimator import chosen
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


def truth_of(X: Any, y: Any, classes: NDArray[Any], judged: Any, count: int) -> tuple[NDArray, NDArray]:
    """The vertices to judge, and the position in ``classes`` of each one's label, int64 (n,) both.

    The text of a class decides. In ``y`` None, NaN and the number -1 are no label.

    Args:
        X: A hypergraph, or features with ``y``.
        y: (N,) classes; None takes those of X.
        classes: That were fitted.
        judged: See `chosen`; None for all that are labelled.
        count: N.

    Raises:
        DataError: There are no labels, one that is to be judged is missing, or its class was not fitted.
    """
    names = _texts(X, y, count)
    place = {str(one): i for i, one in enumerate(classes.tolist())}
    index = np.flatnonzero([one is not None for one in names])
    index = index if judged is None else chosen(judged, count, "vertices")
    for vertex in index.tolist():
        if names[vertex] is None:
            raise DataError(f"evaluate: vertex {vertex} has no label; leave it out of index")
        if names[vertex] not in place:
            raise DataError(
                f"evaluate: vertex {vertex} is of class {names[vertex]!r}, which was not fitted; fitted were "
                f"{', '.join(place)}"
            )
    return index, np.array([place[str(names[vertex])] for vertex in index.tolist()], np.int64)


def _texts(X: Any, y: Any, count: int) -> list[str | None]:
    """Text of every vertex's class, None where it has no label."""
    if y is None:
        if not isinstance(X, Hypergraph) or X.y is None:
            raise DataError("evaluate: there are no labels; pass y")
        classes = X.classes or range(int(X.y.max()) + 1 if len(X.y) else 0)
        return [str(classes[code]) if code >= 0 else None for code in X.y.tolist()]
    values = np.asarray(y)
    if values.shape != (count,):
        raise DataError(f"y has shape {values.shape}, must be ({count},)")
    bare = values.dtype.kind in "iu"
    return [
        None if one is None or one != one or (bare and one == -1) else str(one) for one in values.tolist()
    ]


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


def real_numbers(features: Any) -> Tensor:
    """Features as a dense tensor of real numbers.

    Raises:
        DataError: They are something else.
    """
    if isinstance(features, Tensor):
        if features.layout != torch.strided or features.is_complex():
            raise DataError(f"features: found {features.dtype}, {features.layout}; give dense real numbers")
        return features.detach()
    if issparse(features):
        raise DataError(f"features: found a sparse {type(features).__name__}; give dense ones, by .toarray()")
    found = np.asarray(features)
    if found.dtype.kind not in "fiub":
        raise DataError(
            f"features: found {type(features).__name__} of {found.dtype}; give numbers (vertices, features)"
        )
    return torch.from_numpy(np.ascontiguousarray(found))


def check_teacher(width: int, known: NDArray[Any], X: Hypergraph, classes: NDArray[Any]) -> None:
    """Refuse a teacher of other features or classes, whose soft labels would stand for something else.

    Args:
        width: Features that it was fitted on.
        known: Classes that it was fitted on.
        X: What a student is to be fitted on.
        classes: Of that.

    Raises:
        ConfigError: They differ.
    """
    if width != X.num_features:
        raise ConfigError(f"teacher: was fitted on {width} features, {X.name} has {X.num_features}")
    theirs, ours = ([str(one) for one in listed.tolist()] for listed in (known, classes))
    if theirs != ours:
        raise ConfigError(
            f"teacher: was fitted on the classes {', '.join(theirs)}, here they are {', '.join(ours)}"
        )
