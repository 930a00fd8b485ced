"""Launching the graph kernels. The edge work is bound by memory, so tiles only fill the registers evenly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..backends import interpreting
from ..configs import tabled
from ..registering import operator
from .registered import Walk, walk


@dataclass(frozen=True)
class GraphConfig:
    """Launch settings of the graph kernels: edges at a time, features at a time, warps."""

    edges: int
    features: int
    warps: int

    def settings(self) -> dict[str, int]:
        """Arguments of a kernel over edges and features."""
        return {"BE": self.edges, "BD": self.features, "num_warps": self.warps}


def power(size: int) -> int:
    """The power of two that holds a size."""
    return 1 << (max(size, 1) - 1).bit_length()


@tabled("spmm", by="dim")
def graph_config(dim: int) -> GraphConfig:
    """Some thousand numbers at a time: 16 to 64 edges of up to 128 features.

    Nodes of recommendation and chemistry graphs have some 2 to 50 edges, so more would mostly be filling.
    """
    features = min(power(dim), 128)
    edges = min(64, max(16, 1024 // features))
    return GraphConfig(edges, features, 4 if edges * features >= 1024 else 2)


def attention_tiles(dim: int, v_dim: int) -> dict[str, int]:
    """Settings of the fused attention, whose tiles hold all features."""
    wide = max(power(dim), power(v_dim))
    edges = 32 if wide <= 32 else 16
    warps = 2 if wide <= 32 else 4 if wide <= 128 else 8
    return {"BE": edges, "BD": power(dim), "BV": power(v_dim), "num_warps": warps}


def sums(owners: Walk, x: Tensor, weight: Tensor | None) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.sums`."""
    from . import triton_kernels

    count = owners.ptr.shape[0] - 1
    out = x.new_empty(count, *x.shape[1:])
    if out.numel() == 0:
        return out
    if x.dim() == 2:
        x, weight = x.unsqueeze(1), None if weight is None else weight.unsqueeze(1)
    heads, dim = x.shape[1:]
    config = graph_config(dim)
    tiles = -(-dim // config.features)
    order = owners.other if owners.order is None else owners.order
    steps = (0, 0) if weight is None else weight.stride()
    triton_kernels.sums[(tiles * count * heads,)](
        x, x if weight is None else weight, out, owners.ptr, owners.other, order, *x.stride(), *steps,
        count, heads, dim, tiles, WEIGHT=weight is not None, ORDER=owners.order is not None,
        **config.settings(),
    )  # fmt: skip
    return out


def products(graph: list[Tensor], a: Tensor, b: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.products`."""
    from . import triton_kernels

    edges, heads, dim = len(graph[1]), *a.shape[1:]
    out = a.new_empty(edges, heads)
    if out.numel() == 0:
        return out
    config = graph_config(dim)
    blocks = -(-edges // config.edges)
    triton_kernels.products[(blocks * heads,)](
        a,
        b,
        out,
        graph[2],
        graph[1],
        *a.stride(),
        *b.stride(),
        edges,
        heads,
        dim,
        blocks,
        **config.settings(),
    )
    return out


def _softmax_block(graph: list[Tensor]) -> int:
    """Edges at a time: about the average degree, which needs no look at the data."""
    degree = -(-len(graph[1]) // max(len(graph[0]) - 1, 1))
    return 64 if interpreting() else min(1024, max(32, power(degree)))


def softmax(graph: list[Tensor], scores: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.softmax`."""
    from . import triton_kernels

    out = scores.new_empty(scores.shape)
    rows, heads = len(graph[0]) - 1, scores.shape[1]
    if out.numel():
        block = _softmax_block(graph)
        triton_kernels.softmax[(rows * heads,)](
            scores, out, graph[0], *scores.stride(), rows, heads, BE=block, num_warps=max(1, block // 128)
        )
    return out


def softmax_backward(graph: list[Tensor], weights: Tensor, grad: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.softmax_backward`."""
    from . import triton_kernels

    out = weights.new_empty(weights.shape)
    rows, heads = len(graph[0]) - 1, weights.shape[1]
    if out.numel():
        block = _softmax_block(graph)
        triton_kernels.softmax_backward[(rows * heads,)](
            weights, grad, out, graph[0], *weights.stride(), *grad.stride(), rows, heads,
            BE=block, num_warps=max(1, block // 128),
        )  # fmt: skip
    return out


def maxima(owners: Walk, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`graphrec.kernels.graph.registered.maxima`."""
    from . import triton_kernels

    count, dim = len(owners.ptr) - 1, x.shape[1]
    out, ties = x.new_empty(count, dim), x.new_empty(count, dim, dtype=torch.int32)
    if out.numel() == 0:
        return out, ties
    config = graph_config(dim)
    tiles = -(-dim // config.features)
    triton_kernels.maxima[(tiles * count,)](
        x, x if weight is None else weight.contiguous(), out, ties, owners.ptr, owners.other, *x.stride(),
        dim, tiles, WEIGHT=weight is not None, **config.settings(),
    )  # fmt: skip
    return out, ties


def maxima_to_nodes(leaving: Walk, share: Tensor, out: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    """Gradient of (columns, D): every edge that reaches a maximum passes on its share."""
    from . import triton_kernels

    count, dim = x.shape
    dx = x.new_empty(count, dim)
    if dx.numel() == 0:
        return dx
    config = graph_config(dim)
    tiles = -(-dim // config.features)
    order = leaving.other if leaving.order is None else leaving.order
    triton_kernels.maxima_to_nodes[(tiles * count,)](
        share.contiguous(), out.contiguous(), x, x if weight is None else weight.contiguous(), dx,
        leaving.ptr, leaving.other, order, *x.stride(), dim, tiles,
        WEIGHT=weight is not None, ORDER=leaving.order is not None, **config.settings(),
    )  # fmt: skip
    return dx


def maxima_to_edges(graph: list[Tensor], share: Tensor, out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of (E,)."""
    from . import triton_kernels

    edges, dim = len(graph[1]), x.shape[1]
    dweight = weight.new_empty(edges)
    if edges:
        config = graph_config(dim)
        triton_kernels.maxima_to_edges[(-(-edges // config.edges),)](
            share.contiguous(), out.contiguous(), x, weight.contiguous(), dweight, graph[2], graph[1],
            *x.stride(), edges, dim, **config.settings(),
        )  # fmt: skip
    return dweight


def edge_attention(
    graph: list[Tensor], q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """See :func:`graphrec.kernels.edge_attention`."""
    out: Tensor = fused_attention(q, k, v, bias, graph, scale)[0]
    return out


def _given(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> tuple[Tensor, tuple[int, ...], dict[str, Any]]:
    """The bias to read, the strides of all, and the constant arguments."""
    steps = (0, 0) if bias is None else bias.stride()
    constants = {"BIAS": bias is not None, **attention_tiles(q.shape[2], v.shape[2])}
    return q if bias is None else bias, (*q.stride(), *k.stride(), *v.stride(), *steps), constants


@operator("graphrec::edge_attention")
def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, graph: list[Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """Output (rows, H, Dv) and log-sum-exp (rows, H) in float32."""
    from . import triton_attention

    rows, heads, dim = q.shape
    out = q.new_empty(rows, heads, v.shape[2])
    lse = q.new_empty(rows, heads, dtype=torch.float32)
    read, steps, constants = _given(q, k, v, bias)
    if lse.numel():
        triton_attention.forward[(rows * heads,)](
            q,
            k,
            v,
            read,
            out,
            lse,
            graph[0],
            graph[1],
            *steps,
            scale,
            rows,
            heads,
            dim,
            v.shape[2],
            **constants,
        )
    return out, lse


@fused_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, graph: list[Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(q.shape[:2], dtype=torch.float32)


@operator("graphrec::edge_attention_backward")
def fused_backward(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    graph: list[Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and bias (empty without one); ``delta`` (rows, H) sums ``grad * out``."""
    from . import triton_attention

    rows, heads, dim = q.shape
    read, steps, constants = _given(q, k, v, bias)
    grad, delta = grad.contiguous(), delta.contiguous()
    dq, dk, dv = (one.new_empty(one.shape) for one in (q, k, v))
    db = q.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    sizes = (heads, dim, v.shape[2])
    if rows * heads:
        triton_attention.backward_rows[(rows * heads,)](
            q,
            k,
            v,
            read,
            grad,
            lse,
            delta,
            dq,
            db,
            graph[0],
            graph[1],
            *steps,
            scale,
            rows,
            *sizes,
            **constants,
        )
    if len(k) * heads:
        triton_attention.backward_columns[(len(k) * heads,)](
            q, k, v, read, grad, lse, delta, dk, dv, *walk(graph, True, len(k)),
            *steps, scale, len(k), *sizes, **constants,
        )  # fmt: skip
    return dq, dk, dv, db


@fused_backward.register_fake
def _(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    graph: list[Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv = (one.new_empty(one.shape) for one in (q, k, v))
    return dq, dk, dv, q.new_empty(0) if bias is None else bias.new_empty(bias.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, graph, ctx.scale = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, bias, *output, *graph)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    q, k, v, bias, out, lse, *graph = ctx.saved_tensors
    delta = (grad.float() * out.float()).sum(-1)
    dq, dk, dv, db = fused_backward(grad, delta, lse, q, k, v, bias, graph, ctx.scale)
    return dq, dk, dv, None if bias is None else db, [None] * len(graph), None


fused_attention.register_autograd(_backward, setup_context=_setup)
