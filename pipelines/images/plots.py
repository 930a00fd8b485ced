"""A contact sheet: some pictures of a set, with their classes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import ConfigError, DataError
from graphrec.figures.names import short_name

from .container import ImageSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_images(
    images: ImageSet,
    count: int = 25,
    *,
    indices: Any = None,
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Figure:
    """Draw pictures in a grid, each under its class; by default of every class about as many.

    Args:
        images: The set.
        count: At most how many.
        indices: Which; drawn at random if None.
        path: A PNG, SVG or PDF file to write.
        seed: Of the draw.

    Raises:
        ConfigError: ``count`` is not positive.
        DataError: There is nothing to draw, or a file is broken.
    """
    from graphrec.figures.figure import Figure

    if count < 1:
        raise ConfigError(f"count={count}: must be at least 1")
    chosen = _draw(images, count, seed) if indices is None else [int(i) for i in np.ravel(indices)]
    if not chosen:
        raise DataError(f"{images.title}: no image to draw")
    columns = math.ceil(math.sqrt(1.4 * len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(1.35 * columns, 1.55 * rows), layout="constrained", facecolor="white")
    for place, index in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(np.asarray(images.pil(index)), interpolation="nearest")
        axes.set_axis_off()
        if images.labels is not None:
            name = short_name(images.classes[int(images.labels[index])], 16)
            axes.set_title(name, fontsize=8, color="#1c2733")
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(path), dpi=100)
    return figure


def _draw(images: ImageSet, count: int, seed: int) -> list[int]:
    """Random indices, in turn of each class, sorted by class."""
    order = np.random.default_rng(seed).permutation(len(images))
    if images.labels is None:
        return sorted(order[:count].tolist())
    labels = images.labels.numpy()[order]
    turn = np.empty(len(order), np.int64)  # how many of the same class come earlier
    for code in np.unique(labels):
        at = np.flatnonzero(labels == code)
        turn[at] = np.arange(len(at))
    taken = order[np.argsort(turn, kind="stable")][:count]
    return taken[np.argsort(images.labels.numpy()[taken], kind="stable")].tolist()
