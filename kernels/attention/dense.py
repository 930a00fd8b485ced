"""Attention of all pairs in plain torch, hidden ones masked, by the quickest of torch's ways.

torch's fused attention has a gradient that cannot be differentiated, slow in 16 bits, and none of a bias.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patterns import Causal, Full, Pattern
from ..registering import listened_to
from .bias import RelativeBias
from .core import as_given, emulated, plain_attention, widened
from .folded import Cut, attend_folded
from .gather import SMALL_GROUP, Term, make_term, mask_for, tells_all, with_penalty
from .quick import few, unusual

FEW = 1 << 18
"""Pairs of all heads that fused attention computes while groups are gathered; a quarter while they are
reshaped."""


def attend_all(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    bias: Any,
    scale: float,
    need_lse: bool,
    times: Any,
) -> tuple[Tensor, Tensor | None]:
    """All pairs, hidden ones masked."""
    q_len, k_len = q.shape[2], k.shape[2]
    bare = bias is None and times is None and not need_lse
    plain_causal = pattern == Causal() and q_len == k_len and bare
    if plain_causal and q_len > SMALL_GROUP:
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out, None
    mask, training, again = None, differentiated(q, k, v), False
    if not isinstance(pattern, Full):
        mask = mask_for(pattern, q_len, k_len, q.device)
        mask = mask if mask.dim() != 3 else mask.unsqueeze(0)  # of three axes torch takes the slow way
        again = training and not isinstance(pattern, Causal) and not listened_to()  # gradients of gradients
        if bare and not training and tells_all(pattern, mask, q_len, k_len):
            gqa = q.shape[1] != k.shape[1]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=gqa), None
    if isinstance(bias, RelativeBias):
        bias = bias.dense(pattern, q_len, k_len)
    slow = unusual(q, v) or _learned(bias)
    if mask is None and times is None and not need_lse and slow and always_finite(bias):
        if few(q, k) and q.dtype.itemsize >= 4:
            k, v = shared(q, k, v)
            return plain_attention(q, k, v, bias, None, scale, False)
        if 0 < q_len == k_len <= SMALL_GROUP and q.shape[1] == k.shape[1]:
            bias, whole = None if bias is None else bias.to(q.dtype).unsqueeze(-3), torch.Size((1, q_len))
            return attend_folded(q, k, v, bias, Cut(scale, (whole, (0, 1), ()), whole)), None
    soft = None
    if mask is not None:
        place = torch.arange(max(q_len, k_len), device=q.device)
        soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    term = make_term(mask, with_penalty(bias, soft, pattern.penalty_value, q.dtype), q.dtype)
    if isinstance(times, RelativeBias):
        times = times.dense(pattern, q_len, k_len)
    return attend(q, k, v, term, scale, need_lse, None if times is None else times.to(q.dtype), again)


def differentiated(*given: Tensor) -> bool:
    """Whether gradients may be asked for; of a compiler's tensors that is not known."""
    return listened_to() or (torch.is_grad_enabled() and any(one.requires_grad for one in given))


def _learned(bias: Tensor | None) -> bool:
    """Whether a bias has a gradient, of which torch's fused attention has none: it takes another way."""
    return bias is not None and not listened_to() and torch.is_grad_enabled() and bias.requires_grad


def always_finite(bias: Tensor | RelativeBias | None) -> bool:
    """Whether a bias hides no pair, so that a group's queries see what the pattern shows."""
    if torch.compiler.is_compiling():
        return False
    table = bias.table if isinstance(bias, RelativeBias) else bias
    return table is None or table.is_meta or table.numel() == 0 or float(table.detach().min()) != -torch.inf


def shared(q: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """Keys and values with as many heads as the queries."""
    return tuple(
        one if one.shape[1] == q.shape[1] else one.repeat_interleave(q.shape[1] // one.shape[1], 1)
        for one in rest
    )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    term: Term,
    scale: float,
    need_lse: bool,
    times: Tensor | None = None,
    exact: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention of (..., m, D) queries to (..., n, D) keys with a term of broadcastable shape.

    ``exact`` asks for a gradient that can be differentiated.
    """
    addend, empty = term
    dtype = q.dtype
    fused = not need_lse and times is None and q.dim() == 4 and not _learned(addend)
    if not fused or differentiated(q, k, v):  # of 16 bits torch's fused attention has a slow gradient
        q, k, v = (widened(one) for one in (q, k, v))
    addend, times = (None if one is None else one.to(q.dtype) for one in (addend, times))
    half = q.dtype in (torch.bfloat16, torch.float16) and not emulated(dtype)
    small = half and q.shape[-2] <= SMALL_GROUP and k.shape[-2] <= 4 * SMALL_GROUP
    out: Tensor
    lse: Tensor | None
    exact = exact and fused
    if small or not fused or (exact and (half or q.shape[-1] != v.shape[-1] or k.shape[-2] == 0)):
        k, v = shared(q, k, v)
        out, lse = plain_attention(q, k, v, addend, times, scale, need_lse)
    elif exact:
        k, v = shared(q, k, v)
        out, lse = _Fused.apply(*(one.contiguous() for one in (q, k, v)), addend, scale), None
    else:
        gqa, lse = q.shape[1] != k.shape[1], None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=addend, scale=scale, enable_gqa=gqa)
    return without_empty(out.to(dtype), lse, empty)


class _Fused(torch.autograd.Function):
    """torch's fused attention; its gradient, where it is differentiated, composes the function anew."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, term: Tensor | None, scale: float) -> Tensor:
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = run(q, k, v, 0.0, False, attn_mask=term, scale=scale)
        ctx.save_for_backward(q, k, v, term, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, term, out, lse = ctx.saved_tensors
        if not torch.is_grad_enabled():
            run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
            found = run(grad, q, k, v, out, lse, 0.0, False, attn_mask=term, scale=ctx.scale)
            return *found, None, None
        made = plain_attention(q, k, v, term, None, ctx.scale, False)[0]
        wanted = [one for one, need in zip((q, k, v), ctx.needs_input_grad, strict=False) if need]
        each = iter(torch.autograd.grad(made, wanted, grad, create_graph=True))
        return *(next(each) if need else None for need in ctx.needs_input_grad[:3]), None, None


def without_empty(out: Tensor, lse: Tensor | None, empty: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Zero output and a log-sum-exp of -inf where a query (..., m, 1) sees nothing."""
    if empty is None:
        return out, lse
    return out.masked_fill(empty, 0), None if lse is None else lse.masked_fill(empty.squeeze(-1), -torch.inf)
