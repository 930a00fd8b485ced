"""Metrics of EEG classes: the ordinary ones, and of three or more classes HiSTN's for an order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score

from graphrec.metrics import seq2hr, top_k_accuracy, tri_p

from ..fitting import class_metrics


def eeg_metrics(y: NDArray[Any], p: NDArray[Any]) -> dict[str, float | None]:
    """Metrics of classes (n,) and probabilities (n, K).

    Returns:
        Those of `class_metrics`; ``balanced_accuracy``, the mean recall of the classes there are, which is
        1/K for whoever always says the same; ``majority``, the accuracy of always saying the commonest class
        of these rows; ``f1_weighted``; and from three classes on ``top2_accuracy``, ``tri_p``, ``seq2hr``.
    """
    found, guess, there = class_metrics(y, p), p.argmax(1), np.unique(y)
    found["balanced_accuracy"] = float(recall_score(y, guess, labels=there, average="macro", zero_division=0))
    found["majority"] = float(np.bincount(y).max() / len(y))
    found["f1_weighted"] = float(f1_score(y, guess, average="weighted", zero_division=0))
    if p.shape[1] > 2:
        found |= {"top2_accuracy": top_k_accuracy(y, p, 2), "tri_p": tri_p(y, p), "seq2hr": seq2hr(y, p)}
    return found
