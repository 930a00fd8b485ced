"""Figures of a recipe's run: the spread over repetitions, learning curves, who was taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.figures.names import legend_name, short_name

from .plots import DASHES, FONT, INK, MUTED, SERIES, add_legend, name_axes, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

MOST_LINES = 6
"""Variants whose learning curves one figure shows; more cannot be told apart."""
_MOST_NAMES = 45
"""Classes along a confusion matrix that are named; more names would lie on each other."""


def plot_spread(
    values: Mapping[str, Sequence[float]], title: str, published: Mapping[str, float] | None = None
) -> Figure:
    """A row per variant: a dot for each repetition, the mean as a line, a standard deviation as a bar.

    Args:
        values: Variant -> a value per repetition.
        title: What they are, for the axis.
        published: What the paper has, as a diamond.
    """
    figure, axes = new_axes((6.6, 0.36 * len(values) + 0.95))
    rng = np.random.default_rng(0)
    for row, (name, listed) in enumerate(values.items()):
        found = np.asarray(listed, dtype=np.float64)
        if len(found) > 1:
            mean, std = float(found.mean()), float(found.std(ddof=1))
            axes.plot([mean - std, mean + std], [row, row], color=SERIES[0], linewidth=7, alpha=0.22)
            axes.plot([mean, mean], [row - 0.28, row + 0.28], color=SERIES[0], linewidth=2)
        lifts = rng.uniform(-0.16, 0.16, len(found)) if len(found) > 1 else np.zeros(len(found))
        axes.scatter(found, row + lifts, s=13, color=SERIES[0], linewidths=0, zorder=3)
        if published and name in published:
            axes.scatter(
                [published[name]], [row], s=34, marker="D", color="none", edgecolors=SERIES[1], zorder=4
            )
    axes.set_yticks(range(len(values)), [short_name(name) for name in values])
    axes.set_ylim(len(values) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    name_axes(axes, title, "")
    return figure


def plot_curves(curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]], title: str) -> Figure:
    """Lines over epochs: of every variant its repetitions faintly, and their mean while half of them go on.

    Args:
        curves: Variant -> epochs and values of each repetition.
        title: What the values are.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_axes()
    for number, (name, lines) in enumerate(list(curves.items())[:MOST_LINES]):
        colour, dash = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
        pairs = [(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)) for x, y in lines]
        if len(pairs) > 1:
            for x, y in pairs[:30]:
                axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.3)
        axes.plot(*_mean_curve(pairs), color=colour, linewidth=1.7, linestyle=dash, label=legend_name(name))
    if len(curves) > 1:
        add_legend(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(axes, "epoch", title)
    return figure


def _mean_curve(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean at every epoch that at least half of the curves reach."""
    at = np.unique(np.concatenate([x for x, _ in pairs]))
    table = np.full((len(pairs), len(at)), np.nan)
    for row, (x, y) in zip(table, pairs, strict=True):
        row[np.searchsorted(at, x)] = y
    kept = 2 * np.isfinite(table).sum(0) >= len(pairs)
    return at[kept], np.nanmean(table[:, kept], axis=0)


def plot_confusion(true: Any, guess: Any, names: Sequence[str]) -> Figure:
    """Rows are the true classes, columns the predicted ones; the colour is the share of the row.

    Of more than 45 classes every second, third or so is named.

    Args:
        true: Classes, int (n,).
        guess: Predicted classes, int (n,).
        names: Of the classes.
    """
    count = np.zeros((len(names), len(names)), np.int64)
    np.add.at(count, (np.asarray(true), np.asarray(guess)), 1)
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    side = float(np.clip(0.5 * len(names) + 1.4, 2.6, 7.5))
    figure, axes = new_axes((side + 0.6, side))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="none")
    if len(names) <= 12:
        for (row, column), value in np.ndenumerate(count):
            shade = "white" if share[row, column] > 0.6 else "#1c2734"
            axes.text(column, row, f"{value:,}", ha="center", va="center", fontsize=FONT, color=shade)
    named = range(0, len(names), -(-len(names) // _MOST_NAMES))
    ticks = [short_name(names[i], 16) for i in named]
    room = 72 * (side - 1.4) / len(names) / (0.6 * FONT)  # letters that fit below a column
    axes.set_xticks(named, ticks, rotation=0 if max(map(len, ticks)) <= room else 90)
    axes.set_yticks(named, ticks)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.75)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT, colors=MUTED, labelcolor=INK, length=2)
    bar.set_label("share of the row", fontsize=FONT, color=INK)
    some = f" (1 class of {named.step} is named)" if named.step > 1 else ""
    name_axes(axes, f"predicted{some}", f"true{some}")
    return figure
