"""Metrics of tasks with several classes.

The values are scikit-learn's; its functions check their arguments for milliseconds each time, which in
training on a small graph, with an evaluation after every step, was most of the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import DataError

from .scores import Scores


def class_metrics(
    y: NDArray[Any], p: NDArray[Any], weights: NDArray[Any] | None = None
) -> dict[str, float | None]:
    """Accuracy, log loss, macro F1 and, of two classes, AUC.

    Args:
        y: Classes, int (n,), numbered from 0.
        p: Probabilities (n, C); rows are divided by their sum.
        weights: How much each row counts (n,); all the same if None.

    Returns:
        The values; None for what is undefined: all without rows, and the AUC of a single class.
    """
    names = ["accuracy", "logloss", "f1_macro", *["auc"] * (p.shape[1] == 2)]
    if not len(y):
        return dict.fromkeys(names)
    wide = p.astype(np.float64)
    wide /= wide.sum(1, keepdims=True)
    guess, eps = wide.argmax(1), np.finfo(np.float64).eps
    told = np.clip(wide[np.arange(len(y)), y], eps, 1 - eps)
    found: dict[str, float | None] = {
        "accuracy": float(np.average(guess == y, weights=weights)),
        "logloss": float(-np.average(np.log(told), weights=weights)),
        "f1_macro": macro_f1(y, guess, weights),
    }
    if "auc" in names:
        found["auc"] = Scores.of(y, wide[:, 1], weights).auc
    return found


def accuracy(y: NDArray[Any], guess: NDArray[Any], weights: Any = None) -> float:
    """Share of the right ones.

    Args:
        y: Classes (n,), numbers or texts.
        guess: Predicted ones (n,).
        weights: How much each counts (n,), as a caller of ``score`` gave them; all the same if None.

    Raises:
        DataError: The weights are not one for each, from 0 up, or are all 0.
    """
    if weights is not None:
        weights = np.asarray(weights)
        if weights.shape != y.shape or weights.dtype.kind not in "biuf":
            raise DataError(
                f"sample_weight: must be {len(y)} numbers, one for each that is judged; found "
                f"{weights.dtype} of {weights.shape}"
            )
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise DataError("sample_weight: must be finite numbers from 0 up, of which not all are 0")
    return float(np.average(y == guess, weights=weights))


def macro_f1(y: NDArray[Any], guess: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Mean F1 of the classes that occur, among the true ones or the predicted.

    Args:
        y: Classes, int (n,), numbered from 0.
        guess: Predicted classes, int (n,).
        weights: How much each row counts (n,); all the same if None.
    """
    size = int(max(y.max(), guess.max())) + 1
    both = np.bincount(y, weights, size) + np.bincount(guess, weights, size)
    same = y == guess
    right = np.bincount(y[same], None if weights is None else weights[same], size)
    return float((2 * right[both > 0] / both[both > 0]).mean())
