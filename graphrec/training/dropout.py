"""Dropout whose random numbers do not cost more than the layers around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS = 1 << 16
_FEW = 4096


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, floating point."""
        return dropout(x, self.p, self.training)


def dropout(x: Tensor, share: float, training: bool = True) -> Tensor:
    """Set a share of numbers to 0 and scale the others so that the expectation stays.

    On a CPU torch draws one random number for each element, which takes longer than the linear layer of 64 by
    64 before it. Here one draw of 64 bits decides on four elements, so the share is a multiple of 2^-16; the
    scale is the exact one of that multiple. Compilers are given torch's own, which they fuse.

    Args:
        x: Any shape, floating point.
        share: 0 to 1.
        training: Otherwise ``x`` is returned as it is.
    """
    if not training or share == 0:
        return x
    if x.device.type != "cpu" or x.numel() < _FEW or not 0 < share < 1 or torch.compiler.is_compiling():
        return F.dropout(x, share)
    kept, scale = draw(x.shape, share)
    return x * kept.to(x.dtype).mul_(scale)


def draw(shape: torch.Size, share: float) -> tuple[Tensor, float]:
    """Which elements stay, bool of a shape, on a CPU; and what these are multiplied by.

    Args:
        shape: Of what is dropped from.
        share: Dropped, 0 to 1.
    """
    dropped, count = round(share * _STEPS), shape.numel()
    if dropped == _STEPS:
        return torch.zeros(shape, dtype=torch.bool), 0.0
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[:count].view(shape)  # uniform from -2^15 to 2^15 - 1
    return drawn >= dropped - _STEPS // 2, _STEPS / (_STEPS - dropped)
