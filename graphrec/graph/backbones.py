"""A stack of graph convolutions that returns the activations of every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import BatchNorm, GPSConv

from graphrec.errors import ConfigError
from graphrec.training.dropout import dropout as drop_activations

from .convolutions import GATConv, GatedGCNConv, GCNConv, GINConv, SAGEConv
from .linears import Linear, linear
from .rows import Features, SparseRows, drop, project
from .topology import Topology


class _GPS(nn.Module):
    """PyG's GPS layer around our GIN (Rampášek et al., arXiv:2205.12454)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer = GPSConv(width, _Adapter(_gin(width, width, heads)), heads=heads)

    def forward(self, x: Tensor, topology: Topology, batch: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, D); ``batch`` says which nodes see each other."""
        return self.layer(x, topology, batch)


class _Adapter(nn.Module):
    """A convolution with the method that `GPSConv` asks of PyG's."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def reset_parameters(self) -> None:
        """Weights are drawn by their modules."""

    def forward(self, x: Tensor, topology: Topology) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.conv(x, topology)


def _gin(in_features: int, width: int, heads: int, train_eps: bool = True) -> nn.Module:
    layers = nn.Sequential(
        Linear(in_features, width),
        BatchNorm(width, allow_single_element=True),
        nn.ReLU(inplace=True),  # no norm, and no convolution below, needs its output for its gradient
        nn.Linear(width, width),
    )
    return GINConv(layers, train_eps=train_eps)


def _gat(in_features: int, width: int, heads: int) -> nn.Module:
    if width % heads:
        raise ConfigError(f"hidden={width}: must be a multiple of heads={heads}")
    return GATConv(in_features, width // heads, heads)


CONVOLUTIONS: dict[str, Callable[[int, int, int], nn.Module] | None] = {
    "gcn": lambda in_features, width, heads: GCNConv(in_features, width),
    "gin": _gin,
    "gin0": lambda in_features, width, heads: _gin(in_features, width, heads, train_eps=False),
    "gat": _gat,
    "graphsage": lambda in_features, width, heads: SAGEConv(in_features, width),
    "gatedgcn": lambda in_features, width, heads: GatedGCNConv(in_features, width, normalise=True),
    "gps": lambda in_features, width, heads: _GPS(width, heads),
    "mlp": None,
}
"""Name -> maker of a layer of a width with so many heads. ``"gin0"`` is GIN with an epsilon that stays 0 (the
paper's GIN-0); ``"mlp"`` has no edges, a floor to compare with."""

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": lambda width: BatchNorm(width, allow_single_element=True),
    "layer": nn.LayerNorm,
    "none": lambda width: nn.Identity(),
}


class Backbone(nn.Module):
    """Embedding, then ``layers`` times: convolution, norm, ReLU, dropout, and a residual if asked for.

    The history of a forward pass is ``[X0, X1, ..., X_layers]``: X0 the embedded features, Xl the output of
    layer l, all (N, hidden). Without an embedding the first convolution takes the features, and the history
    begins with X1. A plain network uses the last alone; `HistoGraph` all.

    Args:
        in_features: F.
        hidden: D.
        layers: How many convolutions.
        conv: One of `CONVOLUTIONS`.
        norm: ``"batch"``, ``"layer"`` or ``"none"``.
        dropout: Share of activations that training drops, also of the input.
        residual: Whether a layer's input is added to its output.
        heads: Of attention, where the convolution has any.
        embed: Whether a linear layer comes first, without an activation.

    Attributes:
        depth: Tensors in a history.
        takes_sparse: Whether features may be `SparseRows`: what multiplies them first is a linear layer.

    Raises:
        ConfigError: A name is unknown, or ``layers`` is less than 1.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int = 64,
        layers: int = 5,
        *,
        conv: str = "gin",
        norm: str = "batch",
        dropout: float = 0.0,
        residual: bool = False,
        heads: int = 4,
        embed: bool = True,
    ) -> None:
        super().__init__()
        for name, value, known in (("conv", conv, CONVOLUTIONS), ("norm", norm, NORMS)):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: must be one of {', '.join(known)}")
        if layers < 1:
            raise ConfigError(f"layers={layers}: must be at least 1")
        if conv == "gps" and not embed:
            raise ConfigError(
                "embed=False: conv='gps' keeps the width of its input, so it needs an embedding"
            )
        self.hidden, self.dropout, self.residual = hidden, dropout, residual
        self.depth = layers + embed
        self.embed = linear(in_features, hidden) if embed else None
        make = CONVOLUTIONS[conv] or (lambda in_features, width, heads: linear(in_features, width))
        self.needs_edges, self.needs_batch = conv != "mlp", conv == "gps"
        self.takes_sparse = embed or conv == "gcn"
        widths = [hidden if embed or i else in_features for i in range(layers)]
        self.convs = nn.ModuleList(make(width, hidden, heads) for width in widths)
        self.norms = nn.ModuleList(NORMS[norm](hidden) for _ in range(layers))

    def forward(
        self, x: Features, edge_index: Tensor | Topology, batch: Tensor | None = None
    ) -> list[Tensor]:
        """The history.

        Args:
            x: (N, F), dense, or sparse if `takes_sparse`.
            edge_index: (2, E), or a topology.
            batch: Graph of every node, ascending, int64 (N,); None for one graph.

        Returns:
            ``depth`` tensors (N, hidden).
        """
        topology = Topology.of(edge_index, len(x))
        more = (batch,) if self.needs_batch else ()
        if isinstance(x, SparseRows) and not self.takes_sparse:
            raise ConfigError("sparse features: need an embedding (embed=True) or conv='gcn'")
        old: Any = drop(x, self.dropout, self.training)
        history = [] if self.embed is None else [old := project(self.embed, old)]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            new = conv(old, topology, *more) if self.needs_edges else conv(old)
            new = drop_activations(F.relu(norm(new), inplace=True), self.dropout, self.training)
            old = old + new if self.residual and old.shape == new.shape else new
            history.append(old)
        return history
