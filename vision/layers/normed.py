"""A linear layer behind a layer norm: one tensor is kept for the gradient where torch keeps two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphrec.kernels.attention.core import as_given

from .wide import Types, emulated_type, left_to_torch, linear_in, types_of, wide_linear

_NORM = "NativeLayerNormBackward0"
PIECE = 1 << 16
"""Numbers at a time: a quarter of a megabyte in float32."""


def computed_by(x: Tensor, name: str) -> Any:
    """The node of autograd called ``name`` that has made ``x``, if x may be computed again instead of kept.

    None of another origin, and where something watches the operations or what they keep (such as a
    checkpoint, which would run its part of the network to answer).
    """
    if (
        torch.compiler.is_compiling()  # which knows nothing of where x comes from
        or x.grad_fn is None
        or x.grad_fn.name() != name  # as of most: the rest is not asked
        or not torch.is_grad_enabled()
        or x.is_meta  # of which autocast knows nothing
        or left_to_torch()
        or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    ):
        return None
    return x.grad_fn


class Linear(nn.Linear):
    """A linear layer that does not keep the output of a layer norm, but computes it again for its gradient.

    The norm keeps its input and, per row, the mean and the inverse of the deviation; torch's linear layer
    keeps what the norm makes of them as well. Autograd says where an argument comes from (`computed_by`). Of
    any other origin this is `torch.nn.Linear`; of 16-bit numbers on a CPU that would emulate them,
    `wide_linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        kept = self._kept(x)
        if kept and (types := types_of(x, self.weight)) is not None:
            out: Tensor = _LinearOfNorm.apply(x, self.weight, self.bias, types, *kept)
            return out
        if x.dim() > 1 and (low := emulated_type(x, self.weight)) is not None:
            return wide_linear(x, self.weight, self.bias, low)
        return super().forward(x)

    def _kept(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the layer norm keeps that has made ``x``; nothing of another origin."""
        norm = computed_by(x, _NORM)  # its attributes are documented, if not typed
        if norm is None or not self.weight.requires_grad or x.dim() < 2:
            return ()
        mean, scale = norm._saved_result1, (norm._saved_weight, norm._saved_bias)
        narrow = mean.dtype.itemsize < 4  # of which the output cannot be made again
        if narrow or any(one is None for one in scale) or len(norm._saved_normalized_shape) > 1:
            return ()
        return norm._saved_input, mean, norm._saved_result2, *scale


class _LinearOfNorm(torch.autograd.Function):
    """``normed @ weight.T + bias`` that keeps what the norm keeps."""

    @staticmethod
    def forward(
        ctx: Any, normed: Tensor, weight: Tensor, bias: Tensor | None, types: Types, *kept: Tensor
    ) -> Tensor:
        ctx.given, ctx.types = normed.dtype, types
        ctx.save_for_backward(weight, *kept)
        return linear_in(types, normed, weight, bias)

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        wanted, inside, dtype = ctx.needs_input_grad, ctx.types.inside, weight.dtype
        grad = grad.to(inside)
        rows = grad.flatten(0, -2)
        dx = (grad @ weight.to(inside)).to(ctx.given) if wanted[0] else None
        dweight = dbias = None
        if wanted[1]:
            x, mean, inverse = (one.flatten(0, -2) for one in kept[:3])
            normed = _normalised(x, mean, inverse, kept[3], kept[4], inside)
            dweight = (rows.mT @ normed).to(dtype)
        if wanted[2]:
            dbias = rows.sum(0).to(dtype)
        return dx, dweight, dbias, None, *(None,) * len(kept)


def _normalised(
    x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype
) -> Tensor:
    """What the norm has made of its input (N, C) with a mean and an inverse deviation (N, 1)."""
    if torch.is_grad_enabled():
        return differentiable(x.to(mean.dtype), (-1,), inverse, weight, bias).to(dtype)
    out = torch.empty_like(x, dtype=dtype)
    rows = max(PIECE // x.shape[-1], 1) if x.device.type == "cpu" else max(len(out), 1)
    pieces = zip(*(one.split(rows) for one in (out, x, mean, inverse)), strict=True)
    for into, row, centre, scale in pieces:  # four passes, all but the first in the cache
        made = torch.sub(row, centre, out=into if into.dtype is centre.dtype else None)
        made.mul_(scale).mul_(weight).add_(bias)
        if made is not into:
            into.copy_(made)
    return out


def differentiable(x: Tensor, axes: tuple[int, ...], inverse: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What a norm has made of its input ``x`` over ``axes``, as a function of x, for second derivatives.

    Args:
        x: Input of the norm.
        axes: Over which it takes mean and deviation.
        inverse: Of the deviation, which alone tells the norm's epsilon.
        weight: Factor.
        bias: Summand.
    """
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    inverse = (variance + (inverse.pow(-2) - variance).detach()).rsqrt()
    return (x - mean) * inverse * weight + bias
