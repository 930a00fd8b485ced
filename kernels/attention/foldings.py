"""Groups that a reshape and a transposition cut out of a grid, and back: as such, and by the numbers of rows.

By numbers it takes one pass over whole rows, in less than half the time, and what lies side by side goes
together; compilers and autograd see the reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..patterns.base import Folding
from ..patterns.folds import members, places
from ..remembered import kept
from .heads import joined

_AT_ONCE = 1 << 13
"""Rows that are moved by one call."""


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


def cut_together(parts: Sequence[Tensor], folding: Folding, groups: torch.Size) -> Tensor | None:
    """As :func:`cut`, in memory of its own (P, B * H * N, m, D); None if nothing is moved, or not at once."""
    if _stays(parts, folding, groups) or (whole := joined(parts)) is None:
        return None
    return _cut_whole(whole, folding, groups)


def cut(parts: Sequence[Tensor], folding: Folding, groups: torch.Size) -> Sequence[Tensor]:
    """Each (B, H, L, D) to (B * H * N, m, D), outside of autograd; in one pass if they lie side by side.

    What is one group already is not moved.
    """
    if _stays(parts, folding, groups):
        return [one.reshape(-1, *one.shape[2:]) for one in parts]
    whole = joined(parts)
    if whole is None and len(parts) > 1:
        return [cut((one,), folding, groups)[0] for one in parts]
    if whole is None:
        return (fold(parts[0], folding, groups).flatten(0, 2),)
    return _cut_whole(whole, folding, groups).unbind(0)


def _stays(parts: Sequence[Tensor], folding: Folding, groups: torch.Size) -> bool:
    """Whether all is one group, in the order of the positions."""
    return groups[0] == 1 and in_place(folding) and (len(parts) == 1 or 1 in parts[0].shape[:2])


def _cut_whole(whole: Tensor, folding: Folding, groups: torch.Size) -> Tensor:
    """(B, L, P, H, D) to (P, B * H * N, m, D)."""
    batch, length, count, heads, dim = whole.shape
    there, _, step = _rows(folding, (batch, length, count, heads), whole.device)
    flat, own = whole.view(-1, dim), length * heads
    made = whole.new_empty(count, batch * own, dim)
    for part, into in enumerate(made):
        for first in range(0, batch, step):
            some = into[first * own : (first + step) * own]
            start = first * count * own + part * heads
            torch.index_select(flat[start:], 0, there[: len(some)], out=some)
    return made.view(count, -1, groups[1], dim)


def paste(grouped: Tensor, folding: Folding, groups: torch.Size, size: Sequence[int]) -> tuple[Tensor, ...]:
    """(P, B * H * N, m, D) back to P tensors (B, H, L, D), outside of autograd.

    In memory the parts and heads of a position lie side by side, as projections have them. ``size`` is
    (B, H, L).
    """
    count, dim = grouped.shape[0], grouped.shape[-1]
    batch, heads, length = size
    if heads == 1 and count == 1 and in_place(folding):
        return (grouped.view(batch, heads, length, dim),)
    _, back, step = _rows(folding, (batch, length, count, heads), grouped.device)
    flat, own = grouped.view(-1, dim), length * heads
    made = grouped.new_empty(batch * length * count * heads, dim)
    for first in range(0, batch, step):
        some = made[first * count * own : (first + step) * count * own]
        torch.index_select(flat[first * own :], 0, back[: len(some)], out=some)
    return made.view(batch, length, count, heads, dim).permute(2, 0, 3, 1, 4).unbind(0)


@lru_cache(maxsize=64)
def in_place(folding: Folding) -> bool:
    """Whether the groups follow each other in memory as the positions do."""
    sizes, order, roll = folding
    axes = [axis for axis in order if sizes[axis] > 1]
    return axes == sorted(axes) and not any(roll)


@lru_cache(maxsize=64)
@kept
def _rows(
    folding: Folding, size: tuple[int, int, int, int], device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """Rows for some batch entries at a time, so that they take little memory however large the batch.

    ``size`` is (B, L, P, H). The first index takes rows (B, L, P, H), from an entry and a part on, to (B, H,
    N * m) of that part; the second one rows (P, B, H, N * m), from an entry on, to (B, L, P, H). The last is
    the number of batch entries that both are for. They are int32 where that suffices.
    """
    batch, length, count, heads = size
    own, step = length * heads, min(max(1, batch), max(1, _AT_ONCE // max(length * heads * count, 1)))
    entry, head = torch.arange(step).view(-1, 1, 1), torch.arange(heads)
    there = entry * count * own + members(folding).flatten() * (count * heads) + head.view(-1, 1)
    part = torch.arange(count).view(-1, 1) * batch * own
    back = entry.unsqueeze(-1) * own + part + (places(folding).view(-1, 1, 1) + head * length)
    small = torch.int32 if batch * count * own < 1 << 31 else torch.int64
    return there.flatten().to(device, small), back.flatten().to(device, small), step


def _grid(sizes: tuple[int, ...]) -> list[int]:
    """The grid's axes; each is split in two."""
    return [outer * inner for outer, inner in zip(sizes[::2], sizes[1::2], strict=True)]


def _rolled(x: Tensor, steps: list[int], first: int) -> Tensor:
    """The grid, whose axes start at ``first``, moved around its edges."""
    return x.roll(steps, [first + axis for axis in range(len(steps))])
