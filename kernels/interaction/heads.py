"""AutoInt's interacting layer head by head, for batches whose activations stay in the cache as they are.

Heads are strided views and every temporary is one head's, so that the allocator hands the same warm memory
out again and again; the backward writes into one gradient of the fused projection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class HeadByHead(torch.autograd.Function):
    """(B, F, h d') of x, weight, bias, heads, scale, residual, rectify."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        heads: int,
        scale: float,
        residual: bool,
        rectify: bool,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            projected = functional.linear(x, weight, bias)
            if rectify:
                projected.relu_()
            out, attention = _attend(projected, heads, scale, residual)
        ctx.save_for_backward(x, weight, projected, out, *attention)
        ctx.settings = heads, scale, residual, rectify, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, projected, out, *attention = ctx.saved_tensors
        heads, scale, residual, rectify, has_bias = ctx.settings
        grad = torch.ops.aten.threshold_backward(grad, out, 0.0)
        dprojected = _attend_backward(grad, projected, attention, heads, scale, residual)
        if rectify:
            torch.ops.aten.threshold_backward.grad_input(dprojected, projected, 0.0, grad_input=dprojected)
        rows = dprojected.flatten(0, 1)
        dx = (rows @ weight).view_as(x)
        dbias = rows.sum(0) if has_bias else None
        return dx, rows.T @ x.flatten(0, 1), dbias, None, None, None, None


def _heads(projected: Tensor, heads: int, parts: int) -> list[list[Tensor]]:
    """Views (B, F, d') of a fused projection: [part][head]."""
    views = projected.unflatten(-1, (parts, heads, -1))
    return [[views[:, :, part, head] for head in range(heads)] for part in range(parts)]


def _attend(projected: Tensor, heads: int, scale: float, residual: bool) -> tuple[Tensor, list[Tensor]]:
    """The layer's output (B, F, h d') and each head's attention weights (B, F, F)."""
    query, key, value, *rest = _heads(projected, heads, 3 + residual)
    batch, fields, width = projected.shape
    out, attention = projected.new_empty(batch, fields, width // (3 + residual)), []
    for head, part in enumerate(_heads(out, heads, 1)[0]):
        scores = torch.bmm(query[head], key[head].transpose(1, 2)).mul_(scale)
        attention.append(scores.softmax(-1))
        mixed = torch.bmm(attention[-1], value[head])
        if rest:
            torch.add(mixed, rest[0][head], out=part)
        else:
            part.copy_(mixed)
    return out.relu_(), attention


def _attend_backward(
    grad: Tensor, projected: Tensor, attention: list[Tensor], heads: int, scale: float, residual: bool
) -> Tensor:
    """Gradient of the projection from the gradient (B, F, h d') of the sum that enters the last ReLU."""
    dprojected = torch.empty_like(projected)
    query, key, value, *_ = _heads(projected, heads, 3 + residual)
    dquery, dkey, dvalue, *rest = _heads(dprojected, heads, 3 + residual)
    for head, part in enumerate(_heads(grad, heads, 1)[0]):
        weights = attention[head]
        dvalue[head].copy_(torch.bmm(weights.transpose(1, 2), part))
        dweights = torch.bmm(part, value[head].transpose(1, 2))
        dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, weights.dtype).mul_(scale)
        dquery[head].copy_(torch.bmm(dscores, key[head]))
        dkey[head].copy_(torch.bmm(dscores.transpose(1, 2), query[head]))
        if rest:
            rest[0][head].copy_(part)
    return dprojected
