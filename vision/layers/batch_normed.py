"""What stands behind a batch norm: a gate, or ReLU and a convolution, that keep nothing of what it has made.

The norm keeps its input and each channel's mean and inverse deviation, from which its output is one product
and one sum. torch's gate keeps that output as well; its ReLU and convolution keep one tensor together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.kernels.attention.core import as_given

from .normed import PIECE, computed_by, differentiable
from .pointwise import How, gradients
from .wide import Types, conv2d_in, in_types

_NORM = "NativeBatchNormBackward0"
_RELU = "_ReLUOfNormBackward"  # which autograd makes of the class below
Kept = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Input (B, C, H, W), mean, inverse deviation, weight and bias (C,) of a norm."""


def _kept(x: Tensor) -> Kept | None:
    """What the batch norm keeps that has made ``x``; None of another origin, or where x is to be kept."""
    norm = computed_by(x, _NORM)
    if norm is None or x.dim() != 4 or not norm._saved_training:
        return None
    bias = getattr(norm.next_functions[2][0], "variable", None)  # the norm keeps all but this
    narrow = norm._saved_result1.dtype.itemsize < 4  # of which the output cannot be made again
    if bias is None or norm._saved_weight is None or narrow:
        return None
    return norm._saved_input, norm._saved_result1, norm._saved_result2, norm._saved_weight, bias


class NormReLU(nn.ReLU):
    """ReLU in place that does not keep what it makes of a batch norm's output; of any other, torch's.

    Worth it only if what reads it does not keep it either, as `Conv2d`.
    """

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), overwritten."""
        kept = _kept(x)
        if kept is None:
            return super().forward(x)
        out: Tensor = _ReLUOfNorm.apply(x, *kept)
        return out


def of_relu(x: Tensor) -> Kept | None:
    """What the norm before `NormReLU` keeps, from which ``x`` can be made again; None of another origin."""
    relu = computed_by(x, _RELU)
    kept: Kept | None = None if relu is None else relu.saved_tensors
    return kept


def conv_of_relu(
    x: Tensor, weight: Tensor, bias: Tensor | None, how: How, types: Types, kept: Kept
) -> Tensor:
    """A convolution that does not keep its input, but makes it again for the gradient of its weight.

    Args:
        x: (B, C, H, W).
        weight: (D, C // groups, h, w).
        bias: (D,) or None.
        how: Stride, padding, dilation and groups.
        types: Of the output and of products.
        kept: Of x, by `of_relu`.
    """
    out: Tensor = _ConvOfReLU.apply(x, weight, bias, how, types, *kept)
    return out


def gated(x: Tensor, gate: Tensor) -> Tensor:
    """``x * gate``, which does not keep ``x`` for the gradient of the gate if a batch norm has made it.

    Args:
        x: (B, C, H, W).
        gate: (B, C, 1, 1).
    """
    kept = _kept(x)
    if kept is None or x.requires_grad != gate.requires_grad:
        return x * gate
    out: Tensor = _GateOfNorm.apply(x, gate, *kept)
    return out


class _ReLUOfNorm(torch.autograd.Function):
    """``relu(x)`` in place, of what a norm has made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *kept: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(*kept)
        return x.relu_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return grad * (_normalised(*kept) > 0), *(None,) * len(kept)
        dx = torch.empty_like(grad)
        for made, g, into in _pieces(kept, grad, dx):
            torch.ops.aten.threshold_backward.grad_input(g, made.to(g.dtype), 0, grad_input=into)
        return dx, *(None,) * len(kept)


class _ConvOfReLU(torch.autograd.Function):
    """The convolution of ``relu(norm(...))``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: How, types: Types, *kept: Tensor
    ) -> Tensor:
        ctx.how, ctx.types = how, types
        ctx.save_for_backward(weight, *kept)
        return conv2d_in(types, x, weight, bias, how)

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        wanted, inside, given = ctx.needs_input_grad[:3], ctx.types.inside, kept[0].dtype
        nothing = (None,) * (2 + len(kept))
        kernel = weight.to(inside)
        if torch.is_grad_enabled():
            x = _normalised(*kept).to(inside).relu()
            found = gradients(grad.to(inside), x, kernel, ctx.how, wanted)
            return *in_types(found, given, weight.dtype), *nothing
        x = torch.empty_like(kept[0], dtype=inside)
        for made, into in _pieces(kept, x):
            torch.clamp_min(made.to(inside), 0, out=into)
        found = gradients(grad.to(inside), x, kernel, ctx.how, (False, *wanted[1:]))
        _, *others = in_types(found, given, weight.dtype)
        if not wanted[0]:
            return None, *others, *nothing
        if given is inside:
            x = kept[0]  # of which only the shape is asked
        dx = torch.empty_like(kept[0])  # in two parts, as a CPU lays out anew what it needs of each
        images = -(-len(grad) // 2) if grad.device.type == "cpu" else len(grad)
        parts = (one.split(max(images, 1)) for one in (grad, x, dx))
        for some, like, into in zip(*parts, strict=True):
            into.copy_(gradients(some.to(inside), like, kernel, ctx.how, (True, False, False))[0])
        return dx, *others, *nothing


class _GateOfNorm(torch.autograd.Function):
    """``x * gate`` of what a norm has made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, *kept: Tensor) -> Tensor:
        ctx.save_for_backward(gate, *kept)
        return x * gate

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            dgate = (grad * _normalised(*kept)).sum((2, 3), keepdim=True).to(gate.dtype)
        else:
            sums = [made.mul_(g).sum((-2, -1)) for made, g in _pieces(kept, grad)]
            dgate = torch.cat(sums).view(gate.shape).to(gate.dtype)
        return grad * gate, dgate, *(None,) * len(kept)


def _pieces(kept: Kept, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """What a norm has made, in new tensors that fit into a cache, and the same pieces of ``maps``."""
    x, mean, inverse, weight, bias = kept
    factor = inverse * weight
    shift = bias - mean * factor  # as torch computes it
    parts: list[Any] = [[one] for one in (x, *maps)]
    scales: list[Any] = [[one[:, None, None]] for one in (factor, shift)]
    if x.device.type == "cpu" and all(one.is_contiguous() for one in (x, *maps)):
        rows = max(PIECE // x[0, 0].numel(), 1)
        parts = [one.flatten(0, 1).split(rows) for one in (x, *maps)]
        scales = [one.repeat(len(x))[:, None, None].split(rows) for one in (factor, shift)]
    for times, plus, part, *rest in zip(*scales, *parts, strict=True):
        yield torch.mul(part, times).add_(plus), *rest


def _normalised(x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What the norm has made, to be differentiated once more."""
    each = (one[:, None, None] for one in (inverse, weight, bias))
    return differentiable(x.to(inverse.dtype), (0, 2, 3), *each)
