"""The report's figures, each a function that returns a matplotlib `Figure`.

They use matplotlib's object-oriented interface only, so nothing global changes and a figure can be made in
any thread, shown in a notebook or saved with ``figure.savefig``. matplotlib is imported when one is called.
The colours are safe for colour-blind readers; each figure also tells its series apart by label or line style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.figures.names import legend_name, short_name
from graphrec.metrics import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2733", "#5f6c79", "#d9dfe5", "#fefefd"
SERIES = ("#0b62a4", "#c4510c", "#1f7a5c", "#8a4fa3", "#7a6a0a", "#47606f")
"""Line and bar colours; the page replaces them, and the four above, by its own light or dark ones."""

DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1)),
    (0, (8, 2)),
)
_SIZE, _SMALL = (4.6, 3.3), (3.5, 2.6)
FONT = 8.5


def new_axes(size: tuple[float, float] = _SIZE, **options: Any) -> tuple[Figure, Axes]:
    """A figure with axes in the page's style."""
    from graphrec.figures.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    return figure, _style(figure.add_subplot(**options))


def _style(axes: Axes) -> Axes:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(labelsize=FONT, colors=MUTED, labelcolor=INK, width=0.6, length=3)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Titles of both axes."""
    axes.set_xlabel(x, fontsize=FONT, color=INK)
    axes.set_ylabel(y, fontsize=FONT, color=INK)


def add_legend(axes: Axes, **options: Any) -> None:
    """A legend in the page's style."""
    axes.legend(fontsize=FONT, labelcolor=INK, frameon=False, handlelength=2.2, **options)


def _thin(x: np.ndarray, y: np.ndarray, points: int = 240) -> np.ndarray:
    """Indices of at most ``points`` points, evenly spaced along a monotone curve, both ends kept."""
    along = np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0]))
    along = np.cumsum(along)
    picks = np.searchsorted(along, np.linspace(0, along[-1], points))
    return np.unique(np.concatenate(([0], np.minimum(picks, len(x) - 1), [len(x) - 1])))


def plot_roc(scores: Scores) -> Figure:
    """ROC curve, with the diagonal of guessing."""
    figure, axes = new_axes()
    false, true = scores.roc()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    axes.text(0.62, 0.56, "guessing", color=MUTED, fontsize=FONT, va="top")
    if len(false):
        keep = _thin(false, true)
        axes.fill_between(false[keep], true[keep], color=SERIES[0], alpha=0.1, linewidth=0)
        axes.plot(false[keep], true[keep], color=SERIES[0], linewidth=1.8)
        axes.text(
            0.97, 0.06, f"AUC {scores.auc:.4f}", color=SERIES[0], fontsize=11, ha="right", weight="bold"
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    name_axes(axes, "false positive rate", "true positive rate")
    return figure


def plot_precision_recall(scores: Scores) -> Figure:
    """Precision against recall, with the base rate that guessing reaches."""
    figure, axes = new_axes()
    precision, recall = scores.precision_recall()
    rate = scores.base_rate or 0.0
    axes.axhline(rate, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    side: dict[str, Any] = {"va": "bottom"} if rate < 0.85 else {"va": "top"}
    height = rate + (0.012 if rate < 0.85 else -0.012)
    axes.text(0.01, height, f"base rate {rate:.3g}", color=MUTED, fontsize=FONT, **side)
    if len(recall):
        # The first few cut-offs hold a handful of rows, where precision only jumps about.
        settled = recall >= min(0.005, recall[-1])
        x, y = recall[settled], precision[settled]
        keep = _thin(x, y)
        axes.plot(x[keep], y[keep], color=SERIES[0], linewidth=1.8)
        text = f"PR-AUC {scores.pr_auc:.4f}"
        corner: dict[str, Any] = {"y": 0.97, "va": "top"} if rate < 0.5 else {"y": 0.05, "va": "bottom"}
        axes.text(0.99, s=text, color=SERIES[0], fontsize=11, ha="right", weight="bold", **corner)
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.04))
    name_axes(axes, "recall: share of positives found", "precision: share of hits")
    return figure


