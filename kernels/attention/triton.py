"""Attention on CUDA: the tile kernels behind torch operators, so that compiling, exporting and autograd work.

A pattern travels through an operator as its text and its tensors (:func:`graphrec.kernels.patterns.encode`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..patterns import Pattern, encode
from ..registering import operator
from . import small
from .launch import prepare, row_products, split_pairs
from .pair_gradient import pair_gradient
from .source import Weights


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    bias: Weights | None,
    scale: float,
    times: Weights | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq) float32; see :func:`graphrec.kernels.attention`."""
    text, held = _encoded(pattern)
    added, window = split_pairs(bias, q.shape[2], k.shape[2])
    factor, times_window = split_pairs(times, q.shape[2], k.shape[2])
    return tile_attention(q, k, v, added, factor, held, text, f"{window};{times_window}", scale, False)


def weighted_sum(weights: Weights, v: Tensor, pattern: Pattern, q_len: int, heads: int) -> Tensor:
    """``weights @ v`` over visible pairs, (B, H, Lq, Dv); weights as attention's ``plus``.

    With logits of zero the softmax is the mean over what is visible, so attention under ``times=weights``
    times the number of visible keys, which is the exponential of the log-sum-exp, is the sum.
    """
    text, held = _encoded(pattern)
    factor, window = split_pairs(weights, q_len, v.shape[2])
    q = v.new_zeros(1).expand(v.shape[0], heads, q_len, 1)
    k = v.new_zeros(1).expand(*v.shape[:3], 1)
    out, lse = tile_attention(q, k, v, None, factor, held, text, f";{window}", 1.0, True)
    return out * lse.exp().unsqueeze(-1).to(out.dtype)


def _encoded(pattern: Pattern) -> tuple[str, list[Tensor]]:
    """Text and tensors of a pattern; the text of one that is a value is remembered."""
    if torch.compiler.is_compiling() or not pattern.static:
        return encode(pattern)
    return _text(pattern), []


@lru_cache(maxsize=256)
def _text(pattern: Pattern) -> str:
    return encode(pattern)[0]


@operator("graphrec::tile_attention")
def tile_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    times: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    windows: str,
    scale: float,
    flat: bool,
) -> tuple[Tensor, Tensor]:
    """Forward kernel: that of small groups where it can, else that of tiles.

    ``bias`` and ``times`` are (B or 1, H or 1, Lq, Lk), or tables (B or 1, H or 1, Lq or 1, columns) where
    their part of ``windows``, as in "7,7;3,3", is not empty. ``flat`` leaves out the pattern's penalty.
    """
    from . import triton_kernels

    few = None if tensors else small.small_for(q, k, v, bias, times, pattern, windows, flat)
    if few is not None:
        return small.forward(few, q, k, v, bias, scale)
    batch, heads, q_len, dim = q.shape
    launch = prepare(q, k, v, bias, times, tensors, pattern, windows, flat)
    out = q.new_empty(batch, heads, q_len, v.shape[3])
    lse = q.new_empty(batch, heads, q_len, dtype=torch.float32)
    tiles, plan = launch.plan.q_rows.shape[0], launch.plan
    if out.numel() == 0 and lse.numel() == 0:
        return out, lse
    triton_kernels.forward[(tiles * batch * heads,)](
        q, k, v, launch.bias.values, launch.times.values, out, lse, *launch.plan_arguments(),
        *q.stride(), *k.stride(), *v.stride(), *launch.bias.steps, *launch.times.steps,
        scale, launch.penalty, heads, heads // k.shape[1], q_len, tiles, plan.batch_step, plan.head_step,
        dim, v.shape[3], **launch.settings,
    )  # fmt: skip
    return out, lse


@tile_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    times: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    windows: str,
    scale: float,
    flat: bool,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)


@operator("graphrec::tile_attention_backward")
def tile_attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    lse_grad: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    times: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    windows: str,
    scale: float,
    flat: bool,
    bias_grad: bool,
    times_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, bias and times, the last two empty unless asked for."""
    from . import triton_kernels

    grad = grad.contiguous()
    delta = row_products(grad, out, lse_grad)

    few = None if tensors else small.small_for(q, k, v, bias, times, pattern, windows, flat)
    if few is not None:
        *made, last = small.backward(few, grad, delta, lse, q, k, v, bias, scale, bias_grad)
        return (
            made[0],
            made[1],
            made[2],
            last.view_as(bias) if bias_grad and bias is not None else last,
            q.new_empty(0),
        )
    batch, heads, q_len, dim = q.shape
    launch = prepare(q, k, v, bias, times, tensors, pattern, windows, flat)
    plan = launch.plan
    dq, dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
    read = (q, k, v, launch.bias.values, launch.times.values, grad, lse, delta)
    steps = (*q.stride(), *k.stride(), *v.stride(), *launch.bias.steps, *launch.times.steps)
    share, settings = heads // k.shape[1], launch.settings
    ends = (plan.batch_step, plan.head_step, dim, v.shape[3])
    if len(plan.q_rows):
        triton_kernels.backward_q[(len(plan.q_rows) * batch * heads,)](
            *read, dq, *launch.plan_arguments(), *steps,
            scale, launch.penalty, heads, share, q_len, len(plan.q_rows), *ends, **settings,
        )  # fmt: skip
    if len(plan.k_rows):
        triton_kernels.backward_kv[(len(plan.k_rows) * batch * k.shape[1],)](
            *read, dk, dv, *launch.plan_arguments(transposed=True), *steps,
            scale, launch.penalty, heads, share, q_len, k.shape[2], len(plan.k_rows), *ends, **settings,
        )  # fmt: skip
    sizes = batch, heads, share, q_len
    pairs = [
        pair_gradient(launch, of_times, read, steps, sizes, ends, scale, settings) if want else q.new_empty(0)
        for of_times, want in ((False, bias_grad), (True, times_grad))
    ]
    return dq, dk, dv, pairs[0], pairs[1]


@tile_attention_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    lse_grad: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    times: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    windows: str,
    scale: float,
    flat: bool,
    bias_grad: bool,
    times_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(one: Tensor | None, wanted: bool) -> Tensor:
        if one is None or not wanted:
            return q.new_empty(0)
        return torch.empty(one.shape, dtype=one.dtype, device=q.device)

    made = [like(one, True) for one in (q, k, v)]
    return made[0], made[1], made[2], like(bias, bias_grad), like(times, times_grad)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, times, tensors, ctx.pattern, ctx.windows, ctx.scale, ctx.flat = inputs
    ctx.save_for_backward(q, k, v, bias, times, *output, *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, bias, times, out, lse, *tensors = ctx.saved_tensors
    grad = torch.zeros_like(out) if grad is None else grad.to(q.dtype)
    wanted = bias is not None and ctx.needs_input_grad[3], times is not None and ctx.needs_input_grad[4]
    given = (q, k, v, bias, times, tensors, ctx.pattern, ctx.windows, ctx.scale, ctx.flat)
    dq, dk, dv, *last = tile_attention_backward(grad, out, lse, grad_lse, *given, *wanted)
    pairs = [one if want else None for one, want in zip(last, wanted, strict=True)]
    return dq, dk, dv, *pairs, [None] * len(tensors), None, None, None, None


tile_attention.register_autograd(_backward, setup_context=_setup)
