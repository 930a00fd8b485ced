"""Two transformers side by side whose class tokens ask each other's patches (CrossViT, arXiv:2103.14899)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from timm.models import checkpoint
from torch import Tensor, nn

from graphrec.errors import ConfigError

from .normed import Linear
from .sequence_head import SequenceHead
from .stage import Stage
from .tokens import ClassAttention

EPSILON = 1e-6
"""Of all norms."""
Pair = tuple[int, int]
Branches = tuple[Tensor, Tensor]
"""Tokens (B, 1 + N, C) of either branch, the class token first."""


class CrossBlock(nn.Module):
    """``x + attn(norm(x))`` of the first token."""

    def __init__(self, dim: int, heads: int, drop: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = ClassAttention(dim, heads, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, C) to (B, 1, C)."""
        return x[:, :1] + self.drop_path(self.attn(self.norm1(x)))


def _between(dim: int, out: int) -> nn.Sequential:
    """A class token from one branch's width to the other's."""
    return nn.Sequential(nn.LayerNorm(dim, eps=EPSILON), nn.GELU(), Linear(dim, out))


class CrossStage(Stage):
    """Blocks of both branches, then each class token asks the other branch's patches.

    Args:
        branches: Blocks of either branch.
        dims: Channels of the branches.
        heads: Heads of the branches.
        drop: Dropout in cross attention.
        drop_path: Stochastic depth of cross attention.
    """

    def __init__(
        self, branches: Sequence[nn.Sequential], dims: Pair, heads: Pair, *, drop: float, drop_path: float
    ) -> None:
        super().__init__(branches)
        ways = ((0, 1), (1, 0))
        self.projs = nn.ModuleList(_between(dims[own], dims[other]) for own, other in ways)
        self.fusion = nn.ModuleList(
            CrossBlock(dims[other], heads[other], drop, drop_path) for _, other in ways
        )
        self.revert_projs = nn.ModuleList(_between(dims[other], dims[own]) for own, other in ways)

    def forward(self, state: Branches) -> Branches:  # type: ignore[override]
        """The state after the stage."""
        small, large = (self._deepen(blocks, x) for blocks, x in zip(self.blocks, state, strict=True))
        return self._fuse(0, small, large), self._fuse(1, large, small)

    def _deepen(self, blocks: nn.Module, x: Tensor) -> Tensor:
        """One branch's tokens after its blocks."""
        for block in blocks.children():
            x = checkpoint(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
        return x

    def _fuse(self, branch: int, own: Tensor, other: Tensor) -> Tensor:
        """A branch's tokens with a class token that has seen the other branch's patches."""
        asking = self.projs[branch](own[:, :1])
        found = self.fusion[branch](torch.cat([asking, other[:, 1:]], 1))
        return torch.cat([self.revert_projs[branch](found), own[:, 1:]], 1)


class BranchNorm(nn.ModuleList):
    """A norm for each branch."""

    def __init__(self, dims: Pair) -> None:
        super().__init__(nn.LayerNorm(dim, eps=EPSILON) for dim in dims)

    def forward(self, state: Branches) -> Branches:
        """The state, normalised."""
        small, large = (norm(one) for norm, one in zip(self, state, strict=True))
        return small, large


class BranchHead(nn.ModuleList):
    """The mean of the logits of one classifier per branch, used as timm's heads are.

    Args:
        dims: Channels of the branches.
        num_classes: Classes; 0 leaves the pooled features of both, one after the other.
        pool_type: "token" takes the class tokens, "avg" the means of the patches.
        drop_rate: Dropout before the classifiers.
    """

    def __init__(self, dims: Pair, num_classes: int, pool_type: str, drop_rate: float) -> None:
        super().__init__(SequenceHead(dim, num_classes, pool_type, drop_rate) for dim in dims)
        self.num_features = sum(dims)
        self.reset(num_classes, pool_type)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """Fresh classifiers; ``pool_type`` as for the constructor, unchanged if None."""
        if pool_type not in (None, "avg", "token"):
            raise ConfigError(f"global_pool: {pool_type!r} is not 'token' or 'avg'")
        self.num_classes = num_classes
        for head in self:
            assert isinstance(head, SequenceHead)
            head.reset(num_classes, pool_type)

    def forward(self, state: Branches, pre_logits: bool = False) -> Tensor:
        """Logits (B, classes), or what the classifiers would see (B, sum of the widths)."""
        small, large = (head(one, pre_logits) for head, one in zip(self, state, strict=True))
        return torch.cat([small, large], 1) if pre_logits or not self.num_classes else (small + large) / 2
