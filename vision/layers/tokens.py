"""The transformer block and its attention for sequences of tokens (B, N, C), as ViT has them."""

from __future__ import annotations

from timm.layers import DropPath
from torch import Tensor, nn

from graphrec.kernels import attention, split_heads

from .mlp import Mlp
from .normed import Linear


class ClassAttention(nn.Module):
    """The first token attends to all.

    Args:
        dim: Channels.
        heads: Heads, which divide the channels.
        bias: Whether the projections to queries, keys and values have biases.
        drop: Dropout after the last projection.
    """

    def __init__(self, dim: int, heads: int, *, bias: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(dim, dim, bias=bias)
        self.kv = Linear(dim, 2 * dim, bias=bias)
        self.proj = Linear(dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, C) to (B, 1, C)."""
        q = self.q(x[:, :1]).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, 1, D]
        k, v = split_heads(self.kv(x), self.heads, 2)
        return self.drop(self.proj(attention(q, k, v).transpose(1, 2).flatten(2)))


class TransformerBlock(nn.Module):
    """``x + attn(norm(x))``, then ``x + mlp(norm(x))``, on tokens or on maps with channels last.

    Args:
        dim: Channels.
        attn: From (B, ..., C) to the same shape.
        mlp_ratio: Width of the MLP over that of the block.
        drop: Dropout in the MLP.
        drop_path: Stochastic depth of both branches.
        eps: Of the norms.
        approximate: Of the activation, as of :class:`torch.nn.GELU`.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_ratio: float,
        *,
        drop: float = 0.0,
        drop_path: float = 0.0,
        eps: float = 1e-5,
        approximate: str = "none",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop, approximate=approximate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
