"""Parts of relation networks on packed tokens: context, dense convolutions, ways to gather from other tokens.

Symbols: N tokens in R rows, d width, H heads, w width of a sub-layer, E edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels import attention
from graphrec.kernels.graph import CSR, edge_attention, edge_softmax, sddmm, spmm
from graphrec.kernels.patterns import Segments

Gather = Callable[[Tensor], Tensor]
"""(H, N, w) -> (H, N, w): each token's weighted sum over other tokens, per head."""


class PackedLSTM(nn.Module):
    """A layer of LSTM in both directions over rows of different lengths.

    The backward direction reads each row from its own last token, so what surrounds a row in a batch changes
    nothing. Two plain layers on rows turned around take a CPU half the time of torch's packed sequences.

    Args:
        in_features: F.
        hidden: d, half of it for each direction.
    """

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(in_features, hidden // 2, batch_first=True)
        self.backwards = nn.LSTM(in_features, hidden // 2, batch_first=True)

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """(N, F) and row boundaries (R + 1,) -> (N, d)."""
        length = ptr.diff()
        width = int(length.max()) if len(length) else 0
        if not len(x):
            return x.new_zeros(0, 2 * self.forwards.hidden_size)
        place = torch.arange(width, device=x.device)
        row = torch.repeat_interleave(torch.arange(len(length), device=x.device), length)
        token = torch.arange(len(x), device=x.device) - ptr[row]
        last = (length - 1).clamp(min=0).unsqueeze(1)
        first = ptr[:-1].clamp(max=len(x) - 1).unsqueeze(1)
        there = self.forwards(x[first + place.minimum(last)])[0].flatten(0, 1)
        back = self.backwards(x[first + (last - place).clamp(min=0)])[0].flatten(0, 1)
        at = row * width
        return torch.cat([there[at + token], back[at + length[row] - 1 - token]], 1)


class DenseBlock(nn.Module):
    """Densely connected graph convolutions (DCGCN, arXiv:1908.05957; AGGCN, arXiv:1906.07510, eq. 3 and 4).

    Per head, sub-layer l reads ``z = [x; h_1; ...; h_(l-1)]`` and gives ``h_l = ReLU((A z W + z W + 2 b) /
    (deg + 1))``. All ``h`` and x are added up to ``[h_1; ...; h_s] + x`` per head, and a linear layer joins
    the heads. Where the rows of A are weights of a softmax, ``deg`` is 1.

    Args:
        hidden: d; a multiple of ``sublayers``.
        sublayers: s.
        heads: H.
        dropout: Of every ``h_l``; what is dropped is dropped in all heads, which costs a CPU a fraction.
    """

    def __init__(self, hidden: int, sublayers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.width = heads, hidden // sublayers
        self.weight = nn.ParameterList()
        self.bias = nn.ParameterList()
        for number in range(sublayers):
            rows = hidden + number * self.width
            self.weight.append(nn.Parameter(torch.empty(heads, rows, self.width)))
            self.bias.append(nn.Parameter(torch.empty(heads, 1, self.width)))
            for one in (self.weight[-1], self.bias[-1]):
                nn.init.uniform_(one, -1 / math.sqrt(rows), 1 / math.sqrt(rows))
        self.dropout = dropout
        self.join = nn.Linear(heads * hidden, hidden)

    def forward(self, x: Tensor, gather: Gather, degree: Tensor | float = 1.0) -> Tensor:
        """(N, d) -> (N, d).

        Args:
            x: Of the tokens.
            gather: A, applied.
            degree: deg, (N, 1) or a number.
        """
        found: list[Tensor] = []
        for weight, bias in zip(self.weight, self.bias, strict=True):
            own, rest = weight.split([x.shape[1], weight.shape[1] - x.shape[1]], 1)
            z = (x @ own.transpose(0, 1).flatten(1)).view(len(x), *weight.shape[::2]).transpose(0, 1)
            if found:
                z = torch.baddbmm(z, torch.cat(found, 2), rest)
            found.append(F.relu((gather(z) + z + 2 * bias) / (degree + 1)))  # (H, N, w)
        dense = self._dropped(torch.cat(found, 2)) + x  # (H, N, d)
        return self.join(dense.transpose(0, 1).flatten(1))

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropout:
            return x
        return x * F.dropout(x.new_ones(x.shape[1:]), self.dropout)


class SentenceAttention(nn.Module):
    """Weights from every token of a row to every other: ``softmax(Q K^T / sqrt(d / H))`` (AGGCN, eq. 2).

    Args:
        hidden: d; a multiple of ``heads``.
        heads: H.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def gather(self, x: Tensor, ptr: Tensor) -> Gather:
        """What gathers within rows by the weights that x (N, d) gives."""
        q, k = (_heads(one(x), self.heads).transpose(0, 1).unsqueeze(0) for one in (self.query, self.key))
        pattern = Segments(tuple(ptr.diff().tolist()))
        return lambda v: attention(q, k, v.unsqueeze(0), pattern).squeeze(0)

    def weights(self, x: Tensor) -> Tensor:
        """Of a single row x (L, d): (H, L, L)."""
        q, k = (_heads(one(x), self.heads).transpose(0, 1) for one in (self.query, self.key))
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


class EdgeAttention(nn.Module):
    """Weights of each token's edges, from both ends and the kind of the edge; a softmax per head.

    ``a_ij = softmax_j(q_i . k_j / sqrt(d / H) + u_kind(ij))`` over the tokens j that i has an edge from.

    Args:
        hidden: d; a multiple of ``heads``.
        heads: H.
        kinds: Kinds of edges.
    """

    def __init__(self, hidden: int, heads: int, kinds: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.kind = nn.Embedding(kinds, heads)
        nn.init.zeros_(self.kind.weight)

    def gather(self, x: Tensor, graph: CSR, kind: Tensor) -> Gather:
        """What gathers along edges by the weights that x (N, d) gives."""
        q, k = _heads(self.query(x), self.heads), _heads(self.key(x), self.heads)
        bias = self.kind(kind)
        return lambda v: edge_attention(graph, q, k, v.transpose(0, 1), bias=bias).transpose(0, 1)

    def weights(self, x: Tensor, graph: CSR, kind: Tensor) -> Tensor:
        """Of every edge, (E, H)."""
        q, k = _heads(self.query(x), self.heads), _heads(self.key(x), self.heads)
        return edge_softmax(graph, sddmm(graph, q, k) * q.shape[-1] ** -0.5 + self.kind(kind))


def plain_sum(graph: CSR) -> Gather:
    """The adjacency matrix itself: a sum along edges, for one head."""
    return lambda v: spmm(graph, v.squeeze(0)).unsqueeze(0)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(len(x), heads, x.shape[1] // heads)
