"""HISTOGRAPH: a readout that attends to all layers of a graph network, then to all nodes of a graph.

Galron, Sinai, Maron, Eliasof: Learning from Historical Activations in Graph Neural Networks, ICLR 2026,
arXiv:2601.01123, section 3. Official code: https://github.com/YanivDorGalron/HISTOGRAPH; it was not at hand,
so what follows is made from the formulas. Symbols: N nodes, L layers (the embedded input is one), D width.

    X~_l = W_l X_l + P_l                      one width for all layers; P sinusoidal in l
    c_l = mean_v (X~_last W_q) . (X~_l W_k) / sqrt(D)        one number per layer and graph
    a_l = c_l / sum_m c_m                     a division, no softmax: weights are signed and sum to 1
    H = sum_l a_l X~_l                        (no projection of the values)
    Z = H + MHSA(LayerNorm(H))                ordinary attention among the nodes
    G = mean_v Z

What differs from the paper: there N is the nodes of a batch, here the nodes of each graph, for the mean in c
and for the attention, so that a graph's output does not depend on what shares its batch. And a sum of c near
zero, of which the paper says nothing, is kept from zero by `safe_division`. The paper leaves a residual and a
norm around MHSA open; with the norm after the sum, 64 layers did not learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import Aggregation, MessagePassing

from graphrec.errors import ConfigError, DataError
from graphrec.kernels.graph import segment_reduce
from graphrec.training.dropout import dropout

from .linears import linear
from .padding import padded

History = Sequence[Tensor] | Tensor
"""L tensors (N, D_l), or one (N, L, D)."""


def safe_division(scores: Tensor, floor: float = 0.1) -> Tensor:
    """Signed scores over their sum, bounded where the sum comes near zero.

    The divisor keeps its sign, and its size is at least ``floor`` of the sum of sizes. So weights sum to 1
    unless positive and negative scores all but cancel, and their sizes never sum to more than ``1 / floor``.
    The scale of the scores makes no difference, which a constant in place of the floor would.

    Args:
        scores: (..., L).
        floor: Above 0.

    Returns:
        Like ``scores``; 0 where all scores are.
    """
    total, size = scores.sum(-1, keepdim=True), scores.abs().sum(-1, keepdim=True)
    bound = torch.maximum(total.abs(), floor * size).clamp(min=torch.finfo(scores.dtype).tiny)
    return scores / torch.where(total < 0, -bound, bound)


def layer_positions(layers: int, width: int) -> Tensor:
    """Sines and cosines of the layer's number, (L, D), as of positions in "Attention is all you need"."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(layers).unsqueeze(1) * rate  # (L, ceil(D / 2))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


