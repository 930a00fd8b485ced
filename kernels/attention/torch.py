"""Attention in plain torch, fast on a CPU: the keys that a group of queries sees are gathered and multiplied.

Measured on two cores, float32 unless said: for groups of up to 64 queries a batched product, softmax and
batched product beat torch's fused attention in training (in bfloat16 7 to 14 times), above that the fused one
wins.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..patterns import Causal, Full, Pattern
from ..registering import listened_to
from .bias import RelativeBias
from .dense import FEW, always_finite, attend, attend_all, shared, without_empty
from .folded import Cut, attend_folded
from .foldings import fold, in_place, unfold
from .gather import (
    Gather,
    Term,
    columns_for,
    gather_for,
    make_term,
    mask_for,
    with_penalty,
)
from .groups import GroupAttend
from .regions import attend_regions, routes_of
from .rows import take_each, take_rows

_FEW_TO_PLAN = 1 << 21
"""Pairs of all heads that fused attention computes while a plan is made, which is not kept where the data
choose it."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    bias: Tensor | RelativeBias | None,
    scale: float,
    need_lse: bool,
    times: Tensor | RelativeBias | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Output (B, H, Lq, Dv), and log-sum-exp (B, H, Lq) if needed; see :func:`graphrec.kernels.attention`."""
    bare = bias is None and times is None and not need_lse
    pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    if bare and pairs > FEW and (routes := routes_of(pattern, q.device)) is not None:
        k, v = shared(q, k, v)
        return attend_regions(q, k, v, scale, routes), None
    plain = times is None and not need_lse and not isinstance(bias, RelativeBias) and not listened_to()
    many = q.shape[0] * q.shape[1] if plain else None
    found = route(pattern, q.shape[2], k.shape[2], q.device, q.dtype, many)
    if found is None:
        return attend_all(q, k, v, pattern, bias, scale, need_lse, times)
    return _groups(q, k, v, pattern, found, bias, scale, need_lse, times)


def route(
    pattern: Pattern,
    q_len: int,
    k_len: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    many: int | None = None,
) -> Gather | None:
    """The groups to compute by, or None when all pairs should be computed.

    ``many`` is the number of heads in all batch entries where a mask over all pairs would do: few pairs are
    computed before groups are made, or gathered.
    """
    if isinstance(pattern, Full | Causal) or q_len <= 1 or k_len == 0:
        return None  # a single query, as in decoding, is computed in less time than its plan is made
    if many is None or device.type != "cpu":
        return gather_for(pattern, q_len, k_len, device, dtype)
    pairs = many * q_len * k_len
    if not pattern.static:
        return None if pairs <= _FEW_TO_PLAN else gather_for(pattern, q_len, k_len, device, dtype)
    found = gather_for(pattern, q_len, k_len, device, dtype)
    if found is None or pairs > FEW or found.penalty is not None:
        return found
    return found if found.folding is not None and pairs > FEW >> 2 else None


def _groups(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    found: Gather,
    bias: Any,
    scale: float,
    need_lse: bool,
    times: Any,
) -> tuple[Tensor, Tensor | None]:
    """Groups of queries against the keys that they see between them."""
    k, v = shared(q, k, v)
    term: Term = found.term, found.empty
    lengths = q.shape[2], k.shape[2]
    if found.folding is not None and times is None and not need_lse and always_finite(bias):
        look, given = None, bias
        if isinstance(bias, RelativeBias):
            look, given = partial(_looked, pattern, found, bias.window, q.dtype), bias.table
        elif bias is not None:
            given = _block_pairs(bias, pattern, found, *lengths).to(q.dtype)
        how = Cut(scale, found.folding, found.q_index.shape, found.term, look)
        return attend_folded(q, k, v, given, how), None
    if bias is not None:
        given = _block_pairs(bias, pattern, found, *lengths)
        total = with_penalty(given, found.penalty, pattern.penalty_value, q.dtype)
        term = make_term(found.mask, total, q.dtype)
    weights = None if times is None else _block_pairs(times, pattern, found, *lengths).to(q.dtype)
    if not torch.compiler.is_compiling() and found.k_index.shape[:2] == (1, 1):
        return _in_pieces(q, k, v, found, term, weights, scale, need_lse)
    blocks = _block_queries(q, found)
    keys, values = (_block_keys(one, found) for one in (k, v))  # [B, H, N, n, D]
    out, lse = attend(blocks, keys, values, term, scale, need_lse, weights)
    if lse is not None:
        lse = lse.flatten(2)[..., found.inverse]
    return _restore(out, found), lse


def _in_pieces(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    found: Gather,
    term: Term,
    times: Tensor | None,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Groups whose keys are the same for all heads and batch entries."""
    folded = found.folding is not None
    if folded:
        q, k, v = (_block_queries(one, found).flatten(2, 3) for one in (q, k, v))
    out: Tensor
    lse: Tensor | None
    pairs = [
        None if one is None else one.reshape((1,) * (5 - one.dim()) + one.shape) for one in (term[0], times)
    ]
    out, lse = GroupAttend.apply(q, k, v, *pairs, found, scale, need_lse)
    if folded:
        out = _restore(out, found)
    lse = lse if need_lse else None
    if folded and lse is not None:
        lse = lse[..., found.inverse]
    return without_empty(out, lse, _empty_rows(term[1], found))


