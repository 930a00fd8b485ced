"""Dynamic convolution as torch operators, for the torch and the Triton backend alike.

The output is linear in the input and in the filters, so there are three operators, the output and the two
gradients, and each one's gradients are the other two: they can be differentiated any number of times.

A geometry crosses an operator as integers: kernel, stride, dilation and positions before the input, per axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..registering import operator
from .dynamic_places import Axis


def axes(
    geometry: list[int], border: str, inputs: torch.Size | list[int], outputs: torch.Size | list[int]
) -> tuple[Axis, Axis]:
    """The two axes of a geometry for input and output sizes (H, W) and (H', W')."""
    made = [
        Axis(inputs[i], outputs[i], geometry[i], geometry[2 + i], geometry[4 + i], geometry[6 + i], border)
        for i in range(2)
    ]
    return made[0], made[1]


def grouped(x: Tensor, groups: int, interleaved: bool) -> Tensor:
    """Channels by group, (B, G, M, H, W), as a view."""
    if interleaved:
        return x.unflatten(1, (x.shape[1] // groups, groups)).transpose(1, 2)
    return x.unflatten(1, (groups, x.shape[1] // groups))


def _like(x: Tensor, height: int, width: int) -> Tensor:
    """Fresh memory for (B, C, height, width) in the layout of ``x``."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    made = x.new_empty(x.shape[0], x.shape[1], height, width)
    return made.contiguous(memory_format=torch.channels_last) if last else made


def _module(backend: str) -> Any:
    if backend == "triton":
        from . import dynamic_triton

        return dynamic_triton
    from . import dynamic_torch

    return dynamic_torch


@operator("graphrec::dynamic_conv2d")
def convolve(
    x: Tensor, weight: Tensor, geometry: list[int], border: str, interleaved: bool, backend: str
) -> Tensor:
    """The output (B, C, H', W') of x (B, C, H, W) and weight (B, G, kh * kw, H', W') of one dtype."""
    out = _like(x, *weight.shape[3:])
    groups = weight.shape[1]
    if out.numel():
        views = (grouped(one, groups, interleaved) for one in (out, x))
        _module(backend).forward(*views, weight, *axes(geometry, border, x.shape[2:], weight.shape[3:]))
    return out


@convolve.register_fake
def _(x: Tensor, weight: Tensor, geometry: list[int], border: str, interleaved: bool, backend: str) -> Tensor:
    return _like(x, *weight.shape[3:])


@operator("graphrec::dynamic_conv2d_input")
def to_input(
    grad: Tensor,
    weight: Tensor,
    size: list[int],
    geometry: list[int],
    border: str,
    interleaved: bool,
    backend: str,
) -> Tensor:
    """Gradient (B, C, *size) of the input."""
    dx = _like(grad, *size)
    if dx.numel():
        views = (grouped(one, weight.shape[1], interleaved) for one in (dx, grad))
        _module(backend).backward_input(*views, weight, *axes(geometry, border, size, weight.shape[3:]))
    return dx


@to_input.register_fake
def _(
    grad: Tensor,
    weight: Tensor,
    size: list[int],
    geometry: list[int],
    border: str,
    interleaved: bool,
    backend: str,
) -> Tensor:
    return _like(grad, *size)


@operator("graphrec::dynamic_conv2d_weight")
def to_weight(
    grad: Tensor, x: Tensor, groups: int, geometry: list[int], border: str, interleaved: bool, backend: str
) -> Tensor:
    """Gradient (B, groups, kh * kw, H', W') of the filters."""
    kind = torch.promote_types(x.dtype, torch.float32)
    made = x.new_empty(x.shape[0], groups, geometry[0] * geometry[1], *grad.shape[2:], dtype=kind)
    if made.numel():
        views = (grouped(one, groups, interleaved) for one in (grad, x))
        _module(backend).backward_weight(made, *views, *axes(geometry, border, x.shape[2:], grad.shape[2:]))
    return made.to(x.dtype)


@to_weight.register_fake
def _(
    grad: Tensor, x: Tensor, groups: int, geometry: list[int], border: str, interleaved: bool, backend: str
) -> Tensor:
    return x.new_empty(x.shape[0], groups, geometry[0] * geometry[1], *grad.shape[2:])


def _keep(ctx: Any, inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = rest


def _convolve_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _keep(ctx, inputs, inputs[2:])


def _convolve_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    dx = dweight = None
    if ctx.needs_input_grad[0]:
        dx = to_input(grad, weight, list(x.shape[2:]), *ctx.rest)
    if ctx.needs_input_grad[1]:
        dweight = to_weight(grad, x, weight.shape[1], *ctx.rest)
    return dx, dweight, None, None, None, None


convolve.register_autograd(_convolve_backward, setup_context=_convolve_setup)


def _input_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _keep(ctx, inputs, inputs[3:])


def _input_backward(ctx: Any, given: Tensor) -> tuple[Any, ...]:
    grad, weight = ctx.saved_tensors
    dgrad = dweight = None
    if ctx.needs_input_grad[0]:
        dgrad = convolve(given, weight, *ctx.rest)
    if ctx.needs_input_grad[1]:
        dweight = to_weight(grad, given, weight.shape[1], *ctx.rest)
    return dgrad, dweight, None, None, None, None, None


to_input.register_autograd(_input_backward, setup_context=_input_setup)


def _weight_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _keep(ctx, inputs, inputs[3:])


def _weight_backward(ctx: Any, given: Tensor) -> tuple[Any, ...]:
    grad, x = ctx.saved_tensors
    dgrad = dx = None
    if ctx.needs_input_grad[0]:
        dgrad = convolve(x, given, *ctx.rest)
    if ctx.needs_input_grad[1]:
        dx = to_input(grad, given, list(x.shape[2:]), *ctx.rest)
    return dgrad, dx, None, None, None, None, None


to_weight.register_autograd(_weight_backward, setup_context=_weight_setup)
