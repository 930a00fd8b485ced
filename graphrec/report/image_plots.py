"""Figures with pictures in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphrec.figures.names import short_name

from .plots import FONT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_sheet(pictures: Sequence[Any], captions: Sequence[Sequence[str]], columns: int = 6) -> Figure:
    """Pictures side by side, each with a caption of a line or two below it.

    Args:
        pictures: uint8 arrays (H, W, 3), of any sizes.
        captions: The lines of each.
        columns: Of the sheet.
    """
    from graphrec.figures.figure import Figure

    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.45 * columns, 1.75 * rows), layout="constrained", facecolor="white")
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(picture, interpolation="nearest" if min(picture.shape[:2]) < 64 else "antialiased")
        axes.set_axis_off()
        lines = "\n".join(short_name(line, 24) for line in caption)
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
        axes.text(0.5, -0.04, lines, fontsize=FONT - 1, color=INK, linespacing=1.25, **place)
    return figure
