"""Augmentation of a whole batch of small pictures at once: draws for all, then a few tensor operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from .augment import Augment
from .preprocess import Preprocess
from .rand_augment import can_batch, rand_augment


def augment_batch(pixels: Tensor, augment: Augment, prep: Preprocess) -> Tensor:
    """Random changes of pictures of one size.

    Args:
        pixels: uint8 (B, C, H, W).
        augment: Which changes.
        prep: The size that they are to have.

    Returns:
        uint8 (B, C, *prep.size).
    """
    if augment.crop == "resized":
        pixels = resized_crops(pixels, augment, prep)
    else:
        pixels = augment.base(prep).cut(pixels)
        if augment.crop == "pad" and augment.pad:
            pixels = shifted(pixels, augment.pad)
    pixels = flipped(pixels, augment.hflip, -1)
    pixels = flipped(pixels, augment.vflip, -2)
    if augment.policy is not None:
        return by_policy(pixels, augment, prep)
    return jittered(pixels, augment.jitter) if augment.jitter else pixels


def resized_crops(pixels: Tensor, augment: Augment, prep: Preprocess) -> Tensor:
    """A random part of each picture, scaled to the input's size by torchvision's kernel for uint8."""
    height, width = pixels.shape[-2:]
    boxes = draw_boxes(len(pixels), height, width, augment.scale, augment.ratio).tolist()
    mode = InterpolationMode(prep.interpolation)
    return torch.stack(
        [
            transforms.resized_crop(image, *box, list(prep.size), mode, antialias=True)
            for image, box in zip(pixels, boxes, strict=True)
        ]
    )


def draw_boxes(
    count: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Top, left, height and width of random parts, int64 (count, 4).

    Area uniform in ``scale``, ratio of width to height log-uniform in ``ratio``; of ten draws the first that
    fits counts, and the largest centred part of a ratio in range where none does (Szegedy et al., 2015, as
    torchvision has it).
    """
    area = height * width * torch.empty(count, 10).uniform_(*scale)
    shape = torch.empty(count, 10).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
    w, h = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    none = ~fits.any(1)
    whole = min(max(width / height, ratio[0]), ratio[1])
    w = torch.where(none, min(width, round(height * whole)), w)
    h = torch.where(none, min(height, round(width / whole)), h)
    top = torch.where(none, (height - h) // 2, (torch.rand(count) * (height - h + 1)).long())
    left = torch.where(none, (width - w) // 2, (torch.rand(count) * (width - w + 1)).long())
    return torch.stack([top, left, h, w], dim=1)


def shifted(pixels: Tensor, pad: int) -> Tensor:
    """Pictures (B, C, H, W) padded with zeros and cut at a place of its own each, all in one copy."""
    count, _, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, count))
    views = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2 pad + 1, 2 pad + 1, H, W), no copy
    return views[torch.arange(count), :, top, left]


def flipped(pixels: Tensor, probability: float, axis: int) -> Tensor:
    """Each picture of (B, C, H, W) reversed along an axis with a probability."""
    if not probability:
        return pixels
    chosen = torch.rand(len(pixels)) < probability
    return torch.where(chosen[:, None, None, None], pixels.flip(axis), pixels)


def jittered(pixels: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation of each picture scaled by factors of its own, in this order.

    Factors are uniform in ``1 - strength`` to ``1 + strength``, and not below zero.
    """
    low = max(0.0, 1 - strength)
    bright, contrast, saturation = torch.empty(3, len(pixels), 1, 1, 1).uniform_(low, 1 + strength)
    values = (pixels.float() * bright).clamp_(0, 255)
    mean = transforms.rgb_to_grayscale(values) if values.shape[1] == 3 else values
    mean = mean.mean((1, 2, 3), keepdim=True)
    values = torch.lerp(mean, values, contrast).clamp_(0, 255)
    if values.shape[1] == 3:
        values = torch.lerp(transforms.rgb_to_grayscale(values), values, saturation).clamp_(0, 255)
    return values.round_().to(torch.uint8)


def by_policy(pixels: Tensor, augment: Augment, prep: Preprocess) -> Tensor:
    """timm's policy: RandAugment for all at once, the others picture by picture."""
    change = augment.colour(prep)
    [policy] = change.transforms
    if can_batch(policy):
        fill = [min(255, round(255 * value)) for value in prep.mean]  # timm's choice
        mode = "bicubic" if prep.interpolation == "lanczos" else prep.interpolation
        return rand_augment(pixels, policy, fill, mode)
    done = [transforms.pil_to_tensor(change(transforms.to_pil_image(image))) for image in pixels]
    return torch.stack(done)
