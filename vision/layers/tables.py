"""Learned tables that depend on a size, and how official code fits them to another."""

from __future__ import annotations

from math import isqrt

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import RunError


def relative_bias_table(window: tuple[int, int], heads: int) -> nn.Parameter:
    """A table ((2h - 1) * (2w - 1), heads) as Swin keeps it; transposed, `RelativeBias` takes it."""
    table = nn.Parameter(torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), heads))
    trunc_normal_(table, std=0.02)
    return table


def resize_bias_table(value: Tensor, target: Tensor) -> Tensor:
    """A square relative bias table (n, heads) at the size of another one, bicubic, as Swin's code does it.

    Raises:
        RunError: A table is not square, or has another number of heads.
    """
    if value.dim() != 2 or value.shape[1] != target.shape[1]:
        raise RunError(f"bias table {tuple(value.shape)}: the model has {tuple(target.shape)}")
    old, new = (_side(one.shape[0], "bias table") for one in (value, target))
    grid = value.float().T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic")
    return grid.flatten(2)[0].T.to(value.dtype)


def resize_positions(
    value: Tensor,
    target: Tensor,
    *,
    prefix: int = 0,
    mode: str = "bicubic",
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Position embeddings (1, prefix + n, dim) of a square grid at the size of another grid.

    Args:
        value: What the checkpoint holds.
        target: What the model has.
        prefix: Tokens before the grid, such as a class token, that stay as they are.
        mode: Interpolation of the official code.
        grid: Rows and columns of the model's grid; None is a square.

    Raises:
        RunError: The checkpoint's grid is no square, or the model's without ``grid``, or channels differ.
    """
    if value.dim() != 3 or value.shape[2] != target.shape[2]:
        raise RunError(f"position table {tuple(value.shape)}: the model has {tuple(target.shape)}")
    old = _side(value.shape[1] - prefix, "position table")
    if grid is None:
        new = _side(target.shape[1] - prefix, "position table")
        grid = (new, new)
    table = value[:, prefix:].float().mT.unflatten(2, (old, old))
    table = F.interpolate(table, size=grid, mode=mode, align_corners=False)
    return torch.cat([value[:, :prefix], table.flatten(2).mT.to(value.dtype)], 1)


def _side(count: int, what: str) -> int:
    """Side of a square of so many entries."""
    side = isqrt(count)
    if side * side != count:
        raise RunError(f"{what}: {count} entries are no square, so it cannot be resized")
    return side
