"""Metrics of click-through and other binary predictions: exact, streaming, weighted, per label and per group.

`BinaryMetrics` collects batches and gives all of them; the functions below take whole arrays. They equal
scikit-learn's on the same predictions. What is undefined, such as the AUC of one class, is None.
`class_metrics` is for several classes, `tri_p`, `seq2hr` and `top_k_accuracy` for classes in an order.
"""

from __future__ import annotations

from typing import Any

from .classes import class_metrics, macro_f1
from .group import GroupAUC, group_auc
from .names import CLASS_METRICS, METRICS, Metric, higher_is_better
from .ordinal import seq2hr, top_k_accuracy, tri_p
from .scores import DECILES, Scores
from .streaming import BinaryMetrics

__all__ = [
    "CLASS_METRICS",
    "METRICS",
    "BinaryMetrics",
    "GroupAUC",
    "Metric",
    "Scores",
    "average_precision",
    "brier_score",
    "calibration_table",
    "class_metrics",
    "expected_calibration_error",
    "group_auc",
    "higher_is_better",
    "logloss",
    "macro_f1",
    "normalised_entropy",
    "roc_auc",
    "seq2hr",
    "top_k_accuracy",
    "tri_p",
]


def roc_auc(y: Any, p: Any, weights: Any = None) -> float | None:
    """Area under the ROC curve of labels ``y`` (N,) and probabilities ``p`` (N,)."""
    return Scores.of(y, p, weights).auc


def average_precision(y: Any, p: Any, weights: Any = None) -> float | None:
    """Area under the precision-recall curve, as average precision."""
    return Scores.of(y, p, weights).pr_auc


def logloss(y: Any, p: Any, weights: Any = None) -> float | None:
    """Mean binary cross entropy in nats; see `Scores.logloss` for the clipping."""
    return Scores.of(y, p, weights).logloss


def normalised_entropy(y: Any, p: Any, weights: Any = None) -> float | None:
    """Log loss over the entropy of the base rate (He et al., 2014)."""
    return Scores.of(y, p, weights).ne


def brier_score(y: Any, p: Any, weights: Any = None) -> float | None:
    """Mean squared error of the probabilities."""
    return Scores.of(y, p, weights).brier


def expected_calibration_error(y: Any, p: Any, weights: Any = None) -> float | None:
    """Mean gap between predicted and observed rate over ten parts of equal weight."""
    return Scores.of(y, p, weights).ece


def calibration_table(y: Any, p: Any, weights: Any = None, bins: int = DECILES) -> list[dict[str, float]]:
    """Predicted and observed rate of each part when rows are sorted by prediction and cut into equal parts.

    Returns:
        One dict per part, lowest predictions first: ``low``, ``high``, ``predicted``, ``observed`` and
        ``weight``. Fewer than ``bins`` when many rows tie.
    """
    columns = Scores.of(y, p, weights).bins(bins)
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
