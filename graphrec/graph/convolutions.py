"""Graph convolutions on `graphrec.kernels.graph`: GCN, GIN, GAT, GraphSAGE, GatedGCN.

Each computes what PyG's layer of that name computes and has its parameter names, so weights move by
``load_state_dict``. ``edge_index`` is a tensor (2, E), or a `Topology` made once.

Symbols: N nodes, E edges, F input and D output features, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels.graph import edge_attention, segment_reduce, spmm

from .linears import Linear
from .rows import Features, project
from .topology import Topology


class GCNConv(nn.Module):
    """Graph convolution (Kipf, Welling, arXiv:1609.02907, eq. 2).

    ``x'_i = b + sum_j W x_j / sqrt(d_i d_j)`` over the neighbours and i itself; d counts them.

    Args:
        in_features: F.
        out_features: D.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.lin = Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(self, x: Features, edge_index: Tensor | Topology) -> Tensor:
        """(N, F), dense or sparse, -> (N, D)."""
        topology = Topology.of(edge_index, len(x))
        weight = topology.gcn_weight.to(self.bias.dtype)
        if isinstance(x, Tensor) and self.lin.in_features < self.lin.out_features:  # sum the narrower rows
            return self.lin(spmm(topology.looped, x, weight)) + self.bias
        return spmm(topology.looped, project(self.lin, x), weight) + self.bias


class GINConv(nn.Module):
    """Graph isomorphism convolution (Xu et al., arXiv:1810.00826, eq. 4.1).

    ``x'_i = nn((1 + eps) x_i + sum_j x_j)``.

    Args:
        nn: Any module (N, F) -> (N, D).
        eps: Initial epsilon.
        train_eps: Whether it is learned.
    """

    eps: Tensor

    def __init__(self, nn: nn.Module, eps: float = 0.0, train_eps: bool = False) -> None:
        super().__init__()
        self.nn = nn
        start = torch.tensor([float(eps)])
        if train_eps:
            self.eps = torch.nn.Parameter(start)
        else:
            self.register_buffer("eps", start)

    def forward(self, x: Tensor, edge_index: Tensor | Topology) -> Tensor:
        """(N, F) -> (N, D)."""
        topology = Topology.of(edge_index, len(x))
        return self.nn(spmm(topology.graph, x, own=1 + self.eps))


class GATConv(nn.Module):
    """Graph attention (Veličković et al., arXiv:1710.10903, eq. 3 and 5), heads concatenated.

    ``x'_i = b + sum_j a_ij W x_j`` over the neighbours and i itself, with ``a_ij = softmax_j
    LeakyReLU(u . W x_j + v . W x_i)`` per head.

    Args:
        in_features: F.
        out_features: Width of one head; the output has ``heads`` times as many.
        heads: H.
        negative_slope: Of the LeakyReLU.
    """

    def __init__(
        self, in_features: int, out_features: int, heads: int = 1, negative_slope: float = 0.2
    ) -> None:
        super().__init__()
        self.heads, self.negative_slope = heads, negative_slope
        self.lin = Linear(in_features, heads * out_features, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_features))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_features))
        self.bias = nn.Parameter(torch.zeros(heads * out_features))
        for one in (self.lin.weight, self.att_src, self.att_dst):
            bound = math.sqrt(6 / (one.shape[-1] + one.shape[-2]))
            nn.init.uniform_(one, -bound, bound)

    def forward(self, x: Tensor, edge_index: Tensor | Topology) -> Tensor:
        """(N, F) -> (N, H * D)."""
        graph = Topology.of(edge_index, len(x)).looped
        values = self.lin(x).view(len(x), self.heads, -1)  # (N, H, D)
        sent, received = (values * self.att_src).sum(-1), (values * self.att_dst).sum(-1)  # (N, H)
        scores = F.leaky_relu(sent[graph.index] + received[graph.row], self.negative_slope)  # (E, H)
        nothing = values.new_zeros(len(x), self.heads, 1)  # the logits are the bias alone
        return edge_attention(graph, nothing, nothing, values, bias=scores).flatten(1) + self.bias


class SAGEConv(nn.Module):
    """GraphSAGE with the mean of the neighbours (Hamilton et al., arXiv:1706.02216).

    ``x'_i = W_l mean_j x_j + W_r x_i + b``; the mean of no neighbour is 0.

    Args:
        in_features: F.
        out_features: D.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.lin_l = Linear(in_features, out_features)
        self.lin_r = Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor | Topology) -> Tensor:
        """(N, F) -> (N, D)."""
        topology = Topology.of(edge_index, len(x))
        return self.lin_l(spmm(topology.graph, x, reduce="mean")) + self.lin_r(x)


class GatedGCNConv(nn.Module):
    """Residual gated graph convolution (Bresson, Laurent, arXiv:1711.07553, eq. 11).

    ``x'_i = W_s x_i + b + sum_j g_ij * W_v x_j`` with a gate per feature, ``g_ij = sigmoid(W_k x_i + W_q
    x_j)``. PyG calls it `ResGatedGraphConv`.

    Args:
        in_features: F.
        out_features: D.
        normalise: Divide by the sum of a node's gates, as the GatedGCN of "Benchmarking graph neural
            networks" (arXiv:2003.00982, eq. 14) does.
    """

    def __init__(self, in_features: int, out_features: int, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.lin_key = Linear(in_features, out_features)
        self.lin_query = Linear(in_features, out_features)
        self.lin_value = Linear(in_features, out_features)
        self.lin_skip = Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, edge_index: Tensor | Topology) -> Tensor:
        """(N, F) -> (N, D)."""
        graph = Topology.of(edge_index, len(x)).graph
        gates = (self.lin_key(x)[graph.row] + self.lin_query(x)[graph.index]).sigmoid()  # (E, D)
        found = segment_reduce(gates * self.lin_value(x)[graph.index], graph.ptr)
        if self.normalise:
            found = found / (segment_reduce(gates, graph.ptr) + 1e-6)
        return found + self.lin_skip(x) + self.bias
