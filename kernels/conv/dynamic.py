"""Convolutions whose filters are made from the data: one small filter per output position and group."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..backends import choose, triton_refusal
from . import dynamic_reference, dynamic_registered
from .dynamic_registered import axes, grouped

Pair = int | tuple[int, int]
Border = Literal["zero", "shift"]


def dynamic_conv2d(
    x: Tensor,
    weight: Tensor,
    *,
    kernel_size: Pair,
    stride: Pair = 1,
    dilation: Pair = 1,
    padding: Pair | Literal["same"] = "same",
    border: Border = "zero",
    interleaved: bool = False,
    backend: str | None = None,
) -> Tensor:
    """A convolution with its own filter at every output position, shared by the channels of a group.

    ``out[b, c, i, j] = sum_(u, v) weight[b, g(c), u * kw + v, i, j] * x[b, c, rows(i, u), columns(j, v)]``,
    which is Involution (arXiv:2103.06255, d-li14/involution) and the dynamic filters of DLGSANet
    (arXiv:2301.02031, NeonLeexiang/DLGSANet), with ``interleaved`` the SKA of LSNet (arXiv:2503.23135,
    jameslahm/lsnet), where channel ``c`` takes group ``c % G``, and with ``border="shift"`` the ContMix of
    OverLoCK (arXiv:2502.20087, LMMMEng/OverLoCK), whose filters are softmaxed and whose windows move inwards
    at the border. For VOLO see :func:`outlook`.

    Gradients reach ``x`` and ``weight``, any number of times. Working memory does not grow with the kernel.

    Args:
        x: (B, C, H, W), contiguous, channels last, or any strides.
        weight: (B, G, kh * kw, H', W') with any strides; G divides C.
        kernel_size: kh and kw.
        stride: input positions from one output to the next.
        dilation: input positions from one tap to the next.
        padding: zeros before and after each axis, ``H' = (H + 2 p - d (kh - 1) - 1) // s + 1``; or "same":
            ``H' = ceil(H / s)``, an even kernel with the odd zero at the end.
        border: "zero" reads zeros beyond the input. "shift" has no padding: a window that would pass the
            border moves inwards until it fits, among the positions that share its remainder by the dilation
            (NATTEN's neighborhood); the stride must be 1.
        interleaved: channel ``c`` belongs to group ``c % G`` instead of ``c // (C / G)``.
        backend: "reference", "torch", "triton", or None to choose.

    Returns:
        (B, C, H', W') in the layout of ``x``, in the wider of the two dtypes.

    Raises:
        ValueError: sizes that do not fit each other, a kernel that is longer than its axis where windows
            shift, or a backend that cannot run.
    """
    _check_tensors(x, weight)
    kernel, steps, gaps = (
        as_pair(one, name, 1)
        for one, name in ((kernel_size, "kernel_size"), (stride, "stride"), (dilation, "dilation"))
    )
    if border not in ("zero", "shift"):
        raise ValueError(f"border={border!r} must be 'zero' or 'shift'")
    if border == "shift":
        _check_shift(x, kernel, steps, gaps, padding)
    before, size = sizes(x, kernel, steps, gaps, padding)
    _check_weight(x, weight, kernel, size)
    geometry = [*kernel, *steps, *gaps, *before]
    refused = triton_refusal(x, weight)
    name = choose("dynamic_conv2d", backend, {"reference": None, "torch": None, "triton": refused}).backend
    kind = torch.promote_types(x.dtype, weight.dtype)
    x, weight = x.to(kind), weight.to(kind)
    if name == "reference":
        views = grouped(x, weight.shape[1], interleaved), weight
        out = dynamic_reference.dynamic_conv2d(*views, *axes(geometry, border, x.shape[2:], weight.shape[3:]))
        return (out.transpose(1, 2) if interleaved else out).flatten(1, 2)
    found: Tensor = dynamic_registered.convolve(x, weight, geometry, border, interleaved, name)
    return found


def as_pair(value: Pair, name: str, least: int) -> tuple[int, int]:
    """One number or two as two, each at least ``least``; ValueError otherwise."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or any(one < least for one in both):
        raise ValueError(f"{name}={value!r} must be one or two integers, at least {least}")
    return both


def _check_tensors(x: Tensor, weight: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be floating point (B, C, H, W), got {x.dtype} of shape {tuple(x.shape)}")
    if weight.dim() != 5 or not weight.is_floating_point():
        raise ValueError(
            "weight must be floating point (B, G, kh * kw, H', W'), got"
            f" {weight.dtype} of shape {tuple(weight.shape)}"
        )
    if weight.device != x.device:
        raise ValueError(f"weight is on {weight.device}, x on {x.device}: they must agree")
    if weight.shape[1] < 1 or x.shape[1] % weight.shape[1]:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} has {weight.shape[1]} groups, which must divide the"
            f" {x.shape[1]} channels of x"
        )


def _check_shift(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], padding: object
) -> None:
    if stride != (1, 1) or padding != "same":
        raise ValueError(
            f"border='shift' goes with stride 1 and padding 'same', got {stride} and {padding!r}"
        )
    for axis in range(2):
        if kernel[axis] * dilation[axis] > x.shape[2 + axis]:
            raise ValueError(
                f"kernel_size {kernel} with dilation {dilation} does not fit x of shape {tuple(x.shape)}:"
                " windows that shift must be no longer than the axis"
            )


def sizes(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Pair | str,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Positions before the input, and the size of the output, per axis."""
    spans = [dilation[axis] * (kernel[axis] - 1) for axis in range(2)]
    if padding == "same":
        out = [-(-x.shape[2 + axis] // stride[axis]) for axis in range(2)]
        return (spans[0] // 2, spans[1] // 2), (out[0], out[1])
    if isinstance(padding, str):
        raise ValueError(f"padding={padding!r} must be 'same' or one or two integers")
    before = as_pair(padding, "padding", 0)
    out = [(x.shape[2 + i] + 2 * before[i] - spans[i] - 1) // stride[i] + 1 for i in range(2)]
    if min(out) < 1:
        raise ValueError(f"kernel_size {kernel} leaves no output for x of shape {tuple(x.shape)}")
    return before, (out[0], out[1])


def _check_weight(x: Tensor, weight: Tensor, kernel: tuple[int, int], size: tuple[int, int]) -> None:
    want = (x.shape[0], weight.shape[1], kernel[0] * kernel[1], *size)
    if tuple(weight.shape) != want:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} must be {want} for x of shape {tuple(x.shape)}"
            f" and kernel_size {kernel}"
        )
