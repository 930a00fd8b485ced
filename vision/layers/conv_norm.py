"""A convolution or linear layer with batch norm behind it, which become one layer for deployment."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .normed import Linear
from .wide import Conv2d


class ConvNorm(nn.Sequential):
    """``bn(conv(x))`` without a bias in the convolution, named ``c`` and ``bn`` as LeViT's code has it.

    Args:
        in_chans: Channels of the input.
        out_chans: Channels of the output.
        kernel: Side of the kernel.
        stride: Step.
        padding: Zeros around the input.
        groups: Groups of channels.
        dilation: Spacing of the kernel.
        scale: Initial weight of the norm; 0 for the last layer of a residual branch.
        eps: Of the norm.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        dilation: int = 1,
        *,
        scale: float = 1.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.c = Conv2d(in_chans, out_chans, kernel, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chans, eps=eps)
        nn.init.constant_(self.bn.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the normalised map."""
        out: Tensor = self.bn(self.c(x))
        if out.requires_grad and len(out) == 1 and not torch.compiler.is_compiling():
            out.register_hook(partial(_laid_out, last=not out.is_contiguous()))
        return out

    def fused(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        return fuse_conv_bn_eval(self.c, self.bn)


def _laid_out(grad: Tensor, *, last: bool) -> Tensor:
    """A gradient in the layout of what it is of, with channels last or not.

    On a CPU torch (2.14 for one) takes batch norm's gradient of a single image from the wrong places where
    the two differ, as they do when a map becomes tokens.
    """
    return grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class LinearNorm(nn.Sequential):
    """``l(bn(x))``: batch norm over features (B, C), then a linear layer, named as LeViT's code has it.

    Args:
        in_features: Features of the input.
        out_features: Features of the output.
        bias: Whether the linear layer has one.
        std: Of its initial weights.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(in_features)
        self.l: nn.Linear = Linear(in_features, out_features, bias=bias)
        nn.init.trunc_normal_(self.l.weight, std=std)
        if bias:
            nn.init.zeros_(self.l.bias)

    @torch.no_grad()
    def fused(self) -> nn.Linear:
        """The one linear layer that computes the same in evaluation."""
        norm, last = self.bn, self.l
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale: Tensor = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        one = Linear(last.in_features, last.out_features, device=last.weight.device, dtype=last.weight.dtype)
        one.weight.copy_(last.weight * scale)
        one.bias.copy_(last.weight @ shift + (0 if last.bias is None else last.bias))
        return one
