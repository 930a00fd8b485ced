"""Means over regions of a grid and over runs of positions, which the policies compare queries with."""

from __future__ import annotations

import torch
from torch import Tensor


def expand_heads(k: Tensor, heads: int) -> Tensor:
    """(B, Hkv, L, D) to (B, H, L, D): neighbouring query heads share a key head.

    Raises:
        ValueError: ``heads`` is no multiple of Hkv.
    """
    if k.shape[1] == heads:
        return k
    if k.shape[1] < 1 or heads % k.shape[1]:
        raise ValueError(f"k of shape {tuple(k.shape)} must have a divisor of q's {heads} heads")
    return k.repeat_interleave(heads // k.shape[1], 1)


def check_pair(q: Tensor, k: Tensor) -> None:
    """Raise ValueError unless q (B, H, Lq, D) and k (B, Hkv, Lk, D) belong together."""
    fits = q.dim() == k.dim() == 4 and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]
    if not fits:
        raise ValueError(
            f"k of shape {tuple(k.shape)} must be (batch, heads, length, dim) "
            f"like q of shape {tuple(q.shape)}"
        )


def region_means(x: Tensor, region_of: Tensor, count: int) -> Tensor:
    """Means of the positions of each region.

    Args:
        x: (B, H, L, D).
        region_of: number of each position's region, int64 (L,).
        count: regions in all, none of them empty.

    Returns:
        (B, H, count, D), in float32 or float64.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    total = x.new_zeros(*x.shape[:2], count, x.shape[3]).index_add_(2, region_of.to(x.device), x)
    return total / torch.bincount(region_of, minlength=count).to(x).unsqueeze(-1)


def run_means(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means of runs of ``size`` positions, the last of which may be shorter.

    Args:
        x: (B, H, L, D).
        size: positions per run.

    Returns:
        (B, H, ceil(L / size), D) in x's dtype, and the positions of each run, int64 (ceil(L / size),).
    """
    short = -x.shape[2] % size
    runs = torch.nn.functional.pad(x, (0, 0, 0, short)).unflatten(2, (-1, size))
    sizes = torch.full((runs.shape[2],), size, device=x.device)
    if short:
        sizes[-1] -= short
    return (runs.sum(3) / sizes.to(x.dtype).unsqueeze(-1)), sizes
