"""Attention in plain torch, fast on a CPU: the keys that a group of queries sees are gathered and multiplied.

Measured on two cores, float32 unless said: for groups of up to 64 queries a batched product, softmax and
batched product beat torch's fused attention in training (in bfloat16 7 to 14 times), above that the fused one
wins.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patterns import BlockPlan, Causal, Full, Pattern
from .bias import RelativeBias, block_columns
from .rows import Uses, take_each, take_rows, uses_of

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
    plan = block_route(pattern, q.shape[2], k.shape[2], q.device)
    if plan is None:
        return _dense(q, k, v, pattern, bias, scale, need_lse)
    return _blocks(q, k, v, pattern, plan, bias, scale, need_lse)


def block_route(pattern: Pattern, q_len: int, k_len: int, device: torch.device) -> BlockPlan | None:
    """The plan to gather by, or None when all pairs should be computed."""
    if isinstance(pattern, Full | Causal) or q_len == 0 or k_len == 0:
        return None
    if torch.compiler.is_compiling() and not pattern.static:
        return None
    plan = _constant_plan(pattern, q_len, k_len, device)
    return plan if plan.pairs <= _DENSE_SHARE * q_len * k_len else None


def _constant_plan(pattern: Pattern, q_len: int, k_len: int, device: torch.device) -> BlockPlan:
    return pattern.blocks(q_len, k_len, device)


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
    mask = None if isinstance(pattern, Full) else pattern.mask(q_len, k_len, device=q.device)
    if isinstance(bias, RelativeBias):
        bias = bias.dense(pattern, q_len, k_len)
    place = torch.arange(max(q_len, k_len), device=q.device)
    soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    return attend(q, k, v, _term(mask, _with_penalty(bias, soft, pattern, q.dtype), q.dtype), scale, need_lse)


def _with_penalty(
    bias: Tensor | None, soft: Tensor | None, pattern: Pattern, dtype: torch.dtype
) -> Tensor | None:
    if soft is None:
        return bias
    penalty = soft.to(dtype) * pattern.penalty_value
    return penalty if bias is None else bias + penalty


def _blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    plan: BlockPlan,
    bias: Any,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Groups of queries against the keys that they see between them."""
    q_len, k_len = q.shape[2], k.shape[2]
    groups, size = plan.q_index.shape
    share = q.shape[1] // k.shape[1]
    blocks = _block_queries(q, plan)
    keys, values = (_block_keys(one, plan, share) for one in (k, v))  # [B, H, N, n, D]
    if keys.shape[1] != q.shape[1]:
        keys, values = (one.repeat_interleave(share, 1) for one in (keys, values))
    if bias is None and plan.static:
        term = _static_term(pattern, plan, q.dtype)
    else:
        given = _block_bias(bias, pattern, plan, q_len, k_len)
        term = _term(plan.mask, _with_penalty(given, plan.penalty, pattern, q.dtype), q.dtype)
    out, lse = attend(blocks, keys, values, term, scale, need_lse)
    out = _restore(out, plan)
    if lse is None:
        return out, None
    return out, lse.reshape(*q.shape[:2], groups * size)[..., plan.inverse]


@lru_cache(maxsize=256)
def _static_uses(plan: BlockPlan, which: str) -> Uses:
    if which == "out":
        return uses_of(plan.inverse, plan.q_index.numel())
    return uses_of(plan.q_index, len(plan.inverse)) if which == "q" else uses_of(plan.k_index, plan.k_len)


def _uses(plan: BlockPlan, which: str) -> Uses | None:
    """Where rows of queries, keys or outputs were taken to, remembered for static patterns."""
    return _static_uses(plan, which) if plan.static else None


def _block_queries(x: Tensor, plan: BlockPlan) -> Tensor:
    """(B, H, Lq, D) to (B, H, N, m, D)."""
    if plan.folding is None:
        return take_rows(x, plan.q_index, _uses(plan, "q"))
    sizes, order = plan.folding
    split = x.unflatten(2, sizes)
    return split.permute(0, 1, *(2 + axis for axis in order), -1).reshape(
        *x.shape[:2], *plan.q_index.shape, -1
    )


def _restore(x: Tensor, plan: BlockPlan) -> Tensor:
    """(B, H, N, m, D) back to (B, H, Lq, D)."""
    if plan.folding is None:
        return take_rows(x.flatten(2, 3), plan.inverse, _uses(plan, "out"))
    sizes, order = plan.folding
    split = x.unflatten(3, [sizes[axis] for axis in order[len(order) // 2 :]])
    split = split.unflatten(2, [sizes[axis] for axis in order[: len(order) // 2]])
    back = sorted(range(len(order)), key=order.__getitem__)
    return split.permute(0, 1, *(2 + axis for axis in back), -1).flatten(2, -2)


def _block_keys(x: Tensor, plan: BlockPlan, share: int) -> Tensor:
    """(B, Hkv, Lk, D) to (B, Hkv or H, N, n, D)."""
    if plan.folding is not None:
        return _block_queries(x, plan)
    if plan.k_index.shape[:2] == (1, 1):
        return take_rows(x, plan.k_index[0, 0], _uses(plan, "k"))
    return take_each(x, plan.k_index, share)


def _block_bias(bias: Any, pattern: Pattern, plan: BlockPlan, q_len: int, k_len: int) -> Tensor | None:
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


def _table_bias(bias: RelativeBias, pattern: Pattern, plan: BlockPlan, q_len: int, k_len: int) -> Tensor:
    """Groups with the same distances share one lookup, so the table's gradient sums few numbers."""
    columns, kind = block_columns(pattern, plan, bias.window, (q_len, k_len))
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
    small = q.shape[-2] <= _SMALL and k.shape[-2] <= 4 * _SMALL
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


Term = tuple[Tensor | None, Tensor | None]
"""What is added to the logits, and the rows (..., m, 1) that see nothing; None for nothing and for no rows."""


def _term(mask: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Term:
    """Mask and bias as one term. Rows that see nothing get zero, so that their softmax is defined."""
    if mask is None and bias is None:
        return None, None
    if bias is None:
        assert mask is not None
        term = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    else:
        term = bias.to(dtype) if mask is None else bias.to(dtype).masked_fill(~mask, -torch.inf)
    empty = (term == -torch.inf).all(-1, keepdim=True)
    return term.masked_fill(empty, 0), empty


@lru_cache(maxsize=64)
def _static_term(pattern: Pattern, plan: BlockPlan, dtype: torch.dtype) -> Term:
    """The term of a pattern without a bias; rows that only fill up a group are nobody's."""
    term, empty = _term(plan.mask, _with_penalty(None, plan.penalty, pattern, dtype), dtype)
    if empty is not None and not bool((empty.squeeze(-1) & (plan.q_index >= 0)).any()):
        empty = None
    return term, empty


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
