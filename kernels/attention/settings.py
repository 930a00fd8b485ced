"""Launch settings of the kernels over key lists and over small groups, from static limits; not measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..configs import padded, tabled


@dataclass(frozen=True)
class ListConfig:
    """Queries per program, listed keys (or uses of a key) per step, warps."""

    bq: int
    bs: int
    warps: int


@tabled("gather_attention", by="dim")
def list_config(dim: int, interpreted: bool = False) -> ListConfig:
    """Settings for the larger head dimension: some 4,096 gathered numbers a step.

    Every query has keys of its own, so nothing is shared between queries and a program holds few.
    """
    if interpreted:
        return ListConfig(16, 16, 1)
    return ListConfig(1, max(16, min(64, 4096 // padded(dim))), 2 if padded(dim) <= 64 else 4)


@dataclass(frozen=True)
class GroupConfig:
    """Positions per tile, tiles that one program works through, warps."""

    size: int
    tiles: int
    warps: int


def group_config(width: int, dim: int, dtype: torch.dtype, interpreted: bool = False) -> GroupConfig | None:
    """Settings for groups of ``width`` positions, or None where a program could not hold one.

    The backward holds three tiles of sums and two of logits at once. float32 products are split in three,
    which takes registers: 64 positions of float32 would spill.
    """
    size, wide = (32 if width <= 32 else 64), dtype.itemsize > 2
    if interpreted:
        return GroupConfig(64, 4, 4) if width <= 64 else None
    if width > (32 if wide else 64) or padded(dim) > (64 if wide else 128):
        return None
    return GroupConfig(size, 4, 8 if padded(dim) > 64 or wide else 4)
