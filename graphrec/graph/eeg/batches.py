"""Windows as what the trainer is fed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.pipelines.eeg import WindowLoader, Windows


class WindowBatch(NamedTuple):
    """Some windows.

    Attributes:
        x: (B, T, C).
        labels: Class of each, int64 (B,); 0 where the windows have none.
        weights: What each counts in the loss, (B,), or None.
    """

    x: Tensor
    labels: Tensor
    weights: Tensor | None = None


class WindowBatches:
    """A `BatchSource` of some windows.

    Args:
        windows: All windows.
        index: Those to go over, int64 (n,).
        batch_size: Windows in a batch.
        shuffle: See `WindowLoader`.
        balanced: See `WindowLoader`.
        seed: Of orders and draws.
        class_weight: What a window of each class counts in the loss, (K,), or None.
    """

    def __init__(
        self,
        windows: Windows,
        index: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        balanced: bool = False,
        seed: int = 0,
        class_weight: Tensor | None = None,
    ) -> None:
        self._loader = WindowLoader(windows, index, batch_size, shuffle=shuffle, balanced=balanced, seed=seed)
        self.windows, self.class_weight, self.steps = windows, class_weight, len(self._loader)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[WindowBatch]:
        """The batches of an epoch, from a step on."""
        for chosen in self._loader.cuts(epoch)[start_step:]:
            y = self.windows.y
            labels = torch.zeros_like(chosen) if y is None else y[chosen]
            weights = None if self.class_weight is None else self.class_weight[labels]
            yield WindowBatch(self.windows.x(chosen), labels, weights)
