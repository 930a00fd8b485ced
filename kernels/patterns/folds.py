"""Where the groups of a folding lie, by arithmetic alone: nothing is looked up, sorted or moved."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .base import Folding


def members(folding: Folding) -> Tensor:
    """The positions of each group, int64 (N, m)."""
    sizes, order, roll = folding
    grid = _grid(sizes)
    parts = [
        (torch.arange(size) + step) % size * prod(grid[axis + 1 :])
        for axis, (size, step) in enumerate(zip(grid, roll or (0,) * len(grid), strict=True))
    ]
    axes = [pair for axis in range(len(grid)) for pair in sizes[2 * axis : 2 * axis + 2]]
    found = _sum(parts).view(axes).permute(order)
    return found.reshape(-1, prod(sizes[axis] for axis in order[len(grid) :]))


def places(folding: Folding) -> Tensor:
    """Where each position stands in the flattened groups, int64 (L,)."""
    sizes, order, roll = folding
    grid, steps = _grid(sizes), [0] * len(sizes)
    for number, axis in enumerate(order):
        steps[axis] = prod(sizes[one] for one in order[number + 1 :])
    parts = []
    for axis, (size, step) in enumerate(zip(grid, roll or (0,) * len(grid), strict=True)):
        moved = (torch.arange(size) - step) % size
        width = sizes[2 * axis + 1]
        parts.append(moved // width * steps[2 * axis] + moved % width * steps[2 * axis + 1])
    return _sum(parts).flatten()


def _grid(sizes: tuple[int, ...]) -> list[int]:
    """The grid's axes; each is split in two."""
    return [outer * inner for outer, inner in zip(sizes[::2], sizes[1::2], strict=True)]


def _sum(parts: list[Tensor]) -> Tensor:
    """What every axis adds to the number of a position, over the grid."""
    total = parts[0]
    for one in parts[1:]:
        total = total.unsqueeze(-1) + one
    return total
