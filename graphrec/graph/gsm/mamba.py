"""Mamba's layer over the nodes of graphs, in one direction or both.

Gu, Dao: Mamba, arXiv:2312.00752, section 3; official code https://github.com/state-spaces/mamba (Apache-2.0).
The second direction has a convolution, a scan and their projections of its own, as in Vision Mamba
(arXiv:2401.09417, algorithm 1), and shares the outer projections. Symbols: b graphs, n positions, D width, E
inner width, S states, R rank of the step sizes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels import causal_conv1d, selective_scan

from ..padding import over_rows

_TAPS = 4


class Direction(nn.Module):
    """``u = silu(conv(x)); step, B, C = W u; y = scan(u, softplus(step), A, B, C) + D u``, times a gate.

    Args:
        inner: E.
        states: S.
        rank: R.
        reverse: Whether it runs from the last position to the first.
    """

    def __init__(self, inner: int, states: int, rank: int, *, reverse: bool) -> None:
        super().__init__()
        self.states, self.rank, self.reverse = states, rank, reverse
        bound = _TAPS**-0.5
        self.conv_weight = nn.Parameter(torch.empty(inner, _TAPS).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(inner))
        self.project = nn.Linear(inner, rank + 2 * states, bias=False)
        self.step = nn.Linear(rank, inner)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        first = torch.exp(torch.rand(inner) * math.log(100.0) + math.log(1e-3))  # steps from 0.001 to 0.1
        with torch.no_grad():
            self.step.bias.copy_(first + torch.log(-torch.expm1(-first)))  # the inverse of softplus
        self.log_decay = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, x: Tensor, gate: Tensor, real: Tensor) -> Tensor:
        """(b, n, E) -> (b, n, E).

        Args:
            x: 0 where there is no node.
            gate: (b, n, E).
            real: Which positions are nodes, those of a graph in front, bool (b, n, 1).
        """
        u = self._convolved(x) * real  # the bias of the convolution must not enter the scan from the end
        step, read_in, read_out = self.project(u).split([self.rank, self.states, self.states], -1)
        decay = -self.log_decay.exp()
        return selective_scan(
            u,
            F.softplus(self.step(step)),
            decay,
            read_in,
            read_out,
            skip=self.skip,
            gate=gate,
            reverse=self.reverse,
        )

    def _convolved(self, x: Tensor) -> Tensor:
        if not self.reverse:
            return causal_conv1d(x, self.conv_weight, self.conv_bias, activation="silu")
        return causal_conv1d(x.flip(1), self.conv_weight, self.conv_bias, activation="silu").flip(1)


class MambaBlock(nn.Module):
    """``x + Mamba(LayerNorm(x))`` along the nodes of each graph.

    Args:
        width: D.
        states: S.
        expand: E / D.
        bidirectional: Whether a second direction is added.
        dropout: Of the layer's output.
    """

    def __init__(
        self,
        width: int,
        *,
        states: int = 16,
        expand: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.directions = nn.ModuleList(
            Direction(inner, states, rank, reverse=bool(i)) for i in range(1 + bidirectional)
        )
        self.leave = nn.Linear(inner, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """Sequences laid end to end.

        Args:
            x: (N, D).
            ptr: First position of every sequence and N, int64 (B + 1,).

        Returns:
            (N, D).
        """
        return x + self.dropout(over_rows(self.norm(x), ptr, self._mixed))

    def rows(self, x: Tensor) -> Tensor:
        """The same for sequences of one length, (b, n, D) -> (b, n, D)."""
        real = torch.ones(1, 1, 1, dtype=torch.bool, device=x.device)
        return x + self.dropout(self._mixed(self.norm(x), real))

    def _mixed(self, x: Tensor, real: Tensor) -> Tensor:
        inner, gate = self.enter(x).chunk(2, -1)
        inner = inner * real
        total = self.directions[0](inner, gate, real)
        for other in self.directions[1:]:
            total = total + other(inner, gate, real)
        return self.leave(total)
