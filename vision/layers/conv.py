"""The convolution of all backbones: torch's, with ways around what a CPU is slow at or keeps twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .batch_normed import conv_of_relu, of_relu
from .pointwise import folds, pointwise
from .wide import emulated_type, left_to_torch, types_of, wide_conv2d

_ONE = (1, 1)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, but for three cases, unless something watches.

    On a CPU 16-bit numbers that the processor would emulate are convolved in float32 (`wide_conv2d`), and a
    kernel of one number over small maps becomes one product for all images (`pointwise`). What `NormReLU` has
    made is not kept, but made again for its gradient (`conv_of_relu`).
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, C, H, W) to (B, out_channels, H', W'); asks as little as possible where torch is to do it."""
        if torch.compiler.is_compiling():
            return super()._conv_forward(x, weight, bias)
        wide = x.dtype.itemsize < 4 or torch.is_autocast_enabled("cpu")
        fold = self.kernel_size == _ONE and not wide
        if not (wide or fold or x.grad_fn is not None) or not self._pads_with_zeros(x):
            return super()._conv_forward(x, weight, bias)
        how = (self.stride, self.padding, self.dilation, self.groups)
        kept = of_relu(x) if x.grad_fn is not None and weight.requires_grad else None
        if kept is not None and (types := types_of(x, weight)) is not None:
            return conv_of_relu(x, weight, bias, how, types, kept)
        if wide and (dtype := emulated_type(x, weight)) is not None:
            return wide_conv2d(x, weight, bias, dtype, how)
        if fold and folds(x, weight, how) and not left_to_torch():
            return pointwise(x, weight, bias)
        return super()._conv_forward(x, weight, bias)

    def _pads_with_zeros(self, x: Tensor) -> bool:
        return x.dim() == 4 and self.padding_mode == "zeros" and not isinstance(self.padding, str)
