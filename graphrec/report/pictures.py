"""The figures of the page, each with a sentence on how to read it and its numbers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.figures.names import elide
from graphrec.metrics import Scores

from . import plots
from .data import ReportData
from .svg import figure_svg
from .tables import Table, count, number

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_HEAT_MAP = 60
"""Fields of the heat map at most; beyond that their names cannot be read."""

_BESIDE = 18
"""Fields of a heat map that leaves room for a table on a wide screen."""

_ROC = "The further the curve bends to the upper left, the better the two outcomes are told apart."
_PR = "Going down the ranking from left to right: how many of the rows taken so far are positive."
_CALIBRATION = (
    "Rows sorted by prediction and cut into tenths. On the diagonal, 20% of the rows given 20% are positive. "
    "Thin lines are 95% intervals."
)
_WEIGHTED = " Weighted rows are counted as the number of equal rows that tell as much."
_SCORES = "The less the two shapes overlap, the better the scores tell the outcomes apart."
_CURVES = (
    ("Loss", {"loss", "logloss"}, "Training falling while validation rises is over-fitting."),
    ("AUC", {"auc"}, "How well the model ranks after each epoch. The weights of the best epoch are kept."),
    (
        "Accuracy",
        {"accuracy", "top5_accuracy"},
        "Share of the validation part that is recognised. The weights of the best epoch are kept.",
    ),
    ("Learning rate", {"lr", "learning_rate"}, "The step size that the schedule used."),
)
_READABLE = {
    "train_": "training ",
    "valid_": "validation ",
    "logloss": "log loss",
    "auc": "AUC",
    "top5_accuracy": "top-5 accuracy",
    "lr": "rate",
}


@dataclass
class Picture:
    """A figure of the page with its title and a sentence on how to read it.

    A ``wide`` one takes the width of the page, with its table ``beside`` it where there is room.
    """

    title: str
    svg: Markup
    reads: str
    table: Table | None = None
    wide: bool = False
    beside: bool = False


def pictures(scores: Scores, name: str, *, weighted: bool = False) -> list[Picture]:
    """ROC, precision-recall, calibration and histogram of one label; ``name`` makes their ids unique.

    The first two are left out when the rows are of one class. ``weighted`` scores are those of rows that
    count as `ReportData.scores` says.
    """
    reads = _CALIBRATION + (_WEIGHTED if weighted else "")
    table = _calibration_table(scores, "effective rows" if weighted else "rows")
    chosen: list[tuple[str, Any, str, Table | None]] = [
        ("Calibration", plots.plot_calibration, reads, table),
        ("Scores by outcome", plots.plot_histogram, _SCORES, None),
    ]
    if scores.both_classes:
        chosen.insert(0, ("Precision and recall", plots.plot_precision_recall, _PR, None))
        chosen.insert(0, ("ROC curve", plots.plot_roc, _ROC, None))
    return [
        Picture(
            title, figure_svg(plot(scores), f"{title.split()[0]}-{name}", f"{title}. {reads}"), reads, table
        )
        for title, plot, reads, table in chosen
    ]


def _calibration_table(scores: Scores, counted: str) -> Table:
    bins = scores.bins()
    columns = [bins[k] for k in ("low", "high", "weight", "predicted", "observed")]
    rows = [
        [number(low), number(high), count(rows), number(predicted), number(observed)]
        for low, high, rows, predicted, observed in zip(*columns, strict=True)
    ]
    return Table("Calibration by tenth", ["scores from", "to", counted, "predicted", "observed"], rows, 0)


def history_pictures(rows: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Loss, AUC, accuracy and learning rate over epochs, if the history has them and more than one row."""
    if len(rows) < 2:
        return []
    epochs = [float(row.get("epoch", i + 1)) for i, row in enumerate(rows)]
    kept = [epoch for epoch, row in zip(epochs, rows, strict=True) if row.get("best") is True]
    result = []
    for title, names, reads in _CURVES:
        if series := _series(rows, names):
            best = kept[-1] if kept and title != "Learning rate" else None
            figure = plots.plot_history(epochs, series, title, best)
            if title == "Learning rate":
                figure.axes[0].set_ylim(bottom=0)
            name = f"history-{title.split()[0]}"
            result.append(Picture(title, figure_svg(figure, name, f"{title} by epoch. {reads}"), reads))
    return result


