"""Windows that are cut out of a grid by a reshape: their groups without an index, and attention in them.

In training on a CPU torch's own operations, differentiated by torch, are the fastest way for a few thousand
small groups: a custom backward saves memory traffic but pays more for its calls from Python.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..patterns.base import Folding


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
    queries, keys, values = [fold(one, folding, groups).flatten(0, 2) for one in (q, k, v)]
    logits = torch.bmm(queries * scale, keys.mT)
    if term is not None:
        logits = (logits.view(*q.shape[:2], *groups, groups[1]) + term).view(logits.shape)
    return unfold(torch.bmm(logits.softmax(-1), values).view(*q.shape[:2], *groups, -1), folding)


def _grid(sizes: tuple[int, ...]) -> list[int]:
    """The grid's axes; each is split in two."""
    return [outer * inner for outer, inner in zip(sizes[::2], sizes[1::2], strict=True)]


def _rolled(x: Tensor, steps: list[int], first: int) -> Tensor:
    """The grid, whose axes start at ``first``, moved around its edges."""
    return x.roll(steps, [first + axis for axis in range(len(steps))])
