"""Metrics of EEG classes: the ordinary ones, and of three or more classes HiSTN's for an order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score

from graphrec.errors import DataError
from graphrec.metrics import class_metrics, seq2hr, top_k_accuracy, tri_p
from graphrec.pipelines.eeg import Windows


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


def mean_by_recording(windows: Windows, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means (recordings, K) of the scores (windows, K) of each recording.

    Raises:
        DataError: A recording has no window.
    """
    count = np.bincount(windows.recording.numpy(), minlength=len(windows.recording_length))
    if not count.all():
        short = int(count.argmin())
        raise DataError(
            f"{windows.name}: recording {short} of {len(count)} holds no window of {windows.length} samples"
        )
    total = torch.zeros(len(count), scores.shape[1])
    total.index_add_(0, windows.recording, torch.from_numpy(scores))
    found: NDArray[np.float32] = (total / torch.from_numpy(count)[:, None]).numpy()
    return found
