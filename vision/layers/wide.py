"""Convolutions and linear layers whose 16-bit products are made in float32 where a CPU has none of its own.

Without instructions for it torch multiplies bfloat16 number by number, and convolves group by group: five to
ten times as long as float32 takes. Sums are in float32 either way, so that what is made here differs by less
rounding: under autocast neither weights nor, unless they are kept for a gradient, inputs are rounded. What is
kept for gradients is as narrow as torch keeps it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from graphrec.kernels.attention.core import as_given, emulated
from graphrec.kernels.registering import listened_to

from .pointwise import Gradients, How, convolve, gradients

_CAST = (torch.float32, torch.bfloat16, torch.float16)
"""What autocast narrows; it leaves whole numbers and float64 as they are."""


def left_to_torch() -> bool:
    """Whether layers are to be torch's own operators: watched, traced, or differentiated forwards."""
    traced = torch._C._get_tracing_state() is not None  # type: ignore[attr-defined]  # not in torch's stubs
    return listened_to() or traced or forward_ad._current_level >= 0


_MANY = 1 << 20
"""Numbers of a map whose gradient is taken in two halves."""


class Types(NamedTuple):
    """What a layer gives, and what its products are made in."""

    out: torch.dtype
    inside: torch.dtype


def types_of(x: Tensor, weight: Tensor) -> Types | None:
    """Types of a layer's output and products, as torch and autocast have them; None of what does not fit.

    Args:
        x: Input of the layer.
        weight: Its weight.
    """
    cast = torch.is_autocast_enabled(x.device.type) and x.dtype in _CAST
    dtype = torch.get_autocast_dtype(x.device.type) if cast else x.dtype
    if weight.dtype != dtype and not (cast and weight.dtype in _CAST):
        return None
    return Types(dtype, torch.float32 if x.device.type == "cpu" and emulated(dtype) else dtype)


def emulated_type(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The dtype of a product that this processor emulates; None where torch's own way is as good, or watched.

    Args:
        x: Input of a layer.
        weight: Its weight.
    """
    cast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if cast else x.dtype
    if not emulated(dtype) or x.device.type != "cpu" or x.dtype not in _CAST or weight.dtype not in _CAST:
        return None
    return dtype if (cast or weight.dtype == dtype) and not left_to_torch() else None


def wide_linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``x @ weight.T + bias``, made in float32 and rounded to ``dtype``."""
    if not torch.is_grad_enabled():
        return linear_in(Types(dtype, torch.float32), x, weight, bias)
    low = x.to(dtype) if weight.requires_grad else None
    out: Tensor = _Linear.apply(x, low, weight, bias, dtype)
    return out


def wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight``, as torch rounds it, made in float32 where this processor would emulate it."""
    dtype = emulated_type(x, weight)
    return x @ weight if dtype is None else _product(x, weight).to(dtype)


@as_given
def _product(x: Tensor, weight: Tensor) -> Tensor:
    return x.float() @ weight.float()


def wide_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, how: How) -> Tensor:
    """The convolution of ``x`` (B, C, H, W), made in float32 and rounded to ``dtype``."""
    if not torch.is_grad_enabled():
        return conv2d_in(Types(dtype, torch.float32), x, weight, bias, how)
    out: Tensor = _Conv2d.apply(x, x.to(dtype), weight, bias, dtype, how)
    return out


@as_given
def linear_in(types: Types, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``, made and rounded as ``types`` say; not differentiated."""
    made = nn.functional.linear(*(_to(one, types.inside) for one in (x, weight, bias)))
    return made.to(types.out)


@as_given
def conv2d_in(types: Types, x: Tensor, weight: Tensor, bias: Tensor | None, how: How) -> Tensor:
    """The convolution of ``x`` (B, C, H, W), made and rounded as ``types`` say; not differentiated."""
    x, weight, bias = (_to(one, types.inside) for one in (x, weight, bias))
    return convolve(x, weight, bias, how).to(types.out)


def _to(x: Any, dtype: torch.dtype) -> Any:
    return None if x is None else x.to(dtype)


def in_types(found: Gradients, given: torch.dtype, dtype: torch.dtype) -> Gradients:
    """Gradients of an input in ``given``, of weight and bias in ``dtype``, their own types."""
    dx, dweight, dbias = found
    return _to(dx, given), _to(dweight, dtype), _to(dbias, dtype)


class _Linear(torch.autograd.Function):
    """``low`` is the input as it is kept: an argument, so that second derivatives reach the input by it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, low: Tensor | None, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        ctx.dtypes = x.dtype, weight.dtype
        ctx.save_for_backward(low, weight if ctx.needs_input_grad[0] else None)
        return linear_in(Types(dtype, torch.float32), x, weight, bias)

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        low, weight = ctx.saved_tensors
        wanted, grad = ctx.needs_input_grad, grad.float()
        rows = grad.flatten(0, -2)
        dx = (grad @ weight.float()).to(ctx.dtypes[0]) if wanted[0] else None
        dweight = (rows.mT @ low.flatten(0, -2).float()).to(ctx.dtypes[1]) if wanted[2] else None
        return dx, None, dweight, rows.sum(0).to(ctx.dtypes[1]) if wanted[3] else None, None


class _Conv2d(torch.autograd.Function):
    """``low`` as in `_Linear`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        low: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        how: How,
    ) -> Tensor:
        ctx.given, ctx.how = x.dtype, how
        ctx.save_for_backward(low, weight)
        return conv2d_in(Types(dtype, torch.float32), x, weight, bias, how)

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        low, weight = ctx.saved_tensors
        wanted = tuple(ctx.needs_input_grad[i] for i in (0, 2, 3))
        if torch.is_grad_enabled():
            found = gradients(grad.float(), low.float(), weight.float(), ctx.how, wanted)
        else:
            found = _halves(grad, low, weight.float(), ctx.how, wanted, ctx.given)
        dx, *rest = in_types(found, ctx.given, weight.dtype)
        return dx, None, *rest, None, None


def _halves(
    grad: Tensor, x: Tensor, weight: Tensor, how: How, wanted: tuple[bool, ...], dtype: torch.dtype
) -> Gradients:
    """`gradients` of one half of the images after the other, so that less is wide; that of x in ``dtype``."""
    images = len(x) if max(grad.numel(), x.numel()) < _MANY else -(-len(x) // 2)
    if images == len(x):
        return gradients(grad.float(), x.float(), weight, how, wanted)
    dx = torch.empty_like(x, dtype=dtype) if wanted[0] else None
    sums: list[Tensor | None] = [None, None]
    for part in (slice(images), slice(images, None)):
        some, *others = gradients(grad[part].float(), x[part].float(), weight, how, wanted)
        if dx is not None and some is not None:
            dx[part] = some
        del some
        sums = [
            new if total is None or new is None else total.add_(new)
            for total, new in zip(sums, others, strict=True)
        ]
    return dx, sums[0], sums[1]
