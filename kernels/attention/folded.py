"""Attention in windows that are cut out of a grid by a reshape.

In eager code the gradient is written out: autograd would scale the queries and add the bias in passes of
their own, forward and backward, over numbers that only just fit the cache. What a pattern adds to the logits
and a bias meet in the logits alone, so that their sum is not kept; and without either the probabilities are
computed again in the backward, from one product, as they take more memory than queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..patterns.base import Folding
from ..registering import listened_to
from .core import as_given, widened
from .foldings import cut, cut_together, fold, paste, unfold
from .heads import joined


class Cut(NamedTuple):
    """What a call does to its tensors.

    Attributes:
        scale: factor on the products.
        folding: how the groups are made.
        groups: (N, m).
        fixed: added to the logits, broadcastable to (B, H, N, m, m), without a gradient; every row keeps a
            finite entry.
        look: makes the bias from its table, so that it is not kept for a second derivative.
    """

    scale: float
    folding: Folding
    groups: torch.Size
    fixed: Tensor | None = None
    look: Callable[[Tensor], Tensor] | None = None


def attend_folded(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, how: Cut) -> Tensor:
    """Softmax attention within groups, (B, H, L, Dv).

    Args:
        q: (B, H, L, D).
        k: (B, H, L, D).
        v: (B, H, L, Dv).
        bias: added to the logits, broadcastable to (B, H, N, m, m), or None; with ``how.look`` what that
            makes it from.
        how: everything else.
    """
    table, bias = bias, bias if bias is None or how.look is None else how.look(bias)
    if listened_to():
        return _composed(q, k, v, bias, how)
    if not torch.is_grad_enabled():
        return _attended(q, k, v, bias, how)[0]
    return _Folded.apply(q, k, v, bias, None if how.look is None else table, how)  # type: ignore[no-any-return]


def _composed(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, how: Cut) -> Tensor:
    """As operations that autograd and compilers know."""
    folding, groups = how.folding, how.groups
    queries, keys, values = [fold(one, folding, groups).flatten(0, 2) for one in (q, k, v)]
    logits = torch.bmm(queries * how.scale, keys.mT)
    term = how.fixed if bias is None else bias if how.fixed is None else bias + how.fixed
    if term is not None:
        logits = (logits.view(*q.shape[:2], *groups, groups[1]) + term).view(logits.shape)
    return unfold(torch.bmm(logits.softmax(-1), values).view(*q.shape[:2], *groups, v.shape[-1]), folding)


@as_given
def _attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, how: Cut) -> tuple[Tensor, Tensor]:
    """Output (B, H, L, Dv) and probabilities (B * H * N, m, m), outside of autograd."""
    queries, keys, values = (widened(one) for one in cut((q, k, v), how.folding, how.groups))
    weights = _weights(queries, keys, bias, how, q.shape[:2])
    made = torch.bmm(weights, values).to(q.dtype)
    return paste(made.unsqueeze(0), how.folding, how.groups, q.shape[:3])[0], weights


def _weights(queries: Tensor, keys: Tensor, bias: Tensor | None, how: Cut, size: torch.Size) -> Tensor:
    """Probabilities of groups (B * H * N, m, D), with ``size`` (B, H)."""
    logits = queries.new_empty(queries.shape[0], how.groups[1], how.groups[1])
    pairs, term = logits.view(*size, *how.groups, how.groups[1]), how.fixed if bias is None else bias
    if bias is not None and how.fixed is not None:
        torch.add(bias.expand(pairs.shape), how.fixed, out=pairs)
    elif term is not None:
        pairs.copy_(term)
    torch.baddbmm(logits, queries, keys.mT, beta=int(term is not None), alpha=how.scale, out=logits)
    return torch.softmax(logits, -1, out=logits)


class _Folded(torch.autograd.Function):
    """:func:`attend_folded` with its gradient; differentiated twice, it composes the function anew."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, table: Tensor | None, how: Cut
    ) -> Tensor:
        out, weights = _attended(q, k, v, bias, how)
        again = bias is None and how.fixed is None
        ctx.save_for_backward(
            q, k, v, bias if table is None else table, None if again else weights.to(q.dtype)
        )
        ctx.how, ctx.of_bias = how, None if bias is None else (bias.shape, bias.dtype)
        return out

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, given, kept = ctx.saved_tensors
        folding, groups, scale = ctx.how.folding, ctx.how.groups, ctx.how.scale
        if torch.is_grad_enabled():
            return *_again(ctx, (q, k, v, given), grad), None, None
        stack = cut_together((q, k, v), folding, groups)
        parts = cut((q, k, v), folding, groups) if stack is None else (stack := widened(stack)).unbind(0)
        queries, keys, values = (widened(one) for one in parts)
        weights = _weights(queries, keys, None, ctx.how, q.shape[:2]) if kept is None else widened(kept)
        grad = widened(cut((grad,), folding, groups)[0])
        slopes = torch.bmm(grad, values.mT)
        torch._softmax_backward_data(slopes, weights, -1, weights.dtype, grad_input=slopes)
        total = None
        if ctx.needs_input_grad[3]:
            shape, dtype = ctx.of_bias
            total = slopes.view(*q.shape[:2], *groups, groups[1]).sum_to_size(shape).to(dtype)
        products = (weights.mT, grad, 1.0), (slopes, keys, scale), (slopes.mT, queries, scale)
        if stack is None and joined((q, k, v)) is None:
            each = [_scaled(*one).to(q.dtype).unsqueeze(0) for one in products]
            dv, dq, dk = (paste(one, folding, groups, q.shape[:3])[0] for one in each)
            return dq, dk, dv, total, None, None
        if stack is None:
            stack = queries.new_empty(3, *queries.shape)
        _scaled(*products[0], into=stack[2])  # over what no later product reads
        first = _scaled(*products[1])
        _scaled(*products[2], into=stack[1])
        stack[0] = first
        del grad, slopes, weights, kept, first, products
        return *paste(stack.to(q.dtype), folding, groups, q.shape[:3]), total, None, None


def _scaled(one: Tensor, other: Tensor, scale: float, into: Tensor | None = None) -> Tensor:
    """A factor times a batched product."""
    if into is None:
        into = one.new_empty(one.shape[0], one.shape[1], other.shape[2])
    return torch.baddbmm(into, one, other, beta=0, alpha=scale, out=into)


def _again(
    ctx: Any, given: tuple[Tensor, Tensor, Tensor, Tensor | None], grad: Tensor
) -> list[Tensor | None]:
    """Gradients that can be differentiated themselves; a bias from a table is looked up anew."""
    q, k, v, bias = given
    if bias is not None and ctx.how.look is not None:
        bias = ctx.how.look(bias)
    out = _composed(q, k, v, bias, ctx.how)
    wanted = [one for one, need in zip((q, k, v, bias), ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))  # type: ignore[arg-type]
    return [next(found) if need else None for need in ctx.needs_input_grad[:4]]
