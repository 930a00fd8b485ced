"""Attention in windows that are cut out of a grid by a reshape.

In eager code the gradient is written out: autograd would scale the queries and add the bias in passes of
their own, forward and backward, over numbers that only just fit the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..patterns.base import Folding
from ..registering import listened_to
from .core import as_given, widened
from .foldings import cut, fold, paste, unfold
from .heads import joined


def attend_folded(
    q: Tensor, k: Tensor, v: Tensor, term: Tensor | None, scale: float, folding: Folding, groups: torch.Size
) -> Tensor:
    """Softmax attention within groups, (B, H, L, Dv).

    Args:
        q: (B, H, L, D).
        k: (B, H, L, D).
        v: (B, H, L, Dv).
        term: added to the logits, broadcastable to (B, H, N, m, m), or None; every row keeps a finite entry.
        scale: factor on the products.
        folding: how the groups are made.
        groups: (N, m).
    """
    if listened_to():
        return _composed(q, k, v, term, scale, folding, groups)
    if not torch.is_grad_enabled():
        return _attended(q, k, v, term, scale, folding, groups)[0]
    return _Folded.apply(q, k, v, term, scale, folding, groups)  # type: ignore[no-any-return]


def _composed(
    q: Tensor, k: Tensor, v: Tensor, term: Tensor | None, scale: float, folding: Folding, groups: torch.Size
) -> Tensor:
    """As operations that autograd and compilers know."""
    queries, keys, values = [fold(one, folding, groups).flatten(0, 2) for one in (q, k, v)]
    logits = torch.bmm(queries * scale, keys.mT)
    if term is not None:
        logits = (logits.view(*q.shape[:2], *groups, groups[1]) + term).view(logits.shape)
    return unfold(torch.bmm(logits.softmax(-1), values).view(*q.shape[:2], *groups, -1), folding)


@as_given
def _attended(
    q: Tensor, k: Tensor, v: Tensor, term: Tensor | None, scale: float, folding: Folding, groups: torch.Size
) -> tuple[Tensor, Tensor]:
    """Output (B, H, L, Dv) and probabilities (B * H * N, m, m), outside of autograd."""
    queries, keys, values = (widened(one) for one in cut((q, k, v), folding, groups))
    logits = queries.new_empty(queries.shape[0], groups[1], groups[1])
    if term is not None:
        logits.view(*q.shape[:2], *groups, -1).copy_(term)
    torch.baddbmm(logits, queries, keys.mT, beta=int(term is not None), alpha=scale, out=logits)
    torch.softmax(logits, -1, out=logits)
    made = torch.bmm(logits, values).to(q.dtype)
    return paste(made.unsqueeze(0), folding, groups, q.shape[:3])[0], logits


class _Folded(torch.autograd.Function):
    """:func:`attend_folded` with its gradient; differentiated twice, it composes the function anew."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        term: Tensor | None,
        scale: float,
        folding: Folding,
        groups: torch.Size,
    ) -> Tensor:
        out, weights = _attended(q, k, v, term, scale, folding, groups)
        ctx.save_for_backward(q, k, v, term, weights.to(q.dtype))
        ctx.scale, ctx.folding, ctx.groups = scale, folding, groups
        return out

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, term, weights = ctx.saved_tensors
        folding, groups, size = ctx.folding, ctx.groups, q.shape[:3]
        if torch.is_grad_enabled():
            return *_again(ctx, (q, k, v, term), grad), None, None, None
        queries, keys, values = (widened(one) for one in cut((q, k, v), folding, groups))
        weights, grad = widened(weights), widened(cut((grad,), folding, groups)[0])
        slopes = torch.bmm(grad, values.mT)
        torch.ops.aten._softmax_backward_data.out(slopes, weights, -1, weights.dtype, grad_input=slopes)
        products = (slopes, keys, ctx.scale), (slopes.mT, queries, ctx.scale), (weights.mT, grad, 1.0)
        total = None
        if term is not None and ctx.needs_input_grad[3]:
            total = slopes.view(*size[:2], *groups, -1).sum_to_size(term.shape).to(term.dtype)
        if joined((q, k, v)) is None:
            each = (_scaled(*one).to(q.dtype).unsqueeze(0) for one in products)
            found = tuple(paste(one, folding, groups, size)[0] for one in each)
        else:
            made = queries.new_empty(3, *queries.shape)
            for into, one in zip(made, products, strict=True):
                _scaled(*one, into=into)
            found = paste(made.to(q.dtype), folding, groups, size)
        return *found, total, None, None, None


def _scaled(one: Tensor, other: Tensor, scale: float, into: Tensor | None = None) -> Tensor:
    """A factor times a batched product."""
    if into is None:
        into = one.new_empty(one.shape[0], one.shape[1], other.shape[2])
    return torch.baddbmm(into, one, other, beta=0, alpha=scale, out=into)


def _again(ctx: Any, given: tuple[Tensor | None, ...], grad: Tensor) -> list[Tensor | None]:
    """Gradients that can be differentiated themselves."""
    q, k, v, term = given
    out = _composed(q, k, v, term, ctx.scale, ctx.folding, ctx.groups)  # type: ignore[arg-type]
    wanted = [one for one, need in zip(given, ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))  # type: ignore[arg-type]
    return [next(found) if need else None for _, need in zip(given, ctx.needs_input_grad, strict=False)]
