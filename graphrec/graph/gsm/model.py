"""GSM and GSM++: tokenise a graph, encode locally, encode globally.

Behrouz, Parviz, Karami, Sanford, Perozzi, Mirrokni: Best of Both Worlds: Advantages of Hybrid Graph Sequence
Models, ICML 2025, arXiv:2411.15671. No official code is known and several settings are in no text, so this is
a reconstruction; what was chosen is said where it is done:

* local encoding: a stack of GatedGCN (`graphrec.graph.backbones`);
* tokens (`tokens`): ``"node"``, nodes by degree; ``"khop"``, each node's neighbourhoods; and from the tree of
  affinity clusters (`clusters`) ``"dfs"``, its leaves in depth-first order, or ``"bfs"``, each node's
  clusters from coarse to fine;
* global encoding (`blocks`): two Mamba layers in both directions, then attention (``"hybrid"``), or one kind;
* hierarchical positions (`distances`): distances of clusters at several levels, as a bias of attention;
* several tokenisers are a mixture: each node takes the two that a router scores highest.

The cost is linear in nodes and edges: attention sees a window, or is linear (``attention="linear"``). The
output of a graph is the same alone and in any batch, and whatever its nodes' numbers. Where colours cannot
tell nodes of a sequence apart the latter holds while the window spans the graph.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError

from ..backbones import Backbone
from ..histograph import graph_ptr
from ..models import GraphNetwork, NodeNetwork
from ..topology import Topology
from .tokens import Graphs, GroupTokens, MixedTokens, SequenceTokens

TOKENISERS = ("node", "khop", "dfs", "bfs")

_Kept = tuple["weakref.ref[Tensor]", int, str, tuple[int, ...], Any]


class _Plans(weakref.WeakKeyDictionary[Topology, _Kept]):
    """What was derived from topologies; no copy of a model takes it along."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Plans:
        return _Plans()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Plans, ()


