"""A stage: a change of resolution, then blocks that can be checkpointed one by one; stochastic depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.models import checkpoint_seq
from torch import Tensor, nn


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth of every block, per stage: from 0 in the first block evenly to ``last``."""
    total, rates = sum(depths), iter(range(sum(depths)))
    return [[last * next(rates) / max(total - 1, 1) for _ in range(depth)] for depth in depths]


class Stage(nn.Module):
    """``downsample``, then ``blocks`` in order.

    Args:
        blocks: What the state passes through.
        downsample: What comes before them; nothing if None.
    """

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """The state after the stage."""
        x = self.downsample(x)
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


class NormedStage(Stage):
    """A stage that ends with a layer norm over the last axis.

    Args:
        blocks: What the state passes through.
        dim: Channels.
        downsample: What comes before the blocks; nothing if None.
    """

    def __init__(self, blocks: Iterable[nn.Module], dim: int, downsample: nn.Module | None = None) -> None:
        super().__init__(blocks, downsample)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """The state after the stage, normalised."""
        return self.norm(super().forward(x))


class NoHead(nn.Identity):
    """In place of a head that was pruned: gives what it is given."""

    def forward(self, x: Any, pre_logits: bool = False) -> Any:
        """The same."""
        return x
