"""Attention to listed keys on CUDA, as torch operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import interpreting
from ..configs import padded
from ..registering import operator
from .settings import ListConfig, list_config


def inverted(index: Tensor, k_len: int) -> tuple[Tensor, Tensor]:
    """Where each key is named.

    Args:
        index: integer (B, H', Lq, S), -1 for none.
        k_len: number of keys.

    Returns:
        Places ``query * S + place``, int64, sorted by batch entry, head and key; and where those of each
        begin, int64 (B * H' * Lk + 1,).
    """
    flat = index.long().flatten(0, 1).flatten(1)  # [B * H', Lq * S]
    groups, uses = flat.shape
    key = torch.where(flat < 0, k_len, flat) + torch.arange(groups, device=flat.device)[:, None] * (k_len + 1)
    key, order = key.flatten().sort(stable=True)
    counts = torch.bincount(key, minlength=groups * (k_len + 1)).view(groups, k_len + 1)
    order = order[key % (k_len + 1) < k_len] % max(uses, 1)
    starts = torch.nn.functional.pad(counts[:, :k_len].flatten().cumsum(0), (1, 0))
    return order, starts


def _steps(x: Tensor) -> tuple[int, ...]:
    return tuple(step if size > 1 else 0 for step, size in zip(x.stride(), x.shape, strict=True))


def _constants(q: Tensor, v: Tensor, bias: Tensor | None) -> tuple[ListConfig, dict[str, Any]]:
    config = list_config(max(q.shape[3], v.shape[3]), interpreting())
    return config, {
        "BIAS": bias is not None,
        "BS": config.bs,
        "BD": padded(q.shape[3]),
        "BE": padded(v.shape[3]),
        "num_warps": config.warps,
    }


@operator("graphrec::listed_attention_triton")
def listed_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq) float32, +inf where a list is empty."""
    from . import keylists_kernels

    batch, heads, q_len, dim = q.shape
    out = q.new_empty(batch, heads, q_len, v.shape[3])
    lse = q.new_empty(batch, heads, q_len, dtype=torch.float32)
    config, constants = _constants(q, v, bias)
    tiles = -(-q_len // config.bq)
    steps = (0, 0, 0, 0) if bias is None else _steps(bias)
    if lse.numel():
        keylists_kernels.forward[(tiles * batch * heads,)](
            q, k, v, index, q if bias is None else bias, out, lse,
            *q.stride(), *k.stride(), *v.stride(), *_steps(index), *steps,
            scale, heads, heads // k.shape[1], q_len, index.shape[3], tiles, dim, v.shape[3],
            BQ=config.bq, **constants,
        )  # fmt: skip
    return out, lse


@listed_attention_triton.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)


@operator("graphrec::listed_attention_triton_backward")
def listed_attention_triton_backward(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, and of the logits (B, H, Lq, S) float32, empty without a bias."""
    from . import keylists_kernels

    batch, heads, q_len, dim = q.shape
    dq, dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
    listed, k_len = index.shape[3], k.shape[2]
    size = (batch, heads, q_len, listed) if bias is not None else (0,)
    dlogits = q.new_empty(size, dtype=torch.float32)
    config, constants = _constants(q, v, bias)
    tiles, grad, delta = -(-q_len // config.bq), grad.contiguous(), delta.contiguous()
    strides = (*q.stride(), *k.stride(), *v.stride())
    steps = (0, 0, 0, 0) if bias is None else _steps(bias)
    sizes = scale, heads, heads // k.shape[1], q_len
    added = q if bias is None else bias
    if lse.numel():
        keylists_kernels.backward_q[(tiles * batch * heads,)](
            q, k, v, index, added, grad, lse, delta, dq, dlogits,
            *strides, *_steps(index), *steps, *sizes, listed, tiles, dim, v.shape[3],
            BQ=config.bq, **constants,
        )  # fmt: skip
    if dk.numel() or dv.numel():
        uses, starts = inverted(index, k_len)
        head_step = int(index.shape[1] > 1)
        keylists_kernels.backward_kv[(k_len * batch * k.shape[1],)](
            q, k, v, uses if len(uses) else uses.new_zeros(1), starts, added, grad, lse, delta, dk, dv,
            *strides, index.shape[1], head_step, *steps, *sizes, k_len, listed, dim, v.shape[3], **constants,
        )  # fmt: skip
    return dq, dk, dv, dlogits


@listed_attention_triton_backward.register_fake
def _(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v)]
    size = (*q.shape[:3], index.shape[3]) if bias is not None else (0,)
    return made[0], made[1], made[2], q.new_empty(size, dtype=torch.float32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, index, bias, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, index, bias, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    q, k, v, index, bias, out, lse = ctx.saved_tensors
    delta = (grad.float() * out.float()).sum(-1)
    given = (q, k, v, index, bias, ctx.scale)
    dq, dk, dv, dlogits = listed_attention_triton_backward(grad.to(q.dtype), delta, lse, *given)
    return dq, dk, dv, None, None if bias is None else dlogits.to(bias.dtype), None


listed_attention_triton.register_autograd(_backward, setup_context=_setup)
