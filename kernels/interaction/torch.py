"""Field attention on a CPU as torch operators: blocks of rows, forward and a backward that is written out.

With ``P = softmax(scale q k^T)``, ``out = P v`` and the gradient ``g`` of ``out``:

    dv = P^T g,   dS = scale * P * (g v^T - rowsum(P * g v^T)),   dq = dS k,   dk = dS^T q

The forward keeps one number per field, the logarithm of the softmax's denominator; the backward computes P
again from it, which costs less than to write and read P where it does not stay in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..attention.core import emulated
from ..attention.dense import FEW, differentiated
from ..attention.gather import SMALL_GROUP
from ..registering import listened_to, operator
from .blocks import (
    LOG2E,
    Buffers,
    as_operand,
    backward_logits,
    blocks,
    borrow,
    fresh,
    logits,
    normalise,
    work_type,
)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, H, F, Dv); torch's own attention on other devices than a CPU, and where no gradient follows and it
    is faster: for few pairs in all, for many fields, and in 16 bits that the processor emulates.

    Their gradient is computed in float32.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    slow = emulated(q.dtype)
    if q.shape[3] == v.shape[3] and 0 not in q.shape and not differentiated(q, k, v):
        pairs = q.shape[0] * q.shape[1] * q.shape[2] ** 2
        if slow or pairs <= FEW or q.shape[2] > SMALL_GROUP:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if slow and not listened_to():
        return field_attention(q.float(), k.float(), v.float(), scale)[0].to(q.dtype)
    return field_attention(q, k, v, scale)[0]


@operator("graphrec::field_attention")
def field_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (B, H, F, Dv) and binary log-sum-exp (B, H, F, 1) in float32 (float64 for float64)."""
    batch, heads, fields, _ = q.shape
    out = fresh((batch, heads, fields, v.shape[3]), q.dtype)
    lse = fresh((batch, heads, fields, 1), work_type(q.dtype))
    if out.numel() == 0 and lse.numel() == 0:
        return out, lse
    parts = list(blocks(batch, heads, fields, q.dtype))
    buffers = borrow(parts[0].stop, heads, fields, q.dtype)
    with torch.autocast("cpu", enabled=False):
        for part in parts:
            value = buffers.operand("v", v[part], fill=True)
            weights, denominators = _weights(q[part], k[part], scale, buffers)
            lse[part].flatten(0, 1).copy_(denominators)
            torch.bmm(as_operand(weights, "p", buffers), value, out=out[part].flatten(0, 1))
    return out, lse


def _weights(q: Tensor, k: Tensor, scale: float, buffers: Buffers) -> tuple[Tensor, Tensor]:
    query, key = buffers.operand("q", q), buffers.operand("k", k, fill=True)
    weights = logits(query, key, scale * LOG2E, buffers)
    return weights, normalise(weights)


@field_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(*q.shape[:3], 1, dtype=work_type(q.dtype))


@operator("graphrec::field_attention_backward")
def field_attention_backward(
    grad: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, contiguous."""
    batch, heads, fields, _ = q.shape
    dq, dk, dv = (fresh(one.shape, one.dtype) for one in (q, k, v))
    if lse.numel() == 0:
        return dq, dk, dv
    parts = list(blocks(batch, heads, fields, q.dtype))
    buffers = borrow(parts[0].stop, heads, fields, q.dtype)
    with torch.autocast("cpu", enabled=False):
        for part in parts:
            query, key = buffers.operand("q", q[part]), buffers.operand("k", k[part], fill=True)
            value = buffers.operand("v", v[part], fill=True)
            given = buffers.operand("grad", grad[part])
            weights = logits(query, key, scale * LOG2E, buffers).sub_(lse[part].flatten(0, 1))
            torch.exp2(weights, out=weights)
            low = as_operand(weights, "p", buffers)[:, :, :fields]
            torch.bmm(low.mT, given, out=dv[part].flatten(0, 1))
            ds = backward_logits(weights, given, value, scale, buffers)
            torch.bmm(ds, key, out=dq[part].flatten(0, 1))
            torch.bmm(ds[:, :, :fields].mT, query, out=dk[part].flatten(0, 1))
    return dq, dk, dv


@field_attention_backward.register_fake
def _(
    grad: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
    return dq, dk, dv


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    q, k, v, lse = ctx.saved_tensors
    return *field_attention_backward(grad, lse, q, k, v, ctx.scale), None


field_attention.register_autograd(_backward, setup_context=_setup)
