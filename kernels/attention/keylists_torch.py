"""Attention to listed keys in plain torch, by pieces: all products and a choice, or only the listed rows.

Multiplying a query with all keys and picking is faster on a CPU than gathering rows while lists are longer
than some thirtieth of the keys (measured with keys of 64 numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registering import operator
from .core import widened
from .rows import uses_of

_SHARE = 32
"""Keys per listed key up to which all products are computed."""

_PIECE = 1 << 20
"""Numbers per piece of products."""

_SMALL = 1 << 16
"""Listed numbers of a head up to which all heads go together, as one with lists into the keys of all."""


class _Lists:
    """Lists of one head, for a run of its queries: products with, sums of, and sums back to listed rows."""

    def __init__(self, index: Tensor, k_len: int, work: torch.dtype) -> None:
        self.hidden = index < 0
        self.index = index.clamp(min=0)
        self.k_len, self.work = k_len, work
        self.dense = self.index.shape[1] * _SHARE >= k_len

    def products(self, x: Tensor, rows: Tensor) -> Tensor:
        """(m, S): each of ``x`` (m, D) with the listed rows of ``rows`` (Lk, D)."""
        if self.dense:
            return (x @ rows.mT).gather(1, self.index).to(self.work)
        return (rows[self.index].to(self.work) @ x.to(self.work).unsqueeze(-1)).squeeze(-1)

    def _matrix(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        empty = torch.zeros(weights.shape[0], self.k_len, dtype=self.work, device=weights.device)
        return empty.scatter_add_(1, self.index, weights).to(dtype)

    def sums(self, weights: Tensor, rows: Tensor) -> Tensor:
        """(m, D): listed rows under weights (m, S)."""
        if self.dense:
            return self._matrix(weights, rows.dtype) @ rows
        return F.embedding_bag(self.index, rows.to(self.work), per_sample_weights=weights, mode="sum")

    def back(self, weights: Tensor, x: Tensor) -> Tensor:
        """(Lk, D): for each key the sum of ``x`` (m, D) over the lists that name it, under weights (m, S)."""
        if self.dense:
            return self._matrix(weights, x.dtype).mT @ x
        start, order = uses_of(self.index, self.k_len)
        lists = torch.div(order, self.index.shape[1], rounding_mode="floor")
        return F.embedding_bag(
            lists, x.to(self.work), start, per_sample_weights=weights.flatten()[order], mode="sum"
        )


def _pieces(q: Tensor, k: Tensor, index: Tensor) -> Iterator[tuple[int, int, int, slice, _Lists]]:
    """Batch entry, head, key head, queries and their lists, piece by piece."""
    batch, heads, q_len, _ = q.shape
    work, k_len = torch.promote_types(q.dtype, torch.float32), k.shape[2]
    row = max(1, index.shape[3] * q.shape[3], k_len if index.shape[3] * _SHARE >= k_len else 0)
    step = max(1, _PIECE // row)
    for b in range(batch):
        for h in range(heads):
            for low in range(0, q_len, step):
                rows = slice(low, min(low + step, q_len))
                lists = _Lists(index[b, h % index.shape[1], rows].long(), k_len, work)
                yield b, h, h // (heads // k.shape[1]), rows, lists


def _usable(k: Tensor, index: Tensor) -> bool:
    return k.shape[2] > 0 and index.shape[3] > 0


def _together(q: Tensor, k: Tensor, index: Tensor) -> Tensor | None:
    """Lists (1, 1, B * H * Lq, S) into keys (1, 1, B * Hkv * Lk, D) of all heads; None for large heads."""
    batch, heads, q_len, dim = q.shape
    if batch * heads == 1 or q_len * index.shape[3] * dim > _SMALL:
        return None
    own = torch.arange(batch * heads, device=q.device).view(batch, heads, 1, 1) // (heads // k.shape[1])
    return _flat(torch.where(index < 0, -1, index + own * k.shape[2]))


def _flat(x: Tensor) -> Tensor:
    """All heads as one, (1, 1, B * H * L, D)."""
    return x.reshape(1, 1, -1, x.shape[3])


@operator("graphrec::listed_attention")
def listed_attention(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Lq, Dv) and probabilities (B, H, Lq, S) in at least float32."""
    work = torch.promote_types(q.dtype, torch.float32)
    shape, pairs = (*q.shape[:3], v.shape[3]), (*q.shape[:3], index.shape[3])
    if not _usable(k, index) or 0 in shape:
        return q.new_zeros(shape), q.new_zeros(pairs, dtype=work)
    wide = [widened(one) for one in (q, k, v)]
    if (flat := _together(q, k, index)) is not None:
        wide, index = [_flat(one) for one in wide], flat
        bias = None if bias is None else _flat(bias.expand(pairs))
    out, weights = _attended(wide[0], wide[1], wide[2], index, bias, scale)
    return out.view(shape).to(q.dtype), weights.view(pairs)


