"""The graph operators that torch knows, with their gradients, for the torch and the Triton backend alike.

A graph crosses an operator as the list of tensors of :meth:`graphrec.kernels.CSR.tensors`. Edges are numbered
as in the graph throughout; a walk over the transpose names them through its ``order``. Sums of rows and
products per edge are each other's gradients, so both can be differentiated any number of times:

``out[i] = sum_e w[e] x[index[e]]`` gives ``dx[j] = sum_e w[e] g[row[e]]`` over the edges that leave ``j``,
and ``dw[e] = g[row[e]] . x[index[e]]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..registering import operator


class Walk(NamedTuple):
    """Edges grouped by the node that a kernel owns.

    Attributes:
        ptr: where the edges of each owner begin.
        other: the node at the other end.
        order: which edge of the graph each is; None is the order of the walk.
    """

    ptr: Tensor
    other: Tensor
    order: Tensor | None


def walk(graph: list[Tensor], flipped: bool, columns: int) -> Walk:
    """The rows of a graph or, flipped, its columns; a transpose that was not given is made."""
    if not flipped:
        return Walk(graph[0], graph[1], None)
    if len(graph) < 6:
        index, row = graph[1], graph[2]
        order = torch.argsort(index, stable=True)
        counts = torch.bincount(index, minlength=columns).cumsum(0)
        return Walk(torch.nn.functional.pad(counts, (1, 0)).to(row.dtype), row[order], order.to(row.dtype))
    return Walk(graph[3], graph[4], graph[5])


def _module(backend: str) -> Any:
    if backend == "triton":
        from . import triton

        return triton
    from . import torch as plain

    return plain


@operator("graphrec::graph_sums")
def sums(
    x: Tensor, weight: Tensor | None, graph: list[Tensor], flipped: bool, count: int, backend: str
) -> Tensor:
    """``weight[e, h] * x[other, h]`` added up per owner.

    Args:
        x: (nodes at the other end, H, D), or without heads (nodes, D).
        weight: (E, H) in ``x``'s dtype, or (E,).
        graph: its tensors.
        flipped: owners are the graph's columns.
        count: number of owners.
        backend: "torch" or "triton".

    Returns:
        (count, H, D) or (count, D), contiguous.
    """
    found: Tensor = _module(backend).sums(walk(graph, flipped, count), x, weight)
    return found


@sums.register_fake
def _(
    x: Tensor, weight: Tensor | None, graph: list[Tensor], flipped: bool, count: int, backend: str
) -> Tensor:
    return x.new_empty(count, *x.shape[1:])


def _sums_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, graph, ctx.flipped, _, ctx.backend = inputs
    ctx.columns = x.shape[0]
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, *graph)


def _sums_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, *graph = ctx.saved_tensors
    dx = dweight = None
    if ctx.needs_input_grad[0]:
        dx = sums(grad, weight, graph, not ctx.flipped, ctx.columns, ctx.backend)
    if ctx.needs_input_grad[1]:
        dweight = _weight_gradient(ctx, grad, x, graph)
    return dx, dweight, [None] * len(graph), None, None, None


def _weight_gradient(ctx: Any, grad: Tensor, x: Tensor, graph: list[Tensor]) -> Tensor:
    pair = (x, grad) if ctx.flipped else (grad, x)
    if grad.dim() == 3:
        return products(*pair, graph, ctx.backend)
    return products(*(one.unsqueeze(1) for one in pair), graph, ctx.backend).squeeze(1)


sums.register_autograd(_sums_backward, setup_context=_sums_setup)


@operator("graphrec::graph_own_sums")
def own_sums(
    x: Tensor, weight: Tensor | None, own: Tensor, graph: list[Tensor], flipped: bool, backend: str
) -> Tensor:
    """`sums` among as many nodes at either end, plus ``own * x``, in one pass over the sum.

    ``own`` is one number, a tensor of shape (1,) in ``x``'s dtype.
    """
    found: Tensor = _module(backend).sums(walk(graph, flipped, x.shape[0]), x, weight)
    return found.addcmul_(x, own)


@own_sums.register_fake
def _(
    x: Tensor, weight: Tensor | None, own: Tensor, graph: list[Tensor], flipped: bool, backend: str
) -> Tensor:
    return x.new_empty(x.shape)


def _own_sums_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, own, graph, ctx.flipped, ctx.backend = inputs
    ctx.save_for_backward(x if any(ctx.needs_input_grad[1:3]) else None, weight, own, *graph)


def _own_sums_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, own, *graph = ctx.saved_tensors
    dx = dweight = down = None
    if ctx.needs_input_grad[0]:
        dx = own_sums(grad, weight, own, graph, not ctx.flipped, ctx.backend)
    if ctx.needs_input_grad[1]:
        dweight = _weight_gradient(ctx, grad, x, graph)
    if ctx.needs_input_grad[2]:
        down = torch.dot(grad.flatten(), x.flatten()).view(1)
    return dx, dweight, down, [None] * len(graph), None, None


own_sums.register_autograd(_own_sums_backward, setup_context=_own_sums_setup)


@operator("graphrec::graph_products")
def products(a: Tensor, b: Tensor, graph: list[Tensor], backend: str) -> Tensor:
    """``a[row[e], h] . b[index[e], h]``, (E, H), of (rows, H, D) and (columns, H, D)."""
    found: Tensor = _module(backend).products(graph, a, b)
    return found


@products.register_fake
def _(a: Tensor, b: Tensor, graph: list[Tensor], backend: str) -> Tensor:
    return a.new_empty(graph[1].shape[0], a.shape[1])


def _products_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, graph, ctx.backend = inputs
    ctx.save_for_backward(a, b, *graph)


def _products_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    a, b, *graph = ctx.saved_tensors
    da = db = None
    if ctx.needs_input_grad[0]:
        da = sums(b, grad, graph, False, a.shape[0], ctx.backend)
    if ctx.needs_input_grad[1]:
        db = sums(a, grad, graph, True, b.shape[0], ctx.backend)
    return da, db, [None] * len(graph), None


products.register_autograd(_products_backward, setup_context=_products_setup)


@operator("graphrec::graph_softmax")
def softmax(scores: Tensor, graph: list[Tensor], backend: str) -> Tensor:
    """Softmax of (E, H) over the edges of each row."""
    found: Tensor = _module(backend).softmax(graph, scores)
    return found


@softmax.register_fake
def _(scores: Tensor, graph: list[Tensor], backend: str) -> Tensor:
    return scores.new_empty(scores.shape)


@operator("graphrec::graph_softmax_backward")
def softmax_backward(weights: Tensor, grad: Tensor, graph: list[Tensor], backend: str) -> Tensor:
    """``weights * (grad - t[row])`` where ``t`` is the sum of ``weights * grad`` over each row."""
    found: Tensor = _module(backend).softmax_backward(graph, weights, grad)
    return found


@softmax_backward.register_fake
def _(weights: Tensor, grad: Tensor, graph: list[Tensor], backend: str) -> Tensor:
    return weights.new_empty(weights.shape)


def _softmax_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, graph, ctx.backend = inputs
    ctx.save_for_backward(output, *graph)


def _softmax_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weights, *graph = ctx.saved_tensors
    return softmax_backward(weights, grad, graph, ctx.backend), [None] * len(graph), None


softmax.register_autograd(_softmax_backward, setup_context=_softmax_setup)


def _second_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weights, grad, graph, ctx.backend = inputs
    ctx.save_for_backward(weights, grad, *graph)


def _second_backward(ctx: Any, given: Tensor) -> tuple[Any, ...]:
    """With ``T`` the sum of ``weights * grad`` per row and ``U`` of ``weights * given``:
    ``dgrad = weights * (given - U)`` and ``dweights = given * (grad - T) - grad * U``."""
    weights, grad, *graph = ctx.saved_tensors
    dgrad = softmax_backward(weights, given, graph, ctx.backend)
    edges = [graph[0], torch.arange(len(weights), device=weights.device, dtype=graph[0].dtype), graph[2]]
    rows = graph[0].shape[0] - 1

    def spread(x: Tensor) -> Tensor:
        return sums(x.unsqueeze(-1), None, edges, False, rows, ctx.backend).squeeze(-1)[graph[2]]

    dweights = given * (grad - spread(weights * grad)) - grad * spread(weights * given)
    return dweights, dgrad, [None] * len(graph), None


softmax_backward.register_autograd(_second_backward, setup_context=_second_setup)


@operator("graphrec::graph_maxima")
def maxima(x: Tensor, weight: Tensor | None, graph: list[Tensor], backend: str) -> tuple[Tensor, Tensor]:
    """The largest ``weight[e] * x[index[e]]`` of each row and how many edges reach it.

    Args:
        x: (columns, D).
        weight: (E,) in ``x``'s dtype.
        graph: its tensors.
        backend: "torch" or "triton".

    Returns:
        (rows, D) like ``x``, 0 without edges, and int32 (rows, D), 0 without edges.
    """
    found: tuple[Tensor, Tensor] = _module(backend).maxima(walk(graph, False, 0), x, weight)
    return found


@maxima.register_fake
def _(x: Tensor, weight: Tensor | None, graph: list[Tensor], backend: str) -> tuple[Tensor, Tensor]:
    shape = (graph[0].shape[0] - 1, x.shape[1])
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int32)


@operator("graphrec::graph_maxima_backward")
def maxima_backward(
    grad: Tensor,
    out: Tensor,
    ties: Tensor,
    x: Tensor,
    weight: Tensor | None,
    graph: list[Tensor],
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``weight`` (empty without one); edges that reach the maximum share ``grad``."""
    share = grad / ties.clamp(min=1).to(grad.dtype)
    module = _module(backend)
    dx: Tensor = module.maxima_to_nodes(walk(graph, True, x.shape[0]), share, out, x, weight)
    if weight is None:
        return dx, x.new_empty(0)
    dweight: Tensor = module.maxima_to_edges(graph, share, out, x, weight)
    return dx, dweight


@maxima_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor,
    ties: Tensor,
    x: Tensor,
    weight: Tensor | None,
    graph: list[Tensor],
    backend: str,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if weight is None else weight.shape[0])


def _maxima_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, graph, ctx.backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, weight, *output, *graph)


def _maxima_backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    x, weight, out, ties, *graph = ctx.saved_tensors
    dx, dweight = maxima_backward(grad, out, ties, x, weight, graph, ctx.backend)
    return dx, None if weight is None else dweight, [None] * len(graph), None


maxima.register_autograd(_maxima_backward, setup_context=_maxima_setup)
