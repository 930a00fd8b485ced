"""Networks for graphs and for nodes: a backbone, a readout, a head.

`GraphModel` and `NodeModel` with ``readout="histograph"`` are HISTOGRAPH (`graphrec.graph.histograph`), with
other readouts its baselines. `GraphNetwork` and `NodeNetwork` take any backbone that gives a history.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError

from .backbones import Backbone
from .batches import GraphBatch
from .histograph import HistoGraph, History, graph_ptr
from .readouts import SegmentPooling, make_readout
from .rows import Features
from .topology import Topology


class Network(nn.Module):
    """What both kinds share: backbone, loss and predictions.

    Args:
        backbone: Gives the history of ``(x, edge_index, batch)``, ``backbone.depth`` tensors.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def history(self, batch: GraphBatch) -> History:
        """The backbone's activations; a batch that holds them already gives them as they are."""
        if batch.topology is None:
            assert isinstance(batch.x, Tensor)
            return batch.x
        found: list[Tensor] = self.backbone(batch.x, batch.topology, batch.batch)
        return found

    def logits(self, batch: GraphBatch) -> Tensor:
        """(labels, classes) of a batch."""
        raise NotImplementedError

    def training_loss(self, batch: GraphBatch) -> Tensor:
        """Mean cross entropy."""
        return F.cross_entropy(self.logits(batch), batch.labels)

    def predict(self, batch: GraphBatch) -> Tensor:
        """Probabilities (labels, classes)."""
        return self.logits(batch).softmax(-1)

    def _histograph(self, width: int, options: dict[str, Any]) -> HistoGraph:
        return HistoGraph([width] * self._depth(), width, **options)

    def _depth(self) -> int:
        depth: int = self.backbone.depth  # type: ignore[assignment]  # to a type checker it may be a tensor
        return depth


def _check_readout(readout: str, options: dict[str, Any] | None) -> None:
    """Refuse what only HISTOGRAPH takes where there is another readout."""
    if options and readout != "histograph":
        raise ConfigError(
            f"readout_options: {', '.join(map(str, options))} are of readout='histograph', found "
            f"readout={readout!r}"
        )


class GraphNetwork(Network):
    """Classifies graphs by a backbone's activations: readout, two linear layers.

    Args:
        backbone: See `Network`.
        classes: C.
        hidden: D, of every activation.
        readout: ``"histograph"`` or one of `readouts.READOUTS`.
        jk: What such a readout sees of the history: ``"last"``, or ``"cat"`` for all layers side by side
            (jumping knowledge, arXiv:1806.03536; GIN's eq. 4.2). HISTOGRAPH reads all layers its own way.
        dropout: Before the last layer.
        heads: Of HISTOGRAPH's attention.
        readout_options: Further arguments of `HistoGraph`.

    Raises:
        ConfigError: ``readout`` or ``jk`` is unknown, or ``jk="cat"`` given with HISTOGRAPH, or its options
            with another readout.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        hidden: int,
        *,
        readout: str,
        jk: str = "last",
        dropout: float = 0.0,
        heads: int = 4,
        readout_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backbone)
        if jk not in ("last", "cat"):
            raise ConfigError(f"jk={jk!r}: must be last or cat")
        _check_readout(readout, readout_options)
        self.jk = jk
        self.readout: nn.Module
        if readout == "histograph":
            if jk != "last":
                raise ConfigError(f"jk={jk!r}: readout='histograph' reads all layers its own way")
            options = {"heads": heads, **(readout_options or {})}
            self.readout, width = self._histograph(hidden, options), hidden
        else:
            self.readout, width = make_readout(readout, hidden * (self._depth() if jk == "cat" else 1))
        self.head = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor, edge_index: Tensor | Topology, batch: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: (N, F).
            edge_index: (2, E), or a topology.
            batch: Graph of every node, ascending, int64 (N,); None for one graph.

        Returns:
            (B, C).
        """
        ptr = graph_ptr(batch, None, None, len(x)).to(x.device)
        if batch is None:
            batch = ptr.new_zeros(len(x))
        return self.read(self.backbone(x, edge_index, batch), batch, ptr)

    def read(self, history: History, batch: Tensor, ptr: Tensor) -> Tensor:
        """Logits (B, C) from a history."""
        if isinstance(self.readout, HistoGraph):
            return self.head(self.readout(history, ptr=ptr))
        layers = history.unbind(1) if isinstance(history, Tensor) else history
        seen = layers if self.jk == "cat" else layers[-1:]
        given = {"ptr": ptr, "dim_size": ptr.shape[0] - 1}
        if isinstance(self.readout, SegmentPooling):  # the same, without all nodes' layers side by side
            return self.head(torch.cat([self.readout(one, batch, **given) for one in seen], 1))
        return self.head(self.readout(torch.cat(list(seen), 1), batch, **given))

    def logits(self, batch: GraphBatch) -> Tensor:
        """(B, C)."""
        return self.read(self.history(batch), batch.batch, batch.ptr)


