"""Tile sizes and launch settings, looked up instead of tuned while a program runs.

Chosen from static limits (registers, shared memory of sm_80 to sm_100); not yet measured on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AttentionConfig:
    """Launch settings of the attention kernels: queries and keys per tile, warps, pipeline stages."""

    bm: int
    bn: int
    warps: int
    stages: int


def padded(dim: int) -> int:
    """The power of two, at least 16, that a head dimension is padded to inside a kernel."""
    return max(16, 1 << (dim - 1).bit_length())


def attention_config(dim: int, dtype: torch.dtype, interpreted: bool = False) -> AttentionConfig:
    """Settings for the larger of the two head dimensions.

    float32 products are split in three on tensor cores, which takes registers: its tiles are smaller. The
    interpreter's time goes by the number of tiles, so there they are large.
    """
    if interpreted:
        return AttentionConfig(64, 64, 4, 1)
    if dtype.itemsize > 2 or dim > 128:
        return AttentionConfig(32, 32, 4 if dim <= 64 else 8, 1)
    return AttentionConfig(64, 32, 4 if dim <= 64 else 8, 2)