class HistoGraph(Aggregation):
    """The readout. Called as PyG's aggregations are, with a history in place of the last activations.

        with record_history(any_pyg_model) as history:
            any_pyg_model(x, edge_index)
        vectors = HistoGraph([layer.shape[1] for layer in history], 64)(history, batch)

    Args:
        widths: D_l of every layer, the last layer last.
        hidden: D, of the output.
        heads: Of the attention among nodes.
        weights: ``"signed"`` for the paper's division, ``"softmax"`` for its ablation, ``"last"`` to use the
            last layer alone (no attention to layers).
        node_attention: Whether nodes attend to each other.
        floor: See `safe_division`.
        dropout: Share of H that training drops.

    Raises:
        ConfigError: No layers, ``hidden`` is no multiple of ``heads``, or ``weights`` is unknown.
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: int = 64,
        heads: int = 4,
        *,
        weights: str = "signed",
        node_attention: bool = True,
        floor: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or hidden % heads:
            raise ConfigError(
                f"hidden={hidden}, heads={heads}, widths={list(widths)}: need layers, and hidden"
                " a multiple of heads"
            )
        if weights not in ("signed", "softmax", "last"):
            raise ConfigError(f"weights={weights!r}: must be signed, softmax or last")
        self.hidden, self.heads, self.weights, self.floor = hidden, heads, weights, floor
        self.node_attention, self.dropout = node_attention, dropout
        self.lift = nn.ModuleList(linear(width, hidden) for width in widths)
        self.register_buffer("positions", layer_positions(len(widths), hidden), persistent=False)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.mix = NodeAttention(hidden, heads) if node_attention else None

    @torch.no_grad()
    def begin_at_last(self) -> None:
        """Begin with the last layer as it is (of another width than D, its first D features) and no other.

        A start over a trained backbone, whose last layer a trained head reads. The other layers' lifts
        are 0, so their scores are; with equal queries and keys the last one's score is positive, and its
        weight 1. What attention among nodes adds is 0 as well. Gradients reach the other lifts through the
        scores, and everything else once those have moved. With ``weights="softmax"`` the other layers have
        weights from the start, though nothing that is weighted.
        """
        lifts = cast("list[nn.Linear]", list(self.lift))
        for lift, place in zip(lifts, self.positions, strict=True):
            lift.weight.zero_()
            lift.bias.copy_(-place)
        nn.init.eye_(lifts[-1].weight)
        self.key.weight.copy_(self.query.weight)
        for bias in (self.query.bias, self.key.bias):
            bias.zero_()
        if self.mix is not None:
            self.mix.out.weight.zero_()
            self.mix.out.bias.zero_()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of any module: PyG's own checks take a tensor of nodes, where a history may be a list."""
        return nn.Module.__call__(self, *args, **kwargs)

    def forward(  # type: ignore[override]
        self,
        x: History,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """A vector per graph.

        Args:
            x: The history.
            index: Graph of every node, ascending, int64 (N,); None for one graph.
            ptr: First node of every graph and N, (B + 1,), in place of ``index``.
            dim_size: B, where graphs at the end may have no nodes.
            dim: For PyG's sake; the nodes are always the first axis.

        Returns:
            (B, D); 0 for a graph without nodes.

        Raises:
            DataError: The history has other layers or widths, or ``index`` is not sorted.
        """
        ptr = graph_ptr(index, ptr, dim_size, len(x) if isinstance(x, Tensor) else len(x[0]))
        return segment_reduce(self.nodes(x, ptr), ptr, "mean")

    def nodes(self, x: History, ptr: Tensor) -> Tensor:
        """Z, a vector per node (N, D), for tasks on nodes."""
        lifted = self._lifted(x)
        mixed = _mixed(lifted, self._alpha(lifted, ptr), ptr)
        mixed = dropout(mixed, self.dropout, self.training)
        return mixed if self.mix is None else self.mix(mixed, ptr)

    def attention(self, x: History, ptr: Tensor) -> tuple[Tensor, Tensor]:
        """What the readout looks at.

        Returns:
            Weight of every layer, (B, L), and of every node in its graph's mean, (N,), which sum to 1 per
            graph.
        """
        lifted = self._lifted(x)
        alpha = self._alpha(lifted, ptr)
        if self.mix is None:
            return alpha, (1 / ptr.diff()).repeat_interleave(ptr.diff())
        return alpha, self.mix.received(_mixed(lifted, alpha, ptr), ptr)

    def _lifted(self, x: History) -> list[Tensor]:
        """X~, (N, D) of every layer; never one tensor of all, which would not stay in a processor's cache."""
        layers = list(x.unbind(1)) if isinstance(x, Tensor) else list(x)
        lifts = cast("list[nn.Linear]", list(self.lift))
        found, wanted = [one.shape[-1] for one in layers], [one.in_features for one in lifts]
        if found != wanted:
            raise DataError(f"the history has layers of {found} features, the readout takes {wanted}")
        return [
            F.linear(one, lift.weight, lift.bias + place)
            for lift, one, place in zip(lifts, layers, self.positions, strict=True)
        ]

    def _alpha(self, lifted: list[Tensor], ptr: Tensor) -> Tensor:
        """(B, L)."""
        if self.weights == "last":
            alpha = lifted[0].new_zeros(len(ptr) - 1, len(self.lift))
            alpha[:, -1] = 1
            return alpha
        # q . (W x + b) = (W^T q) . x + q . b: the keys of all layers are never made
        query = self.query(lifted[-1])
        asked = query @ self.key.weight
        scores = torch.stack([(asked * one).sum(-1) for one in lifted], 1)
        scores = (scores + (query @ self.key.bias).unsqueeze(1)) / math.sqrt(self.hidden)
        mean = segment_reduce(scores, ptr, "mean")
        return mean.softmax(-1) if self.weights == "softmax" else safe_division(mean, self.floor)


def _mixed(lifted: list[Tensor], alpha: Tensor, ptr: Tensor) -> Tensor:
    """H, (N, D): the layers' sum, weighted by (B, L)."""
    each = alpha.repeat_interleave(ptr.diff(), 0)  # (N, L)
    found = lifted[0] * each[:, :1]
    for layer, one in enumerate(lifted[1:], 1):
        found = torch.addcmul(found, one, each[:, layer : layer + 1])
    return found


class NodeAttention(nn.Module):
    """Multi-head self-attention among the nodes of each graph, ``x + MHSA(LayerNorm(x))``.

    Graphs of about equal size are padded together, so the cost is that of their own pairs of nodes.

    Args:
        hidden: D.
        heads: H.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        qkv, width = self.qkv(self.norm(x)), x.shape[1]
        outputs, rows = [], []
        for place, real in padded(ptr):
            q, k, v = self._heads(qkv, place)
            mask = None if bool(real.all()) else real[:, None, None]
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (b, H, n, D / H)
            outputs.append(found.transpose(1, 2).reshape(*place.shape, width)[real])
            rows.append(place[real])
        if not rows:
            return x
        return x + self.out(torch.cat(outputs)[torch.cat(rows).argsort()])

    def received(self, x: Tensor, ptr: Tensor) -> Tensor:
        """Mean attention that each node receives in its graph, over queries and heads, (N,)."""
        qkv, share = self.qkv(self.norm(x)), x.new_zeros(len(x))
        for place, real in padded(ptr):
            q, k, _ = self._heads(qkv, place)
            logits = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~real[:, None, None], -torch.inf)
            weights = logits.softmax(-1).mean(1) * real.unsqueeze(2)  # (b, queries, keys)
            share[place[real]] = (weights.sum(1) / real.sum(1, keepdim=True))[real]
        return share

    def _heads(self, qkv: Tensor, place: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (b, H, n, D / H) of the nodes at (b, n)."""
        some = qkv[place].view(*place.shape, 3, self.heads, -1)
        return some.permute(2, 0, 3, 1, 4).unbind(0)


def graph_ptr(index: Tensor | None, ptr: Tensor | None, graphs: int | None, nodes: int) -> Tensor:
    """First node of every graph, and N, int64 (B + 1,).

    Raises:
        DataError: ``index`` is not ascending, or is of another number of nodes.
    """
    if ptr is not None:
        return ptr
    if index is None:
        return torch.tensor([0, nodes])
    if len(index) != nodes or bool((index[1:] < index[:-1]).any()):
        raise DataError(f"batch must be ascending with one graph for each of {nodes} nodes, as PyG makes it")
    counts = torch.bincount(index, minlength=graphs or 0)
    return F.pad(counts.cumsum(0), (1, 0))


@contextmanager
def record_history(model: nn.Module, kind: type[nn.Module] = MessagePassing) -> Iterator[list[Tensor]]:
    """Collect what the layers of any model give while the block runs, in the order in which they run.

    Args:
        model: Such as `torch_geometric.nn.GIN`.
        kind: Which of its modules are layers.
    """
    history: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, kind)]
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no {kind.__name__} whose output could be recorded")
    hooks = [layer.register_forward_hook(lambda _m, _i, out: history.append(out)) for layer in layers]
    try:
        yield history
    finally:
        for hook in hooks:
            hook.remove()
