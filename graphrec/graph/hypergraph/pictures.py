"""Hyperedge reliability as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from graphrec.report.plots import INK, MUTED, SERIES

from .lighthgnn import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FONT = 8.5


def reliability_figure(trust: Reliability, edge_sizes: Tensor) -> Figure:
    """Entropy of hyperedges against its change, and how many are drawn how often.

    Left, a point a hyperedge: what the teacher is sure of is at the left, what a disturbance does not change
    at the bottom; bluer hyperedges are larger. Right, the histogram of the probabilities of being drawn.

    Args:
        trust: Of M hyperedges.
        edge_sizes: Their vertices, (M,); empty hyperedges are left out.
    """
    from graphrec.figures.figure import Figure

    held = (edge_sizes > 0).cpu()
    figure = Figure(figsize=(8.2, 3.3), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    points = left.scatter(
        trust.entropy.cpu()[held],
        trust.change.cpu()[held],
        c=edge_sizes.cpu()[held].float().clamp(min=1).log2(),
        cmap="Blues",
        edgecolors=MUTED,
        linewidths=0.3,
        s=14,
    )
    bar = figure.colorbar(points, ax=left)
    bar.set_label("log2 of its vertices", fontsize=_FONT, color=INK)
    bar.ax.tick_params(labelsize=_FONT)
    right.hist(trust.probability.cpu()[held].numpy(), bins=20, range=(0, 1), color=SERIES[0])
    _style(left, "mean entropy of a hyperedge's vertices (nats)", "change under disturbed features")
    _style(right, "probability of being drawn", f"hyperedges, of {int(held.sum())}")
    return figure


def _style(axes: Axes, x: str, y: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_FONT, colors=MUTED, labelcolor=INK)
    axes.set_xlabel(x, fontsize=_FONT, color=INK)
    axes.set_ylabel(y, fontsize=_FONT, color=INK)
