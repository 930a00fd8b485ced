"""Launch settings of the linear attention kernels, from static limits; not yet measured on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..configs import padded, tabled

NONE, SCALAR, VECTOR = 0, 1, 2
"""Kinds of decay, as the kernels know them."""


@dataclass(frozen=True)
class LinearConfig:
    """Positions of a chunk, dimensions of tiles of keys and of values, warps (of ``backward_qk``), stages."""

    chunk: int
    bk: int
    bv: int
    warps: int
    back_warps: int
    stages: int


@tabled(
    "linear_attention",
    "gated_linear_attention",
    "gated_linear_attention by dimension",
    by="dim",
    which="decay",
)
def linear_config(
    dim: int, v_dim: int, dtype: torch.dtype, decay: int, interpreted: bool = False
) -> LinearConfig:
    """Settings for a kind of decay.

    float32 products are split in three on tensor cores and a decay per dimension goes through log2(chunk)
    levels; both take registers, so their tiles are smaller.
    """
    small = not interpreted and (dtype.itemsize > 2 or decay == VECTOR)
    chunk, most = (32, 32) if small else (64, 64)
    return LinearConfig(chunk, min(padded(dim), most), min(padded(v_dim), most), 4, 8, 1 if small else 2)
