"""Measures of relation extraction: over all classes, and over those that are a relation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_fscore_support

from graphrec.metrics import class_metrics


def relation_metrics(
    y: NDArray[Any], p: NDArray[Any], *, negative: int | None = None, unreachable: int = 0
) -> dict[str, float | None]:
    """Accuracy, log loss, micro and macro F1; with a negative class also those of the relations alone.

    Args:
        y: Classes (n,).
        p: Probabilities (n, C).
        negative: The class without a relation. ``precision``, ``recall`` and ``f1`` then count right
            relations among the found and the true ones, as relation extraction is judged.
        unreachable: True relations for which there is no instance, such as `count_unreachable` tells; they
            count as missed.
    """
    found = class_metrics(y, p)
    guess = p.argmax(1)
    found["f1_micro"] = float(f1_score(y, guess, average="micro", zero_division=0))
    if negative is None:
        return found
    labels = [c for c in range(p.shape[1]) if c != negative]
    precision, recall, _, _ = precision_recall_fscore_support(
        y, guess, labels=labels, average="micro", zero_division=0
    )
    true = int(np.isin(y, labels).sum())
    recall = recall * true / max(true + unreachable, 1)
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {**found, "precision": float(precision), "recall": float(recall), "f1": float(f1)}
