"""What `EEGClassifier.fit` makes of windows: their band, their scale, the batches that train and validate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import DataError
from graphrec.pipelines.eeg import Preparation, Windows, measure_scale, rescale
from graphrec.pipelines.index_splits import IndexSplit

from .bands import band_losses, candidate_bands
from .batches import WindowBatches

Schema = dict[str, Any]


def labels_of(windows: Windows) -> Tensor:
    """Class of every window, int64 (W,).

    Raises:
        DataError: There are none.
    """
    if windows.y is None:
        raise DataError(f"{windows.name}: has no labels; read it with label=, or pass y")
    return windows.y


def choose_band(
    prepare: Preparation,
    cut: Callable[[Preparation], Windows],
    rate: float,
    train: Tensor,
    *,
    by: str,
    gap: int,
) -> tuple[Preparation, dict[str, float]]:
    """The preparation with the band of least loss, and the loss of each; see `band_losses`.

    Args:
        prepare: How to prepare; its band is not looked at.
        cut: Windows of the same recordings by a preparation.
        rate: Samples per second.
        train: Indices of the windows that train.
        by: See `band_losses`.
        gap: See `band_losses`.
    """
    bands = candidate_bands(rate)
    each = ((name, cut(replace(prepare, band=band))) for name, band in bands.items())
    losses = band_losses(each, train, by=by, gap=gap)
    return replace(prepare, band=bands[min(losses, key=losses.__getitem__)]), losses


def scale_of(windows: Windows, train: Tensor) -> dict[str, list[float]]:
    """Mean and spread of every channel over the windows that train, to be written down."""
    mean, spread = measure_scale(windows, train)
    return {"mean": mean.tolist(), "spread": spread.tolist()}


def scaled(windows: Windows, scale: dict[str, list[float]] | None) -> Windows:
    """Windows by what `scale_of` found; None leaves them."""
    if scale is None:
        return windows
    return rescale(windows, *(torch.tensor(scale[key], dtype=torch.float64) for key in ("mean", "spread")))


def training_batches(
    windows: Windows,
    split: IndexSplit,
    batch_size: int,
    *,
    classes: int,
    balanced: bool,
    weighted: bool,
    seed: int,
) -> tuple[WindowBatches, WindowBatches | None]:
    """Batches of the training and, if there are any, of the validation windows.

    Args:
        windows: All windows.
        split: Which are which.
        batch_size: Windows in a batch.
        classes: K.
        balanced: Draw every class as often.
        weighted: Count a window the more the rarer its class is in training.
        seed: Of orders and draws.
    """
    weight = None
    if weighted:
        counts = torch.bincount(labels_of(windows)[split.train], minlength=classes)
        weight = torch.where(counts > 0, counts.max() / counts.clamp(min=1), 1.0)
    train = WindowBatches(
        windows, split.train, batch_size, shuffle=True, balanced=balanced, seed=seed, class_weight=weight
    )
    return train, WindowBatches(windows, split.valid, batch_size) if len(split.valid) else None
