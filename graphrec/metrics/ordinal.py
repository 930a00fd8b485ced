"""Metrics of classes that have an order, such as ratings: how near a wrong answer is.

Scores are (n, K), a column a class in order. Of equal scores the lower class ranks first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import DataError


def top_k_accuracy(y: Any, scores: Any, k: int = 2, weights: Any = None) -> float | None:
    """Share of rows, by ``weights`` (n,) if given, whose class is among the ``k`` with the highest scores.

    scikit-learn's function of this name and HiSTN's scripts leave classes out that the labels do not have;
    here every class can be mistaken for the right one.
    """
    labels, values = _checked(y, scores)
    return _share((_ranked(values)[:, :k] == labels[:, None]).any(1), weights)


def tri_p(y: Any, scores: Any) -> float | None:
    """Tri-P: share of rows whose highest class is the right one or its neighbour (arXiv:2408.15255)."""
    labels, values = _checked(y, scores)
    return _share(np.abs(values.argmax(1) - labels) <= 1)


def seq2hr(y: Any, scores: Any) -> float | None:
    """Seq2HR: share of rows whose two highest classes are neighbours and one of them right
    (arXiv:2408.15255).
    """
    labels, values = _checked(y, scores)
    if values.shape[1] < 2:
        raise DataError("seq2hr: needs scores of two classes or more")
    best = _ranked(values)[:, :2]
    return _share((np.abs(best[:, 0] - best[:, 1]) == 1) & (best == labels[:, None]).any(1))


def _ranked(scores: NDArray[Any]) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")


def _share(hits: NDArray[np.bool_], weights: Any = None) -> float | None:
    return float(np.average(hits, weights=weights)) if len(hits) else None


def _checked(y: Any, scores: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    labels, values = np.asarray(y), np.asarray(scores)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise DataError(
            f"labels of shape {labels.shape}, scores of shape {values.shape}: must be (n,) and (n, classes)"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < values.shape[1]):
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, scores have {values.shape[1]} classes"
        )
    return labels.astype(np.int64), values
