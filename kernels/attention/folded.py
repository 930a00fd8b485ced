"""Attention in windows that are cut out of a grid by a reshape.

In eager code the gradient is written out: autograd would scale the queries and add the bias in passes of
their own, forward and backward, over numbers that only just fit the cache. What a pattern adds to the logits
and a bias meet in the logits alone, so that their sum is not kept; and without either the probabilities are
computed again in the backward, from one product, as they take more memory than queries, keys and values.
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
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    fixed: Tensor | None,
    scale: float,
    folding: Folding,
    groups: torch.Size,
) -> Tensor:
    """Softmax attention within groups, (B, H, L, Dv).

    Args:
        q: (B, H, L, D).
        k: (B, H, L, D).
        v: (B, H, L, Dv).
        bias: added to the logits, broadcastable to (B, H, N, m, m), or None.
        fixed: likewise, without a gradient; every row keeps a finite entry.
        scale: factor on the products.
        folding: how the groups are made.
        groups: (N, m).
    """
    if listened_to():
        return _composed(q, k, v, bias, fixed, scale, folding, groups)
    if not torch.is_grad_enabled():
        return _attended(q, k, v, bias, fixed, scale, folding, groups)[0]
    return _Folded.apply(q, k, v, bias, fixed, scale, folding, groups)  # type: ignore[no-any-return]


def _composed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    fixed: Tensor | None,
    scale: float,
    folding: Folding,
    groups: torch.Size,
) -> Tensor:
    """As operations that autograd and compilers know."""
    queries, keys, values = [fold(one, folding, groups).flatten(0, 2) for one in (q, k, v)]
    logits = torch.bmm(queries * scale, keys.mT)
    term = fixed if bias is None else bias if fixed is None else bias + fixed
    if term is not None:
        logits = (logits.view(*q.shape[:2], *groups, groups[1]) + term).view(logits.shape)
    return unfold(torch.bmm(logits.softmax(-1), values).view(*q.shape[:2], *groups, -1), folding)


@as_given
def _attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    fixed: Tensor | None,
    scale: float,
    folding: Folding,
    groups: torch.Size,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, L, Dv) and probabilities (B * H * N, m, m), outside of autograd."""
    queries, keys, values = (widened(one) for one in cut((q, k, v), folding, groups))
    weights = _weights(queries, keys, scale, bias, fixed, (*q.shape[:2], *groups))
    made = torch.bmm(weights, values).to(q.dtype)
    return paste(made.unsqueeze(0), folding, groups, q.shape[:3])[0], weights


def _weights(
    queries: Tensor,
    keys: Tensor,
    scale: float,
    bias: Tensor | None,
    fixed: Tensor | None,
    size: tuple[int, ...],
) -> Tensor:
    """Probabilities of groups (B * H * N, m, D), with ``size`` (B, H, N, m)."""
    logits = queries.new_empty(queries.shape[0], size[-1], size[-1])
    pairs, term = logits.view(*size, -1), fixed if bias is None else bias
    if bias is not None and fixed is not None:
        torch.add(bias.expand(pairs.shape), fixed, out=pairs)
    elif term is not None:
        pairs.copy_(term)
    torch.baddbmm(logits, queries, keys.mT, beta=int(term is not None), alpha=scale, out=logits)
    return torch.softmax(logits, -1, out=logits)


class _Folded(torch.autograd.Function):
    """:func:`attend_folded` with its gradient; differentiated twice, it composes the function anew."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        fixed: Tensor | None,
        scale: float,
        folding: Folding,
        groups: torch.Size,
    ) -> Tensor:
        out, weights = _attended(q, k, v, bias, fixed, scale, folding, groups)
        again = bias is None and fixed is None
        ctx.save_for_backward(q, k, v, bias, fixed, None if again else weights.to(q.dtype))
        ctx.scale, ctx.folding, ctx.groups = scale, folding, groups
        return out

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, bias, fixed, kept = ctx.saved_tensors
        folding, groups, size = ctx.folding, ctx.groups, q.shape[:3]
        if torch.is_grad_enabled():
            return *_again(ctx, (q, k, v, bias), fixed, grad), None, None, None, None
        queries, keys, values = (widened(one) for one in cut((q, k, v), folding, groups))
        if kept is None:
            weights = _weights(queries, keys, ctx.scale, None, None, (*size[:2], *groups))
        else:
            weights = widened(kept)
        grad = widened(cut((grad,), folding, groups)[0])
        slopes = torch.bmm(grad, values.mT)
        torch._softmax_backward_data(slopes, weights, -1, weights.dtype, grad_input=slopes)
        products = (slopes, keys, ctx.scale), (slopes.mT, queries, ctx.scale), (weights.mT, grad, 1.0)
        total = None
        if bias is not None and ctx.needs_input_grad[3]:
            total = slopes.view(*size[:2], *groups, -1).sum_to_size(bias.shape).to(bias.dtype)
        if joined((q, k, v)) is None:
            each = (_scaled(*one).to(q.dtype).unsqueeze(0) for one in products)
            found = tuple(paste(one, folding, groups, size)[0] for one in each)
        else:
            made = queries.new_empty(3, *queries.shape)
            for into, one in zip(made, products, strict=True):
                _scaled(*one, into=into)
            found = paste(made.to(q.dtype), folding, groups, size)
        return *found, total, None, None, None, None


def _scaled(one: Tensor, other: Tensor, scale: float, into: Tensor | None = None) -> Tensor:
    """A factor times a batched product."""
    if into is None:
        into = one.new_empty(one.shape[0], one.shape[1], other.shape[2])
    return torch.baddbmm(into, one, other, beta=0, alpha=scale, out=into)


def _again(
    ctx: Any, given: tuple[Tensor, Tensor, Tensor, Tensor | None], fixed: Tensor | None, grad: Tensor
) -> list[Tensor | None]:
    """Gradients that can be differentiated themselves."""
    out = _composed(*given, fixed, ctx.scale, ctx.folding, ctx.groups)
    wanted = [one for one, need in zip(given, ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))  # type: ignore[arg-type]
    return [next(found) if need else None for _, need in zip(given, ctx.needs_input_grad, strict=False)]
