"""The HGNN family: hypergraph convolutions as two sparse products, (vertices) -> (hyperedges) -> (vertices).

With H (N, M) the incidences, W the hyperedges' weights, D_e = H^T 1 and D_v = H W 1 the degrees, a layer is

* HGNN (Feng et al., AAAI 2019, arXiv:1809.09401, eq. 11): D_v^-1/2 H W D_e^-1 H^T D_v^-1/2 (X Theta + b)
* HGNN+ (Gao et al., TPAMI 2022): D_v^-1 H W D_e^-1 H^T (X Theta + b)
* HNHN (Dong et al., arXiv:2006.12278, with alpha = beta = 0): D_v^-1 H (relu(W D_e^-1 H^T (X A + a)) B + b)
* UniGCN (Huang and Yang, IJCAI 2021, arXiv:2105.00956, eq. 6): D_v^-1/2 H d_e^-1/2 W D_e^-1 H^T (X Theta + b)
  with d_e the mean degree of a hyperedge's vertices

followed, except in the last layer, by ReLU and dropout. Official code of LightHGNN's teachers:
https://github.com/iMoonLab/DeepHypergraph at 030e23a (Apache-2.0), which multiplies HGNN's matrices with each
other; here nothing larger than H is ever made. The teachers have two layers and 32 hidden channels, and no
batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.registry import Card, register_model

from ..linears import Linear
from ..rows import Features, SparseRows, project
from .incidence import Incidence

Operator = Callable[[Tensor, Incidence], Tensor]


def smooth_hgnn(x: Tensor, incidence: Incidence) -> Tensor:
    """D_v^-1/2 H W D_e^-1 H^T D_v^-1/2 X, (N, D) to (N, D)."""
    root = incidence.vertex_inverse_root.to(x.dtype)
    edges = incidence.gather(x * root) * incidence.edge_factor.to(x.dtype)
    return incidence.scatter(edges) * root


def smooth_hgnnp(x: Tensor, incidence: Incidence) -> Tensor:
    """D_v^-1 H W D_e^-1 H^T X, (N, D) to (N, D)."""
    edges = incidence.gather(x) * incidence.edge_factor.to(x.dtype)
    return incidence.scatter(edges) * incidence.vertex_inverse.to(x.dtype)


def smooth_unigcn(x: Tensor, incidence: Incidence) -> Tensor:
    """D_v^-1/2 H d_e^-1/2 W D_e^-1 H^T X, (N, D) to (N, D)."""
    factor = incidence.edge_factor * incidence.neighbour_inverse_root
    edges = incidence.gather(x) * factor.to(x.dtype)
    return incidence.scatter(edges) * incidence.vertex_inverse_root.to(x.dtype)


class SmoothingConv(nn.Module):
    """A linear map and one of the fixed operators above.

    The operator acts on whichever side of the map is narrower; its effect on the bias is the same.

    Args:
        in_channels: C.
        out_channels: D.
        operator: `smooth_hgnn`, `smooth_hgnnp` or `smooth_unigcn`.
    """

    def __init__(self, in_channels: int, out_channels: int, operator: Operator) -> None:
        super().__init__()
        self.theta = Linear(in_channels, out_channels)
        self.operator = operator

    def forward(self, x: Features, incidence: Incidence) -> Tensor:
        """(N, C) to (N, D)."""
        if isinstance(x, SparseRows) or self.theta.in_features >= self.theta.out_features:
            return self.operator(project(self.theta, x), incidence)
        ones = x.new_ones(len(x), 1)
        smooth = self.operator(torch.cat([x, ones], dim=1), incidence)
        return F.linear(smooth, torch.cat([self.theta.weight, self.theta.bias.unsqueeze(1)], dim=1))


class HNHNConv(nn.Module):
    """Hyperedges have a non-linearity of their own.

    Args:
        in_channels: C.
        out_channels: D.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.theta_v2e = Linear(in_channels, out_channels)
        self.theta_e2v = nn.Linear(out_channels, out_channels)

    def forward(self, x: Features, incidence: Incidence) -> Tensor:
        """(N, C) to (N, D)."""
        inner = project(self.theta_v2e, x)
        edges = F.relu(incidence.gather(inner) * incidence.edge_factor.to(inner.dtype))
        back = incidence.scatter(self.theta_e2v(edges))
        return back * incidence.vertex_inverse.to(back.dtype)


