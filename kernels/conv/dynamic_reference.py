"""Dynamic convolution as it is defined: all windows side by side, times their filters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .dynamic_places import Axis


def dynamic_conv2d(x: Tensor, weight: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """See :func:`graphrec.kernels.dynamic_conv2d`.

    Args:
        x: (B, G, M, H, W), channels by group.
        weight: (B, G, kh * kw, H', W').
        rows, columns: the axes.

    Returns:
        (B, G, M, H', W').
    """
    padded = F.pad(x, (0, 1, 0, 1))  # what lies beyond a border is index -1, a row and a column of zeros
    windows = padded[..., rows.table(x.device), :][..., columns.table(x.device)]
    filters = weight.unflatten(2, (rows.kernel, columns.kernel))
    return torch.einsum("bgmhiwj,bgijhw->bgmhw", windows, filters)