class GSMBackbone(nn.Module):
    """Local encoding, then tokens and global encoding.

    The history holds the activations of every local layer and those of the global encoder.

    Args:
        in_features: F.
        hidden: D.
        layers: Of local encoding.
        tokeniser: One of `TOKENISERS`, or several for a mixture.
        encoder: One of `blocks.ENCODERS`.
        window: How far attention sees to either side in a sequence of nodes; None for all of a graph.
        attention: ``"softmax"`` or ``"linear"``.
        positions: Whether attention has the hierarchical positional encoding; in sequences of nodes only.
        scales: Levels of it, of the clusters of ``"bfs"``, and hops of ``"khop"``.
        hops: Farthest distance that the encoding tells apart.
        states: Of Mamba.
        expand: Inner width of Mamba, as a multiple of D.
        bidirectional: Whether Mamba runs in both directions.
        conv: See `Backbone`; as for all below, of local encoding.
        norm: See `Backbone`.
        dropout: Of local and global layers.
        global_dropout: Of global layers, where they need another: one long sequence is soon known by heart.
        residual: See `Backbone`.
        heads: Of every attention.

    Raises:
        ConfigError: An option is unknown or impossible.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        layers: int,
        *,
        tokeniser: str | Sequence[str] = "dfs",
        encoder: str = "hybrid",
        window: int | None = 64,
        attention: str = "softmax",
        positions: bool = True,
        scales: int = 3,
        hops: int = 1,
        states: int = 16,
        expand: int = 2,
        bidirectional: bool = True,
        conv: str = "gatedgcn",
        norm: str = "batch",
        dropout: float = 0.0,
        global_dropout: float | None = None,
        residual: bool = True,
        heads: int = 4,
    ) -> None:
        super().__init__()
        names = [tokeniser] if isinstance(tokeniser, str) else list(tokeniser)
        _check(names, window, scales, hops)
        self.local = Backbone(
            in_features, hidden, layers, conv=conv, norm=norm, dropout=dropout, residual=residual, heads=heads
        )
        self.depth, self.rounds = self.local.depth + 1, layers
        shared: dict[str, Any] = {
            "encoder": encoder,
            "attention": attention,
            "states": states,
            "expand": expand,
            "bidirectional": bidirectional,
            "dropout": dropout if global_dropout is None else global_dropout,
        }

        def make(name: str) -> nn.Module:
            if name in ("khop", "bfs"):
                return GroupTokens(hidden, heads, groups=name, scales=scales, **shared)
            more: dict[str, Any] = {"window": window, "positions": positions, "scales": scales, "hops": hops}
            return SequenceTokens(hidden, heads, order=name, **more, **shared)

        parts = [make(name) for name in names]
        self.tokens = parts[0] if len(parts) == 1 else MixedTokens(hidden, parts)
        self._kept = _Plans()

    def forward(self, x: Tensor, edge_index: Tensor | Topology, batch: Tensor | None = None) -> list[Tensor]:
        """The history.

        Args:
            x: (N, F).
            edge_index: (2, E), or a topology; with one made once, clusters are made once too.
            batch: Graph of every node, ascending, int64 (N,); None for one graph.

        Returns:
            ``depth`` tensors (N, hidden).
        """
        topology = Topology.of(edge_index, len(x))
        history = self.local(x, topology, batch)
        plan = self.plan(x, topology, graph_ptr(batch, None, None, len(x)))
        return [*history, self.tokens(history[-1], plan)]

    def plan(self, x: Tensor, topology: Topology, ptr: Tensor) -> Any:
        """What the tokeniser derives from graphs, kept for as long as their topology and features are.

        Args:
            x: (N, F).
            topology: The edges.
            ptr: First node of every graph and N, (B + 1,).

        Raises:
            DataError: A feature is not finite.
        """
        sizes = tuple(ptr.tolist())
        key = None if x.is_inference() else x._version
        kept = self._kept.get(topology)
        if kept is not None and kept[0]() is x and kept[1:4] == (key, str(x.device), sizes):
            return kept[4]
        with torch.inference_mode(False):  # a plan that evaluation made serves training too
            plan = self.tokens.plan(_graphs(x, topology, sizes, self.rounds), x.device)  # type: ignore[operator]
        if key is not None:
            self._kept[topology] = (weakref.ref(x), key, str(x.device), sizes, plan)
        return plan


def _graphs(x: Tensor, topology: Topology, ptr: tuple[int, ...], rounds: int) -> Graphs:
    features = x.detach().float().cpu().numpy()
    if not np.isfinite(features).all():
        row = int((~np.isfinite(features)).any(1).argmax())
        raise DataError(f"x: a feature of node {row} is not finite; clusters need finite features")
    source, target = (
        one.cpu().numpy().astype(np.int64) for one in (topology.graph.index, topology.graph.row)
    )
    return Graphs(features, source, target, np.array(ptr, dtype=np.int64), rounds)


def _check(names: list[str], window: int | None, scales: int, hops: int) -> None:
    for name in names:
        if name not in TOKENISERS:
            raise ConfigError(f"tokeniser={name!r}: must be one of {', '.join(TOKENISERS)}, or several")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tokeniser={names}: name one tokeniser, or several different ones")
    if window is not None and window < 1:
        raise ConfigError(f"window={window}: must be at least 1, or None for all of a graph")
    if scales < 1 or hops < 1:
        raise ConfigError(f"scales={scales}, hops={hops}: both must be at least 1")
    if (hops + 2) ** scales > 1 << 16:
        raise ConfigError(f"scales={scales}, hops={hops}: (hops + 2) ** scales must be at most 65536")


def _signature(**changes: Any) -> inspect.Signature:
    """`GSMBackbone`'s arguments and those of a readout, by keyword, with these defaults."""
    own = inspect.signature(GSMBackbone).parameters
    options = {
        "hidden": 64,
        "layers": 2,
        **{k: p.default for k, p in own.items() if p.default is not p.empty},
    }
    options |= changes
    sizes = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for name in ("in_features", "classes")
    ]
    return inspect.Signature(
        sizes + [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v) for k, v in options.items()]
    )


def _made(signature: inspect.Signature, *sizes: int, **options: Any) -> dict[str, Any]:
    """A backbone, and the arguments of a network on it."""
    bound = signature.bind(*sizes, **options)
    bound.apply_defaults()
    given = bound.arguments
    own = {name: given.pop(name) for name in ("classes", "readout", "readout_options")}
    own |= {name: given[name] for name in ("hidden", "dropout", "heads")}
    return {"backbone": GSMBackbone(**given), **own}


class GSMGraphModel(GraphNetwork):
    """GSM++ for tasks on graphs.

    Args:
        in_features: F.
        classes: C.
        options: Of `GSMBackbone`, and ``readout`` and ``readout_options`` of `GraphNetwork`.
    """

    __signature__ = _signature(norm="batch", dropout=0.0, readout="mean", readout_options=None)

    def __init__(self, in_features: int, classes: int, **options: Any) -> None:
        super().__init__(**_made(self.__signature__, in_features, classes, **options))


class GSMNodeModel(NodeNetwork):
    """GSM++ for tasks on nodes.

    Args:
        in_features: F.
        classes: C.
        options: Of `GSMBackbone`, and ``readout`` and ``readout_options`` of `NodeNetwork`.
    """

    __signature__ = _signature(norm="layer", dropout=0.2, readout="last", readout_options=None)

    def __init__(self, in_features: int, classes: int, **options: Any) -> None:
        super().__init__(**_made(self.__signature__, in_features, classes, **options))
