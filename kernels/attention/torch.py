"""Attention in plain torch, fast on a CPU: the keys that a group of queries sees are gathered and multiplied.

Measured on two cores, float32 unless said: for groups of up to 64 queries a batched product, softmax and
batched product beat torch's fused attention in training (in bfloat16 7 to 14 times), above that the fused one
wins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patterns import Causal, Full, Pattern
from .bias import RelativeBias
from .gather import Gather, Term, columns_for, gather_for, make_term, mask_for, with_penalty
from .rows import take_each, take_rows

_DENSE_SHARE = 0.6
"""Above this share of all pairs, gathering costs more than computing everything."""

_SMALL = 64
"""Up to this many queries and keys the unfused form is faster."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    bias: Tensor | RelativeBias | None,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Output (B, H, Lq, Dv), and log-sum-exp (B, H, Lq) if needed; see :func:`graphrec.kernels.attention`."""
    found = route(pattern, q.shape[2], k.shape[2], q.device, q.dtype)
    if found is None:
        return _dense(q, k, v, pattern, bias, scale, need_lse)
    return _groups(q, k, v, pattern, found, bias, scale, need_lse)


def route(
    pattern: Pattern, q_len: int, k_len: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Gather | None:
    """The groups to compute by, or None when all pairs should be computed."""
    if isinstance(pattern, Full | Causal) or q_len == 0 or k_len == 0:
        return None
    return gather_for(pattern, q_len, k_len, device, dtype, _DENSE_SHARE)


def _dense(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, bias: Any, scale: float, need_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """All pairs, hidden ones masked."""
    q_len, k_len = q.shape[2], k.shape[2]
    plain_causal = pattern == Causal() and q_len == k_len and bias is None and not need_lse
    if plain_causal and q_len > _SMALL:
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out, None
    mask = None if isinstance(pattern, Full) else mask_for(pattern, q_len, k_len, q.device)
    if isinstance(bias, RelativeBias):
        bias = bias.dense(pattern, q_len, k_len)
    place = torch.arange(max(q_len, k_len), device=q.device)
    soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    term = make_term(mask, with_penalty(bias, soft, pattern.penalty_value, q.dtype), q.dtype)
    return attend(q, k, v, term, scale, need_lse)


def _groups(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    found: Gather,
    bias: Any,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Groups of queries against the keys that they see between them."""
    blocks = _block_queries(q, found)
    keys, values = (_block_keys(one, found, q.shape[1] // k.shape[1]) for one in (k, v))  # [B, H, N, n, D]
    term: Term = found.term, found.empty
    if bias is not None:
        given = _block_bias(bias, pattern, found, q.shape[2], k.shape[2])
        given = with_penalty(given, found.penalty, pattern.penalty_value, q.dtype)
        term = make_term(found.mask, given, q.dtype)
    out, lse = attend(blocks, keys, values, term, scale, need_lse)
    if lse is not None:
        lse = lse.flatten(2)[..., found.inverse]
    return _restore(out, found), lse


def _pair(start: Tensor | None, order: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if start is None or order is None else (start, order)


def _block_queries(x: Tensor, found: Gather) -> Tensor:
    """(B, H, Lq, D) to (B, H, N, m, D)."""
    if found.folding is None:
        return take_rows(x, found.q_index, _pair(found.q_start, found.q_order))
    sizes, order = found.folding
    split = x.unflatten(2, sizes).permute(0, 1, *(2 + axis for axis in order), -1)
    return split.reshape(*x.shape[:2], *found.q_index.shape, x.shape[-1])


def _restore(x: Tensor, found: Gather) -> Tensor:
    """(B, H, N, m, D) back to (B, H, Lq, D)."""
    if found.folding is None:
        return take_rows(x.flatten(2, 3), found.inverse, _pair(found.out_start, found.out_order))
    sizes, order = found.folding
    axes = len(order)
    split = x.reshape(*x.shape[:2], *(sizes[axis] for axis in order), x.shape[-1])
    back = [2 + order.index(axis) for axis in range(axes)]
    return split.permute(0, 1, *back, -1).flatten(2, -2)


def _block_keys(x: Tensor, found: Gather, share: int) -> Tensor:
    """(B, Hkv, Lk, D) to (B, H, N, n, D)."""
    if found.folding is not None:
        keys = _block_queries(x, found)
    elif found.k_index.shape[:2] == (1, 1):
        keys = take_rows(x, found.k_index[0, 0], _pair(found.k_start, found.k_order))
    else:
        keys = take_each(x, found.k_index, share)
    return keys if keys.shape[1] == share * x.shape[1] else keys.repeat_interleave(share, 1)


def _block_bias(bias: Any, pattern: Pattern, plan: Gather, q_len: int, k_len: int) -> Tensor | None:
    """The bias of every pair of a plan, broadcastable to (B, H, N, m, n)."""
    if bias is None:
        return None
    if isinstance(bias, RelativeBias):
        return _table_bias(bias, pattern, plan, q_len, k_len)
    bias = bias.expand(*bias.shape[:2], q_len, k_len).flatten(2)
    pairs = plan.q_index.clamp(min=0).unsqueeze(-1) * k_len + plan.k_index.clamp(min=0).unsqueeze(-2)
    if pairs.shape[:2] == (1, 1):
        return bias.index_select(2, pairs.flatten()).unflatten(2, pairs.shape[2:])
    batch, heads = (max(one, other) for one, other in zip(bias.shape[:2], pairs.shape[:2], strict=True))
    pairs = pairs.expand(batch, heads, *pairs.shape[2:])
    return bias.expand(batch, heads, -1).gather(2, pairs.flatten(2)).view(pairs.shape)


def _table_bias(bias: RelativeBias, pattern: Pattern, found: Gather, q_len: int, k_len: int) -> Tensor:
    """Groups with the same distances share one lookup, so the table's gradient sums few numbers."""
    columns, kind = columns_for(pattern, found, bias.window, q_len, k_len)
    if kind is None:
        rows = torch.arange(bias.table.shape[0], device=columns.device).view(1, -1, 1, 1, 1)
        return bias.table[rows, columns]
    looked = bias.table[:, columns]  # [H, kinds, m, n]
    return looked if len(columns) == 1 else looked.index_select(1, kind)


def attend(
    q: Tensor, k: Tensor, v: Tensor, term: Term, scale: float, need_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention of (..., m, D) queries to (..., n, D) keys with a term of broadcastable shape."""
    addend, empty = term
    half = q.dtype in (torch.bfloat16, torch.float16)
    small = half and q.shape[-2] <= _SMALL and k.shape[-2] <= 4 * _SMALL
    if need_lse or small or q.dim() != 4:
        out, lse = _unfused(q, k, v, addend, scale, need_lse)
    else:
        gqa = q.shape[1] != k.shape[1]
        out, lse = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=addend, scale=scale, enable_gqa=gqa),
            None,
        )
    if empty is not None:
        out = out.masked_fill(empty, 0)
        lse = None if lse is None else lse.masked_fill(empty.squeeze(-1), -torch.inf)
    return out, lse


def _unfused(
    q: Tensor, k: Tensor, v: Tensor, addend: Tensor | None, scale: float, need_lse: bool
) -> tuple[Tensor, Tensor | None]:
    if q.shape[1] != k.shape[1]:
        share = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    logits = (q * scale) @ k.mT
    if addend is not None:
        logits = logits + addend
    if not need_lse:
        return logits.softmax(-1) @ v, None
    logits = logits.to(torch.promote_types(q.dtype, torch.float32))
    lse = logits.logsumexp(-1, keepdim=True)
    return (logits - lse).exp().to(v.dtype) @ v, lse.squeeze(-1)
