"""Long convolutions, one filter per channel, along a sequence or over an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import choose
from ..checking import check_floating

PADDINGS = ("causal", "same", "circular")
_NO_KERNEL = (
    "its transforms are cuFFT's through the torch backend; causal_conv1d has kernels for short filters"
)
_DIRECT = {1: 16, 2: 25}
"""Up to how many taps of a filter adding them up is faster than Fourier transforms, by axes."""
_FEW = 4
"""Up to how many taps shifted copies are added."""


def long_conv(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None = None,
    *,
    padding: str = "causal",
    backend: str | None = None,
) -> Tensor:
    """``out[t] = sum_s weight[:, s] * x[t - s] + skip * x[t]``, through Fourier transforms.

    The convolution of Hyena (arXiv:2302.10866, with its D as ``skip``; ``fftconv`` in HazyResearch/safari)
    and S4 (arXiv:2111.00396), and on two axes the global filter of GFNet (arXiv:2107.00645; ``GlobalFilter``
    in raoyongming/GFNet): ``padding="circular"`` with the filter ``torch.fft.irfft2`` of its weight. The
    first column of ``weight`` meets the current position, other than in :func:`causal_conv1d`.

    Args:
        x: (B, T, D), or (B, H, W, D) for a filter on two axes.
        weight: (D, K), or (D, KH, KW); it may be longer than ``x``, and in float32 for ``x`` in bfloat16, as
            transforms are in float32 at least.
        skip: (D,).
        padding: "causal" for zeros in front, on every axis; "same" for zeros on both sides with the filter's
            middle, ``K // 2``, at the current position; "circular" for positions that go around.
        backend: "reference" (all taps added up), "torch" (transforms, or taps where there are few) or None to
            choose.

    Returns:
        Shape and dtype of ``x``.

    Raises:
        ValueError: shapes that do not fit each other, or a padding or backend that does not exist.
    """
    axes = x.dim() - 2
    fits = axes in (1, 2) and weight.dim() == axes + 1 and weight.shape[0] == x.shape[-1]
    if not fits or 0 in weight.shape[1:]:
        raise ValueError(
            "x must be (B, T, D) with weight (D, K), or (B, H, W, D) with weight (D, KH, KW), got "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if skip is not None and tuple(skip.shape) != (x.shape[-1],):
        raise ValueError(f"skip of shape {tuple(skip.shape)} must be {(x.shape[-1],)}")
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r} must be one of {PADDINGS}")
    check_floating(x=x, weight=weight, skip=skip)
    name = choose("long_conv", backend, {"reference": None, "torch": None, "triton": _NO_KERNEL}).backend
    if x.numel() == 0:
        return torch.zeros_like(x)
    out = (_reference if name == "reference" else _fast)(x, weight, padding)
    return (out if skip is None else out + skip * x).to(x.dtype)


def _reference(x: Tensor, weight: Tensor, padding: str) -> Tensor:
    """Shifted copies, one for every tap."""
    sizes, axes = x.shape[1:-1], list(range(1, x.dim() - 1))
    out = torch.zeros_like(x)
    for number, tap in enumerate(product(*(range(size) for size in weight.shape[1:]))):
        middle = [taps // 2 if padding == "same" else 0 for taps in weight.shape[1:]]
        shift = [place - here for place, here in zip(tap, middle, strict=True)]
        if padding == "circular":
            moved = x.roll(shift, axes)
        elif any(abs(by) >= size for by, size in zip(shift, sizes, strict=True)):
            continue
        else:
            moved = F.pad(x, [0, 0, *(side for by in reversed(shift) for side in (by, -by))])
        out = out + weight.flatten(1)[:, number] * moved
    return out


def _fast(x: Tensor, weight: Tensor, padding: str) -> Tensor:
    """Through transforms or taps, with channels in front of positions."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    x, weight = x.movedim(-1, 1).to(dtype), weight.to(dtype)
    sizes = x.shape[2:]
    front = []
    for axis, size in enumerate(sizes, 1):
        weight, ahead = _fit(weight, axis, size, padding)
        front.append(ahead)
    run = _taps if prod(weight.shape[1:]) <= _DIRECT[len(sizes)] else _transforms
    return run(x, weight, front, padding == "circular").movedim(1, -1)


def _fit(weight: Tensor, axis: int, size: int, padding: str) -> tuple[Tensor, int]:
    """The filter without taps that never meet a position, or wrapped around; and how many taps look ahead."""
    taps = weight.shape[axis]
    if padding == "circular":
        if taps <= size:
            return weight, 0
        more = [0] * (2 * (weight.dim() - 1 - axis)) + [0, -taps % size]
        return F.pad(weight, more).unflatten(axis, (-1, size)).sum(axis), 0
    middle = taps // 2 if padding == "same" else 0
    low, high = max(0, middle - size + 1), min(taps, middle + size)
    return weight.narrow(axis, low, high - low), middle - low


def _taps(x: Tensor, weight: Tensor, front: Sequence[int], circular: bool) -> Tensor:
    """torch's convolution, whose filters run the other way.

    Its gradient of very short filters adds up one by one; shifted copies are more exact there.
    """
    sides = [
        side
        for taps, ahead in zip(reversed(weight.shape[1:]), reversed(front), strict=True)
        for side in (taps - 1 - ahead, ahead)
    ]
    padded = F.pad(x, sides, mode="circular") if circular and any(sides) else F.pad(x, sides)
    flipped = weight.flip(list(range(1, weight.dim()))).unsqueeze(1)
    if prod(weight.shape[1:]) <= _FEW:
        return _shifted(padded, flipped.squeeze(1), x.shape[2:])
    convolve = F.conv1d if len(front) == 1 else F.conv2d
    with torch.autocast(x.device.type, enabled=False):
        return convolve(padded, flipped, groups=x.shape[1])


def _shifted(padded: Tensor, flipped: Tensor, sizes: Sequence[int]) -> Tensor:
    """One copy of the input for every tap."""
    out = padded.new_zeros(())
    for number, tap in enumerate(product(*(range(taps) for taps in flipped.shape[1:]))):
        part = padded
        for axis, (by, size) in enumerate(zip(tap, sizes, strict=True), 2):
            part = part.narrow(axis, by, size)
        out = out + part * flipped.flatten(1)[:, number].view(-1, *[1] * len(sizes))
    return out


def _transforms(x: Tensor, weight: Tensor, front: Sequence[int], circular: bool) -> Tensor:
    """The product of spectra. Lengths leave room for what is read only: the rest may wrap around."""
    sizes = x.shape[2:]
    lengths = [
        size if circular else fast_length(max(size + taps - 1 - ahead, size + ahead))
        for size, taps, ahead in zip(sizes, weight.shape[1:], front, strict=True)
    ]
    axes = list(range(-len(sizes), 0))
    spectrum = torch.fft.rfftn(x, lengths, axes) * torch.fft.rfftn(weight, lengths, axes)
    out = torch.fft.irfftn(spectrum, lengths, axes)
    for axis, (size, ahead) in enumerate(zip(sizes, front, strict=True), 2):
        out = out.narrow(axis, ahead, size)
    return out


def fast_length(least: int) -> int:
    """The smallest even number from ``least`` on whose prime factors are 2, 3 and 5."""
    length = least + least % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2
