"""AutoInt's interacting layer on a CPU as torch operators, with few passes over its activations.

Composed of torch operations such a layer copies queries, keys and values to split the heads and stacks their
gradients again. Here a block of rows is projected, split, attended and added up while it is in the cache;
ReLU goes with the copies that split and join the heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..registering import operator
from .blocks import Buffers, backward_logits, blocks, borrow, columns, fresh, logits, softmax, work_type
from .heads import HeadByHead

_relu_backward = torch.ops.aten.threshold_backward.grad_input

_WHOLE_BYTES = 3_500_000
"""Up to this size of the attention weights, a batch is faster trained whole, head by head."""


def apply(
    x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, scale: float, residual: bool, rectify: bool
) -> Tensor:
    """(B, F, h d'); keeps what the backward reads only where a gradient is wanted."""
    keep = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (x, weight, bias))
    if keep and not torch.compiler.is_compiling():
        size = x.shape[0] * heads * x.shape[1] ** 2 * x.dtype.itemsize
        run = HeadByHead if 0 < size <= _WHOLE_BYTES else _Eager
        return run.apply(x, weight, bias, heads, scale, residual, rectify)
    return interacting_layer(x, weight, bias, heads, scale, residual, rectify, keep)[0]


class _Eager(torch.autograd.Function):
    """The operator without the dispatcher, which costs a block of 64 rows a twentieth of its time."""

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
        out, projected, kept = _forward(x, weight, bias, heads, scale, residual, rectify, keep=True)
        ctx.save_for_backward(x, weight, out, projected, kept)
        ctx.has_bias, ctx.settings = bias is not None, (heads, scale, residual, rectify)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, dbias = _backward(grad, *ctx.saved_tensors, *ctx.settings)
        return dx, dweight, dbias if ctx.has_bias else None, None, None, None, None


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, F, h d'), and with ``keep`` what the backward reads: projections and attention weights.

    The projections are (B, F, 3 h d' or 4 h d') before ReLU, the weights (B, h, F, columns).
    """
    batch, fields, _ = x.shape
    parts, dtype = 3 + residual, x.dtype
    out = fresh((batch, fields, len(weight) // parts), dtype)
    width = columns(fields, dtype)
    projected = fresh((batch if keep else 0, fields, len(weight)), dtype)
    kept = fresh((batch if keep else 0, heads, fields, width), dtype)
    if out.numel() == 0:
        return out, projected, kept
    slices = list(blocks(batch, heads, fields, x.dtype))
    buffers = borrow(slices[0].stop, heads, fields, dtype)
    with torch.autocast("cpu", enabled=False):
        for rows in slices:
            block = (
                projected[rows] if keep else buffers.take("rows", rows.stop - rows.start, fields, len(weight))
            )
            _linear(x[rows], weight, bias, block)
            weights = kept[rows].flatten(0, 1) if keep else None
            _attend(block, heads, scale, residual, rectify, out[rows], weights, buffers)
    return out, projected, kept


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    rows, made = x.flatten(0, 1), out.flatten(0, 1)
    if bias is None:
        torch.mm(rows, weight.T, out=made)
    else:
        torch.addmm(bias, rows, weight.T, out=made)


def _split(projected: Tensor, heads: int, parts: int) -> list[Tensor]:
    """The parts of a projection (R, F, parts h d') as views (R, h, F, d')."""
    return [one.transpose(1, 2) for one in projected.unflatten(-1, (parts, heads, -1)).unbind(2)]


def _attend(
    projected: Tensor,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    out: Tensor,
    kept: Tensor | None,
    buffers: Buffers,
) -> None:
    """Write a block's output (R, F, h d') and, if they are kept, attention weights (R h, F, width)."""
    q, k, v, *rest = _split(projected, heads, 3 + residual)
    query = buffers.operand("q", q, rectify=rectify)
    key = buffers.operand("k", k, fill=True, rectify=rectify)
    value = buffers.operand("v", v, fill=True, rectify=rectify)
    low = buffers.logits("p", len(query), exact=False) if kept is None else kept
    softmax(logits(query, key, scale, buffers), buffers, low)
    mixed = torch.bmm(low, value, out=buffers.take("result", *q.shape).flatten(0, 1)).view(q.shape)
    target = _split(out, heads, 1)[0]
    if not rest:
        torch.clamp_min(mixed, 0, out=target)
        return
    if rectify:
        torch.clamp_min(rest[0], 0, out=target)
        target.add_(mixed)
    else:
        torch.add(mixed, rest[0], out=target)
    out.relu_()


interacting_layer = operator("graphrec::interacting_layer")(_forward)


@interacting_layer.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, fields, _ = x.shape
    kept = batch if keep else 0
    return (
        x.new_empty(batch, fields, weight.shape[0] // (3 + residual)),
        x.new_empty(kept, fields, weight.shape[0]),
        x.new_empty(kept, heads, fields, columns(fields, x.dtype)),
    )


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    projected: Tensor,
    kept: Tensor,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (made whether there is a bias or not)."""
    dx = fresh(x.shape, x.dtype)
    work = work_type(x.dtype)
    dweight = torch.zeros(weight.shape, dtype=work, device="cpu")
    dbias = torch.zeros(len(weight), dtype=work, device="cpu")
    if projected.numel() == 0:
        return dx, dweight.to(weight.dtype), dbias.to(weight.dtype)
    batch, fields, _ = x.shape
    slices = list(blocks(batch, heads, fields, x.dtype))
    buffers = borrow(slices[0].stop, heads, fields, x.dtype)
    with torch.autocast("cpu", enabled=False):
        for part in slices:
            made = buffers.take("rows", part.stop - part.start, fields, len(weight))
            weights = kept[part].flatten(0, 1)
            _attend_backward(
                grad[part], out[part], projected[part], weights, made, heads, scale, rectify, buffers
            )
            rows = made.flatten(0, 1)
            torch.mm(rows, weight, out=dx[part].flatten(0, 1))
            if dweight.dtype == x.dtype:
                dweight.addmm_(rows.T, x[part].flatten(0, 1))
            else:
                dweight.add_(rows.T @ x[part].flatten(0, 1))
            dbias.add_(rows.sum(0))
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype)


