"""Small pictures that the tests of graphrec.pipelines.images share."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (230, 30, 20)}


def picture(colour: str = "red", size: tuple[int, int] = (20, 16), seed: int = 0) -> Image.Image:
    """A noisy field of a colour; size is width and height."""
    noise = np.random.default_rng(seed).integers(-15, 16, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, content: bytes | Image.Image) -> Path:
    """A file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)
    return path


def class_folders(root: Path, each: int = 4, suffix: str = ".jpg") -> Path:
    """A folder per colour."""
    for colour in COLOURS:
        for i in range(each):
            write(root / colour / f"{i}{suffix}", picture(colour, (20 + i, 16 + 2 * i), seed=i))
    return root


def arrays(count: int = 12, side: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, side, side, 3), and labels 0 to 2."""
    labels = np.arange(count) % 3
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return pixels, labels
