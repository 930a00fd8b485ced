"""Regions that see regions: whole ones are gathered, as rows of memory, where each sees as many.

The map of :class:`~graphrec.kernels.patterns.Regions` changes from call to call, and a plan of positions
would be made, sorted and turned around each time. Here that is done with the few numbers of the regions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..patterns import Pattern, Regions, Windows
from ..patterns.base import Folding
from ..registering import listened_to
from .core import as_given, plain_attention, widened
from .foldings import cut, fold, paste, unfold
from .heads import joined

_PIECE = 1 << 17
"""Numbers of gathered keys, or values, at a time: half a megabyte of float32, which stays in cache."""


class Routes(NamedTuple):
    """Which regions every region sees, all of one size and as many for each.

    ``seen`` (B' or 1, H' or 1, R, c) are numbers of regions, ``groups`` is (R, positions of a region).
    """

    folding: Folding
    groups: torch.Size
    seen: Tensor

    def rows(self, batch: int, heads: int) -> Tensor:
        """The same among the B * H * R regions of all heads, int64 (B * H * R * c,)."""
        heads_before = torch.arange(batch * heads, device=self.seen.device).view(batch, heads, 1, 1)
        return (heads_before * self.groups[0] + self.seen).flatten()


def routes_of(pattern: Pattern, device: torch.device) -> Routes | None:
    """How regions see regions, or None where they differ in size or in how many they see."""
    if not isinstance(pattern, Regions) or listened_to() or device.type == "meta":
        return None
    cells, chosen = pattern.cells, pattern.map
    folding = Windows(cells.shape, cells.region).folding(cells.length)
    if folding is None or chosen.shape[2] != cells.count:
        return None
    seen = chosen.nonzero()[:, 3]
    many = len(seen) // max(chosen[..., 0].numel(), 1)
    if not many or bool((chosen.sum(-1) != many).any()):
        return None
    groups = torch.Size((cells.count, cells.length // cells.count))
    return Routes(folding, groups, seen.view(*chosen.shape[:3], many).to(device))


def attend_regions(q: Tensor, k: Tensor, v: Tensor, scale: float, routes: Routes) -> Tensor:
    """Softmax attention of every region to those that it sees, (B, H, L, Dv); k and v have q's heads."""
    if not torch.is_grad_enabled():
        return _attended(q, k, v, scale, routes, keep=False)[0]
    found: Tensor = _Routed.apply(q, k, v, scale, routes)
    return found


@as_given
def _attended(
    q: Tensor, k: Tensor, v: Tensor, scale: float, routes: Routes, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, H, L, Dv) and, to be kept, probabilities (B * H * R, m, c * m), outside of autograd.

    Whole copies of the keys and values would be written to memory and read again once.
    """
    queries, keys, values = (widened(one) for one in cut((q, k, v), routes.folding, routes.groups))
    count, width, many = len(queries), routes.groups[1], routes.seen.shape[3]
    step = max(1, _PIECE // (many * width * max(q.shape[3], v.shape[3], 1)))
    weights = queries.new_empty(count if keep else min(step, count), width, many * width)
    made, rows = queries.new_empty(count, width, v.shape[3]), routes.rows(*q.shape[:2])
    for first in range(0, count, step):
        piece = slice(first, min(first + step, count))
        some, size = rows[piece.start * many : piece.stop * many], piece.stop - piece.start
        pairs = weights[piece] if keep else weights[:size]
        torch.baddbmm(pairs, queries[piece], _seen(keys, some, size).mT, beta=0, alpha=scale, out=pairs)
        torch.softmax(pairs, -1, out=pairs)
        torch.bmm(pairs, _seen(values, some, size), out=made[piece])
    return paste(made.to(q.dtype).unsqueeze(0), routes.folding, routes.groups, q.shape[:3])[0], weights


def _seen(grouped: Tensor, rows: Tensor, count: int) -> Tensor:
    """The regions (B * H * R, m, D) at some rows, as many for each: (B * H * R, c * m, D)."""
    return grouped.flatten(1).index_select(0, rows).view(count, -1, grouped.shape[2])


class _Sums:
    """Adds up what every region gave to those that saw it: sorted once, then gathered."""

    def __init__(self, rows: Tensor, count: int) -> None:
        used = torch.bincount(rows, minlength=count)
        self.start, self.order = used.cumsum(0) - used, rows.argsort(stable=True)

    def __call__(self, shown: Tensor, width: int) -> Tensor:
        """(B * H * R, c * m, D) to (B * H * R, m, D) with ``width`` = m."""
        flat = shown.reshape(-1, width * shown.shape[2])
        total = torch.embedding_bag(flat, self.order, self.start, False, 0, False, None, False)[0]
        return total.view(-1, width, shown.shape[2])


class _Routed(torch.autograd.Function):
    """:func:`attend_regions` with its gradient; differentiated twice, it composes the function anew."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, routes: Routes) -> Tensor:
        out, weights = _attended(q, k, v, scale, routes, keep=True)
        ctx.save_for_backward(q, k, v, weights.to(q.dtype))
        ctx.scale, ctx.routes = scale, routes
        return out

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, weights = ctx.saved_tensors
        folding, groups = ctx.routes.folding, ctx.routes.groups
        if torch.is_grad_enabled():
            return *_again(ctx, (q, k, v), grad), None, None
        queries, keys, values = (widened(one) for one in cut((q, k, v), folding, groups))
        weights, grad = widened(weights), widened(cut((grad,), folding, groups)[0])
        rows = ctx.routes.rows(*q.shape[:2])
        count, sums = len(queries), _Sums(rows, len(queries))
        slopes = torch.bmm(grad, _seen(values, rows, count).mT)
        torch._softmax_backward_data(slopes, weights, -1, weights.dtype, grad_input=slopes)
        slopes.mul_(ctx.scale)
        each = [
            torch.bmm(slopes, _seen(keys, rows, count)),
            sums(torch.bmm(slopes.mT, queries), groups[1]),
            sums(torch.bmm(weights.mT, grad), groups[1]),
        ]
        if joined((q, k, v)) is None:
            found = [paste(one.to(q.dtype).unsqueeze(0), folding, groups, q.shape[:3])[0] for one in each]
        else:
            found = list(paste(torch.stack(each).to(q.dtype), folding, groups, q.shape[:3]))
        return *found, None, None


def _again(ctx: Any, given: tuple[Tensor, Tensor, Tensor], grad: Tensor) -> list[Tensor | None]:
    """Gradients that can be differentiated themselves."""
    folding, groups = ctx.routes.folding, ctx.routes.groups
    q, k, v = (fold(one, folding, groups).flatten(0, 2) for one in given)
    rows = ctx.routes.rows(*given[0].shape[:2])
    keys, values = (_seen(one, rows, len(q)) for one in (k, v))
    made = plain_attention(q, keys, values, None, None, ctx.scale, False)[0]
    out = unfold(made.view(*given[0].shape[:2], *groups, -1), folding)
    wanted = [one for one, need in zip(given, ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(found) if need else None for _, need in zip(given, ctx.needs_input_grad, strict=False)]
