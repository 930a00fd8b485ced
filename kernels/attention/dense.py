"""Attention of all pairs in plain torch, hidden ones masked, by the quickest of torch's ways.

torch's fused attention has a gradient that cannot be differentiated, slow in 16 bits, and none of a bias; for
narrow heads plain products beat it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patterns import Causal, Full, Pattern
from ..registering import listened_to
from .bias import RelativeBias
from .core import emulated, plain_attention, widened
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
        again = training and not isinstance(pattern, Causal) and not listened_to()  # gradients of gradients
        if bare and not training and tells_all(pattern, mask, q_len, k_len):
            shown = mask if mask.dim() != 3 else mask.unsqueeze(0)  # of three axes torch takes the slow way
            gqa = q.shape[1] != k.shape[1]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=shown, scale=scale, enable_gqa=gqa), None
    if isinstance(bias, RelativeBias):
        bias = bias.dense(pattern, q_len, k_len)
    slow = unusual(q, v) or _learned(bias)
    if mask is None and times is None and not need_lse and slow and always_finite(bias):
        if few(q, k) and q.dtype.itemsize >= 4:
            k, v = shared(q, k, v)
            return plain_attention(q, k, v, bias, None, scale, False)
        if 0 < q_len == k_len <= SMALL_GROUP and q.shape[1] == k.shape[1]:
            return _whole_window(q, k, v, None, bias, scale), None
    soft = None
    if mask is not None:
        mask = mask if mask.dim() != 3 else mask.unsqueeze(0)
        place = torch.arange(max(q_len, k_len), device=q.device)
        soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    again = again and times is None and not need_lse
    short = 0 < q_len == k_len <= SMALL_GROUP
    if again and short and soft is None and not few(q, k) and always_finite(bias):
        k, v = shared(q, k, v)
        return _whole_window(q, k, v, mask, bias, scale), None
    term = make_term(mask, with_penalty(bias, soft, pattern.penalty_value, q.dtype), q.dtype)
    if isinstance(times, RelativeBias):
        times = times.dense(pattern, q_len, k_len)
    exact = again and (short or (not pattern.static and q.shape[0] * q.shape[1] * q_len * k_len <= FEW))
    return attend(q, k, v, term, scale, need_lse, None if times is None else times.to(q.dtype), exact)


def differentiated(*given: Tensor) -> bool:
    """Whether gradients may be asked for; of a compiler's tensors that is not known."""
    return listened_to() or (torch.is_grad_enabled() and any(one.requires_grad for one in given))


def _learned(bias: Tensor | None) -> bool:
    """Whether a bias has a gradient, of which torch's fused attention has none: it takes another way."""
    return bias is not None and not listened_to() and torch.is_grad_enabled() and bias.requires_grad


def _whole_window(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: float
) -> Tensor:
    """All positions as one window, whose gradient is written out and can be differentiated."""
    whole = torch.Size((1, q.shape[2]))
    fixed, empty = make_term(mask, None, q.dtype)
    bias, fixed = (None if one is None else one.to(q.dtype).unsqueeze(-3) for one in (bias, fixed))
    out = attend_folded(q, k, v, bias, Cut(scale, (whole, (0, 1), ()), whole, fixed))
    return out if empty is None else out.masked_fill(empty, 0)


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
    exact = exact or _learned(addend)
    fused = not need_lse and times is None and q.dim() == 4 and not exact
    if not fused or differentiated(q, k, v):  # of 16 bits torch's fused attention has a slow gradient
        q, k, v = (widened(one) for one in (q, k, v))
    addend, times = (None if one is None else one.to(q.dtype) for one in (addend, times))
    half = q.dtype in (torch.bfloat16, torch.float16) and not emulated(dtype)
    small = half and q.shape[-2] <= SMALL_GROUP and k.shape[-2] <= 4 * SMALL_GROUP
    out: Tensor
    lse: Tensor | None
    if small or not fused:
        k, v = shared(q, k, v)
        out, lse = plain_attention(q, k, v, addend, times, scale, need_lse)
    else:
        gqa, lse = q.shape[1] != k.shape[1], None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=addend, scale=scale, enable_gqa=gqa)
    return without_empty(out.to(dtype), lse, empty)


def without_empty(out: Tensor, lse: Tensor | None, empty: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Zero output and a log-sum-exp of -inf where a query (..., m, 1) sees nothing."""
    if empty is None:
        return out, lse
    return out.masked_fill(empty, 0), None if lse is None else lse.masked_fill(empty.squeeze(-1), -torch.inf)
