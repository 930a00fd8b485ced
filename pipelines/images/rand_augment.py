"""timm's RandAugment for a batch: the same draws for each picture, the changes of one kind made together.

Each picture gets its own operations, strengths and signs from timm's own operations; what is here are the
fifteen changes themselves, with one strength per picture. They compute what Pillow computes, to a grey level
or two of rounding, but for the interpolation of what is turned or sheared.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timm.data import auto_augment as timm_ops
from timm.data.auto_augment import AugmentOp, RandAugment
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample
from torchvision.transforms.v2 import functional as transforms

Change = Callable[[Tensor, Tensor], Tensor]
"""From uint8 (n, C, H, W) and strengths float32 (n,) to uint8 (n, C, H, W)."""


def can_batch(policy: Any) -> bool:
    """Whether all changes of a policy have a batched form."""
    return isinstance(policy, RandAugment) and all(_name(op) in CHANGES | AFFINE for op in policy.ops)


def rand_augment(pixels: Tensor, policy: RandAugment, fill: Sequence[int], mode: str) -> Tensor:
    """Change pictures by a policy.

    Args:
        pixels: uint8 (B, C, H, W).
        policy: timm's, with operations that `can_batch`.
        fill: What comes in at the sides, a value a channel.
        mode: Interpolation of what is turned: "nearest", "bilinear" or "bicubic".

    Returns:
        uint8 (B, C, H, W).
    """
    pixels = pixels.clone()
    weights, again = policy.choice_weights, policy.choice_weights is None
    chosen = [  # as timm draws: operations without weights may come twice
        np.random.choice(len(policy.ops), policy.num_layers, replace=again, p=weights)  # noqa: NPY002
        for _ in range(len(pixels))
    ]
    for layer in range(policy.num_layers):
        members: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for picture, numbers in enumerate(chosen):
            op = policy.ops[numbers[layer]]
            if op.prob < 1 and random.random() > op.prob:
                continue
            members[_name(op)].append((picture, _strength(op)))
        for name, who in members.items():
            index = torch.tensor([picture for picture, _ in who])
            strength = torch.tensor([value for _, value in who], dtype=torch.float32)
            part = pixels[index]
            if name in AFFINE:
                pixels[index] = warp(part, AFFINE[name](part, strength), fill, mode)
            else:
                pixels[index] = CHANGES[name](part, strength)
    return pixels


def _name(op: AugmentOp) -> str:
    """The change, whatever the scale of its strength is called."""
    return str(op.name).removesuffix("Increasing")


def _strength(op: AugmentOp) -> float:
    """A draw of timm's argument for the change, its sign included; 0 for changes without one."""
    magnitude = float(op.magnitude)
    if op.magnitude_std == float("inf"):
        magnitude = random.uniform(0, magnitude)
    elif op.magnitude_std > 0:
        magnitude = random.gauss(magnitude, op.magnitude_std)
    magnitude = max(0.0, min(magnitude, op.magnitude_max or timm_ops._LEVEL_DENOM))
    values = op.level_fn(magnitude, op.hparams) if op.level_fn is not None else ()
    return float(values[0]) if values else 0.0


def _each(strength: Tensor) -> Tensor:
    return strength.view(-1, 1, 1, 1)


def _blend(other: Tensor, pixels: Tensor, strength: Tensor) -> Tensor:
    """From another picture (0) through this one (1) to beyond it, clipped."""
    mixed = torch.lerp(other.float(), pixels.float(), _each(strength))
    return mixed.clamp_(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    return transforms.rgb_to_grayscale(pixels) if pixels.shape[1] == 3 else pixels


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from black."""
    return _blend(torch.zeros_like(pixels), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean grey level."""
    mean = (_grey(pixels).float().mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return _blend(mean.expand(pixels.shape), pixels, factor)


def colour(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from grey."""
    return _blend(_grey(pixels).expand(pixels.shape), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from a smoothed picture, whose outermost pixels are kept."""
    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5
    channels = pixels.shape[1]
    smooth = pixels.float()
    inner = conv2d(smooth, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    smooth[..., 1:-1, 1:-1] = inner.round_()
    return _blend(smooth, pixels, factor)


def posterise(pixels: Tensor, bits: Tensor) -> Tensor:
    """Only the upper bits, at least one."""
    lost = 8 - bits.clamp(1, 8).to(torch.int32)
    mask = (255 >> lost << lost).to(torch.uint8)
    return pixels & _each(mask)


def solarise(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Inverted from a threshold on."""
    return torch.where(pixels < _each(threshold), pixels, 255 - pixels)


def solarise_add(pixels: Tensor, added: Tensor) -> Tensor:
    """The darker half made brighter."""
    more = (pixels.to(torch.int16) + _each(added.to(torch.int16))).clamp_(max=255)
    return torch.where(pixels < 128, more.to(torch.uint8), pixels)


CHANGES: dict[str, Change] = {
    "AutoContrast": lambda pixels, _: transforms.autocontrast(pixels),
    "Equalize": lambda pixels, _: transforms.equalize(pixels),
    "Invert": lambda pixels, _: 255 - pixels,
    "Posterize": posterise,
    "Solarize": solarise,
    "SolarizeAdd": solarise_add,
    "Color": colour,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
}


def _rotation(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Counter-clockwise about the middle."""
    height, width = pixels.shape[-2:]
    angle = torch.deg2rad(-degrees)
    cos, sin = angle.cos(), angle.sin()
    x, y = width / 2, height / 2
    top = torch.stack([cos, sin, x - cos * x - sin * y], 1)
    return torch.stack([top, torch.stack([-sin, cos, y + sin * x - cos * y], 1)], 1)


def _moved(row: int, column: int, scale: Callable[[Tensor], int]) -> Callable[[Tensor, Tensor], Tensor]:
    """The identity but for one entry, which the strength fills."""

    def matrix(pixels: Tensor, strength: Tensor) -> Tensor:
        found = torch.eye(2, 3).repeat(len(pixels), 1, 1)
        found[:, row, column] = strength * scale(pixels)
        return found

    return matrix


AFFINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Rotate": _rotation,
    "ShearX": _moved(0, 1, lambda _: 1),
    "ShearY": _moved(1, 0, lambda _: 1),
    "TranslateXRel": _moved(0, 2, lambda pixels: pixels.shape[-1]),
    "TranslateYRel": _moved(1, 2, lambda pixels: pixels.shape[-2]),
}
"""Change -> matrices (n, 2, 3) of pictures and strengths: from places in the result to the source."""


def warp(pixels: Tensor, matrix: Tensor, fill: Sequence[int], mode: str) -> Tensor:
    """Pictures seen through affine maps; what comes from outside is filled.

    Args:
        pixels: uint8 (n, C, H, W).
        matrix: (n, 2, 3), from (x, y, 1) in the result to x and y in the source, in pixels from a corner.
        fill: A value a channel.
        mode: Interpolation.
    """
    height, width = pixels.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ matrix.transpose(1, 2)[:, None]  # (n, H, W, 2)
    size = torch.tensor([width, height])
    inside = ((places >= 0) & (places < size)).all(-1)[:, None]
    grid = places / size * 2 - 1
    seen = grid_sample(pixels.float(), grid, mode, padding_mode="border", align_corners=False)
    outside = torch.tensor(list(fill), dtype=torch.float32).view(1, -1, 1, 1)
    return torch.where(inside, seen, outside).round_().clamp_(0, 255).to(torch.uint8)
