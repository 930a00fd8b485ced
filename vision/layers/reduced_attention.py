"""Attention of every token of a map to a coarser version of the map, as PVT and its relatives have it."""

from __future__ import annotations

from torch import Tensor, nn

from graphrec.kernels import attention

from .conv import Conv2d
from .mlp import GELU
from .normed import Linear


class ReducedAttention(nn.Module):
    """Multi-head attention whose keys and values come from a map at a lower resolution.

    Args:
        dim: Channels.
        heads: Heads, which divide the channels.
        ratio: Side of the squares that a strided convolution makes one key of; with 1 all tokens are keys.
        pooled: In place of ``ratio``, average the map to so many positions a side, then a 1x1 convolution,
            norm and GELU (linear SRA of PVT v2); 0 for none.
        qkv_bias: Whether the projections to queries, keys and values have biases.
        drop: Dropout after the last projection.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ratio: int,
        *,
        pooled: int = 0,
        qkv_bias: bool = True,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.drop = nn.Dropout(drop)
        self.pool = nn.AdaptiveAvgPool2d(pooled) if pooled else nn.Identity()
        self.sr: nn.Conv2d | None = None
        if pooled or ratio > 1:
            side = 1 if pooled else ratio
            self.sr = Conv2d(dim, dim, side, side)
            self.norm = nn.LayerNorm(dim)
        self.act = GELU() if pooled else nn.Identity()

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Mixed tokens.

        Args:
            x: (B, N, C); where keys are reduced, N is height times width.
            size: Height and width of the map.

        Returns:
            (B, N, C).
        """
        batch, length, dim = x.shape
        q = self.q(x).view(batch, length, self.heads, dim // self.heads).transpose(1, 2)
        seen = self._reduced(x, size)
        k, v = self.kv(seen).view(*seen.shape[:2], 2, self.heads, dim // self.heads).unbind(2)
        mixed = attention(q, k.transpose(1, 2), v.transpose(1, 2))
        return self.drop(self.proj(mixed.transpose(1, 2).reshape(batch, length, dim)))

    def _reduced(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What keys and values are made of, (B, M, C)."""
        if self.sr is None:
            return x
        coarse = self.sr(self.pool(x.mT.unflatten(2, size)))
        return self.act(self.norm(coarse.flatten(2).mT))