class HypergraphNetwork(nn.Module):
    """Layers with ReLU and dropout between them.

    Args:
        make: Makes a layer from its input and output channels.
        channels: Width of the features, of each hidden layer and of the output.
        dropout: Share of the hidden numbers that training leaves out.

    Raises:
        ConfigError: No layer, a width below 1, or a share that is none.
    """

    def __init__(self, make: Callable[[int, int], nn.Module], channels: list[int], dropout: float) -> None:
        super().__init__()
        if len(channels) < 2 or min(channels) < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"layers of widths {channels} with dropout={dropout}: needs at least one layer, widths of at "
                "least 1 and 0 <= dropout < 1"
            )
        self.layers = nn.ModuleList(make(a, b) for a, b in pairwise(channels))
        self.dropout = dropout

    def embed(self, x: Features, incidence: Incidence) -> Features:
        """What the last layer sees, (N, C) to (N, hidden)."""
        for layer in list(self.layers)[:-1]:
            x = F.dropout(F.relu(layer(x, incidence)), self.dropout, self.training)
        return x

    def forward(self, x: Features, incidence: Incidence) -> Tensor:
        """Logits, (N, C) to (N, classes)."""
        logits: Tensor = self.layers[-1](self.embed(x, incidence), incidence)
        return logits


def _widths(in_channels: int, hidden: int, num_classes: int, layers: int) -> list[int]:
    if layers < 1:
        raise ConfigError(f"layers={layers}: must be at least 1")
    return [in_channels, *[hidden] * (layers - 1), num_classes]


def _smoothing(operator: Operator) -> Callable[[int, int], nn.Module]:
    return lambda a, b: SmoothingConv(a, b, operator)


_DHG = "https://github.com/iMoonLab/DeepHypergraph"
_VERIFIED = {
    "equals the formula with dense matrices": "tests/graph/test_hypergraph_networks.py::test_formula",
    "parity with dhg": "tests/graph/test_hypergraph_parity.py::test_same_weights_same_numbers",
}


@register_model(
    Card(
        "hgnn",
        "hypergraph",
        "HGNN: Hypergraph Neural Networks",
        "https://arxiv.org/abs/1809.09401",
        _DHG,
        "Apache-2.0",
        multi_label=False,
        verified=_VERIFIED,
        differs="never forms the product H W H^T; an isolated vertex gets 0",
    )
)
def HGNN(
    in_channels: int, num_classes: int, *, hidden: int = 32, layers: int = 2, dropout: float = 0.5
) -> HypergraphNetwork:
    """Hypergraph neural network, normalised on both sides."""
    widths = _widths(in_channels, hidden, num_classes, layers)
    return HypergraphNetwork(_smoothing(smooth_hgnn), widths, dropout)


@register_model(
    Card(
        "hgnnp",
        "hypergraph",
        "HGNN+: General Hypergraph Neural Networks",
        "https://doi.org/10.1109/TPAMI.2022.3182052",
        _DHG,
        "Apache-2.0",
        multi_label=False,
        verified={
            **_VERIFIED,
            "parity with PyG's HypergraphConv": "tests/graph/test_hypergraph_networks.py::test_pyg",
        },
        differs="two-stage convolution on one hypergraph; fusing several hyperedge groups is left out",
    )
)
def HGNNPlus(
    in_channels: int, num_classes: int, *, hidden: int = 32, layers: int = 2, dropout: float = 0.5
) -> HypergraphNetwork:
    """Means of vertices, then means of hyperedges."""
    widths = _widths(in_channels, hidden, num_classes, layers)
    return HypergraphNetwork(_smoothing(smooth_hgnnp), widths, dropout)


@register_model(
    Card(
        "hnhn",
        "hypergraph",
        "HNHN: Hypergraph Networks with Hyperedge Neurons",
        "https://arxiv.org/abs/2006.12278",
        _DHG,
        "Apache-2.0",
        multi_label=False,
        verified=_VERIFIED,
        differs="plain means as in DeepHypergraph; the paper's powers of degrees (alpha, beta) are 0",
    )
)
def HNHN(
    in_channels: int, num_classes: int, *, hidden: int = 32, layers: int = 2, dropout: float = 0.5
) -> HypergraphNetwork:
    """Hyperedges as neurons with a non-linearity of their own."""
    return HypergraphNetwork(HNHNConv, _widths(in_channels, hidden, num_classes, layers), dropout)


@register_model(
    Card(
        "unigcn",
        "hypergraph",
        "UniGCN: UniGNN, a Unified Framework for Graph and Hypergraph Neural Networks",
        "https://arxiv.org/abs/2105.00956",
        _DHG,
        "Apache-2.0",
        multi_label=False,
        verified=_VERIFIED,
        differs="no added self-loops, as in DeepHypergraph; its 0.9.4 counts a 0 too many in mean degrees",
    )
)
def UniGCN(
    in_channels: int, num_classes: int, *, hidden: int = 32, layers: int = 2, dropout: float = 0.5
) -> HypergraphNetwork:
    """GCN's normalisation carried over to hyperedges."""
    widths = _widths(in_channels, hidden, num_classes, layers)
    return HypergraphNetwork(_smoothing(smooth_unigcn), widths, dropout)


TEACHERS: dict[str, Callable[..., HypergraphNetwork]] = {
    "hgnn": HGNN,
    "hgnnp": HGNNPlus,
    "hnhn": HNHN,
    "unigcn": UniGCN,
}
"""Networks that read a hypergraph, by name."""
