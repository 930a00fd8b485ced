"""Tile sizes and launch settings, looked up in a table (:mod:`.table`) instead of tuned while a program runs.

The shipped rows follow from static limits (registers, shared memory of sm_80 to sm_100), not from timings;
``python -m graphrec.kernels.tune`` measures them on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from . import table

Config = TypeVar("Config")
INTERPRETER = "interpreter"


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


def look_up(operator: str, made: type[Config], dim: int, dtype: torch.dtype, interpreted: bool) -> Config:
    """An operator's settings for a head dimension and dtype on the GPU at hand, or in the interpreter.

    Raises:
        ValueError: the table has no row for them, or a row with other settings than ``made`` takes.
    """
    kind = INTERPRETER if interpreted else table.architecture()
    row = table.find(operator, dim, dtype, kind)
    if row is None:
        raise ValueError(f"{table.SHIPPED} has no launch settings for {operator} with {dtype} on {kind}")
    try:
        return made(**row.settings)
    except TypeError as error:
        raise ValueError(f"launch settings of {row.key} do not fit: {error}") from error


def origin(operator: str, dim: int, dtype: torch.dtype, interpreted: bool = False) -> str:
    """Where an operator's settings come from, in words."""
    row = table.find(operator, dim, dtype, INTERPRETER if interpreted else table.architecture())
    if row is None:
        return "nowhere"
    time = "" if row.milliseconds is None else f", {row.milliseconds:.4g} ms"
    return f"{row.source} (row {row.architecture}, dim {row.dim}, {row.dtype}{time})"


def attention_config(dim: int, dtype: torch.dtype, interpreted: bool = False) -> AttentionConfig:
    """Settings for the larger of the two head dimensions.

    float32 products are split in three on tensor cores, which takes registers: its tiles are smaller. The
    interpreter's time goes by the number of tiles, so there they are large.
    """
    return look_up("attention", AttentionConfig, padded(dim), dtype, interpreted)
