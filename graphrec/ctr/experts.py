"""Experts and their mixtures by gates, as multi-task models share them.

Symbols: B batch, K experts, w width of an expert's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from .flat_fields import FlatFields
from .layers import MLP


class Experts(nn.ModuleList):
    """K MLPs of one shape that read the same input.

    Args:
        count: Experts K.
        width: Input width.
        hidden: Widths of each expert.
        **options: Of `graphrec.ctr.layers.MLP`.

    Attributes:
        out_features: Width w of each expert's output.
    """

    def __init__(self, count: int, width: int, hidden: Sequence[int], **options: Any) -> None:
        super().__init__(MLP(width, hidden, **options) for _ in range(count))
        self.out_features = hidden[-1] if hidden else width

    def forward(self, x: Tensor | FlatFields) -> Tensor:
        """(B, width) to (B, K, w)."""
        return torch.stack([expert(x) for expert in self], dim=1)


def mixture(scores: Tensor, *experts: Tensor) -> Tensor:
    """Sum of the experts' outputs, weighted by the softmax of a gate's scores.

    Args:
        scores: (B, K).
        *experts: (B, k, w) each, with K outputs in all, in the order of the scores.

    Returns:
        (B, w).
    """
    weights = scores.softmax(-1)[:, None].split([group.shape[1] for group in experts], dim=2)
    parts = [share @ group for share, group in zip(weights, experts, strict=True)]  # [B, 1, w] each
    return reduce(torch.add, parts).squeeze(1)
