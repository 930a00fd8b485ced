"""Outlook attention: windows whose values are mixed by their own matrix."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import choose, triton_refusal
from .dynamic import Pair, as_pair, dynamic_conv2d, sizes
from .volo_filters import gather_filters


def outlook(
    value: Tensor,
    weight: Tensor,
    *,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Pair = 1,
    backend: str | None = None,
) -> Tensor:
    """VOLO's outlook attention (arXiv:2106.13112, sail-sg/volo) from its weights.

    Every window's values are mixed by a ``k^2 x k^2`` matrix and added back to where they came from:
    ``fold(weight @ unfold(value))``. Instead of unfolding the values, the weights of the windows that share
    an output position are added up to one filter of ``(2 kh - 1) x (2 kw - 1)``, since every window takes its
    tap ``j`` to its tap ``i`` over the distance ``j - i`` alone. That is 25 instead of 81 multiplications per
    value for a kernel of 3, and :func:`dynamic_conv2d` does the rest. With a stride there are fewer windows
    to unfold, and the torch backend unfolds them once that is less work.

    Args:
        value: (B, C, H, W).
        weight: (B, G, kh * kw, kh * kw, h, w): per window the taps written, then the taps read. The official
            code's weights (B, G, h * w, k^2, k^2) are ``permute(0, 1, 3, 4, 2).unflatten(-1, (h, w))``.
        kernel_size: kh and kw.
        stride: input positions from one window to the next.
        padding: zeros around ``value``; ``h = (H + 2 p - kh) // s + 1``.
        backend: as of :func:`dynamic_conv2d`.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: sizes that do not fit each other, or a backend that cannot run.
    """
    kernel, steps = as_pair(kernel_size, "kernel_size", 1), as_pair(stride, "stride", 1)
    if value.dim() != 4 or weight.dim() != 6:
        found = f"{tuple(value.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"value must be (B, C, H, W) and weight (B, G, k^2, k^2, h, w), got {found}")
    before, windows = sizes(value, kernel, steps, (1, 1), padding)
    taps = kernel[0] * kernel[1]
    want = (value.shape[0], weight.shape[1], taps, taps, *windows)
    if tuple(weight.shape) != want:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} must be {want} for value of shape {tuple(value.shape)}"
        )
    if weight.shape[1] < 1 or value.shape[1] % weight.shape[1]:
        raise ValueError(
            f"weight has {weight.shape[1]} groups, which must divide the {value.shape[1]} channels of value"
        )
    if not value.is_floating_point() or not weight.is_floating_point() or value.device != weight.device:
        found = f"{value.dtype} on {value.device} and {weight.dtype} on {weight.device}"
        raise ValueError(f"value and weight must be floating point on one device, got {found}")
    refused = triton_refusal(value, weight)
    name = choose("outlook", backend, {"reference": None, "torch": None, "triton": refused}).backend
    if name == "reference":
        return _reference(value, weight, kernel, steps, before)
    kind = torch.promote_types(value.dtype, weight.dtype)
    value, weight = value.to(kind), weight.to(kind)
    wide = (2 * kernel[0] - 1, 2 * kernel[1] - 1)
    if name == "torch" and taps**2 < 2 * prod(wide) * prod(steps):
        return _unfolded(value, weight, kernel, steps, before)
    filters = gather_filters(weight, list(value.shape[2:]), [*kernel, *steps, 1, 1, *before])
    return dynamic_conv2d(value, filters, kernel_size=wide, backend=name)


def _unfolded(
    value: Tensor, weight: Tensor, kernel: tuple[int, int], stride: tuple[int, int], before: tuple[int, int]
) -> Tensor:
    """One product of matrices per window and group."""
    batch, groups, taps, _, high, wide = weight.shape
    windows = F.unfold(value, kernel, padding=before, stride=stride)
    windows = windows.view(batch, groups, value.shape[1] // groups, taps, high * wide)
    first = weight.stride(5) > weight.stride(1)  # windows before groups, as a layer leaves them: no copy then
    order = (0, 4, 1) if first else (0, 1, 4)
    mixed = weight.flatten(4).permute(*order, 2, 3) @ windows.permute(*order, 3, 2)
    back = (0, 2, 4, 3, 1) if first else (0, 1, 4, 3, 2)
    joined = mixed.permute(back).reshape(batch, value.shape[1] * taps, high * wide)
    return F.fold(joined, value.shape[2:], kernel, padding=before, stride=stride)


def _reference(
    value: Tensor, weight: Tensor, kernel: tuple[int, int], stride: tuple[int, int], before: tuple[int, int]
) -> Tensor:
    """Unfold, mix, fold."""
    batch, groups, taps, _, high, wide = weight.shape
    windows = F.unfold(value, kernel, padding=before, stride=stride)
    windows = windows.view(batch, groups, value.shape[1] // groups, taps, high, wide)
    mixed = torch.einsum("bgijhw,bgmjhw->bgmihw", weight, windows).reshape(batch, -1, high * wide)
    return F.fold(mixed, value.shape[2:], kernel, padding=before, stride=stride)
