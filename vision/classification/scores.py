"""How good predictions of classes of images are: in numbers, class by class, and who is taken for whom."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.metrics import class_metrics, top_k_accuracy

TOP = 5


def image_metrics(
    y: NDArray[Any], p: NDArray[Any], weights: NDArray[Any] | None = None
) -> dict[str, float | None]:
    """Those of `class_metrics`, and of more than five classes the top-5 accuracy.

    Args:
        y: Classes, int (n,), numbered from 0.
        p: Probabilities (n, C).
        weights: How much each image counts (n,); all the same if None.
    """
    found = class_metrics(y, p, weights)
    if p.shape[1] <= TOP:
        return found
    top5 = top_k_accuracy(y, p, TOP, weights)
    return {"accuracy": found.pop("accuracy"), "top5_accuracy": top5, **found}


def confusion_matrix(y: NDArray[Any], guess: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many images of each class (row) were given each class (column); int64 (classes, classes)."""
    return np.bincount(y * classes + guess, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def per_class(confusion: NDArray[np.int64]) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1 and number of images of every class; None where it is undefined."""
    right, said, there = confusion.diagonal(), confusion.sum(0), confusion.sum(1)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        {
            "precision": share(int(r), int(s)),
            "recall": share(int(r), int(t)),
            "f1": share(2 * int(r), int(s + t)),
            "images": int(t),
        }
        for r, s, t in zip(right, said, there, strict=True)
    ]


def evaluation(
    y: NDArray[Any], p: NDArray[Any], classes: NDArray[Any], weights: NDArray[Any] | None = None
) -> dict[str, Any]:
    """`image_metrics`, then ``per_class`` by name and ``confusion`` as lists: rows are the true classes.

    The last two count images, whatever their weights.

    Args:
        y: Classes, int (n,), numbered from 0.
        p: Probabilities (n, C).
        classes: (C,) their names.
        weights: How much each image counts (n,); all the same if None.
    """
    confusion = confusion_matrix(y, p.argmax(1), len(classes))
    rows = dict(zip(map(str, classes), per_class(confusion), strict=True))
    return {**image_metrics(y, p, weights), "per_class": rows, "confusion": confusion.tolist()}