class GraphModel(GraphNetwork):
    """Classifies graphs: a stack of convolutions, readout, two linear layers.

    Args:
        in_features: F.
        classes: C.
        hidden: D.
        layers: Convolutions.
        conv: See `backbones.CONVOLUTIONS`.
        readout: See `GraphNetwork`.
        jk: See `GraphNetwork`.
        norm: See `Backbone`.
        dropout: In the backbone and before the last layer.
        residual: See `Backbone`.
        heads: Of every attention.
        embed: See `Backbone`. GPS always needs it.
        readout_options: Further arguments of `HistoGraph`.
    """

    def __init__(
        self,
        in_features: int,
        classes: int,
        *,
        hidden: int = 64,
        layers: int = 5,
        conv: str = "gin",
        readout: str = "histograph",
        jk: str = "last",
        norm: str = "batch",
        dropout: float = 0.0,
        residual: bool = False,
        heads: int = 4,
        embed: bool = True,
        readout_options: dict[str, Any] | None = None,
    ) -> None:
        more: dict[str, Any] = {"norm": norm, "dropout": dropout, "residual": residual, "heads": heads}
        super().__init__(
            Backbone(in_features, hidden, layers, conv=conv, embed=embed, **more),
            classes,
            hidden,
            readout=readout,
            jk=jk,
            dropout=dropout,
            heads=heads,
            readout_options=readout_options,
        )


class NodeNetwork(Network):
    """Classifies nodes by a backbone's activations: a linear layer on the last, or on HISTOGRAPH's nodes.

    Args:
        backbone: See `Network`.
        classes: C.
        hidden: D, of every activation.
        readout: ``"histograph"`` or ``"last"``.
        dropout: In HISTOGRAPH.
        heads: Of HISTOGRAPH's attention.
        readout_options: Further arguments of `HistoGraph`.

    Raises:
        ConfigError: ``readout`` is unknown.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        hidden: int,
        *,
        readout: str,
        dropout: float = 0.0,
        heads: int = 4,
        readout_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backbone)
        if readout not in ("histograph", "last"):
            raise ConfigError(f"readout={readout!r}: must be histograph or last for nodes")
        _check_readout(readout, readout_options)
        options = {"heads": heads, "dropout": dropout, **(readout_options or {})}
        self.readout = self._histograph(hidden, options) if readout == "histograph" else None
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Features, edge_index: Tensor | Topology, batch: Tensor | None = None) -> Tensor:
        """Logits (N, C) of (N, F) features; ``batch`` as in `GraphModel.forward`."""
        ptr = graph_ptr(batch, None, None, len(x)).to(x.device)
        return self.read(self.backbone(x, edge_index, batch), ptr)

    def read(self, history: History, ptr: Tensor) -> Tensor:
        """Logits (N, C) from a history."""
        if self.readout is not None:
            return self.head(self.readout.nodes(history, ptr))
        return self.head(history[:, -1] if isinstance(history, Tensor) else history[-1])

    def fits(self, plain: NodeNetwork) -> bool:
        """Whether this can begin as ``plain``, which must be without HISTOGRAPH."""
        return plain.readout is None and plain.head.weight.shape == self.head.weight.shape

    def begin_as(self, plain: NodeNetwork) -> None:
        """Begin where a trained plain network is: its head, on the last layer.

        Args:
            plain: Without HISTOGRAPH, of the same width and classes.

        Raises:
            ConfigError: ``plain`` has HISTOGRAPH, or a head of another shape.
        """
        if not self.fits(plain):
            shapes = [tuple(one.head.weight.shape) for one in (plain, self)]
            raise ConfigError(
                f"plain: needs readout='last' and a head of {shapes[1]}, got readout="
                f"{'last' if plain.readout is None else 'histograph'!r} and {shapes[0]}"
            )
        self.head.load_state_dict(plain.head.state_dict())
        if self.readout is not None:
            self.readout.begin_at_last()

    def logits(self, batch: GraphBatch) -> Tensor:
        """(n, C) of the nodes asked for."""
        found = self.read(self.history(batch), batch.ptr)
        return found if batch.nodes is None else found[batch.nodes]


class NodeModel(NodeNetwork):
    """Classifies nodes: a stack of convolutions, then what `NodeNetwork` does.

    Args:
        in_features: F.
        classes: C.
        hidden: D.
        layers: Convolutions.
        conv: See `backbones.CONVOLUTIONS`.
        readout: ``"histograph"`` or ``"last"``.
        norm: See `Backbone`.
        dropout: In the backbone and in the readout.
        residual: See `Backbone`.
        heads: Of every attention.
        embed: Whether a linear layer without edges comes first. Without one, two layers are the network of
            GCN's paper, and all that HISTOGRAPH sees has been passed along edges. GPS always has it.
        readout_options: Further arguments of `HistoGraph`.

    Raises:
        ConfigError: ``readout`` is unknown.
    """

    def __init__(
        self,
        in_features: int,
        classes: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        conv: str = "gcn",
        readout: str = "histograph",
        norm: str = "none",
        dropout: float = 0.5,
        residual: bool = False,
        heads: int = 4,
        embed: bool = False,
        readout_options: dict[str, Any] | None = None,
    ) -> None:
        more: dict[str, Any] = {"norm": norm, "dropout": dropout, "residual": residual, "heads": heads}
        super().__init__(
            Backbone(in_features, hidden, layers, conv=conv, embed=embed or conv == "gps", **more),
            classes,
            hidden,
            readout=readout,
            dropout=dropout,
            heads=heads,
            readout_options=readout_options,
        )