def _attended(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Piece by piece."""
    work = torch.promote_types(q.dtype, torch.float32)
    out = q.new_zeros(*q.shape[:3], v.shape[3])
    weights = q.new_zeros(*q.shape[:3], index.shape[3], dtype=work)
    for b, h, g, rows, lists in _pieces(q, k, index):
        logits = lists.products(q[b, h, rows], k[b, g]) * scale
        if bias is not None:
            logits = logits + bias[b, h, rows]
        logits = logits.masked_fill(lists.hidden, -torch.inf)
        high = logits.amax(1, keepdim=True)
        spread = (logits - torch.where(high == -torch.inf, 0, high)).exp()
        made = spread / spread.sum(1, keepdim=True).clamp(min=torch.finfo(work).tiny)
        weights[b, h, rows] = made
        out[b, h, rows] = lists.sums(made, v[b, g]).to(q.dtype)
    return out, weights


@listed_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    work = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(*q.shape[:3], index.shape[3], dtype=work)


@operator("graphrec::listed_attention_backward")
def listed_attention_backward(
    grad: Tensor, weights: Tensor, q: Tensor, k: Tensor, v: Tensor, index: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, and of the logits (B, H, Lq, S) in the dtype of ``weights``."""
    if not _usable(k, index) or grad.numel() == 0:
        found = [torch.zeros(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v, weights)]
        return found[0], found[1], found[2], found[3]
    given = [weights, *(widened(one) for one in (grad, q, k, v))]
    if (flat := _together(q, k, index)) is not None:
        given, index = [_flat(one) for one in given], flat
    made = _differentiated(index, scale, *given)
    dq, dk, dv = (one.view(x.shape).to(x.dtype) for one, x in zip(made, (q, k, v), strict=False))
    return dq, dk, dv, made[3].view(weights.shape)


def _differentiated(
    index: Tensor, scale: float, weights: Tensor, grad: Tensor, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Piece by piece."""
    dq, dlogits = torch.zeros(q.shape, dtype=q.dtype, device=q.device), torch.zeros_like(weights)
    dk, dv = (torch.zeros(one.shape, dtype=weights.dtype, device=one.device) for one in (k, v))
    for b, h, g, rows, lists in _pieces(q, k, index):
        given, here = grad[b, h, rows], weights[b, h, rows]
        into = lists.products(given, v[b, g])
        slope = here * (into - (here * into).sum(1, keepdim=True))
        dlogits[b, h, rows] = slope
        slope = slope * scale
        dv[b, g] += lists.back(here, given)
        dk[b, g] += lists.back(slope, q[b, h, rows])
        dq[b, h, rows] = lists.sums(slope, k[b, g]).to(q.dtype)
    return dq, dk, dv, dlogits


@listed_attention_backward.register_fake
def _(
    grad: Tensor, weights: Tensor, q: Tensor, k: Tensor, v: Tensor, index: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v, weights)]
    return made[0], made[1], made[2], made[3]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, index, bias, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, index, output[1])
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    q, k, v, index, weights = ctx.saved_tensors
    dq, dk, dv, dlogits = listed_attention_backward(grad.to(q.dtype), weights, q, k, v, index, ctx.scale)
    return dq, dk, dv, None, None if ctx.bias_dtype is None else dlogits.to(ctx.bias_dtype), None


listed_attention.register_autograd(_backward, setup_context=_setup)
