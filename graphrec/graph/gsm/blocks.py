"""The global encoder: layers of Mamba and of attention over sequences of tokens.

GSM (Behrouz et al., arXiv:2411.15671, section 3 and 5). The hybrid is two layers of Mamba, then one of
attention; all are pre-norm with a residual. Symbols: N positions, D width, H heads, S scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.kernels import RelativeBias, attention, linear_attention, segment_reduce, split_heads
from graphrec.kernels.patterns import Segments, Window

from ..padding import over_rows
from .mamba import MambaBlock

ENCODERS = {
    "hybrid": ("mamba", "mamba", "attention"),
    "mamba": ("mamba", "mamba"),
    "transformer": ("attention", "attention"),
}
"""Name -> layers."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Where the nodes of a batch stand, laid end to end.

    Attributes:
        nodes: The node at every position, int64 (N,).
        places: The position of every node, (N,).
        ptr: First position of every graph and N, int64 (B + 1,).
        lengths: Nodes of every graph.
        reach: How far attention sees to either side.
        ties: Positions grouped by class, the groups' boundaries, and the class of every position; None where
            no class has two. See `orders.Order`.
        codes: See `distances.pair_codes`, (N, 2 * reach + 1); None without.
    """

    nodes: Tensor
    places: Tensor
    ptr: Tensor
    lengths: tuple[int, ...]
    reach: int
    ties: tuple[Tensor, Tensor, Tensor] | None = None
    codes: Tensor | None = None


class HierarchicalBias(nn.Module):
    """A number per head, scale and distance of clusters, added to attention's logits.

    Args:
        heads: H.
        scales: S.
        hops: Farthest distance told apart.
    """

    def __init__(self, heads: int, scales: int, hops: int) -> None:
        super().__init__()
        self.tables = nn.Parameter(torch.randn(scales, hops + 2, heads) * 0.02)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (N, columns) of pairs -> (1, H, N, columns)."""
        joint = self.tables[-1]
        for table in self.tables[:-1].flip(0):  # the first scale is the least digit
            joint = (joint.unsqueeze(1) + table).flatten(0, 1)
        return F.embedding(codes, joint).permute(2, 0, 1).unsqueeze(0)


class AttentionBlock(nn.Module):
    """Attention among the tokens of a sequence, then two linear layers.

    Args:
        width: D.
        heads: H.
        kind: ``"softmax"`` within a window, or ``"linear"`` (elu + 1; arXiv:2006.16236) over all tokens.
        scales: S of the positional encoding; 0 for none.
        hops: See `HierarchicalBias`.
        dropout: Of what each part adds.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kind: str = "softmax",
        scales: int = 0,
        hops: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.norm, self.wide_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.bias = HierarchicalBias(heads, scales, hops) if scales and kind == "softmax" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """(N, D) -> (N, D)."""
        qkv = self.qkv(self.norm(x))
        found = (
            over_rows(qkv, sequences.ptr, self._linear)
            if self.kind == "linear"
            else self._near(qkv, sequences)
        )
        return self._finished(x, found)

    def rows(self, x: Tensor) -> Tensor:
        """The same for sequences of one length, (b, n, D) -> (b, n, D), without positions."""
        qkv = self.qkv(self.norm(x))
        if self.kind == "linear":
            return self._finished(
                x, self._linear(qkv, torch.ones(1, 1, 1, dtype=torch.bool, device=x.device))
            )
        q, k, v = split_heads(qkv, self.heads)
        return self._finished(x, self._merged(attention(q, k, v)))

    def _near(self, qkv: Tensor, sequences: Sequences) -> Tensor:
        reach = sequences.reach
        bias = None
        if self.bias is not None and sequences.codes is not None:
            bias = RelativeBias(self.bias(sequences.codes).to(qkv.dtype), (reach + 1,))
        pattern = Segments(sequences.lengths) & Window(reach, reach)
        q, k, v = split_heads(qkv.unsqueeze(0), self.heads)
        return self._merged(attention(q, k, v, pattern, bias=bias)).squeeze(0)

    def _linear(self, qkv: Tensor, real: Tensor) -> Tensor:
        q, k, v = split_heads(qkv, self.heads)
        k = (F.elu(k) + 1) * real.unsqueeze(1)
        return self._merged(linear_attention(F.elu(q) + 1, k, v, causal=False, normalize=True))

    def _merged(self, x: Tensor) -> Tensor:
        return self.leave(x.transpose(1, 2).flatten(2))

    def _finished(self, x: Tensor, found: Tensor) -> Tensor:
        x = x + self.dropout(found)
        return x + self.dropout(self.wide(self.wide_norm(x)))


class GlobalEncoder(nn.Module):
    """Layers over sequences, and a norm.

    Where nodes tie in a sequence's order, they share the mean of what the recurrent layers make of them, so
    that their numbers make no difference.

    Args:
        width: D.
        heads: H.
        encoder: One of `ENCODERS`.
        attention: See `AttentionBlock`.
        scales: See `AttentionBlock`.
        hops: See `AttentionBlock`.
        states: See `MambaBlock`.
        expand: See `MambaBlock`.
        bidirectional: See `MambaBlock`.
        dropout: Of every layer.

    Raises:
        ConfigError: A name is unknown, or ``width`` is no multiple of ``heads``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        encoder: str = "hybrid",
        attention: str = "softmax",
        scales: int = 0,
        hops: int = 1,
        states: int = 16,
        expand: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ConfigError(f"encoder={encoder!r}: must be one of {', '.join(ENCODERS)}")
        if attention not in ("softmax", "linear"):
            raise ConfigError(f"attention={attention!r}: must be softmax or linear")
        if width % heads:
            raise ConfigError(f"hidden={width}: must be a multiple of heads={heads}")
        self.blocks = nn.ModuleList()
        for kind in ENCODERS[encoder]:
            if kind == "mamba":
                block: nn.Module = MambaBlock(
                    width, states=states, expand=expand, bidirectional=bidirectional, dropout=dropout
                )
            else:
                block = AttentionBlock(
                    width, heads, kind=attention, scales=scales, hops=hops, dropout=dropout
                )
            self.blocks.append(block)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """Tokens (N, D) in the order of the sequences -> (N, D)."""
        recurrent = [block for block in self.blocks if isinstance(block, MambaBlock)]
        for block in recurrent:
            x = block(x, sequences.ptr)
        if recurrent and sequences.ties is not None:
            order, ptr, ties = sequences.ties
            x = segment_reduce(x[order], ptr, "mean")[ties]
        for other in self.blocks[len(recurrent) :]:
            x = other(x, sequences)
        return self.norm(x)

    def rows(self, x: Tensor) -> Tensor:
        """The same for sequences of one length, (b, n, D) -> (b, n, D)."""
        for block in self.blocks:
            x = block.rows(x)  # type: ignore[operator]
        return self.norm(x)
