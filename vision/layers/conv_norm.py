"""Convolutions and linear layers with batch norm beside them, which become one layer for deployment."""

from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise
from typing import Any, Self, TypeVar

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules import module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .conv import Conv2d
from .normed import Linear
from .pointwise import convolve
from .wide import left_to_torch

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


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
        conv, norm = self._modules["c"], self._modules["bn"]
        if not (self.training or torch.is_grad_enabled()) and _plain(x, conv, norm):
            return _evaluated(x, conv, norm)
        out: Tensor = self.bn(self.c(x))
        if out.requires_grad and len(out) == 1 and not torch.compiler.is_compiling():
            out.register_hook(partial(_laid_out, last=not out.is_contiguous()))
        return out

    def fused(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        return fuse_conv_bn_eval(self.c, self.bn)


def _plain(x: Tensor, conv: Any, norm: Any) -> bool:
    """Whether both are as `ConvNorm` made them, and nothing observes or replaces what they do to ``x``."""
    return (
        type(x) is Tensor
        and x.dim() == 4
        and x.dtype.itemsize >= 4
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and type(conv) is Conv2d
        and type(norm) is nn.BatchNorm2d
        and conv.padding_mode == "zeros"
        and not (norm.training or _watched(conv) or _watched(norm))
        and not (module._global_forward_hooks or module._global_forward_pre_hooks or left_to_torch())
    )


def _watched(one: nn.Module) -> bool:
    """Whether hooks or a method of its own hang on a module."""
    return bool(one._forward_hooks or one._forward_pre_hooks or "forward" in one.__dict__)


def _evaluated(x: Tensor, conv: Any, norm: Any) -> Tensor:
    """``norm(conv(x))`` without torch's ways of calling modules, which take longer than small arithmetic."""
    how = (conv.stride, conv.padding, conv.dilation, conv.groups)
    made = convolve(x, conv._parameters["weight"], conv._parameters["bias"], how)
    weights, state = norm._parameters, norm._buffers
    mean, variance = state["running_mean"], state["running_var"]
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(
        made, weights["weight"], weights["bias"], mean, variance, mean is None, 0.0, norm.eps, cudnn
    )


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

    def fused(self) -> nn.Linear:
        """The one linear layer that computes the same in evaluation."""
        return fold_forward(self.bn, self.l)


class FoldingSequence(nn.Sequential):
    """Layers one after the other, of which batch norms fold into the convolutions beside them.

    Keys and arithmetic are those of `torch.nn.Sequential`, whose norms stay for deployment.
    """

    def fused(self) -> Self:
        """The sequence with identities in place of the norms that folded."""
        fold_norms(self, *self._modules)
        return self


def fold_norms(module: nn.Module, *names: str) -> None:
    """Fold batch norms among children that run one after the other into the convolutions beside them.

    A norm behind a convolution always folds; one in front of it only where the convolution pads with no
    zeros, which would have to be what the norm makes zero. A norm that folds leaves its activation behind,
    or an identity.

    Args:
        module: Changed in place, for the ``fused()`` of a layer that `fuse` has copied.
        names: Of the children, in the order in which they run, with nothing between them.
    """
    for first, second in pairwise(names):
        conv, norm = getattr(module, first), getattr(module, second)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, first, fuse_conv_bn_eval(conv, norm))
            setattr(module, second, _activation(norm))
    for first, second in pairwise(names):
        norm, conv = getattr(module, first), getattr(module, second)
        if _is_bare(norm) and isinstance(conv, nn.Conv2d) and not _pads(conv):
            setattr(module, first, nn.Identity())
            setattr(module, second, fold_forward(norm, conv))


def _activation(norm: nn.BatchNorm2d) -> nn.Module:
    """What a norm of timm's does after it has normalised."""
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _is_bare(module: nn.Module) -> bool:
    """Whether this is a batch norm alone, without an activation."""
    return isinstance(module, nn.BatchNorm2d) and isinstance(_activation(module), nn.Identity)


def _pads(conv: nn.Conv2d) -> bool:
    """Whether a convolution may see zeros around its input; one of a class of its own may add them itself."""
    ours = type(conv) in (nn.Conv2d, Conv2d) or conv.kernel_size == (1, 1)
    return not ours or conv.padding != (0, 0)


@torch.no_grad()
def fold_forward(norm: _BatchNorm, layer: _Layer) -> _Layer:
    """The one layer that computes ``layer(norm(x))`` in evaluation.

    Args:
        norm: With weights and running statistics.
        layer: A linear layer, or a convolution that pads with nothing.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    taps = layer.weight.reshape(groups, len(layer.weight) // groups, len(scale) // groups, -1)
    scale, shift = (one.view(groups, 1, -1, 1) for one in (scale, shift))
    bias = (taps * shift).sum((2, 3)).flatten()
    one = copy.deepcopy(layer)
    one.weight.copy_((taps * scale).view_as(layer.weight))
    one.bias = nn.Parameter(bias if layer.bias is None else bias + layer.bias, layer.weight.requires_grad)
    return one
