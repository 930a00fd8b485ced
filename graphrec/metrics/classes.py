"""Metrics of tasks with several classes.

The values are scikit-learn's; its functions check their arguments for milliseconds each time, which in
training on a small graph, with an evaluation after every step, was most of the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scores import Scores


def class_metrics(y: NDArray[Any], p: NDArray[Any]) -> dict[str, float | None]:
    """Accuracy, log loss, macro F1 and, of two classes, AUC.

    Args:
        y: Classes, int (n,), numbered from 0.
        p: Probabilities (n, C); rows are divided by their sum.

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
        "accuracy": float((guess == y).mean()),
        "logloss": float(-np.log(told).mean()),
        "f1_macro": macro_f1(y, guess),
    }
    if "auc" in names:
        found["auc"] = Scores.of(y, wide[:, 1]).auc
    return found


def macro_f1(y: NDArray[Any], guess: NDArray[Any]) -> float:
    """Mean F1 of the classes that occur, among the true ones or the predicted.

    Args:
        y: Classes, int (n,), numbered from 0.
        guess: Predicted classes, int (n,).
    """
    size = int(max(y.max(), guess.max())) + 1
    both = np.bincount(y, minlength=size) + np.bincount(guess, minlength=size)
    right = np.bincount(y[y == guess], minlength=size)
    return float((2 * right[both > 0] / both[both > 0]).mean())