def _empty_rows(empty: Tensor | None, found: Gather) -> Tensor | None:
    """Queries that see nothing, from (..., N, m, 1) to (..., Lq, 1)."""
    if empty is None:
        return None
    return empty.expand(*empty.shape[:-3], *found.q_index.shape, 1).flatten(-3, -2)[..., found.inverse, :]


def weighted_sum(
    weights: Tensor | RelativeBias, v: Tensor, pattern: Pattern, q_len: int, heads: int
) -> Tensor:
    """``weights @ v`` over visible pairs, (B, H, Lq, Dv); weights as attention's ``plus``."""
    found = route(pattern, q_len, v.shape[2], v.device, v.dtype)
    if found is None:
        mask = mask_for(pattern, q_len, v.shape[2], v.device)
        dense = weights.dense(pattern, q_len, v.shape[2]) if isinstance(weights, RelativeBias) else weights
        shown = dense.to(v.dtype).masked_fill(~mask, 0)
        return shown @ (v if v.shape[1] == heads else v.repeat_interleave(heads // v.shape[1], 1))
    v = v if v.shape[1] == heads else v.repeat_interleave(heads // v.shape[1], 1)
    pairs = _block_pairs(weights, pattern, found, q_len, v.shape[2]).to(v.dtype)
    if found.mask is not None:
        pairs = pairs.masked_fill(~found.mask, 0)
    return _restore(pairs @ _block_keys(v, found), found)


def _pair(start: Tensor | None, order: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if start is None or order is None else (start, order)


def _block_queries(x: Tensor, found: Gather) -> Tensor:
    """(B, H, Lq, D) to (B, H, N, m, D)."""
    if found.folding is not None:
        return fold(x, found.folding, found.q_index.shape)
    return take_rows(x, found.q_index, _pair(found.q_start, found.q_order))


def _restore(x: Tensor, found: Gather) -> Tensor:
    """(B, H, N, m, D) back to (B, H, Lq, D)."""
    if found.folding is not None:
        return unfold(x, found.folding)
    return take_rows(x.flatten(2, 3), found.inverse, _pair(found.out_start, found.out_order))


def _block_keys(x: Tensor, found: Gather) -> Tensor:
    """(B, H, Lk, D) to (B, H, N, n, D)."""
    if found.folding is not None:
        return _block_queries(x, found)
    if found.k_index.shape[:2] == (1, 1):
        return take_rows(x, found.k_index[0, 0], _pair(found.k_start, found.k_order))
    return take_each(x, found.k_index)


def _block_pairs(
    bias: Tensor | RelativeBias, pattern: Pattern, plan: Gather, q_len: int, k_len: int
) -> Tensor:
    """A number for every pair of a plan, broadcastable to (B, H, N, m, n)."""
    if isinstance(bias, RelativeBias):
        return _table_bias(bias, pattern, plan, q_len, k_len)
    if plan.folding is not None and len(plan.q_index) == 1 and in_place(plan.folding):
        return bias.unsqueeze(2)
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
    table = bias.table
    if table.dim() == 4 and table.shape[2] > 1:
        return _query_bias(table, columns if kind is None else columns[kind][None, None], found.q_index)
    if kind is None:
        rows = torch.arange(table.shape[-3 if table.dim() == 4 else 0], device=columns.device)
        if table.dim() == 4:
            batch = torch.arange(table.shape[0], device=columns.device).view(-1, 1, 1, 1, 1)
            return table[:, :, 0][batch, rows.view(1, -1, 1, 1, 1), columns]
        return table[rows.view(1, -1, 1, 1, 1), columns]
    flat = table.flatten(0, -2)
    places = columns.flatten().expand(len(flat), -1)  # gather: its gradient takes a third of indexing's time
    looked = flat.gather(1, places).unflatten(1, columns.shape)  # [B * H, kinds, m, n]
    looked = looked if len(columns) == 1 else looked.index_select(1, kind)
    return looked.unflatten(0, table.shape[:2]) if table.dim() == 4 else looked


def _looked(
    pattern: Pattern, found: Gather, window: tuple[int, ...], dtype: torch.dtype, table: Tensor
) -> Tensor:
    """The bias of a table for the groups of a folding, with all five axes, which saves a sum over one."""
    length = found.q_index.numel()
    looked = _table_bias(RelativeBias(table, window), pattern, found, length, length).to(dtype)
    return looked if looked.dim() == 5 else looked.unsqueeze(0)


def _query_bias(table: Tensor, columns: Tensor, q_index: Tensor) -> Tensor:
    """A table with a row per query, (B, H, Lq, columns), looked up for (B', H', N, m, n) columns."""
    places = q_index.clamp(min=0).unsqueeze(-1) * table.shape[3] + columns
    flat = table.flatten(2)
    if places.shape[:2] == (1, 1):
        return flat.index_select(2, places.flatten()).unflatten(2, places.shape[2:])
    batch, heads = (max(one, other) for one, other in zip(flat.shape[:2], places.shape[:2], strict=True))
    places = places.expand(batch, heads, *places.shape[2:])
    return flat.expand(batch, heads, -1).gather(2, places.flatten(2)).view(places.shape)
