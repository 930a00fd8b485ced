"""Dropout whose random numbers do not cost more than the layers around it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_STEPS = 1 << 16
_FEW = 4096


def dropout(x: Tensor, share: float, training: bool = True) -> Tensor:
    """Set a share of numbers to 0 and scale the others so that the expectation stays.

    On a CPU torch draws one random number for each element, which takes longer than the linear layer of 64 by
    64 before it. Here one draw of 64 bits decides on four elements, so the share is a multiple of 2^-16; the
    scale is the exact one of that multiple.

    Args:
        x: Any shape, floating point.
        share: 0 to 1.
        training: Otherwise ``x`` is returned as it is.
    """
    if not training or share == 0:
        return x
    dropped = round(share * _STEPS)
    if x.device.type != "cpu" or x.numel() < _FEW or not 0 < dropped < _STEPS:
        return F.dropout(x, share)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform from -2^15 to 2^15 - 1
    mask = (drawn >= dropped - _STEPS // 2).to(x.dtype)
    return x * mask.mul_(_STEPS / (_STEPS - dropped))