def plot_calibration(scores: Scores, bins: int = 10) -> Figure:
    """Observed against predicted rate by tenth of the rows, with 95% intervals, and the rows of each."""
    from graphrec.figures.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1))
    table = scores.bins(bins)
    x, y, weight = table["predicted"], table["observed"], table["weight"]
    limit = min(1.0, 1.08 * max([1e-3, *x, *y]))
    _style(top).plot([0, limit], [0, limit], color=MUTED, linewidth=1, linestyle=(0, (3, 2)), label="ideal")
    low, high = wilson_interval(y, weight)
    top.vlines(x, low, high, color=SERIES[0], linewidth=1.2, alpha=0.6)
    top.plot(x, y, color=SERIES[0], linewidth=1.2, marker="o", markersize=4.5, label="model")
    add_legend(top, loc="best")
    top.set(xlim=(-0.02 * limit, 1.02 * limit), ylim=(-0.02 * limit, 1.04 * limit))
    top.set_ylabel("observed rate", fontsize=FONT, color=INK)
    _style(bottom).bar(x, weight, width=limit / 60, color=SERIES[0], alpha=0.6)
    bottom.set_ylim(0, 1.15 * max([1.0, *weight]))
    bottom.locator_params(axis="y", nbins=2)
    bottom.yaxis.set_major_formatter(lambda v, _: compact(v))
    name_axes(bottom, "predicted rate", "rows")
    return figure