def _attend_backward(
    grad: Tensor,
    out: Tensor,
    projected: Tensor,
    weights: Tensor,
    made: Tensor,
    heads: int,
    scale: float,
    rectify: bool,
    buffers: Buffers,
) -> None:
    """Write the gradient of a block's projection into ``made`` (R, F, parts h d')."""
    parts = projected.shape[2] * heads // out.shape[2] // heads
    q, k, v, *rest = _split(projected, heads, parts)
    dq, dk, dv, *drest = _split(made, heads, parts)
    query = buffers.operand("q", q, rectify=rectify)
    key = buffers.operand("k", k, fill=True, rectify=rectify)
    value = buffers.operand("v", v, fill=True, rectify=rectify)
    result, split = buffers.take("result", *q.shape), buffers.take("grad", *q.shape)
    flat, given = result.flatten(0, 1), split.flatten(0, 1)
    _relu_backward(_split(grad, heads, 1)[0], _split(out, heads, 1)[0], 0, grad_input=split)

    def join(gradient: Tensor, sign: Tensor, target: Tensor) -> None:
        if rectify:
            _relu_backward(gradient, sign, 0, grad_input=gradient)
        target.copy_(gradient)

    torch.bmm(weights[:, :, : buffers.fields].mT, given, out=flat)
    join(result, value.view(*q.shape[:2], buffers.width, -1)[:, :, : buffers.fields], dv)
    ds = backward_logits(weights, given, value, scale, buffers)
    torch.bmm(ds, key, out=flat)
    join(result, query.view(q.shape), dq)
    torch.bmm(ds[:, :, : buffers.fields].mT, query, out=flat)
    join(result, key.view(*q.shape[:2], buffers.width, -1)[:, :, : buffers.fields], dk)
    if rest:
        join(split, rest[0], drest[0])


interacting_layer_backward = operator("graphrec::interacting_layer_backward")(_backward)


@interacting_layer_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    projected: Tensor,
    kept: Tensor,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dweight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    return dx, dweight, weight.new_empty(weight.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, *ctx.settings, _ = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    dx, dweight, dbias = interacting_layer_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return dx, dweight, dbias if ctx.has_bias else None, None, None, None, None, None


interacting_layer.register_autograd(_differentiate, setup_context=_setup)
