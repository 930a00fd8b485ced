"""Pictures of two classes that are told apart at a glance, for the tests of `ImageClassifier`."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphrec.vision import ImageClassifier


def squares(count: int = 80, side: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, side, side, 3), noise, with a bright square in the middle of every other; the labels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (count, side, side, 3), dtype=np.uint8)
    labels = np.array(["plain", "square"])[np.arange(count) % 2]
    middle = slice(side // 4, 3 * side // 4)
    pixels[labels == "square", middle, middle] += 140
    return pixels, labels


def classifier(**changes: Any) -> ImageClassifier:
    """A tiny one that is quick to fit."""
    quick = {
        "model": "convnext_test",
        "image_size": 32,
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "random_state": 0,
        "accelerator": "cpu",
    }
    return ImageClassifier(**quick | changes)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A history without what the clock says."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "rows_per_s")} for row in rows]