def wilson_interval(rate: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of an observed rate (n,) over ``weight`` (n,) rows (Wilson, 1927)."""
    z = 1.96
    middle = (rate + z**2 / (2 * weight)) / (1 + z**2 / weight)
    half = z / (1 + z**2 / weight) * np.sqrt(rate * (1 - rate) / weight + z**2 / (4 * weight**2))
    return middle - half, middle + half


def plot_histogram(scores: Scores, bins: int = 40) -> Figure:
    """How the scores of positive and of negative rows are spread, each in percent of its class."""
    figure, axes = new_axes()
    mass = np.cumsum(scores.positive + scores.negative)
    cut = scores.score[np.searchsorted(mass, 0.999 * mass[-1])] if len(mass) else 1.0
    upper = float(min(1.0, max(cut * 1.02, 1e-6)))
    edges = np.linspace(0, upper, bins + 1)
    classes = ((scores.negative, SERIES[0], "negative rows"), (scores.positive, SERIES[1], "positive rows"))
    for (counts, colour, label), dash in zip(classes, ("-", (0, (5, 1.6))), strict=True):
        if counts.any():
            height = np.histogram(np.minimum(scores.score, upper), edges, weights=counts / counts.sum())[0]
            axes.stairs(100 * height, edges, color=colour, fill=True, alpha=0.18, linewidth=0)
            axes.stairs(100 * height, edges, color=colour, linewidth=1.5, label=label, linestyle=dash)
    add_legend(axes, loc="best")
    axes.set_xlim(0, upper)
    axes.set_ylim(bottom=0)
    name_axes(axes, "predicted probability", "% of the class")
    return figure


def plot_history(
    epochs: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    title: str,
    best: float | None = None,
) -> Figure:
    """Curves over epochs; a missing value leaves a gap, and one epoch is a point.

    Args:
        epochs: E epoch numbers.
        series: Label to E values.
        title: What the values are, for the axis.
        best: Epoch whose weights were kept, marked by a line.
    """
    figure, axes = new_axes(_SMALL)
    if best is not None and len(epochs) > 1:
        axes.axvline(best, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), label="best epoch")
    for i, (label, values) in enumerate(series.items()):
        heights = [np.nan if v is None else v for v in values]
        (line,) = axes.plot(
            epochs, heights, linewidth=1.7, marker="o", markersize=3.2, label=legend_name(label)
        )
        line.set_color(SERIES[i % len(SERIES)])
        line.set_linestyle(DASHES[i % len(DASHES)])
    if len(axes.lines) > 1:
        add_legend(axes, loc="best")
    axes.locator_params(axis="x", integer=True)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    if all(v is None or 0 < abs(v) < 1e-3 for values in series.values() for v in values):
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:.2g}")
    name_axes(axes, "epoch", title)
    return figure


def plot_importance(
    names: Sequence[str], values: Sequence[float], title: str = "importance", top: int = 20
) -> Figure:
    """Horizontal bars of the ``top`` largest values, largest first.

    Args:
        names: N field names.
        values: N importances.
        title: What the values are, for the axis.
        top: Bars at most.
    """
    heights = np.asarray(values, dtype=np.float64)
    order = np.argsort(-np.nan_to_num(heights, nan=-np.inf), kind="stable")[:top]
    figure, axes = new_axes((4.5, 0.2 * len(order) + 0.75))
    rows = np.arange(len(order))
    axes.barh(rows, heights[order], color=SERIES[0], height=0.66)
    axes.set_yticks(rows, [short_name(names[i]) for i in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.locator_params(axis="x", nbins=6)
    name_axes(axes, title, "")
    return figure


def plot_interactions(matrix: Any, names: Sequence[str], title: str = "strength") -> Figure:
    """Heat map of an (F, F) matrix; the figure grows with F, so that 60 fields stay readable.

    The diagonal is left blank, as a field does not interact with itself.

    Args:
        matrix: (F, F) values, not negative.
        names: F field names.
        title: What the values are, for the colour bar.
    """
    values = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(values, np.nan)
    count = len(values)
    cell = float(np.clip(4.4 / max(count, 1), 0.15, 0.45))
    labels = [short_name(n, 22) for n in names]
    margin = 0.075 * max((len(n) for n in labels), default=0) + 0.3
    figure, axes = new_axes((cell * count + margin + 0.9, cell * count + margin))
    font = min(cell * 72 * 0.72, FONT)
    image = axes.imshow(values, cmap="cividis", interpolation="none", aspect="equal", vmin=0)
    axes.set_xticks(range(count), labels, rotation=90, fontsize=font)
    axes.set_yticks(range(count), labels, fontsize=font)
    axes.grid(visible=False)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT, colors=MUTED, labelcolor=INK, length=2)
    bar.set_label(title, fontsize=FONT, color=INK)
    return figure


def plot_tradeoff(
    names: Sequence[str], seconds: Sequence[float], values: Sequence[float], title: str
) -> Figure:
    """One point per model: what it reaches against the seconds that fitting took, on a log scale."""
    figure, axes = new_axes((5.2, 3.3))
    axes.scatter(seconds, values, s=34, color=SERIES[0], zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.18, y=0.15)
    leader = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 4, "relpos": (0.0, 0.5)}
    for name, x, y, lift in zip(names, seconds, values, _lifts(seconds, values), strict=True):
        place: dict[str, Any] = {"xytext": (8, 4 + lift), "textcoords": "offset points"}
        arrow = leader if lift else None
        axes.annotate(short_name(name), (x, y), fontsize=FONT, color=INK, arrowprops=arrow, **place)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.3g}")
    axes.xaxis.set_minor_formatter(lambda v, _: "")
    name_axes(axes, "seconds to fit (log scale)", title)
    return figure


def _lifts(seconds: Sequence[float], values: Sequence[float], line: float = 11.0) -> list[float]:
    """Points by which each label moves up, so that labels of near points do not cover each other."""
    x, y = np.log(np.asarray(seconds, dtype=np.float64)), np.asarray(values, dtype=np.float64)
    # The figure spans about 200 by 130 points between its outermost dots.
    x, y = (size * (v - v.min()) / max(float(np.ptp(v)), 1e-12) for size, v in ((200, x), (130, y)))
    lifts, placed = [0.0] * len(x), list[tuple[float, float]]()
    for i in np.argsort(y, kind="stable"):
        at = y[i]
        for other_x, other_y in sorted(placed, key=lambda p: p[1]):
            if abs(other_x - x[i]) < 60 and other_y - line < at < other_y + line:
                at = other_y + line
        placed.append((x[i], at))
        lifts[i] = float(at - y[i])
    return lifts


def compact(value: float) -> str:
    """A count for an axis: 950, 12k, 3.4M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
