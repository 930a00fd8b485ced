"""Runs of rows cut out of long tensors: what the containers share."""

from __future__ import annotations

import torch
from torch import Tensor


def ranges(ptr: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the chosen runs, one after another, and the runs' new boundaries.

    Args:
        ptr: Run i is ``ptr[i]`` to ``ptr[i + 1] - 1``; int64 (n + 1,).
        chosen: int64 (b,), in any order, repeated or not.

    Returns:
        int64 (rows,) and (b + 1,).
    """
    start, length = ptr.index_select(0, chosen), ptr.diff().index_select(0, chosen)
    new = torch.nn.functional.pad(length.cumsum(0), (1, 0))
    rows = int(new[-1])
    return torch.repeat_interleave(start - new[:-1], length, output_size=rows) + torch.arange(rows), new