def _series(
    rows: Sequence[Mapping[str, Any]], names: set[str], most: int = 6
) -> dict[str, list[float | None]]:
    """The columns of the history that hold one kind of value, under readable names."""
    found: dict[str, list[float | None]] = {}
    for column in dict.fromkeys(k for row in rows for k in row):
        part, _, metric = column.rpartition("/")
        values = [row.get(column) for row in rows]
        if metric.removeprefix("train_").removeprefix("valid_") in names and any(
            v is not None for v in values
        ):
            label = part or metric
            for short, readable in _READABLE.items():
                label = label.replace(short, readable)
            found[label] = values
    return dict(list(found.items())[:most])


def importance_picture(data: ReportData) -> Picture | None:
    """Bars of the most important fields, and all values as a table."""
    if data.importance is None or not len(data.importance[0]):
        return None
    names, values = list(data.importance[0]), np.asarray(data.importance[1], dtype=np.float64)
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    rows = [[elide(names[i], 48), f"{values[i]:.4g}"] for i in order]
    table = Table("Every field", ["field", "importance"], rows)
    best = ", ".join(names[i] for i in order[:3])
    figure = plots.plot_importance(names, values.tolist())
    svg = figure_svg(figure, "importance", f"Bar chart of field importance. Most important: {best}.")
    shown = f"The 20 of {len(order)} fields that matter most. " if len(order) > 20 else ""
    return Picture("Most important fields", svg, shown + data.importance_note, table, wide=True, beside=True)


def interaction_picture(data: ReportData) -> Picture | None:
    """Heat map of field pairs, and the strongest pairs as a table."""
    if data.interactions is None or len(data.interactions[1]) < 2:
        return None
    matrix, names = strongest_fields(*data.interactions, MAX_HEAT_MAP)
    pairs = strongest_pairs(matrix, names)
    rows = [[elide(a, 48), elide(b, 48), f"{value:.4g}"] for a, b, value in pairs]
    table = Table("Strongest pairs", ["field", "with", "strength"], rows, 2)
    top = "; ".join(f"{a} with {b}" for a, b, _ in pairs[:3])
    figure = plots.plot_interactions(matrix, names)
    svg = figure_svg(figure, "interactions", f"Heat map of field pairs. Strongest: {top}.", fixed=True)
    reads = "Brighter means that the model combines the two fields more. " + data.interactions_note
    if left_out := len(data.interactions[1]) - len(names):
        reads += f" The {MAX_HEAT_MAP} fields with the strongest pairs are shown; {left_out} are left out."
    return Picture("Field interactions", svg, reads, table, wide=True, beside=len(names) <= _BESIDE)


def strongest_fields(matrix: Any, names: Sequence[str], most: int) -> tuple[np.ndarray, list[str]]:
    """Matrix with a diagonal of 0, and names, of the ``most`` fields with the largest sums."""
    values = np.nan_to_num(np.array(matrix, dtype=np.float64))
    np.fill_diagonal(values, 0)
    keep = np.sort(np.argsort(-(values.sum(0) + values.sum(1)), kind="stable")[:most])
    return values[np.ix_(keep, keep)], [names[i] for i in keep]


def strongest_pairs(matrix: np.ndarray, names: Sequence[str], top: int = 15) -> list[tuple[str, str, float]]:
    """The ``top`` pairs of different fields, strongest first; each pair once, with its stronger direction."""
    both = np.maximum(matrix, matrix.T)
    i, j = np.triu_indices(len(names), k=1)
    order = np.argsort(-both[i, j], kind="stable")[:top]
    return [(names[i[k]], names[j[k]], float(both[i[k], j[k]])) for k in order]
