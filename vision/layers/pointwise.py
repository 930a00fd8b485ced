"""Convolutions of which those with kernels of one number, over small maps, are one product for all images.

torch makes a product per image. That of a map of 7x7 has 49 columns, too few to be fast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

How = tuple[Any, Any, Any, int]
"""Stride, padding, dilation and groups."""
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of input, weight and bias."""
_POINTWISE: How = ((1, 1), (0, 0), (1, 1), 1)
_PIXELS = 64
"""Of the largest map that is folded; copying larger ones costs what the product saves."""
_IMAGES = 4
"""Of the smallest batch that is folded; what fewer save, the copies cost."""
_COLUMNS = 1024
"""Of the widest product; torch's own are as fast for batches beyond it."""


def folds(x: Tensor, weight: Tensor, how: How) -> bool:
    """Whether a convolution of ``x`` (B, C, H, W) is faster as one product for all images.

    Args:
        x: Input.
        weight: (D, C, h, w).
        how: Stride, padding, dilation and groups.
    """
    images, channels, height, width = x.shape
    if images == 1:  # of which nothing is copied; torch is slower with several threads only
        faster = torch.get_num_threads() > 1
    else:
        pixels = height * width
        faster = images >= _IMAGES and pixels <= _PIXELS and images * pixels <= _COLUMNS
    return (
        faster
        and how == _POINTWISE
        and weight.shape[1:] == (channels, 1, 1)  # torch says what does not fit
        and x.device.type == "cpu"
        and x.is_contiguous()
        and x.dtype == weight.dtype
        and x.dtype.itemsize >= 4
        and x.numel() > 0
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, how: How) -> Tensor:
    """A convolution that is not differentiated; :func:`gradients` has its gradient."""
    if not folds(x, weight, how):
        return nn.functional.conv2d(x, weight, bias, *how)
    matrix, columns = weight.flatten(1), _folded(x)
    out = matrix @ columns if bias is None else torch.addmm(bias[:, None], matrix, columns)
    return _unfolded(out, x)


def gradients(grad: Tensor, x: Tensor, weight: Tensor, how: How, wanted: tuple[bool, ...]) -> Gradients:
    """Gradients of input, weight and bias of a convolution, each if ``wanted``; differentiable.

    Args:
        grad: (B, D, H', W'), of the output.
        x: (B, C, H, W), the input.
        weight: (D, C, h, w).
        how: Stride, padding, dilation and groups.
        wanted: Of which gradients are asked for.
    """
    if torch.is_grad_enabled() or not folds(x, weight, how):
        stride, padding, dilation, groups = how
        found: Gradients = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups, wanted
        )
        return found
    columns = _folded(grad)
    dweight = (columns @ _folded(x).mT).view_as(weight) if wanted[1] else None
    dx = _unfolded(weight.flatten(1).mT @ columns, x) if wanted[0] else None
    return dx, dweight, columns.sum(1) if wanted[2] else None


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution that :func:`folds`; it keeps for its gradient what torch's keeps.

    Args:
        x: (B, C, H, W).
        weight: (D, C, 1, 1).
        bias: (D,) or None.

    Returns:
        (B, D, H, W), contiguous.
    """
    if not torch.is_grad_enabled():
        return convolve(x, weight, bias, _POINTWISE)
    out: Tensor = _Pointwise.apply(x, weight, bias)
    return out


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, weight, bias, _POINTWISE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        return gradients(grad, x, weight, _POINTWISE, ctx.needs_input_grad)


def _folded(x: Tensor) -> Tensor:
    """(B, C, H, W) to (C, B * H * W)."""
    return x.transpose(0, 1).flatten(1)


def _unfolded(columns: Tensor, like: Tensor) -> Tensor:
    """(D, B * H * W) to (B, D, H, W), with the sizes of ``like`` (B, C, H, W)."""
    images, _, height, width = like.shape
    if images == 1:
        return columns.view(1, -1, height, width)
    return columns.view(-1, images, height, width).transpose(0, 1).contiguous()
