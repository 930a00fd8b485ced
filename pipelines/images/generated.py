"""A set of drawn shapes: pictures that need no download, for examples, tests and first tries."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw

from graphrec.errors import ConfigError

from .container import ImageSet
from .stores import ArrayStore

SHAPES = ("circle", "cross", "square", "triangle")
_HALF = [(1.0, 0.35), (0.35, 0.35), (0.35, 1.0), (-0.35, 1.0), (-0.35, 0.35), (-1.0, 0.35)]
_CORNERS = {
    "cross": _HALF + [(-x, -y) for x, y in _HALF],
    "square": [(0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8)],
    "triangle": [(0.0, -1.2), (1.04, 0.6), (-1.04, 0.6)],
}


def shape_images(count: int = 400, side: int = 32, *, noise: float = 20.0, seed: int = 0) -> ImageSet:
    """Shapes of any colour, size, place and angle on a noisy ground; the shape is the class.

    Args:
        count: How many; the classes take turns.
        side: Width and height in pixels.
        noise: Deviation of the noise, of 255.
        seed: Of everything.

    Raises:
        ConfigError: There would be no picture, or none could be seen.
    """
    if count < 1 or side < 8:
        raise ConfigError(f"count={count}, side={side}: at least one picture, of at least 8 pixels a side")
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(SHAPES)
    pixels = np.stack([_draw(SHAPES[label], side, noise, rng) for label in labels])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return ImageSet(
        ArrayStore(images), torch.arange(count), torch.from_numpy(labels), SHAPES, title="drawn shapes"
    )


def _draw(shape: str, side: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """One picture, uint8 (side, side, 3), drawn four times as large for smooth edges."""
    ground, colour = _colours(rng)
    large = 4 * side
    image = Image.new("RGB", (large, large), tuple(ground))
    radius = large * rng.uniform(0.16, 0.3)
    x, y = rng.uniform(1.1 * radius, large - 1.1 * radius, 2)
    brush = ImageDraw.Draw(image)
    if shape == "circle":
        brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(colour))
    else:
        angle = rng.uniform(0, 2 * math.pi)
        cos, sin = radius * math.cos(angle), radius * math.sin(angle)
        corners = [(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in _CORNERS[shape]]
        brush.polygon(corners, fill=tuple(colour))
    small = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float64)
    return np.clip(small + rng.normal(0, noise, small.shape), 0, 255).astype(np.uint8)


def _colours(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Ground and shape, far enough apart to be told from each other."""
    while True:
        ground, colour = rng.integers(0, 256, (2, 3))
        if abs(int(ground.sum()) - int(colour.sum())) > 180:
            return ground.tolist(), colour.tolist()
