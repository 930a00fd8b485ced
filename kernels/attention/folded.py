"""Windows that are cut out of a grid by a reshape: their groups without an index, and attention in them.

In eager code the gradient is written out: autograd would scale the queries and add the bias in passes of
their own, forward and backward, over numbers that only just fit the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..patterns.base import Folding
from ..registering import listened_to


def fold(x: Tensor, folding: Folding, groups: torch.Size) -> Tensor:
    """(B, H, L, D) to (B, H, N, m, D), with ``groups`` = (N, m)."""
    sizes, order, roll = folding
    if any(roll):
        x = _rolled(x.unflatten(2, _grid(sizes)), [-one for one in roll], 2).flatten(2, -2)
    batch, heads, _, dim = x.shape
    split = x.view(batch, heads, *sizes, dim).permute(0, 1, *[2 + axis for axis in order], -1)
    return split.reshape(batch, heads, *groups, dim)


def unfold(x: Tensor, folding: Folding) -> Tensor:
    """(B, H, N, m, D) back to (B, H, L, D).

    In memory the heads of a position lie side by side, as the projection that follows wants them.
    """
    sizes, order, roll = folding
    batch, heads, dim = x.shape[0], x.shape[1], x.shape[-1]
    places = [2 + order.index(axis) for axis in range(len(order))]
    split = x.reshape(batch, heads, *[sizes[axis] for axis in order], dim).permute(0, *places, 1, -1)
    if any(roll):
        split = _rolled(split.reshape(batch, *_grid(sizes), heads, dim), list(roll), 1)
    return split.reshape(batch, -1, heads, dim).transpose(1, 2)


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
    if listened_to() or not torch.is_grad_enabled():
        return _composed(q, k, v, term, scale, folding, groups)
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
        queries, keys, values = [fold(one, folding, groups).flatten(0, 2) for one in (q, k, v)]
        sizes = *q.shape[:2], *groups, -1
        logits = queries.new_empty(queries.shape[0], groups[1], groups[1])
        if term is not None:
            logits.view(sizes).copy_(term)
        torch.baddbmm(logits, queries, keys.mT, beta=int(term is not None), alpha=scale, out=logits)
        weights = logits.softmax(-1)
        ctx.save_for_backward(q, k, v, term, queries, keys, values, weights)
        ctx.scale, ctx.folding, ctx.groups = scale, folding, groups
        return unfold(torch.bmm(weights, values).view(sizes), folding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, term, queries, keys, values, weights = ctx.saved_tensors
        scale, folding, groups = ctx.scale, ctx.folding, ctx.groups
        if torch.is_grad_enabled():
            return *_again(ctx, (q, k, v, term), grad), None, None, None
        sizes = *q.shape[:2], *groups, -1
        grad = fold(grad, folding, groups).flatten(0, 2)
        slopes = torch.ops.aten._softmax_backward_data(torch.bmm(grad, values.mT), weights, -1, weights.dtype)
        made = (
            torch.baddbmm(queries, slopes, keys, beta=0, alpha=scale),
            torch.baddbmm(keys, slopes.mT, queries, beta=0, alpha=scale),
            torch.bmm(weights.mT, grad),
        )
        total = slopes.view(sizes).sum_to_size(term.shape) if ctx.needs_input_grad[3] else None
        return *(unfold(one.view(sizes), folding) for one in made), total, None, None, None


def _again(ctx: Any, given: tuple[Tensor | None, ...], grad: Tensor) -> list[Tensor | None]:
    """Gradients that can be differentiated themselves."""
    q, k, v, term = given
    out = _composed(q, k, v, term, ctx.scale, ctx.folding, ctx.groups)  # type: ignore[arg-type]
    wanted = [one for one, need in zip(given, ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))  # type: ignore[arg-type]
    return [next(found) if need else None for _, need in zip(given, ctx.needs_input_grad, strict=False)]


def _grid(sizes: tuple[int, ...]) -> list[int]:
    """The grid's axes; each is split in two."""
    return [outer * inner for outer, inner in zip(sizes[::2], sizes[1::2], strict=True)]


def _rolled(x: Tensor, steps: list[int], first: int) -> Tensor:
    """The grid, whose axes start at ``first``, moved around its edges."""
    return x.roll(steps, [first + axis for axis in range(len(steps))])
